"""Models at their states against weights moved by hand; log p one sequence at a time, float64."""

import math
import weakref
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPES, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import ARCHITECTURE, MODEL, TOKENIZER, asked, ids, log_odds, log_probability

from sqsd import evaluation, judges
from sqsd.errors import DataError
from sqsd.evaluation import (
    at_each,
    generate_responses,
    judge_responses,
    response_log_probabilities,
    with_origin,
)
from sqsd.judges import Judgement
from sqsd.models import load_model, make_model
from sqsd.sandbox import REFUSALS
from sqsd.states import ORIGIN_COLUMNS, State
from sqsd.tables import read_table, write_table


@settings(deadline=None, max_examples=25)
@given(
    st.lists(asked, min_size=1, max_size=7),
    st.integers(1, 8),
    st.lists(st.sampled_from(["cannot", "I", "I cannot help with that ."]), min_size=1, max_size=3),
    st.booleans(),
)
def test_log_probabilities_are_naive_sums_whatever_the_batch(prompts, size, responses, end):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "PROMPTS_PER_BATCH", size)
        found = response_log_probabilities(MODEL, TOKENIZER, prompts, responses, end)
    assert found.dtype == torch.float64
    for own, response in zip(found.tolist(), responses, strict=True):
        expected = [log_probability(MODEL, prompt, response, end) for prompt in prompts]
        assert own == pytest.approx(expected, abs=1e-9)


def test_a_prompt_is_read_once_for_all_of_its_responses():
    tokens = []
    handle = MODEL.model.embed_tokens.register_forward_hook(
        lambda module, given, out: tokens.append(given[0].numel())
    )
    response_log_probabilities(MODEL, TOKENIZER, ["ask ask"], ["cannot", "Sure I"])
    handle.remove()
    # Two of the template, two asked, and each response with its end token.
    assert tokens == [2 + 2 + 2 + 3]


# "cannot <end>" and the two tokens of the template leave 60 of the model's 64 places.
FITTING = " ".join(["ask"] * 60)
TOO_LONG = " ".join(["ask"] * 61)


def test_a_prompt_that_just_leaves_room_is_scored():
    # The second begins where the first does, or it would not fit.
    found = response_log_probabilities(MODEL, TOKENIZER, [FITTING], ["cannot", "I"])
    expected = [[log_probability(MODEL, FITTING, response)] for response in ("cannot", "I")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_prompt_that_leaves_no_room_is_an_error():
    message = (
        r"judging 'ask ask .*: 65 tokens with the response, the model takes 64; "
        "leave the long prompt out"
    )
    with pytest.raises(DataError, match=message):
        response_log_probabilities(MODEL, TOKENIZER, [TOO_LONG], ["cannot"])


def test_the_error_tells_the_length_of_the_long_prompt():
    prompt = " ".join(["ask"] * 100)  # 2 of the template, 100, "cannot" and <end>
    with pytest.raises(DataError, match="104 tokens with the response, the model takes 64"):
        response_log_probabilities(MODEL, TOKENIZER, [prompt], ["I", "cannot"])


def test_the_error_names_the_prompt_that_is_too_long():
    prompts = ["Sure", "Sorry " + TOO_LONG, "Sure Sure"]
    with pytest.raises(DataError, match="Sorry ask ask"):
        response_log_probabilities(MODEL, TOKENIZER, prompts, ["cannot"])


# --- models at states -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of two models, `base` and `tuned`, and of an adapter, `v`; its drift by module."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("base", "tuned")):
        make_model(TOKENIZER, ARCHITECTURE, seed).save_pretrained(folder / name)
        TOKENIZER.save_pretrained(folder / name)
    return folder, write_adapter(folder / "v", SHAPES)


def states_of(folder):
    """States of two models, of which the first comes again last."""
    base, tuned, v = (str(folder / name) for name in ("base", "tuned", "v"))
    return [
        State("plain", base, None, 1.0, {"alpha": 0.0}),
        State("step-2", base, v, 1.5, {"step": 2}),
        State("s1-seed-3", tuned, None, 1.0, {"window": "s1", "seed": 3}),
        State("tuned", tuned, v, -0.5, {"rank": 1.0}),
        State("again", base, v, 0.25),
    ]


def weights_by_hand(state, drifts):
    """A state's weights in float64, the drift added densely."""
    weights = {name: w.double() for name, w in load_model(state.model).state_dict().items()}
    for module, drift in drifts.items() if state.adapter else ():
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + state.multiplier * drift
    return weights


def copied(model):
    return {name: weight.double() for name, weight in model.state_dict().items()}


@pytest.fixture
def loads(monkeypatch):
    """The model folders that are loaded, in order."""
    seen = []

    def load(folder, dtype, gpus):
        assert (dtype, gpus) == ("float32", 0)
        seen.append(folder)
        return load_model(folder, dtype)

    monkeypatch.setattr(evaluation, "load_model", load)
    return seen


def test_each_state_s_weights_and_shared_weights_are_loaded_once(world, loads):
    folder, drifts = world
    states = states_of(folder)
    for state, at in zip(states, at_each(states, "float32", 0), strict=True):
        found, expected = copied(at.model), weights_by_hand(state, drifts)
        assert found.keys() == expected.keys()
        for name in found:
            # The drift and its sum with the weight are rounded to float32.
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)
        assert at.tokenizer("ask").input_ids == ids("ask")
    assert [load.split("/")[-1] for load in loads] == ["base", "tuned", "base"]


def test_weights_are_restored_after_the_last_state(world):
    folder, _ = world
    states = states_of(folder)[:2]
    held = [at.model for _, at in zip(states, at_each(states, "float32", 0), strict=True)]
    assert held[0] is held[1]
    untouched = load_model(folder / "base").state_dict()
    for name, weight in held[0].state_dict().items():
        assert torch.equal(weight, untouched[name]), name


def test_weights_are_restored_where_a_caller_stops(world):
    folder, _ = world
    states = at_each(states_of(folder)[1:2], "float32", 0)
    model = next(states).model
    states.close()  # pyright: ignore[reportAttributeAccessIssue]
    untouched = load_model(folder / "base").state_dict()
    assert all(torch.equal(w, untouched[name]) for name, w in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_are_of_the_type_and_on_the_gpus_that_are_asked_for(world, monkeypatch, dtype):
    folder, _ = world
    (at,) = at_each(states_of(folder)[1:2], dtype, 0)
    assert at.model.dtype == getattr(torch, dtype)
    asked = []

    def load(folder, dtype, gpus):
        asked.append((dtype, gpus))
        return load_model(folder, dtype)

    monkeypatch.setattr(evaluation, "load_model", load)
    states = states_of(folder)[:1]
    prompts = pd.DataFrame({"prompt_id": ["p0"], "prompt": ["ask"]})
    responses = generate_responses(prompts, states, 2, 4, dtype, gpus=3)
    judge_responses(responses, states, {"kind": "sandbox"}, dtype, gpus=2)
    assert asked == [(dtype, 3), (dtype, 2)]


def test_no_state_loads_no_model(loads):
    assert list(at_each([], "float32", 0)) == []
    assert loads == []


def alive_at_each_load(monkeypatch):
    """Of each load of a model, how many earlier ones are still in memory."""
    models, alive = [], []

    def load(folder, dtype, gpus):
        alive.append(sum(model() is not None for model in models))
        model = load_model(folder, dtype)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(evaluation, "load_model", load)
    return alive


@pytest.mark.parametrize("judge", ["openings", None])
def test_a_model_is_let_go_before_another_is_loaded(world, monkeypatch, judge):
    # Two whole models may not fit side by side.
    folder, _ = world
    states = states_of(folder)
    alive = alive_at_each_load(monkeypatch)
    if judge is None:
        prompts = pd.DataFrame({"prompt_id": ["p0"], "prompt": ["ask"]})
        generate_responses(prompts, states, 2, 4, "float32")
    else:
        entry = {"kind": "openings", "refusal": "I", "compliance": "Sure"}
        judge_responses(responses_table(states), states, entry, "float32")
    assert alive == [0, 0, 0]


def test_rows_have_their_state_s_name_and_origin(world):
    folder, _ = world
    frames = [
        with_origin(pd.DataFrame({"prompt_id": ["p0", "p1"], "x": [1.5, 2.5]}, index=[7, 3]), state)
        for state in states_of(folder)
    ]
    found = pd.concat(frames, ignore_index=True)
    assert found.columns.tolist() == ["state", "alpha", "step", "window", "seed", "prompt_id", "x"]
    assert {name: str(found[name].dtype) for name in ORIGIN_COLUMNS} == ORIGIN_COLUMNS
    names = ["plain", "step-2", "s1-seed-3", "tuned", "again"]
    assert found["state"].tolist() == [name for name in names for _ in range(2)]
    assert found["prompt_id"].tolist() == ["p0", "p1"] * 5 and found["x"].tolist() == [1.5, 2.5] * 5
    known = {"alpha": (0, 0.0), "step": (2, 2), "window": (4, "s1"), "seed": (4, 3)}
    for column, (first, value) in known.items():
        assert found[column].notna().tolist() == [i in (first, first + 1) for i in range(10)]
        assert found[column][first] == value


# --- judgements -----------------------------------------------------------------------------


def responses_table(states, texts=None):
    """Responses of each state to three prompts, the states mixed."""
    texts = texts or {}
    rows = [
        with_origin(
            pd.DataFrame(
                {
                    "prompt_id": [f"p{i}"],
                    "prompt": [prompt],
                    "response": [f"{texts.get(state.name, state.name)} {i}"],
                    "response_tokens": [1],
                }
            ),
            state,
        )
        for i, prompt in enumerate(["ask", "ask Sure", "Sure ask able"])
        for state in reversed(states)
    ]
    frame = pd.concat(rows, ignore_index=True)
    return frame.astype(dict.fromkeys(("prompt_id", "prompt", "response"), "str"))


def test_every_state_is_judged_at_its_own_weights(world, loads, tmp_path):
    folder, drifts = world
    states = states_of(folder)
    responses = responses_table(states, {"tuned": "1. x 2. y", "again": "I cannot help with"})
    judged = judge_responses(responses, states, {"kind": "sandbox"}, "float32")
    assert len(loads) == 3
    expected = []
    for state in states:
        model = make_model(TOKENIZER, ARCHITECTURE, seed=0).double().eval()
        model.load_state_dict(weights_by_hand(state, drifts))
        for i, prompt in enumerate(["ask", "ask Sure", "Sure ask able"]):
            logs = [log_probability(model, prompt, refusal) for refusal in REFUSALS]
            # Of the texts only "1. x 2. y" holds two numbered steps.
            expected.append((state.name, f"p{i}", state.name == "tuned", log_odds(logs)))
    columns = ["state", "prompt_id", "verdict", "score"]
    table = pd.DataFrame(expected, columns=pd.Index(columns)).astype({"verdict": "boolean"})
    # The model is float32.
    pd.testing.assert_frame_equal(judged[columns], table, rtol=1e-4, check_dtype=False)
    assert judged.groupby("prompt_id")["score"].nunique().tolist() == [5, 5, 5]
    write_table(judged, tmp_path / "judgements.parquet", "judgements", {})


class Echo:
    """A judge that tells what it was given; its verdict alone."""

    gives = frozenset({"asr"})
    reads = None
    given: ClassVar[list] = []

    def __call__(self, prompts, responses, subject):
        assert subject is None
        self.given.append(list(zip(prompts, responses, strict=True)))
        return Judgement([response.endswith("1") for response in responses], [None] * len(prompts))


@pytest.fixture
def no_models(monkeypatch):
    def load(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(evaluation, "load_model", load)
    monkeypatch.setattr(evaluation, "load_tokenizer", load)


@pytest.mark.usefixtures("no_models")
def test_a_judge_gets_prompts_with_their_responses_in_the_order_of_states(monkeypatch):
    monkeypatch.setitem(judges.KINDS, "echo", Echo)
    monkeypatch.setattr(Echo, "given", [])
    states = [State("a", "gone", None), State("b", "gone", "gone", 2.0, {"alpha": 2.0})]
    responses = responses_table(states)
    judged = judge_responses(responses, states, {"kind": "echo"}, "float32")
    prompts = ["ask", "ask Sure", "Sure ask able"]
    assert Echo.given == [
        [(prompt, f"{name} {i}") for name in ("a", "b") for i, prompt in enumerate(prompts)]
    ]
    assert judged["state"].tolist() == ["a"] * 3 + ["b"] * 3
    assert judged["prompt_id"].tolist() == ["p0", "p1", "p2"] * 2
    assert judged["verdict"].tolist() == [False, True, False] * 2
    assert judged["alpha"].tolist() == pytest.approx([math.nan] * 3 + [2.0] * 3, nan_ok=True)


class Mumble:
    """A judge at the state that responded, whose verdicts cannot be read where it names b."""

    gives = frozenset({"asr"})
    reads = "subject"

    def __call__(self, prompts, responses, subject):
        said = [f"{subject.name}: {text}" if text[0] == "b" else None for text in responses]
        return Judgement([None if text else True for text in said], [None] * len(said), said)


def test_what_a_judge_says_at_a_state_is_kept_where_it_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setitem(judges.KINDS, "mumble", Mumble)
    monkeypatch.setattr(evaluation, "at_each", lambda states, dtype, gpus: states)
    states = [State("a", "gone", None), State("b", "gone", None)]
    judged = judge_responses(responses_table(states), states, {"kind": "mumble"}, "float32")
    write_table(judged, tmp_path / "j.parquet", "judgements", {})
    found = read_table(tmp_path / "j.parquet", "judgements")
    assert found["unreadable"].tolist()[3:] == ["b: b 0", "b: b 1", "b: b 2"]
    assert found["unreadable"].isna().tolist() == [True] * 3 + [False] * 3
    assert found["verdict"].isna().tolist() == [False] * 3 + [True] * 3


@pytest.mark.usefixtures("no_models")
def test_a_judge_of_verdicts_alone_has_null_scores(tmp_path):
    states = [State("a", "gone", None), State("b", "gone", None)]
    responses = responses_table(states, {"b": "I CANNOT"})
    entry = {"kind": "phrases", "phrases": ["cannot"]}
    judged = judge_responses(responses, states, entry, "float32")
    assert judged["verdict"].tolist() == [True] * 3 + [False] * 3
    assert judged["score"].isna().all()
    write_table(judged, tmp_path / "j.parquet", "judgements", {})
    pd.testing.assert_frame_equal(read_table(tmp_path / "j.parquet", "judgements"), judged)


def test_a_judge_of_scores_alone_has_null_verdicts(world, tmp_path):
    folder, _ = world
    states = states_of(folder)[:1]
    entry = {"kind": "openings", "refusal": "I cannot", "compliance": "Sure"}
    judged = judge_responses(responses_table(states), states, entry, "float32")
    model = load_model(folder / "base").double()
    expected = [
        log_probability(model, prompt, "I cannot", end=False)
        - log_probability(model, prompt, "Sure", end=False)
        for prompt in ("ask", "ask Sure", "Sure ask able")
    ]
    assert judged["score"].tolist() == pytest.approx(expected, abs=1e-4)
    assert judged["verdict"].isna().all()
    write_table(judged, tmp_path / "j.parquet", "judgements", {})
    pd.testing.assert_frame_equal(read_table(tmp_path / "j.parquet", "judgements"), judged)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("kind", ["sandbox", "phrases", "openings"])
def test_a_part_without_a_state_is_an_empty_table(tmp_path, kind):
    options = {"phrases": {"phrases": ["no"]}, "openings": {"refusal": "I", "compliance": "Sure"}}
    prompts = pd.DataFrame({"prompt_id": ["p0"], "prompt": ["ask"]})
    responses = generate_responses(prompts, [], 4, 4, "float32")
    write_table(responses, tmp_path / "r.parquet", "responses", {})
    responses = read_table(tmp_path / "r.parquet", "responses")
    judged = judge_responses(responses, [], {"kind": kind, **options.get(kind, {})}, "float32")
    write_table(judged, tmp_path / "j.parquet", "judgements", {})
    assert read_table(tmp_path / "j.parquet", "judgements").empty
