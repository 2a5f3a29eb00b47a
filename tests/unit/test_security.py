"""What others have made is read and not run. docs/security.md says which threats there are."""

import ast
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from conftest import ONE_LAYER, ROOT

from sqsd.cost_models import fetch_cost_model
from sqsd.errors import DataError
from sqsd.models import fetch_model, make_model, make_word_tokenizer


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(tmp_path):
    """A model as others may give it: configuration and tokenizer, and no weights yet."""
    folder = tmp_path / "given"
    tokenizer = make_word_tokenizer(["ash", "elm"])
    make_model(tokenizer, ONE_LAYER, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("fetch", [fetch_model, fetch_cost_model])
def test_a_model_of_pickles_is_refused(tmp_path, folder, fetch):
    planted = tmp_path / "planted"
    torch.save({"weight": Planted(planted)}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        fetch({"source": str(folder)}, tmp_path / "out")
    assert not planted.exists() and not (tmp_path / "out").exists()


CODE = """
from pathlib import Path
Path({planted!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.mark.parametrize("fetch", [fetch_model, fetch_cost_model])
def test_a_model_s_own_code_is_not_run(tmp_path, folder, fetch):
    planted = tmp_path / "planted"
    (folder / "own.py").write_text(CODE.format(planted=str(planted)))
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config |= {"model_type": "own", "architectures": ["OwnModel"], "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="cannot be loaded"):
        fetch({"source": str(folder)}, tmp_path / "out")
    assert not planted.exists() and not (tmp_path / "out").exists()


def sources():
    yield from (ROOT / "src/sqsd").glob("*.py")
    yield from (ROOT / "workflow/scripts").glob("*.py")


def test_no_shell_is_started():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert "shell" not in [keyword.arg for keyword in node.keywords], path
                name = ast.unparse(node.func)
                assert not re.search(r"os\.(system|popen|exec|spawn)|getoutput", name), path
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        assert not re.search(r"\bshell\b|\brun:", path.read_text()), path


def test_nothing_unpickles():
    # training_args.bin and the like are read by transformers alone, from results/{run}/resume.
    for path in sources():
        names = {node.names[0].name for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Import)}  # fmt: skip
        assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}, path
        assert "torch.load" not in path.read_text(), path


def test_every_test_that_the_page_names_is_there():
    text = (ROOT / "docs/security.md").read_text()
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) >= 8
    for file, test in named:
        (path,) = (ROOT / "tests").glob(f"*/{file}")
        assert f"def {test}" in path.read_text(), (file, test)


TRAINS = """
from huggingface_hub.utils import _telemetry
from trl.trainer.base_trainer import send_telemetry
{first}
send_telemetry("trl/SFTTrainer")
_telemetry._TELEMETRY_QUEUE.join()
"""


@pytest.mark.parametrize(("first", "told"), [("import sqsd.training", 0), ("", 1)])
def test_the_hub_is_not_told_of_trainings(first, told):
    requests = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        unset = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
        code = TRAINS.format(first=first)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        hub.shutdown()
    assert len(requests) == told
