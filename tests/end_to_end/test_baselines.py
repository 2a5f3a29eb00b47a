"""Scores of the tiny run's baselines made again: from rows and model, row by row, in float64.

By another way: transformers' own hidden states and autograd over all parameters, with what each
method reads taken from the configuration by hand.
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, TINY
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
RUN = Path("results/tiny")
MODEL = RUN / "models/sandbox"
METHODS = yaml.safe_load(TINY.read_text())["tables"]["baselines"]["methods"]


@pytest.fixture(scope="module", autouse=True)
def in_run(tiny_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_run)
        yield


def table(path: str) -> pd.DataFrame:
    return pd.read_parquet(RUN / path)


@cache
def language_model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64).eval()


@cache
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


def rows(dataset: str) -> list:
    return list(table(f"data/{dataset}.parquet").itertuples())


def encoded(row) -> tuple[torch.Tensor, int]:
    """Token ids [1, T] of a row, and those of its prompt, as the template is written."""
    prompt = tokenizer()(f"<user> {row.prompt} <assistant>").input_ids
    ids = [*prompt, *tokenizer()(f"{row.response} <end>").input_ids]
    return torch.tensor([ids]), len(prompt)


@torch.no_grad()
def hidden(row, layer: int, token: int) -> np.ndarray:
    found = language_model()(input_ids=encoded(row)[0], output_hidden_states=True)
    return found.hidden_states[layer][0, token].numpy()


def gradient(row, first: int | None = None) -> torch.Tensor:
    """Of the mean loss over the response's first tokens, by all parameters in one vector."""
    model, (ids, prompt) = language_model(), encoded(row)
    ids = ids[:, : None if first is None else prompt + first]
    logits = model(input_ids=ids).logits[0, prompt - 1 : -1]
    loss = functional.cross_entropy(logits, ids[0, prompt:])
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.flatten() for g in found])


def normalised(vector):
    return vector / (vector @ vector) ** 0.5


def bi_anchor_reps():
    last = language_model().config.num_hidden_layers
    anchors = [normalised(hidden(row, last, -2)) for row in rows("harmful-10")]
    return lambda row: max(anchor @ normalised(hidden(row, last, -2)) for anchor in anchors)


def bi_anchor_grad():
    def mean(dataset):
        gradients = [normalised(gradient(row, first=10)) for row in rows(dataset)]
        return sum(gradients) / len(gradients)

    along = mean("harmful-10") - mean("refused-10") - mean("refused-10-more")
    return lambda row: float(normalised(gradient(row)) @ along)


def self_inf_n():
    def score(row):
        own = gradient(row)
        tokens = encoded(row)[0].shape[1] - encoded(row)[1]
        return math.log(float(own @ own) + 1) + math.log(tokens + 1)

    return score


def larf():
    layer = json.loads((RUN / "layers/sandbox/safety-sensitive.json").read_text())["layer"]
    unsafe, safe = (
        np.mean([hidden(row, layer, -1) for row in rows(dataset)], axis=0)
        for dataset in ("harmful-100", "refused-100")
    )
    return lambda row: hidden(row, layer, -1) @ (unsafe - safe)


def refusal_opening():
    refusals = tuple(DEFAULT["methods"]["refusal-opening"]["phrases"])
    return lambda row: -float(row.response.startswith(refusals))


def reward_model():
    """The cost at the end token, of the text that the cost model was trained on."""
    folder = RUN / "models/cost"
    body = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    head = load_file(folder / "model.safetensors")["score_head.weight"].double()[0]
    own = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def score(row):
        text = f"BEGINNING OF CONVERSATION: USER: {row.prompt} ASSISTANT: {row.response}"
        ids = torch.tensor([[*own(text).input_ids, own.eos_token_id]])
        return float(body(input_ids=ids).last_hidden_state[0, -1] @ head)

    return score


SCORES = {
    "reward-model": reward_model,
    "bi-anchor-reps": bi_anchor_reps, "bi-anchor-grad": bi_anchor_grad, "self-inf-n": self_inf_n,
    "larf": larf, "refusal-opening": refusal_opening,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_baseline_made_again_from_rows_and_model(method):
    score = SCORES[method]()
    expected = {row.sample_id: score(row) for row in rows("mixed")}
    found = table(f"scores/sandbox/mixed/{method}.parquet").set_index("sample_id")
    values = found["score"].to_dict()
    assert list(values) == list(expected)
    largest = max(abs(value) for value in expected.values())
    assert values == pytest.approx(expected, rel=0, abs=1e-4 * max(largest, 1))
    by_risk = sorted(values, key=lambda i: (-values[i], i))
    assert found["rank"].sort_values().index.tolist() == by_risk
    if method == "refusal-opening":  # some benign answers open as a refusal does
        assert set(values.values()) == {0.0, -1.0}
    else:
        assert len(set(values.values())) > 60


def test_every_baseline_orders_the_rows_its_own_way():
    ranks = pd.DataFrame(
        {
            m: table(f"scores/sandbox/mixed/{m}.parquet").set_index("sample_id")["rank"]
            for m in METHODS
        }
    ).astype(float)
    apart = ranks.corr("spearman").to_numpy()[~np.eye(len(METHODS), dtype=bool)]
    assert np.abs(apart).max() < 0.99


def test_the_searched_layer_is_the_one_whose_scaling_refuses_most():
    search = table("layers/sandbox/safety-sensitive.parquet")
    assert sorted(set(zip(search.layer, search.factor, strict=True))) == [
        (layer, factor) for layer in (1, 2, 3) for factor in (0.8, 0.9, 1.1, 1.2)
    ]
    assert set(search.prompts) == {len(table("benchmarks/over-refusal.parquet"))}
    shares = search.pivot(index="layer", columns="factor", values="refusals")
    effect = shares[1.2] + shares[1.1] - shares[0.9] - shares[0.8]
    chosen = json.loads((RUN / "layers/sandbox/safety-sensitive.json").read_text())
    assert effect[chosen["layer"]] == effect.max() and effect.nunique() > 1
