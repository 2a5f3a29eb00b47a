"""What tests share: a tiny model and its adapters, and running snakemake as a user does."""

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import settings

if TYPE_CHECKING:
    from planner import Job

# How long an example takes says something of the machine alone.
settings.register_profile("sqsd", deadline=None)
settings.load_profile("sqsd")

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/end_to_end/tiny.yaml"
# A Llama of one layer, for `make_model`.
ONE_LAYER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
# Hosts that are this machine, and what tests have asked for beside them.
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()}
connections: list[str] = []
# Weights of two of its modules, in the order of an adapter's file.
V_PROJ, DOWN_PROJ = "model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj"
SHAPES = {DOWN_PROJ: (16, 24), V_PROJ: (8, 16)}


def refuse_connections(event: str, arguments: tuple) -> None:
    """An audit hook: nothing but this machine is reached, or looked up, from a process of tests."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # no file's socket
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOOPBACK:
        connections.append(host)
        raise OSError(f"tests open no connection to {host}")


sys.addaudithook(refuse_connections)


@pytest.fixture(autouse=True)
def no_connection_was_tried():
    """Libraries do not always say that a connection failed."""
    yield
    tried, connections[:] = connections[:], []
    assert not tried, tried


def write_adapter(folder, shapes, seed=0, r=2, lora_alpha=6):
    """An adapter's files as PEFT writes them; returns the drift of each module, float64."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors, drifts = {}, {}
    for name, (d_out, d_in) in shapes.items():
        a = torch.randn(r, d_in, generator=generator)
        b = torch.randn(d_out, r, generator=generator)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        drifts[name] = lora_alpha / r * b.double() @ a.double()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"r": r, "lora_alpha": lora_alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return drifts


def put_files(folder: Path) -> None:
    """The files that the tests' configurations ask for, in a folder they run in."""
    for name in ("guard.jsonl", "scores.jsonl"):
        if not (folder / name).exists():
            shutil.copy(ROOT / "tests/end_to_end" / name, folder)
    if not (folder / "theirs").exists():
        put_direction(folder / "theirs")


def put_direction(folder: Path) -> None:
    """A direction that others have trained, as far as a plan looks into it."""
    (folder / "checkpoint-2").mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 3, "lora_alpha": 5}')
    for name in (
        "training.json", "adapter_model.safetensors", "checkpoint-2/adapter_model.safetensors"
    ):  # fmt: skip
        (folder / name).write_text("{}")


def snakemake_command(
    folder: Path,
    *arguments: str,
    configfiles: tuple[Path, ...] = (),
    snakefile: Path = ROOT / "Snakefile",
) -> list[str]:
    put_files(folder)
    files = ["--configfile", *map(str, configfiles)] if configfiles else []
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    return [*base, "--directory", str(folder), *arguments, *files]


def snakemake(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess:
    """One snakemake run in `folder`, its output as text in `stdout` (both streams).

    Options: those of `snakemake_command`.
    """
    return subprocess.run(
        snakemake_command(folder, *arguments, **options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def full_log(folder: Path) -> str:
    """What Snakemake said of the last run in `folder`; the terminal shows the steps alone."""
    return max((folder / ".snakemake/log").glob("*.log")).read_text()


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule from the first 'Job stats' table of snakemake's output."""
    lines = output.split("Job stats:\n", 1)[1].splitlines()[2:]
    counts = {}
    for line in lines:
        if not line.strip():
            break
        rule, count = line.split()
        counts[rule] = int(count)
    return counts


def with_own(given):
    """What is given, its section `own` written out, as for a run (rules/common.smk)."""
    from sqsd.recipes import with_recipe

    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    schema = ROOT / "config/schemas/config.schema.json"
    return with_recipe(given, default, ROOT / "config/recipes", schema)


def write_config(path: Path, **values) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@functools.cache
def model_files() -> dict[str, bytes]:
    """A sound model and its tokenizer, as save_pretrained writes them."""
    from sqsd.models import make_model, make_word_tokenizer

    tokenizer = make_word_tokenizer(["Hello there , answer me"])
    with tempfile.TemporaryDirectory() as folder:
        make_model(tokenizer, ONE_LAYER, seed=3).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in model_files().items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="session")
def planner():
    """Makes plans of the workflow, job by job."""
    from planner import Planner

    made = Planner()
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads would wait for each other over tensors as small as those of tests."""
    if "torch" in sys.modules:  # those of a workflow do without
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def planned(planner, tmp_path_factory) -> "dict[str, Job]":
    """The jobs of `planner.TWO` by rule and wildcards, with `planner.distinct_versions`."""
    from planner import TARGETS_OF_TWO, TWO, distinct_versions

    jobs = planner.plan(
        tmp_path_factory.mktemp("two"), TWO, versions=distinct_versions(), targets=TARGETS_OF_TWO
    )
    found = {job.name: job for job in jobs}
    assert len(found) == len(jobs)
    return found


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """Folder of a whole tiny run, which no test may change.

    Made once; where SQSD_TINY_RUN names the folder of one that was made before, that one.
    """
    if made := os.environ.get("SQSD_TINY_RUN"):
        return Path(made)
    folder = tmp_path_factory.mktemp("tiny")
    done = snakemake(folder, "--cores", "2", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    return folder
