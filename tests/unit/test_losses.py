"""Losses against naive float64 passes: of tokens, and along a direction by autograd."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER, SHAPES, write_adapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sqsd.losses import measure_loss_changes, measure_row_losses, measure_token_losses
from sqsd.models import make_model, make_word_tokenizer
from sqsd.shards import Shard
from sqsd.states import State
from sqsd.tables import write_table

WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak"]
TOKENIZER = make_word_tokenizer(WORDS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = make_model(TOKENIZER, ONE_LAYER | {"initializer_range": 0.3}, seed=1)
    made.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


# Responses of 1 to 6 words; the last has none, and is in no group.
RESPONSES = [" ".join(WORDS[:n]) for n in (3, 1, 6, 2, 5, 4)] + [""]


def table_of(responses):
    ids = [f"r{i}" for i in range(len(responses))]
    return pd.DataFrame({"sample_id": ids, "prompt": "oak elm", "response": responses})


def samples_of(responses, most=99):
    lengths = [len(response.split()) + 1 for response in responses]
    reasons = [None if response else "empty response" for response in responses]
    frame = pd.DataFrame({"sample_id": table_of(responses)["sample_id"]})
    lengths = [min(length, most) for length in lengths]
    return frame.assign(response_tokens=lengths, reason=pd.Series(reasons, dtype="str"))


def naive(folder, response):
    """Loss of each word and of the end token, by a loop over a whole softmax in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    turn = f"<user> oak elm <assistant> {response} <end>"
    ids = TOKENIZER(turn, add_special_tokens=False).input_ids
    with torch.no_grad():
        odds = model(torch.tensor([ids])).logits[0].softmax(-1)
    first = len(ids) - len(response.split()) - 1
    return [-float(odds[t - 1, ids[t]].log()) for t in range(first, len(ids))]


def test_the_losses_of_every_token_with_the_end_token(model):
    found = measure_token_losses(
        table_of(RESPONSES), samples_of(RESPONSES), model, 2, 60, "float32"
    )
    assert list(found.columns) == ["sample_id", "group", "position", "token", "is_end", "loss"]
    # Groups of two by length: 6 and 5 words, 4 and 3, 2 and 1.
    rows = {group: list(dict.fromkeys(own["sample_id"])) for group, own in found.groupby("group")}
    assert rows == {"longest": ["r2", "r4"], "middle": ["r5", "r0"], "shortest": ["r3", "r1"]}
    for sample_id, own in found.groupby("sample_id"):
        response = RESPONSES[int(str(sample_id)[1:])]
        assert own["token"].tolist() == [*response.split(), "<end>"]
        assert own["is_end"].tolist() == [False] * len(response.split()) + [True]
        assert own["position"].tolist() == list(range(1, len(own) + 1))
        assert own["loss"].to_numpy() == pytest.approx(naive(model, response), rel=1e-5)


def test_nine_of_a_larger_group_are_measured(model):
    responses = [" ".join(WORDS[: 1 + i % 6]) for i in range(30)]
    found = measure_token_losses(
        table_of(responses), samples_of(responses), model, 10, 60, "float32"
    )
    per_group = found.groupby("group")["sample_id"].nunique()
    assert per_group.to_dict() == {"longest": 9, "middle": 9, "shortest": 9}


def test_a_response_that_is_cut_off_has_no_end_token(model):
    cut = len(TOKENIZER("<user> oak elm <assistant>", add_special_tokens=False).input_ids) + 2
    rows, samples = table_of(RESPONSES), samples_of(RESPONSES, most=2)
    found = measure_token_losses(rows, samples, model, 2, cut, "float32")
    long = found[found["sample_id"] == "r2"]
    assert long["token"].tolist() == WORDS[:2]
    assert not long["is_end"].any()
    # What was cut off comes after, and changes nothing before it.
    assert long["loss"].to_numpy() == pytest.approx(naive(model, RESPONSES[2])[:2], rel=1e-5)


def drifted(folder, adapter, multiplier, out):
    """A copy of the model with an adapter's drift, multiplied, added to its weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in SHAPES:
        a, b = (tensors[f"base_model.model.{name}.lora_{x}.weight"].double() for x in "AB")
        weight = model.get_parameter(f"{name}.weight")
        weight.data += multiplier * 6 / 2 * b @ a  # lora_alpha 6, r 2
    model.save_pretrained(out)
    return out


def test_the_loss_of_every_row_at_every_state(model, tmp_path):
    adapter = tmp_path / "adapter"
    write_adapter(adapter, SHAPES, seed=4)
    other = drifted(model, adapter, 0.5, tmp_path / "other")
    states = [
        State("theta-0", model, None),
        State("v", model, str(adapter), 0.5, {"window": "drop", "seed": 3}),
    ]
    rows = table_of(RESPONSES).assign(problem=pd.Series([None, "broken", *[None] * 5]))
    found = measure_row_losses(rows, states, 60, "float32")
    assert found["state"].tolist() == ["theta-0"] * 7 + ["v"] * 7
    assert found["sample_id"].tolist() == [f"r{i}" for i in range(7)] * 2
    assert found["seed"].tolist()[7:] == [3] * 7 and found["window"].tolist()[7:] == ["drop"] * 7
    # A row that has a problem, and one without a response.
    assert found["reason"].dropna().tolist() == ["broken", "empty response"] * 2
    for folder, own in ((model, found[:7]), (other, found[7:])):
        for sample_id, loss in zip(own["sample_id"], own["loss"], strict=True):
            i = int(sample_id[1:])
            if i in (1, 6):
                assert math.isnan(loss)
            else:
                losses = naive(folder, RESPONSES[i])
                assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    # The drift is no small matter, and the model is as it was after it.
    assert found["loss"][0] != pytest.approx(found["loss"][7], rel=1e-3)
    write_table(found, tmp_path / "losses.parquet", "row_losses", {})


# --- along a direction


@pytest.fixture
def exact_norms(monkeypatch):
    """Llama's norms in the model's own precision: whatever that is, they are in float32."""

    def forward(self, x):
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Folders of a direction with a checkpoint, and of a state; their dense drifts in float64."""
    folder = tmp_path_factory.mktemp("adapters")
    drifts = {
        name: write_adapter(folder / name, SHAPES, seed=seed)
        for seed, name in enumerate(("v", "v/checkpoint-4", "state"), 1)
    }
    return folder, drifts


ALPHAS = [1e-3, 0.02]


def changes(model, adapters, state=None, alphas=ALPHAS, dtype="float64", checkpoint="final"):
    """Measured along the direction, from theta_0 or half-way to the state's adapter."""
    folder, _ = adapters
    rows = table_of(RESPONSES).assign(problem=pd.Series([None] * len(RESPONSES), dtype="str"))
    shard = Shard(rows, 60, 40, dtype, False)
    at = State("s", model, state and str(folder / state), 0.5)
    return measure_loss_changes(shard, at, str(folder / "v"), checkpoint, alphas)


def weights_at(model, drifts, drift=None, factor=0.0):
    """The model in float64 with a dense drift on its weights, times a factor."""
    made = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    for name, change in drifts[drift].items() if drift else ():
        made.get_submodule(name).weight.data += factor * change
    return made


def mean_loss(made, response):
    turn = f"<user> oak elm <assistant> {response} <end>"
    ids = torch.tensor([TOKENIZER(turn, add_special_tokens=False).input_ids])
    first = ids.shape[1] - len(response.split()) - 1
    odds = made(ids).logits[0].log_softmax(-1)
    return -odds[range(first - 1, ids.shape[1] - 1), ids[0, first:]].mean()


@pytest.mark.parametrize("state", [None, "state"])
@pytest.mark.parametrize("checkpoint", ["final", 4])
def test_changes_of_loss_are_those_of_dense_weights(
    model, adapters, exact_norms, state, checkpoint
):
    _, drifts = adapters
    found = changes(model, adapters, state, checkpoint=checkpoint)
    direction = drifts["v" if checkpoint == "final" else "v/checkpoint-4"]
    # The empty response has no loss; steps in their order, rows in theirs.
    assert found["alpha"].tolist() == [alpha for alpha in ALPHAS for _ in range(6)]
    assert found["sample_id"].tolist() == [f"r{i}" for i in range(6)] * 2
    for row in found.to_dict("records"):
        response = RESPONSES[int(row["sample_id"][1:])]
        made = weights_at(model, drifts, state, 0.5)
        loss = mean_loss(made, response)
        loss.backward()
        slope = -sum(
            float((made.get_submodule(m).weight.grad * v).sum()) for m, v in direction.items()
        )
        assert row["predicted"] == pytest.approx(row["alpha"] * slope, rel=1e-5)
        with torch.no_grad():
            for name, v in direction.items():
                made.get_submodule(name).weight += row["alpha"] * v
            real = float(loss - mean_loss(made, response))
        assert row["change"] == pytest.approx(real, rel=1e-5, abs=1e-9)


def test_the_adapters_prediction_is_the_product_that_the_score_is_made_of(model, adapters):
    folder, drifts = adapters
    assert changes(model, adapters)["adapter_predicted"].isna().all()
    found = changes(model, adapters, "state").set_index(["sample_id", "alpha"])
    tensors = load_file(folder / "state/adapter_model.safetensors")
    for number, response in enumerate(RESPONSES[:-1]):
        made, pairs = weights_at(model, drifts), {}
        for name in SHAPES:
            a, b = (
                tensors[f"base_model.model.{name}.lora_{side}.weight"].double().requires_grad_()
                for side in "AB"
            )
            module = made.get_submodule(name)
            whole = module.weight.detach() + 0.5 * 6 / 2 * b @ a  # pyright: ignore
            module.forward = lambda x, whole=whole: x @ whole.T
            pairs[name] = a, b
        mean_loss(made, response).backward()
        with torch.no_grad():
            product = sum(
                float(-((b @ a.grad + b.grad @ a) * drifts["v"][name]).sum())
                for name, (a, b) in pairs.items()
            )
        for alpha in ALPHAS:
            value = found.loc[(f"r{number}", alpha), "adapter_predicted"]
            assert value == pytest.approx(alpha * product, rel=1e-5)


@pytest.mark.parametrize("state", [None, "state"])
def test_the_first_order_becomes_exact_as_the_step_shrinks(model, adapters, exact_norms, state):
    alphas = [1e-2, 1e-3, 1e-4, 1e-5]
    found = changes(model, adapters, state, alphas)
    errors = []
    for alpha in alphas:
        step = found[found["alpha"] == alpha]
        missed = np.linalg.norm(step["change"] - step["predicted"])
        errors.append(missed / np.linalg.norm(step["predicted"]))
    # What is left is of the second order: a tenth of the step, a tenth of the relative error.
    assert errors[2] < 0.2 * errors[1] and errors[3] < 0.2 * errors[2]
    assert errors[-1] < 1e-3


def test_a_step_at_which_the_loss_is_no_number_has_none(model, adapters, tmp_path):
    found = changes(model, adapters, "state", [1e-4, 1e38], "float32")
    assert found["change"].isna().tolist() == [False] * 6 + [True] * 6
    assert found["predicted"].map(math.isfinite)[:6].all()
    write_table(found, tmp_path / "t.parquet", "loss_changes", {})
