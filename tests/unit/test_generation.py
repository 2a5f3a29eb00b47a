"""Greedy responses against a loop of one token, one prompt and no cache at a time, in float64."""

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER, SHAPES, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.generation import generate_responses, greedy
from sqsd.models import make_model, make_word_tokenizer

ARCHITECTURE = ONE_LAYER | {
    "initializer_range": 0.4,  # so that what comes next hangs on what came before
}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel"]
TOKENIZER = make_word_tokenizer(WORDS)
USER, ASSISTANT, END = 2, 3, 4  # the ids of the template's tokens; words follow from 5 on


def new_model():
    """A model with a head of its own: a tied one would mostly repeat the last word."""
    model = make_model(TOKENIZER, ARCHITECTURE, seed=5).double().eval()
    generator = torch.Generator().manual_seed(4)
    head = torch.randn(len(TOKENIZER), 16, generator=generator, dtype=torch.float64)
    head[0] = 0  # <pad> has logit 0, below the largest of ten others
    model.lm_head.weight = torch.nn.Parameter(head)
    return model


MODEL = new_model()


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
