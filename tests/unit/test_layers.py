"""Scaled layers, and the search for the one that refusals hang on, on models of three layers."""

import copy

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from sqsd import layers
from sqsd.errors import ConfigurationError, DataError
from sqsd.generation import greedy
from sqsd.layers import (
    layer_effects,
    most_sensitive,
    named_layer,
    read_layer,
    scaled,
    search_layers,
    write_layer,
)
from sqsd.models import make_model, make_word_tokenizer
from sqsd.provenance import provenance_of

ARCHITECTURE = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 64, "initializer_range": 0.4,
}  # fmt: skip
WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak"]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_word_tokenizer(WORDS)
    make_model(tokenizer, ARCHITECTURE, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layer", [0, 2])
def test_a_scaled_layer_and_no_other_weight(folder, layer):
    model = LlamaForCausalLM.from_pretrained(folder)
    before = copy.deepcopy(model.state_dict())
    with scaled(model.model.layers[layer], 1.5):
        for name, weight in model.state_dict().items():
            part = name.split(".")
            is_scaled = f"layers.{layer}." in name and part[-2] in LINEAR
            assert torch.equal(weight, before[name] * 1.5 if is_scaled else before[name]), name
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_a_layer_is_as_it_was_after_an_error(folder):
    model = LlamaForCausalLM.from_pretrained(folder)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), scaled(model.model.layers[1], 0.3):
        raise KeyError
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


PROMPTS = pd.DataFrame({"prompt": ["ash elm", "oak", "fir birch ash", "cedar"]})
JUDGE = {"kind": "phrases", "phrases": ["elm"]}


def test_refusals_are_counted_at_every_layer_and_factor(folder):
    found = search_layers(PROMPTS, str(folder), 2, [0.2, 3.0], JUDGE, 6, 3, "float32")
    expected = []
    for layer in (2, 3):
        for factor in (0.2, 3.0):
            # By another way: weights written over, each prompt alone.
            model = LlamaForCausalLM.from_pretrained(folder).eval()
            for name in LINEAR:
                part = "self_attn" if name[0] in "qkvo" else "mlp"
                model.get_parameter(f"model.layers.{layer - 1}.{part}.{name}.weight").data *= factor
            tokenizer = layers.load_tokenizer(folder)
            texts = [
                greedy(model, tokenizer, [layers.encode_prompt(tokenizer, p)], 6, 1, lambda n: None)
                for p in PROMPTS["prompt"]
            ]
            refused = sum("elm" in text[0] for text, _ in texts)
            expected.append((layer, factor, 4, refused))
    assert list(found.itertuples(index=False, name=None)) == expected
    assert len(set(found["refusals"])) > 1, "the case tells nothing apart"


@pytest.mark.parametrize(("first", "last", "tried"), [(1, 2, [1, 2]), (2, 2, [2]), (3, 3, [3])])
def test_a_search_ends_where_it_is_told(folder, first, last, tried):
    whole = search_layers(PROMPTS, str(folder), 1, [0.2, 3.0], JUDGE, 2, 4, "float32")
    found = search_layers(PROMPTS, str(folder), first, [0.2, 3.0], JUDGE, 2, 4, "float32", last)
    expected = whole[whole["layer"].isin(tried)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(("first", "last"), [(1, 4), (3, 2), (0, 2), (1, 0)])
def test_a_range_of_layers_that_is_not_there(folder, first, last):
    message = rf"layers: first is {first} and last {last}, the model has layers 1 to 3"
    with pytest.raises(ConfigurationError, match=message):
        search_layers(PROMPTS, str(folder), first, [0.5], JUDGE, 1, 4, "float32", last)


@pytest.mark.parametrize("first", [0, 4])
def test_a_first_layer_that_is_not_there(folder, first):
    message = rf"layers: first is {first}, the model has layers 1 to 3"
    with pytest.raises(ConfigurationError, match=message):
        search_layers(PROMPTS, str(folder), first, [0.5], JUDGE, 1, 4, "float32")


def search_of(rows):
    return pd.DataFrame(rows, columns=pd.Index(["layer", "factor", "prompts", "refusals"]))


# By hand: layer 4 refuses 6 - 2 + 5 - 4 = 5 more of 10, layer 5 refuses 3 fewer.
SEARCH = [
    (4, 0.8, 10, 2), (4, 0.9, 10, 4), (4, 1.1, 10, 5), (4, 1.2, 10, 6),
    (5, 0.8, 10, 7), (5, 0.9, 10, 4), (5, 1.1, 10, 4), (5, 1.2, 10, 4),
]  # fmt: skip


def test_the_effect_of_a_layer():
    assert layer_effects(search_of(SEARCH)) == pytest.approx({4: 0.5, 5: -0.3})
    # The model as it is says nothing of a layer.
    assert layer_effects(search_of([*SEARCH, (4, 1.0, 10, 9)])) == pytest.approx({4: 0.5, 5: -0.3})


@given(st.permutations(SEARCH))
def test_the_layer_that_refuses_most_when_scaled_up(rows):
    found = most_sensitive(search_of(rows))
    assert found["layer"] == 4 and found["effect"] == pytest.approx(0.5)


def test_one_of_equals_is_the_first():
    rows = [(7, 1.5, 4, 1), (6, 1.5, 4, 3), (8, 1.5, 4, 3)]
    assert most_sensitive(search_of(rows))["layer"] == 6


def test_one_layer_is_chosen_whatever_its_effect():
    assert most_sensitive(search_of([(7, 1.5, 4, 0)])) == {"layer": 7, "effect": 0.0}


def test_no_layer_stands_out():
    message = "layers: scaling changes refusals at no layer, or at every layer alike; use other"
    with pytest.raises(DataError, match=message):
        most_sensitive(search_of([(7, 1.5, 4, 1), (8, 1.5, 4, 1)]))


@pytest.mark.parametrize(("layer", "expected"), [("last", 3), (0, 0), (2, 2), (3, 3)])
def test_a_named_layer(folder, layer, expected):
    assert named_layer(str(folder), layer) == {"layer": expected}


def test_a_named_layer_beyond_the_last(folder):
    with pytest.raises(ConfigurationError, match="layers: 4 is no layer; the model has 0 to 3"):
        named_layer(str(folder), 4)


def test_a_layer_is_read_as_it_was_written(tmp_path):
    write_layer({"layer": 6, "effect": 0.5}, tmp_path / "l.json", {"stage": "choose_layer"})
    assert read_layer(tmp_path / "l.json") == 6
    assert provenance_of(tmp_path / "l.json") == {"stage": "choose_layer"}
    assert [path.name for path in tmp_path.iterdir()] == ["l.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layer": null}', '{"layer": "x"}'])
def test_a_file_without_a_layer(tmp_path, text):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(DataError, match=r"l\.json: no layer in it .*; delete it and run again"):
        read_layer(tmp_path / "l.json")
    with pytest.raises(DataError, match=r"m\.json: no layer in it"):
        read_layer(tmp_path / "m.json")
