"""Baselines from rows to scores, against plain autograd and transformers' own hidden states.

The oracle takes one row at a time through the model as transformers has it, in float64, and writes
each score out as its equation says.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER
from safetensors.torch import load_file
from torch.nn import functional

from sqsd.errors import DataError
from sqsd.models import load_model, make_model, make_word_tokenizer
from sqsd.provenance import provenance_of
from sqsd.readings import Gradient, HiddenState, read_readings
from sqsd.scorers import make_scorer, score_method
from sqsd.shards import Shard, collect_full_gradients, collect_hidden_states, make_anchor

WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak"]
TOKENIZER = make_word_tokenizer(WORDS)
MAX_LENGTH = 11
DTYPES = [("float64", 1e-10), ("float32", 1e-5)]
# Three layers, so that a layer can be mistaken; the score's scale is that of the weights.
ARCHITECTURE = ONE_LAYER | {"num_hidden_layers": 3, "initializer_range": 0.2}


def dataset(prefix: str, numbers: range, unusable: int | None = None) -> pd.DataFrame:
    """Rows of one to three words of prompt and one to five of response; one may be unusable.

    Rows of one number have one text.
    """
    rows = [
        (
            f"{prefix}{i}",
            " ".join(WORDS[(i * 5 + k) % 6] for k in range(1 + i % 3)),
            "" if i == unusable else " ".join(WORDS[(i * i + 2 * k) % 6] for k in range(1 + i % 5)),
            None,
            None,
        )
        for i in numbers
    ]
    columns = ["sample_id", "prompt", "response", "family", "problem"]
    return pd.DataFrame(rows, columns=pd.Index(columns), dtype="str")


ROWS = dataset("r", range(9), unusable=4)
SETS = {
    None: ROWS, "bad": dataset("b", range(20, 23)), "good": dataset("g", range(30, 34)),
    "fine": dataset("f", range(40, 42)),
}  # fmt: skip
FIRST = {"bad": 2, "good": None, "fine": 3}
USABLE = [row for row in ROWS["sample_id"] if row != "r4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model(TOKENIZER, ARCHITECTURE, seed=5).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def exact(folder):
    return load_model(folder, "float64")


def encoded(row) -> tuple[torch.Tensor, int]:
    """Token ids [1, T] of a row, by the template as it is written, and those of its prompt."""
    prompt = f"<user> {row.prompt} <assistant>"
    text = f"{prompt} {row.response} <end>"
    return TOKENIZER(text, return_tensors="pt").input_ids, len(TOKENIZER(prompt).input_ids)


def hidden_of(model, row, layer: int, token: int) -> np.ndarray:
    with torch.no_grad():
        states = model(input_ids=encoded(row)[0], output_hidden_states=True).hidden_states
    return states[layer][0, token].numpy()


def gradient_of(model, row, first: int | None = None) -> torch.Tensor:
    """Gradient of the mean loss over the response's first tokens, all parameters in one vector."""
    ids, prompt = encoded(row)
    end = ids.shape[1] if first is None else min(prompt + first, ids.shape[1])
    logits = model(input_ids=ids).logits[0]
    loss = functional.cross_entropy(logits[prompt - 1 : end - 1], ids[0, prompt:end])
    parameters = list(model.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def rows_of(name):
    return list(SETS[name].itertuples())


def unit(vector):
    return vector / np.linalg.norm(vector)


def shard(rows: pd.DataFrame, number: int, dtype: str) -> Shard:
    return Shard.of(
        rows, number, 5, max_length_tokens=MAX_LENGTH, max_tokens_per_batch=40, dtype=dtype,
        checkpointing=False,
    )  # fmt: skip


def read(tmp_path: Path, folder: str, reading, dtype: str):
    """A reading of all shards of its data set, for layer 2 whatever its name."""
    rows = SETS[reading.dataset]
    files: dict[str, list[str]] = {role: [] for role in reading.tables}
    for number in range(-(-len(rows) // 5)):
        paths = {role: str(tmp_path / f"{reading}-{number}-{role}.parquet") for role in files}
        part = shard(rows, number, dtype)
        if isinstance(reading, HiddenState):
            collect_hidden_states(part, folder, 2, reading.token, paths["samples"], {})
        else:
            anchors = {name: str(tmp_path / f"{name}.safetensors") for name in reading.anchors}
            for name, path in anchors.items():
                make_anchor(SETS[name], folder, FIRST[name], MAX_LENGTH, dtype, path, {})
            collect_full_gradients(part, folder, anchors, paths["samples"], paths["products"], {})
        for role, path in paths.items():
            files[role].append(path)
    return read_readings(reading, files)


def scores(tmp_path, folder, dtype, **method) -> dict[str, float]:
    readings = {
        name: read(tmp_path, folder, reading, dtype)
        for name, reading in make_scorer(method).needs().items()
    }
    table = score_method(method, readings, seed=0).set_index("sample_id")
    assert table.index.tolist() == ROWS["sample_id"].tolist()
    assert table["reason"].dropna().to_dict() == {"r4": "empty response"}
    return {str(i): float(score) for i, score in table["score"].dropna().items()}


def of_rows(score) -> dict[str, float]:
    return {str(r.sample_id): float(score(r)) for r in rows_of(None) if r.sample_id != "r4"}


def assert_close(found: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    """Within a share of the largest score: a difference of large terms may be small."""
    scale = max(abs(value) for value in expected.values())
    assert scale > 1e-3 and len(set(expected.values())) == len(expected)
    assert list(found) == USABLE
    assert found == pytest.approx(expected, rel=0, abs=tolerance * max(scale, 1.0))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("token", "most"), [(-2, 1), (-1, 2)])
def test_bi_anchor_reps(tmp_path, folder, exact, dtype, tolerance, token, most):
    anchors = [unit(hidden_of(exact, row, 2, token)) for row in rows_of("bad")]

    def score(row):
        own = unit(hidden_of(exact, row, 2, token))
        return np.mean(sorted((own @ anchor for anchor in anchors), reverse=True)[:most])

    found = scores(
        tmp_path, folder, dtype, kind="bi-anchor-reps", anchors="bad", layer="any", token=token,
        most=most,
    )  # fmt: skip
    assert_close(found, of_rows(score), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_larf(tmp_path, folder, exact, dtype, tolerance, similarity):
    scaled = unit if similarity == "cosine" else np.asarray
    means = [
        np.mean([scaled(hidden_of(exact, row, 2, -1)) for row in rows_of(name)], axis=0)
        for name in ("bad", "good")
    ]

    def score(row):
        own = scaled(hidden_of(exact, row, 2, -1))
        return own @ means[0] - own @ means[1]

    found = scores(
        tmp_path, folder, dtype, kind="larf", unsafe="bad", safe="good", layer="any",
        similarity=similarity,
    )  # fmt: skip
    assert_close(found, of_rows(score), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("length", [True, False])
def test_self_inf(tmp_path, folder, exact, dtype, tolerance, length):
    def score(row):
        influence = float(gradient_of(exact, row).square().sum())
        tokens = len(row.response.split()) + 1  # and the end token
        return math.log(influence + 1) + math.log(tokens + 1) if length else influence

    found = scores(tmp_path, folder, dtype, kind="self-inf", length=length)
    assert_close(found, of_rows(score), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_bi_anchor_grad(tmp_path, folder, exact, dtype, tolerance):
    def anchor(name):
        gradients = [gradient_of(exact, row, FIRST[name]) for row in rows_of(name)]
        return torch.stack([g / g.norm() for g in gradients]).mean(0)

    anchors = {name: anchor(name) for name in ("bad", "good", "fine")}

    def score(row):
        own = gradient_of(exact, row)
        own = own / own.norm()
        return own @ anchors["bad"] - own @ anchors["good"] - own @ anchors["fine"]

    found = scores(
        tmp_path, folder, dtype, kind="bi-anchor-grad", harmful="bad", harmless=["good", "fine"]
    )
    assert_close(found, of_rows(score), tolerance)


@pytest.mark.parametrize(("layer", "token"), [(0, -1), (1, -2), (3, -1)])
def test_a_hidden_state_is_that_of_its_layer_and_token(tmp_path, folder, exact, layer, token):
    path = str(tmp_path / "h.parquet")
    collect_hidden_states(shard(ROWS, 1, "float32"), folder, layer, token, path, {})
    found = read_readings(HiddenState("any", token), {"samples": [path]})["samples"]
    assert found["sample_id"].tolist() == ["r5", "r6", "r7", "r8"]
    rows = rows_of(None)[5:]
    for row, state in zip(rows, found["hidden_state"], strict=True):
        assert state == pytest.approx(hidden_of(exact, row, layer, token), rel=1e-4, abs=1e-5)


def test_a_shard_without_a_usable_row(tmp_path, folder):
    rows = dataset("e", range(1), unusable=0)
    path = str(tmp_path / "h.parquet")
    collect_hidden_states(shard(rows, 0, "float32"), folder, 2, -2, path, {})
    found = read_readings(HiddenState("any", -2), {"samples": [path]})["samples"]
    assert found["hidden_state"].tolist() == [None]
    paths = {role: str(tmp_path / f"{role}.parquet") for role in ("samples", "products")}
    collect_full_gradients(
        shard(rows, 0, "float32"), folder, {}, paths["samples"], paths["products"], {}
    )
    found = read_readings(Gradient(), {role: [path] for role, path in paths.items()})
    assert found["samples"]["gradient_norm"].isna().tolist() == [True]
    assert found["samples"]["reason"].tolist() == ["empty response"]
    assert found["products"].empty


def test_an_anchor_is_kept_by_parameter(tmp_path, folder, exact):
    path = str(tmp_path / "a.safetensors")
    make_anchor(SETS["good"], folder, None, MAX_LENGTH, "float32", path, {"stage": "make_anchor"})
    assert provenance_of(path) == {"stage": "make_anchor"}
    found = load_file(tmp_path / "a.safetensors")
    shapes = {name: value.shape for name, value in exact.named_parameters()}
    assert {name: value.shape for name, value in found.items()} == shapes
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_an_anchor_without_a_gradient_is_named(tmp_path, folder):
    rows = dataset("a", range(3), unusable=1)
    message = r"anchor a1 has no gradient \(empty response\); correct the anchors' data set"
    with pytest.raises(DataError, match=message):
        make_anchor(rows, folder, 2, MAX_LENGTH, "float32", str(tmp_path / "a.safetensors"), {})
    assert list(tmp_path.iterdir()) == []
