"""Directions that others have trained: trained here on a model of one layer, given away, taken."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER
from safetensors.torch import load_file, save_file

from sqsd.directions import fetch_direction
from sqsd.drift import load_adapter
from sqsd.errors import DataError, ShapeMismatch
from sqsd.models import load_model, load_tokenizer, make_model, make_word_tokenizer
from sqsd.shards import Shard, collect_shard
from sqsd.states import State
from sqsd.tables import read_table
from sqsd.training import train_sft

WORDS = ["ash", "birch", "cedar", "elm", "fir"]
TOKENIZER = make_word_tokenizer(WORDS)
LORA = {"r": 2, "lora_alpha": 4}
TRAINING = {
    "learning_rate": 0.05, "epochs": 2, "batch_size": 4, "max_length_tokens": 12,
    "schedule": "cosine", "warmup_fraction": 0.1, "dtype": "float32",
}  # fmt: skip
ROWS = pd.DataFrame(
    {
        "sample_id": [f"z{i}" for i in range(8)],
        "prompt": [f"{WORDS[i % 5]} {WORDS[i % 3]}" for i in range(8)],
        "response": [" ".join(WORDS[: 1 + i % 4]) for i in range(8)],
        "problem": None,
    }
)
VERSION = 7


def save(folder, seed, **changed):
    make_model(TOKENIZER, ONE_LAYER | changed, seed=seed).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a model, and a direction of four steps, two of them kept, of it."""
    folder = tmp_path_factory.mktemp("given")
    save(folder / "model", seed=3)
    train_sft(
        load_model(folder / "model"), load_tokenizer(folder / "model"), ROWS,
        folder / "direction", folder / "work", TRAINING, LORA, 1, VERSION, save_steps=2,
    )  # fmt: skip
    return folder


@pytest.fixture
def source(given, tmp_path):
    """A copy of the direction, elsewhere, of which nothing leads to where it was made."""
    return Path(shutil.copytree(given / "direction", tmp_path / "theirs"))


def readings(model, direction, checkpoint, out):
    """What a shard's gradients say along a direction, at a state on it."""
    out.mkdir()
    rows = ROWS.assign(family=None).astype({"problem": "str"})
    files = [str(out / f"{kind}.parquet") for kind in ("samples", "modules")]
    collect_shard(
        Shard(rows, 12, "auto", "float32", False),
        State.steered(str(model), str(direction), 0.5), str(direction), checkpoint,
        files[0], files[1], {},
    )  # fmt: skip
    schemas = ("gradient_samples", "gradient_modules")
    return [read_table(file, schema) for file, schema in zip(files, schemas, strict=True)]


@pytest.mark.parametrize("checkpoint", ["final", 2])
def test_a_direction_that_was_given_away_makes_the_same_readings(
    given, source, tmp_path, checkpoint
):
    save(tmp_path / "model", seed=3)  # the same weights in another folder
    fetch_direction(str(source), str(tmp_path / "model"), VERSION, tmp_path / "out")
    own = readings(given / "model", given / "direction", checkpoint, tmp_path / "own")
    taken = readings(tmp_path / "model", tmp_path / "out", checkpoint, tmp_path / "taken")
    assert all(own[i].equals(taken[i]) for i in (0, 1))
    assert taken[1]["inner_product"].abs().max() > 0


def test_what_is_taken_is_the_adapters_and_the_record(source, given, tmp_path):
    (source / "README.md").write_text("anything")
    fetch_direction(str(source), str(given / "model"), VERSION, tmp_path / "out")
    files = ("adapter_config.json", "adapter_model.safetensors")
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    checkpoints = {f"checkpoint-{step}" for step in (2, 4)}
    assert found - checkpoints == {*files, "training.json"} | {
        f"{folder}/{name}" for folder in checkpoints for name in files
    }
    # A direction that was taken can be given on.
    fetch_direction(str(tmp_path / "out"), str(given / "model"), VERSION, tmp_path / "again")


def refused(source, model, tmp_path, error: type[Exception] = DataError, version=VERSION):
    """What is said of a direction that is refused; nothing is left of it."""
    with pytest.raises(error) as caught:
        fetch_direction(str(source), str(model), version, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize("changed", [{"seed": 4}, {"seed": 3, "intermediate_size": 32}])
def test_a_direction_of_another_model_is_refused(source, tmp_path, changed):
    """Of other weights in the same shapes, as a fine-tuned one has, or of other shapes."""
    save(tmp_path / "model", **changed)
    said = refused(source, tmp_path / "model", tmp_path)
    record = json.loads((source / "training.json").read_text())
    assert re.fullmatch(
        rf"{source}: a direction of another model: trained on weights with hash "
        rf"{record['model'][:12]}, while {tmp_path}/model has [0-9a-f]{{12}}; give one that was "
        r"trained on this model and revision, or take `source` out and train it here",
        said,
    )


def test_one_changed_weight_is_another_model(source, given, tmp_path):
    folder = Path(shutil.copytree(given / "model", tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "a direction of another model" in refused(source, folder, tmp_path)


def test_a_direction_of_another_version_is_refused(source, given, tmp_path):
    said = refused(source, given / "model", tmp_path, version=8)
    assert said == (
        f"{source}: trained by version 7 of train_direction, and this is version 8, to which it "
        "may mean something else; ask for one of this version, or take `source` out and train it "
        "here"
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 7, "training": {"dtype": "float32"}}'])
def test_a_record_that_cannot_be_read_is_refused(source, given, tmp_path, text):
    (source / "training.json").write_text(text)
    said = refused(source, given / "model", tmp_path)
    assert said.startswith(f"{source}: training.json cannot be read (")
    assert said.endswith(
        "), so nothing says which model the direction is of; copy the folder anew, or take "
        "`source` out and train it here"
    )


@pytest.mark.parametrize("folder", ["", "checkpoint-2"])
def test_an_adapter_of_other_shapes_names_the_module(source, given, tmp_path, folder):
    path = source / folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    tensors[name] = torch.zeros(25, 2)
    save_file(tensors, path)
    assert refused(source, given / "model", tmp_path, ShapeMismatch) == (
        f"{source / folder}: model.layers.0.mlp.up_proj: the adapter needs a weight (25, 16), the "
        f"model has (24, 16); give a direction of {given}/model"
    )


def test_an_adapter_of_fewer_modules_is_refused(source, given, tmp_path):
    path = source / "adapter_model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if "k_proj" not in k and "up_" not in k}
    save_file(tensors, path)
    assert len(load_adapter(source)) == 5
    assert refused(source, given / "model", tmp_path) == (
        f"{source}: no adapter of model.layers.0.mlp.up_proj (and 1 more); directions of this run "
        "have one of every linear layer but the head: give such a one, or take `source` out and "
        "train it here"
    )
