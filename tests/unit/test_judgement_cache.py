"""What has been judged is not judged again: by whom, of what, and what becomes of broken files."""

from collections import Counter
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from sqsd import evaluation, judges
from sqsd.evaluation import judge_responses, with_origin
from sqsd.judgement_cache import JudgementCache
from sqsd.judges import Judgement
from sqsd.states import State
from sqsd.tables import SCHEMAS, read_table, write_frame, write_table

ENTRY = {"kind": "cost", "model": "any"}
STATES = [State("a", "m", None), State("b", "m", None, 1.0, {"alpha": 0.5})]
TEXTS = [("p", "one"), ("q", "two"), ("q", "one"), ("r", "")]


class Costs:
    """Stands for a cost model: counts what it is asked; has no cost of an empty response."""

    def __init__(self):
        self.asked = Counter()

    def costs(self, prompts, responses, end_token, blank):
        self.asked.update(zip(prompts, responses, strict=True))
        return [cost(*pair) if pair[1] else None for pair in zip(prompts, responses, strict=True)]


def cost(prompt, response):
    return len(response) + ord(prompt) / 7


@pytest.fixture
def model(monkeypatch):
    """The cost model that every folder holds."""
    costs = Costs()
    monkeypatch.setattr(evaluation, "load_cost_model", lambda folder, dtype: costs)
    return costs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("of one model")
    return tmp_path / "model"


def responses(texts, states=STATES):
    frames = [
        with_origin(
            pd.DataFrame(
                {
                    "prompt_id": [f"{i}" for i in range(len(texts))],
                    "prompt": [prompt for prompt, _ in texts],
                    "response": [response for _, response in texts],
                    "response_tokens": 1,
                }
            ).astype({"prompt_id": "str", "prompt": "str", "response": "str"}),
            state,
        )
        for state in states
    ]
    return pd.concat(frames, ignore_index=True)


def judged(folder, texts=tuple(TEXTS), states=STATES, **changed):
    options = {
        "entry": ENTRY, "dtype": "float32", "work": folder.parent / "work", "version": 3,
    } | changed  # fmt: skip
    return judge_responses(responses(texts, states), states, own_model=str(folder), **options)


def files(folder) -> list[Path]:
    return sorted((folder.parent / "work").rglob("*.parquet"))


def test_a_response_that_several_states_give_is_judged_once(model, folder):
    found = judged(folder, work=None)
    assert model.asked == Counter(TEXTS)
    assert found["state"].tolist() == ["a"] * 4 + ["b"] * 4
    assert found["alpha"].isna().tolist() == [True] * 4 + [False] * 4
    expected = [-cost(*pair) if pair[1] else None for pair in TEXTS] * 2
    for score, wanted in zip(found["score"], expected, strict=True):
        assert pd.isna(score) if wanted is None else score == pytest.approx(wanted)


def test_prompt_and_response_both_count(model):
    texts = [("p", "x"), ("q", "x"), ("p", "y")]
    found = judge_responses(responses(texts), STATES, ENTRY, "float32", own_model="gone")
    assert model.asked == Counter(texts)
    assert found["score"].nunique() == 2  # x and y are as long


def test_what_an_earlier_job_judged_is_read(model, folder, monkeypatch):
    first = judged(folder)
    model.asked.clear()
    more = [*TEXTS, ("s", "three")]
    second = judged(folder, more)
    # The response without a cost has been judged, too.
    assert model.asked == Counter([("s", "three")])
    pd.testing.assert_frame_equal(
        second[second["prompt_id"] != "4"].reset_index(drop=True), first, check_exact=True
    )
    # And with nothing new to judge no model is loaded.
    monkeypatch.setattr(evaluation, "load_cost_model", None)
    pd.testing.assert_frame_equal(judged(folder, more), second, check_exact=True)
    without = judged_without(monkeypatch, model, folder, more)
    pd.testing.assert_frame_equal(without, second, check_exact=True)


def judged_without(monkeypatch, model, folder, texts):
    monkeypatch.setattr(evaluation, "load_cost_model", lambda folder, dtype: model)
    return judged(folder, texts, work=None)


def test_each_job_adds_what_was_new_to_it(model, folder):
    judged(folder, TEXTS[:2])
    judged(folder, TEXTS[1:])
    tables = [read_table(path, "known_judgements") for path in files(folder)]
    pairs = sorted(sorted(zip(t["prompt"], t["response"], strict=True)) for t in tables)
    assert pairs == sorted([sorted(TEXTS[:2]), sorted(TEXTS[2:])])


OTHERS = {
    "option": {"entry": ENTRY | {"blank": True}},
    "name": {"entry": ENTRY | {"model": "other"}},
    "kind": {"entry": {"kind": "dear", "model": "any"}},
    "type": {"dtype": "bfloat16"},
    "version": {"version": 4},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_judge_is_told_nothing(model, folder, monkeypatch, other):
    monkeypatch.setitem(judges.KINDS, "dear", judges.CostJudge)
    judged(folder)
    judged(folder, **OTHERS[other])
    assert model.asked == Counter(TEXTS * 2)


def test_another_model_in_the_same_place_is_told_nothing(model, folder):
    judged(folder)
    (folder / "weights").write_text("of another")
    judged(folder)
    assert model.asked == Counter(TEXTS * 2)


class Guard:
    """Stands for a guard that answers a response with itself."""

    def complete(self, prompts, responses, most):
        return responses


# What the guard says of each, and so each response; a verdict can be read from two of them.
SAID = ["safe", "\n\nSafety: fine\n" + "so " * 40, "unsafe", ""]
KEPT = [None, SAID[1], None, ""]


def unreadable(table):
    return [None if pd.isna(text) else text for text in table["unreadable"]]


def test_what_the_guard_said_is_kept_where_no_verdict_can_be_read(folder, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "load_own", lambda *_: Guard())
    entry, texts = {"kind": "guard", "model": "any"}, [("p", said) for said in SAID]
    first = judged(folder, texts, entry=entry)
    assert unreadable(first) == KEPT * 2
    assert first["verdict"].isna().tolist() == [False, True, False, True] * 2
    (path,) = files(folder)
    assert unreadable(read_table(path, "known_judgements")) == KEPT
    # What was judged before is read from there: no model is loaded.
    monkeypatch.setattr(evaluation, "load_own", None)
    capsys.readouterr()
    again = judged(folder, texts, entry=entry)
    # 60 characters of the first text, on one line.
    shown = r"'\n\nSafety: fine\n" + "so " * 15 + "'"
    message = f"4 of 8 verdicts cannot be read; the judge said first {shown}\n"
    assert message in capsys.readouterr().out
    judged(folder, texts[::2], entry=entry)
    assert "cannot be read" not in capsys.readouterr().out
    write_table(again, folder.parent / "judgements.parquet", "judgements", {})
    again = read_table(folder.parent / "judgements.parquet", "judgements")
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize("content", [b"", b"PAR1 torn", None, "older"])
def test_a_broken_file_is_told_of_and_judged_again(model, folder, capsys, content):
    first = judged(folder)
    (path,) = files(folder)
    if content is None:  # a table of another kind
        write_table(responses(TEXTS), path, "responses", {})
    elif content == "older":  # of when what a guard had said was not kept
        write_frame(read_table(path, "known_judgements").drop(columns="unreadable"), path, {})
    else:
        path.write_bytes(content)
    capsys.readouterr()
    pd.testing.assert_frame_equal(judged(folder), first, check_exact=True)
    assert model.asked == Counter(TEXTS * 2)
    assert f"judged again: {path}: " in capsys.readouterr().out
    # The same pairs have the same file: it is whole again.
    assert len(read_table(path, "known_judgements")) == len(TEXTS)
    assert files(folder) == [path]


def test_jobs_side_by_side_may_judge_the_same(model, folder):
    cache = JudgementCache.of(folder.parent / "work", ENTRY, str(folder), "float32", 3)
    rows = {"prompt": ["p", "q"], "response": ["one", "two"], "score": [5.0, 6.0]}
    kinds = {"prompt": "str", "response": "str", "verdict": "boolean", "unreadable": "str"}
    table = pd.DataFrame(rows | {"verdict": None, "unreadable": None}).astype(kinds)
    table = table[list(SCHEMAS["known_judgements"].columns)]
    cache.add(table)
    cache.add(table.iloc[:1].assign(score=5.5))
    known = cache.read()
    assert sorted(known["response"]) == ["one", "two"]
    found = judged(folder, [("p", "one"), ("q", "two")])
    assert not model.asked
    assert found["score"].tolist()[0] in (5.0, 5.5) and found["score"].tolist()[1] == 6.0


def test_many_responses_are_judged_a_part_at_a_time(model, folder, monkeypatch):
    monkeypatch.setattr(evaluation, "PAIRS_AT_ONCE", 3)
    texts = [("p", "x" * i) for i in range(1, 9)]
    found = judged(folder, texts, STATES[:1])
    assert found["score"].tolist() == pytest.approx([-cost("p", "x" * i) for i in range(1, 9)])
    assert model.asked == Counter(texts)


class Verdicts:
    """A judge of verdicts by text alone, which counts what it is asked."""

    gives = frozenset({"asr"})
    reads = None
    asked: ClassVar = Counter()

    def __call__(self, prompts, responses, model):
        assert model is None
        self.asked.update(zip(prompts, responses, strict=True))
        return Judgement([r == "two" if r else None for r in responses], [None] * len(responses))


def test_a_judge_without_a_model_judges_once_and_keeps_nothing(folder, monkeypatch):
    monkeypatch.setitem(judges.KINDS, "texts", Verdicts)
    work = folder.parent / "work"
    found = judge_responses(responses(TEXTS), STATES, {"kind": "texts"}, "float32", work=work)
    assert Verdicts.asked == Counter(TEXTS)
    assert found["verdict"].tolist()[:3] == [False, True, False] and pd.isna(found["verdict"][3])
    assert not work.exists()
