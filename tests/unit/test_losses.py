"""Losses of tokens against a naive float64 forward pass."""

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER
from transformers import AutoModelForCausalLM

from sqsd.losses import measure_token_losses
from sqsd.models import make_model, make_word_tokenizer

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
