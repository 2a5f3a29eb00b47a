"""Rows of a data set and scores of anyone's, matched by their texts."""

import json
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.readings import ScoreFile, Tokens, read_readings
from sqsd.score_files import match_scores
from sqsd.scorers import score_method
from sqsd.sources import load_dataset, load_scores
from sqsd.tables import write_table

FIELDS = {"instruction": "q", "context": "c", "response": "a", "score": "risk"}
PAIR = {name: FIELDS[name] for name in ("instruction", "context", "response")}
ROWS = [
    {"q": "Name a colour.", "c": "", "a": "Blue."},
    {"q": "Add these.", "c": "1 and 2", "a": "3\nor three"},
    {"q": "Add these. 1 and 2", "c": "", "a": "4"},
    {"q": "Who?", "c": None, "a": "I."},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_dataset(folder, rows):
    """The table of a data set of these rows."""
    source = write_jsonl(folder / "rows.jsonl", rows)
    path = folder / "dolly.parquet"
    write_table(load_dataset({"source": source, "fields": PAIR}), path, "dataset", {})
    return str(path)


def matched(folder, rows, given):
    """Scores and reasons of the rows, None for none, in the order of the data set."""
    found = match_scores(
        write_dataset(folder, rows), write_jsonl(folder / "theirs.jsonl", given), FIELDS
    )
    found = found[["score", "reason"]].astype(object)
    return list(found.where(found.notna(), None).itertuples(index=False, name=None))


def scored(*risks):
    return [row | {"risk": risk} for row, risk in zip(ROWS, risks, strict=True)]


def test_a_row_has_the_score_of_its_texts_wherever_it_stands(tmp_path, capsys):
    given = [*reversed(scored(1.5, -2.0, 3, 0.0)), {"q": "More?", "c": "", "a": "No.", "risk": 9}]
    assert matched(tmp_path, ROWS, given) == [(1.5, None), (-2.0, None), (3.0, None), (0.0, None)]
    assert capsys.readouterr().out == (f"4 of 4 rows have a score in {tmp_path / 'theirs.jsonl'}\n")


def test_whitespace_is_no_difference_and_anything_else_is(tmp_path):
    given = [
        {"q": " Name\ta  colour. ", "c": " ", "a": "Blue.\n", "risk": 1},
        # What is joined here is in one piece there.
        {"q": "Add these.\n\n1 and 2", "c": "", "a": "3 or\u00a0three", "risk": 2},
        {"q": "Who?", "c": "", "a": "i.", "risk": 3},
    ]
    assert matched(tmp_path, ROWS, given) == [
        (1.0, None), (2.0, None), (None, "not in the score file"), (None, "not in the score file"),
    ]  # fmt: skip


def test_a_prompt_s_end_is_not_a_response_s_beginning(tmp_path):
    rows = [{"q": "a b", "c": "", "a": "c"}, {"q": "x", "c": "", "a": "y"}]
    given = [{"q": "a", "c": "", "a": "b c", "risk": 1}, {"q": "x", "c": "", "a": "y", "risk": 2}]
    assert matched(tmp_path, rows, given) == [(None, "not in the score file"), (2.0, None)]


def test_a_text_that_has_several_scores_has_none(tmp_path):
    given = [*scored(1, 2, None, None), *scored(1, 2.5, 3, None)]
    assert matched(tmp_path, ROWS, given) == [
        (1.0, None), (None, "different scores in the score file"), (3.0, None),
        (None, "no score in the score file"),
    ]  # fmt: skip


def test_a_row_that_is_there_twice_has_its_score_twice(tmp_path):
    given = scored(1, 2, 3, 4)
    assert matched(tmp_path, [ROWS[1], ROWS[0], ROWS[1]], given) == [
        (2.0, None), (1.0, None), (2.0, None),
    ]  # fmt: skip


@settings(deadline=None, max_examples=20)  # it writes files
@given(st.permutations(range(4)), st.permutations(range(4)), st.sets(st.integers(0, 3), min_size=1))
def test_neither_order_is_of_account(tmp_path_factory, mine, theirs, there):
    folder = tmp_path_factory.mktemp("orders")
    risks = scored(1.0, 2.0, 3.0, 4.0)
    given = [risks[i] for i in theirs if i in there]
    assert matched(folder, [ROWS[i] for i in mine], given) == [
        (i + 1.0, None) if i in there else (None, "not in the score file") for i in mine
    ]


def test_a_file_of_other_rows_is_refused_with_an_example_of_both(tmp_path):
    given = [
        {"q": "Q" * 70, "c": "", "a": "Z", "risk": 1},
        {"q": "R", "c": "", "a": "Y", "risk": 2},
    ]
    message = (
        f"{tmp_path / 'theirs.jsonl'}: none of its 2 rows is one of the 4 rows of "
        f"{tmp_path / 'dolly.parquet'}, by prompt and response; its first row: '{'Q' * 60}', 'Z'; "
        "the first row there: 'Name a colour.', 'Blue.'; correct `fields`, or score the data set "
        "that the file is of"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        matched(tmp_path, ROWS, given)


def test_messages_are_matched_as_texts(tmp_path):
    talk = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
    ]
    path = write_jsonl(tmp_path / "talks.jsonl", [{"talk": talk, "risk": 7}])
    found = match_scores(write_dataset(tmp_path, ROWS), path, {"messages": "talk", "score": "risk"})
    assert (
        found["score"].tolist()[0] == 7 and found["reason"].isna().tolist() == [True] + [False] * 3
    )


NUMBERS = [3, -2.5, 1e-3, "4.25", "-1e2", None, ""]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_scores_of_every_kind_of_file(tmp_path, suffix):
    values = [1.5, None, -2e-3]
    rows = [{"q": f"{i}", "a": "a", "risk": value} for i, value in enumerate(values)]
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        text = "\n".join(map(json.dumps, rows)) if suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text)
    fields = {"instruction": "q", "response": "a", "score": "risk"}
    found = load_scores(str(path), fields)
    assert found["prompt"].tolist() == ["0", "1", "2"] and set(found["response"]) == {"a"}
    assert found["score"].dropna().to_dict() == {0: 1.5, 2: -2e-3}


def test_numbers_may_be_texts_and_a_blank_is_no_score(tmp_path):
    rows = [ROWS[0] | {"risk": value} for value in NUMBERS]
    found = load_scores(write_jsonl(tmp_path / "theirs.jsonl", rows), FIELDS)["score"]
    assert found.dropna().tolist() == [3, -2.5, 1e-3, 4.25, -100] and found.isna().sum() == 2


@pytest.mark.parametrize(
    "value", ["high", True, [1], float("nan"), float("inf"), "nan", {}, 10**400]
)
def test_a_score_that_is_no_number_is_named_by_its_line(tmp_path, value):
    path = write_jsonl(tmp_path / "theirs.jsonl", [*scored(1, 2, 3, 4), ROWS[0] | {"risk": value}])
    message = (
        f"{path}:5: field risk is {value!r}, no finite number; correct it, or leave it blank "
        "(null) for a row without a score"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_scores(path, FIELDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FIELDS | {"score": "rsk"}, "'rsk' is not a column; known: a, c, q, risk. Did you mean"),
        (PAIR, "give instruction, context, response; allowed: instruction, response, score, opt"),
        (
            FIELDS | {"rank": "q"},
            "fields: 'rank' is not a field; known: context, instruction, messages, response, score",
        ),
    ],
)
def test_fields_that_are_not_there(tmp_path, fields, message):
    path = write_jsonl(tmp_path / "theirs.jsonl", scored(1, 2, 3, 4))
    with pytest.raises(DataError, match=re.escape(message)):
        load_scores(path, fields)


def test_a_row_without_a_score_keeps_its_place_and_one_that_cannot_be_read_its_reason(tmp_path):
    dataset = write_dataset(tmp_path, ROWS)
    path = write_jsonl(tmp_path / "theirs.jsonl", scored(1, 2, 3, 4)[1:])
    ids = pd.read_parquet(dataset)["sample_id"]
    samples = pd.DataFrame(
        {"sample_id": ids, "prompt_tokens": 2, "response_tokens": [5, 6, 7, 8],
         "reason": pd.Series([None, None, "too long", None], dtype="str")}
    )  # fmt: skip
    write_table(samples, tmp_path / "samples.parquet", "samples", {})
    method = {"kind": "file", "source": path, "fields": FIELDS}
    readings = {
        "tokens": read_readings(Tokens(), {"samples": [str(tmp_path / "samples.parquet")]}),
        "given": read_readings(ScoreFile(path, FIELDS), {"rows": [dataset], "file": [path]}),
    }
    found = score_method(method, readings, seed=0)
    write_table(found, tmp_path / "scores.parquet", "scores", {})
    assert found["sample_id"].tolist() == ids.tolist()
    assert found["score"].dropna().to_dict() == {1: 2.0, 3: 4.0}
    assert found["rank"].dropna().to_dict() == {1: 2, 3: 1}
    assert found["reason"].dropna().to_dict() == {0: "not in the score file", 2: "too long"}


@pytest.mark.parametrize("row", [{"q": "\ud800", "a": "y"}, {"q": "x", "a": "\udfff"}])
def test_texts_that_are_not_unicode_are_named_by_their_line(tmp_path, row):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row | {"score": 1}))
    fields = {"instruction": "q", "response": "a", "score": "score"}
    with pytest.raises(DataError, match=r"mine\.jsonl:1: text that is not Unicode"):
        load_scores(str(path), fields)
