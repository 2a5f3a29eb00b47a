"""Greedy responses against a loop of one token, one prompt and no cache at a time, in float64."""

import json

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sqsd.errors import ShapeMismatch
from sqsd.generation import generate_responses, greedy, state_applied
from sqsd.models import make_model, make_word_tokenizer

ARCHITECTURE = ONE_LAYER | {
    "initializer_range": 0.4,  # so that what comes next hangs on what came before
}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel"]
TOKENIZER = make_word_tokenizer(WORDS)
USER, ASSISTANT, END = 2, 3, 4  # the ids of the template's tokens; words follow from 5 on
V_PROJ, DOWN = "model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj"  # [8,16], [16,24]
SHAPES = {V_PROJ: (8, 16), DOWN: (16, 24)}


def new_model():
    """A model with a head of its own: a tied one would mostly repeat the last word."""
    model = make_model(TOKENIZER, ARCHITECTURE, seed=5).double().eval()
    generator = torch.Generator().manual_seed(4)
    head = torch.randn(len(TOKENIZER), 16, generator=generator, dtype=torch.float64)
    head[0] = 0  # <pad> has logit 0, below the largest of ten others
    model.lm_head.weight = torch.nn.Parameter(head)
    return model


MODEL = new_model()


def write_adapter(folder, shapes, seed=0, r=2, lora_alpha=6):
    """An adapter's files as PEFT writes them; returns the drift of each module, float64."""
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


def state(name, adapter, multiplier=1.0):
    return {"name": name, "adapter": None if adapter is None else str(adapter)} | {
        "multiplier": multiplier
    }


def prompt_ids(text):
    return [USER, *(5 + WORDS.index(word) for word in text.split()), ASSISTANT]


@torch.no_grad()
def continued(model, ids, most):
    """New tokens, the end token included, by the largest logit of the whole sequence each time."""
    new = []
    while len(new) < most and END not in new:
        logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1]
        new.append(int(logits.argmax()))
    return new


def text_of(new):
    return " ".join(WORDS[token - 5] for token in new if token >= 5)


texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@settings(deadline=None, max_examples=20)
@given(st.lists(texts, min_size=1, max_size=7), st.integers(1, 8), st.integers(1, 10))
def test_greedy_is_the_naive_loop_whatever_the_batch(prompts, batch_size, most):
    encoded = [prompt_ids(prompt) for prompt in prompts]
    found = greedy(MODEL, TOKENIZER, encoded, most, batch_size, lambda count: None)
    expected = [continued(MODEL, ids, most) for ids in encoded]
    assert found == ([text_of(new) for new in expected], [len(new) for new in expected])


def test_padding_that_is_the_end_token_is_not_attended_to():
    # As where a vocabulary has no other token to pad with.
    tokenizer = make_word_tokenizer(WORDS)
    tokenizer.pad_token = tokenizer.eos_token
    encoded = [prompt_ids(text) for text in ("elm", "ash birch cedar elm fir", "fir fir hazel")]
    texts, _ = greedy(MODEL, tokenizer, encoded, 10, 3, lambda count: None)
    assert texts == [text_of(continued(MODEL, ids, 10)) for ids in encoded]


def test_the_naive_loop_sees_ends_cut_offs_and_different_words():
    # A model that always says the same would pass the test above whatever the batch does.
    new = [continued(MODEL, prompt_ids(f"{a} {b}"), 10) for a in WORDS for b in WORDS]
    assert any(END in tokens and len(tokens) > 1 for tokens in new)
    assert any(END not in tokens for tokens in new)
    assert len({tuple(tokens) for tokens in new}) > 10


def test_settings_saved_with_the_model_do_not_change_what_is_greedy():
    # As Qwen2.5's generation_config.json, which has a repetition penalty (of 1.05).
    model = new_model()
    assert model.generation_config is not None
    model.generation_config.repetition_penalty = 5.0
    encoded = [prompt_ids(f"{a} {b}") for a in WORDS for b in WORDS]
    _, lengths = greedy(model, TOKENIZER, encoded, 10, 40, lambda count: None)
    assert lengths == [len(continued(model, ids, 10)) for ids in encoded]


def test_progress_is_told_of_every_response():
    counts = []
    encoded = [prompt_ids(text) for text in ("ash", "elm fir", "fir", "ash ash ash", "elm")]
    greedy(MODEL, TOKENIZER, encoded, 2, 2, counts.append)
    assert counts == [2, 2, 1]


def prompts_table(texts):
    ids = [f"p{i}" for i in range(len(texts))]
    return pd.DataFrame({"prompt_id": ids, "prompt": texts, "category": None}, index=ids)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_responses_of_every_state_to_every_prompt(tmp_path, batch_size):
    drifts = write_adapter(tmp_path / "v", SHAPES)
    states = [
        state("base", None),
        state("0.5", tmp_path / "v", 0.5),
        state("-1.0", tmp_path / "v", -1.0),
    ]
    asked = ["elm", "ash birch cedar elm fir", "", "fir fir hazel", "cedar birch"]
    responses = generate_responses(
        MODEL, TOKENIZER, prompts_table(asked), states, max_new_tokens=8, batch_size=batch_size
    )
    rows = []
    for name, multiplier in (("base", 0.0), ("0.5", 0.5), ("-1.0", -1.0)):
        moved = new_model()
        modules = dict(moved.named_modules())
        for module, drift in drifts.items():
            modules[module].weight.data += multiplier * drift  # pyright: ignore
        for i, text in enumerate(asked):
            new = continued(moved, prompt_ids(text), 8)
            rows.append((name, f"p{i}", text, text_of(new), len(new)))
    columns = ["state", "prompt_id", "prompt", "response", "response_tokens"]
    pd.testing.assert_frame_equal(responses, pd.DataFrame(rows, columns=pd.Index(columns)))
    # The states do differ, so that a state that was not applied would show.
    assert responses.groupby("state")["response"].agg(tuple).nunique() == 3


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_weights_are(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("multiplier", [1.0, -0.3])
def test_a_state_is_theta_0_plus_the_scaled_drift_and_then_theta_0_again(
    tmp_path, dtype, multiplier
):
    model = new_model().to(dtype)
    drifts = write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    with state_applied(model, str(tmp_path / "v"), multiplier):
        inside = weights_of(model)
    assert_weights_are(model, before)
    for name in before:
        drift = drifts.get(name.removesuffix(".weight"))
        if drift is None:
            assert torch.equal(inside[name], before[name])
            continue
        expected = before[name].double() + multiplier * drift
        # An addition rounds once, and drift was computed in float32: a few units in the last place.
        tolerance = 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(
            inside[name].double(), expected, rtol=tolerance, atol=20 * tolerance
        )
        assert not torch.equal(inside[name], before[name])


def test_theta_0_is_applied_by_doing_nothing():
    model = new_model()
    before = weights_of(model)
    with state_applied(model, None, 3.0):
        assert_weights_are(model, before)
    assert_weights_are(model, before)


def test_the_weights_are_restored_after_an_error(tmp_path):
    model = new_model().float()
    write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    with pytest.raises(ValueError, match="inside"), state_applied(model, str(tmp_path / "v"), 1.0):
        raise ValueError("inside")
    assert_weights_are(model, before)


def test_states_do_not_pile_up(tmp_path):
    model = new_model().float()
    write_adapter(tmp_path / "v", SHAPES)
    before = weights_of(model)
    for _ in range(20):
        with state_applied(model, str(tmp_path / "v"), 0.7):
            pass
    assert_weights_are(model, before)


def test_an_adapter_that_does_not_fit_leaves_the_weights_alone(tmp_path):
    model = new_model()
    # down_proj comes first in the adapter, and fits; v_proj has another input width.
    write_adapter(tmp_path / "v", SHAPES | {V_PROJ: (8, 17)})
    before = weights_of(model)
    message = rf"{V_PROJ}: the adapter needs a weight \(8, 17\), the model has \(8, 16\)"
    with pytest.raises(ShapeMismatch, match=message), state_applied(model, str(tmp_path / "v"), 1):
        pass
    assert_weights_are(model, before)


def test_an_adapter_of_a_deeper_model_is_named(tmp_path):
    model = new_model()
    absent = "model.layers.1.self_attn.v_proj"
    write_adapter(tmp_path / "v", SHAPES | {absent: (8, 16)})
    message = rf"{absent}: the adapter needs a weight \(8, 16\), the model has None"
    with pytest.raises(ShapeMismatch, match=message), state_applied(model, str(tmp_path / "v"), 1):
        pass
