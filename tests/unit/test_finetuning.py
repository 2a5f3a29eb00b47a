"""Fine-tunes on several GPUs: sharded runs for real, of two processes without a GPU."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ONE_LAYER, ROOT
from safetensors.torch import load_file
from test_training import LORA, TRAINING, WORDS, sft_rows

from sqsd import finetuning
from sqsd.errors import ConfigurationError, TrainingError
from sqsd.finetuning import finetune
from sqsd.models import load_model, make_model, make_word_tokenizer

# Two processes take one row at once each, twice for a batch of four.
SHARED = TRAINING | {"micro_batch_size": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model's folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = make_word_tokenizer(WORDS)
    make_model(tokenizer, ONE_LAYER | {"num_hidden_layers": 2}, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def two(monkeypatch):
    """Two processes are no error where there are no GPUs, and shard as on GPUs."""
    monkeypatch.setattr(finetuning, "check_gpus", lambda gpus: None)
    monkeypatch.setattr(finetuning, "MODULE", "fsdp_on_cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))


def run(base, folder, gpus, **changed) -> Path:
    arguments = {"rows": sft_rows(), "training": SHARED, "lora": None, "seed": 1, "version": 1}
    work = folder / "work"
    finetune(str(base), out=folder / "out", work=work, gpus=gpus, **arguments | changed)
    return folder / "out"


def assert_close(found: Path, expected: Path) -> None:
    """Weights as far as float32 and another order of summation allow."""
    other = dict(load_model(found).named_parameters())
    own = dict(load_model(expected).named_parameters())
    assert other.keys() == own.keys()
    for name, weight in own.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5, msg=name)


def begun(text: str) -> list[int]:
    """The steps after which a process began another, in order."""
    return [int(step) for step in re.findall(r"process 1 begins after step (\d+)\n", text)]


def test_two_processes_killed_and_resumed_end_where_one_does(
    base, tmp_path, two, monkeypatch, capfd
):
    one = run(base, tmp_path / "one", 1)
    monkeypatch.setenv("KILL_AT", "3")
    with pytest.raises(TrainingError, match=r"work/\w{12}: the 2 processes of the run ended with"):
        run(base, tmp_path / "both", 2)
    assert begun(capfd.readouterr().out) == [0, 1, 2, 3]
    monkeypatch.delenv("KILL_AT")
    both = run(base, tmp_path / "both", 2)
    said = capfd.readouterr().out
    assert begun(said) == [3, 4, 5]
    # Embeddings, two layers of nine weights and the last norm; each process has a half of them.
    assert said.count("20 sharded parameters of 20, 0.50 of their values") == 2
    assert_close(both, one)
    assert sorted(p.name for p in both.iterdir()) == sorted(p.name for p in one.iterdir())
    for name in ("config.json", "generation_config.json", "training.json"):
        assert json.loads((both / name).read_text()) == json.loads((one / name).read_text())
    (work,) = (tmp_path / "both/work").iterdir()
    assert sorted(p.name for p in work.iterdir()) == ["final", "lock"]


def test_a_sharded_run_that_is_known_is_put_in_place(base, tmp_path, two, monkeypatch):
    """Also one that a single process trained, since the record is the same."""
    out = run(base, tmp_path, 1)
    (out / "config.json").unlink()
    monkeypatch.setattr(finetuning, "launch", None)
    run(base, tmp_path, 2)
    assert (out / "config.json").exists()


def test_torn_checkpoints_are_gone_before_the_processes_start(base, tmp_path, two, monkeypatch):
    def launch(folder, processes):
        assert processes == 2
        work = Path(json.loads((folder / "settings.json").read_text())["work"])
        found.append(sorted(p.name for p in (work / "sharded").glob("*")))
        for step, state in (4, "{}"), (6, "{"):
            checkpoint = work / f"sharded/checkpoint-{step}"
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / "trainer_state.json").write_text(state)
        return 1

    found = []
    monkeypatch.setattr(finetuning, "launch", launch)
    for _ in range(2):
        with pytest.raises(TrainingError, match="ended with status 1; what they said is above"):
            run(base, tmp_path, 2)
    assert found == [[], ["checkpoint-4"]]


def test_bfloat16_weights_stay_so_and_rows_that_are_repeated_are_told(base, tmp_path, two, capfd):
    training = SHARED | {"dtype": "bfloat16", "epochs": 1}
    found = run(base, tmp_path, 2, training=training, rows=sft_rows()[:7])
    # The fourth parts of seven rows are one row short.
    assert capfd.readouterr().out.count("\n1 rows of each epoch's beginning fill up its last") == 1
    kept = load_file(found / "model.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.bfloat16}


def test_what_a_process_raises_is_raised_here(base, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "check_gpus", lambda gpus: None)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 6; lower learning_"):
        run(base, tmp_path, 2, training=SHARED | {"learning_rate": 1e30})
    assert not [*(tmp_path / "work").iterdir()]


def test_more_gpus_than_there_are(base, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for lora in (None, LORA):
        with pytest.raises(ConfigurationError, match="the job is to use 4 GPUs and sees 2; set"):
            run(base, tmp_path, 4, lora=lora)


def test_a_batch_that_the_gpus_cannot_share(base, tmp_path, two):
    with pytest.raises(ConfigurationError, match="batch_size=4 cannot be shared by 3 GPUs; give"):
        run(base, tmp_path, 3)


@pytest.mark.parametrize("gpus", [1, 2])
def test_an_adapter_is_trained_in_this_process(base, tmp_path, monkeypatch, gpus):
    asked = []

    def load(folder, dtype, gpus):
        asked.append((folder, dtype, gpus))
        return load_model(folder, dtype)

    monkeypatch.setattr(finetuning, "load_model", load)
    monkeypatch.setattr(finetuning, "launch", None)
    assert (run(base, tmp_path, gpus, lora=LORA) / "adapter_model.safetensors").exists()
    assert asked == [(str(base), "float32", gpus)]
