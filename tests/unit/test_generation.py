"""Greedy responses against a loop of one token, one prompt and no cache at a time, in float64."""

import json

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER, SHAPES, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.evaluation import generate_responses
from sqsd.generation import greedy
from sqsd.models import load_model, make_model, make_word_tokenizer
from sqsd.states import State
from sqsd.tables import write_table

ARCHITECTURE = ONE_LAYER | {
    "initializer_range": 0.4,  # so that what comes next hangs on what came before
}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel"]
TOKENIZER = make_word_tokenizer(WORDS)
USER, ASSISTANT, END = 2, 3, 4  # the ids of the template's tokens; words follow from 5 on


def new_model(head=4):
    """A model with a head of its own: a tied one would mostly repeat the last word."""
    model = make_model(TOKENIZER, ARCHITECTURE, seed=5).double().eval()
    generator = torch.Generator().manual_seed(head)
    weight = torch.randn(len(TOKENIZER), 16, generator=generator, dtype=torch.float64)
    weight[0] = 0  # <pad> has logit 0, below the largest of ten others
    model.lm_head.weight = torch.nn.Parameter(weight)
    return model


MODEL = new_model()


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


def save(model, folder):
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of two models and of an adapter, and the adapter's drift by module."""
    folder = tmp_path_factory.mktemp("world")
    folders = [save(new_model(), folder / "base"), save(new_model(head=6), folder / "tuned")]
    return *folders, str(folder / "v"), write_adapter(folder / "v", SHAPES)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_responses_of_every_state_to_every_prompt(world, tmp_path, batch_size):
    base, tuned, v, drifts = world
    states = [
        State("plain", base, None),
        State.steered(base, v, 0.5),
        State.checkpoint(base, v, 3),
        State.finetuned(base, tuned, "full", "s1", 4),
    ]
    asked = ["elm", "ash birch cedar elm fir", "", "fir fir hazel", "cedar birch"]
    responses = generate_responses(
        prompts_table(asked), states, max_new_tokens=8, batch_size=batch_size, dtype="float32"
    )
    rows = []
    for state in states:
        moved = load_model(state.model).double()
        modules = dict(moved.named_modules())
        for module, drift in drifts.items() if state.adapter else ():
            modules[module].weight.data += state.multiplier * drift  # pyright: ignore
        for i, text in enumerate(asked):
            new = continued(moved, prompt_ids(text), 8)
            rows.append((state.name, f"p{i}", text, text_of(new), len(new)))
    columns = ["state", "prompt_id", "prompt", "response", "response_tokens"]
    expected = pd.DataFrame(rows, columns=pd.Index(columns))
    pd.testing.assert_frame_equal(responses[columns], expected)
    assert responses["alpha"].dropna().tolist() == [0.5] * 5
    assert responses["step"].dropna().tolist() == [3] * 5
    assert responses["window"].dropna().tolist() == ["s1"] * 5
    assert responses["seed"].dropna().tolist() == [4] * 5
    # The states do differ, so that a state that was not applied would show.
    assert responses.groupby("state")["response"].agg(tuple).nunique() == 4
    write_table(responses, tmp_path / "responses.parquet", "responses", {})


def test_prompts_are_encoded_by_each_model_s_own_tokenizer(world, tmp_path):
    base, *_ = world
    # The same model, whose words are in another order.
    other = make_word_tokenizer(WORDS)
    state = json.loads(other.backend_tokenizer.to_str())
    ids = {word: 5 + i for i, word in enumerate(reversed(WORDS))}
    state["model"]["vocab"] |= ids
    (tmp_path / "other").mkdir()
    load_model(base).save_pretrained(tmp_path / "other")
    other._tokenizer = other.backend_tokenizer.from_str(json.dumps(state))
    other.save_pretrained(tmp_path / "other")
    states = [State("a", base, None), State("b", str(tmp_path / "other"), None)]
    responses = generate_responses(prompts_table(["ash birch"]), states, 8, 4, "float32")
    model = load_model(base).double()
    mirrored = dict(zip(WORDS, reversed(WORDS), strict=True))
    plain = text_of(continued(model, prompt_ids("ash birch"), 8))
    other_way = text_of(continued(model, prompt_ids("hazel fir"), 8))
    expected = " ".join(mirrored[word] for word in other_way.split())
    assert responses["response"].tolist() == [plain, expected]
