import hashlib
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.sources import load_source, read_prompts, read_rows, sample_ids
from sqsd.tables import read_table, write_table

FIELDS = {"instruction": "q", "context": "c", "response": "a"}
ROWS = [
    {"q": "Name a colour.", "c": "", "a": "Blue, \u2028 say."},
    {"q": "Add these.", "c": "1 and 2", "a": "3\nor three"},
    {"q": "Name a colour.", "c": "", "a": "Blue, \u2028 say."},
]
# U+0000 separates prompt and response in the hashed text, so it is left out here.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def write_as(suffix, folder):
    path = folder / f"raw{suffix}"
    if suffix == ".jsonl":
        text = "\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS)
        path.write_text(text, encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif suffix == ".csv":
        pd.DataFrame(ROWS).to_csv(path, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_valid_table(tmp_path, suffix):
    frame = read_rows(write_as(suffix, tmp_path), FIELDS)
    first = hashlib.sha256("Name a colour.\0Blue, \u2028 say.".encode()).hexdigest()[:16]
    second = hashlib.sha256(b"Add these.\n1 and 2\x003\nor three").hexdigest()[:16]
    assert list(frame["sample_id"]) == [first, second, f"{first}-2"]
    assert list(frame["prompt"]) == ["Name a colour.", "Add these.\n1 and 2", "Name a colour."]
    assert list(frame["response"]) == [r["a"] for r in ROWS]
    assert list(frame["problem"].isna()) == [True] * 3
    write_table(frame, tmp_path / "t.parquet", "dataset")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", "dataset"), frame)


@given(st.lists(st.tuples(TEXT, st.none() | TEXT), unique=True), st.randoms())
def test_ids_of_distinct_rows_do_not_depend_on_order(rows, random):
    ids = dict(zip(rows, sample_ids([p for p, _ in rows], [r for _, r in rows]), strict=True))
    shuffled = random.sample(rows, len(rows))
    again = sample_ids([p for p, _ in shuffled], [r for _, r in shuffled])
    assert again == [ids[row] for row in shuffled]
    assert len(set(again)) == len(rows)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"))))
def test_ids_of_repeated_rows_are_unique(rows):
    assert len(set(sample_ids([p for p, _ in rows], [r for _, r in rows]))) == len(rows)


@pytest.mark.parametrize(
    ("row", "problem", "response_is_null"),
    [
        ({"q": "x", "c": "", "a": "y"}, None, False),
        ({"q": "x", "a": "y"}, None, False),
        ({"q": "x", "c": "", "a": None}, "missing field a", True),
        ({"q": "x", "c": ""}, "missing field a", True),
        ({"c": "", "a": "y"}, "missing field q", False),
        ({"q": "x", "c": "", "a": " "}, "empty response", False),
        ({"q": "", "c": "z", "a": "y"}, "empty instruction", False),
        ({"q": "", "c": "", "a": ""}, "empty instruction; empty response", False),
        ({"q": "x", "c": "", "a": 3}, "field a is int, not text", True),
        ({"q": "x", "c": 3, "a": "y"}, "field c is int, not text", False),
    ],
)
def test_unusable_rows_are_kept_with_a_problem(tmp_path, row, problem, response_is_null):
    frame = read_rows(write_jsonl(tmp_path / "r.jsonl", [ROWS[0], row]), FIELDS)
    problems = [None if pd.isna(p) else p for p in frame["problem"]]
    assert problems == [None, problem]
    assert list(frame["response"].isna()) == [False, response_is_null]
    write_table(frame, tmp_path / "t.parquet", "dataset")


USER, ASSISTANT = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
ROLES = "messages are not one user message and then one assistant message: "


@pytest.mark.parametrize(
    ("messages", "prompt", "problem"),
    [
        ([USER, ASSISTANT], "x", None),
        ([USER], "x", ROLES + "user"),
        ([], "", ROLES + "none"),
        ([USER, USER, ASSISTANT], "x", ROLES + "user, user, assistant"),
        ([{"role": "system", "content": "s"}, USER, ASSISTANT], "x", ROLES + "system, user, as"),
        ([ASSISTANT, USER], "x", ROLES + "assistant, user"),
        ([USER, {"role": "assistant", "content": ""}], "x", "empty response"),
        ([USER, {"role": "assistant"}], "x", "missing field content"),
        ([{"role": "user", "content": ""}, ASSISTANT], "", "empty instruction"),
        (None, "", "missing field m"),
        ("x", "", "field m is not a list of messages"),
    ],
)
def test_messages(tmp_path, messages, prompt, problem):
    path = write_jsonl(tmp_path / "r.jsonl", [{"m": messages}])
    row = read_rows(path, {"messages": "m"}).to_dict("records")[0]
    assert str(row["prompt"]) == prompt
    if problem is None:
        assert (str(row["problem"]), row["response"]) == ("nan", "y")
    else:
        assert str(row["problem"]).startswith(problem)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", "", r"r\.jsonl: the file is empty"),
        ("r.jsonl", "\n\n", r"r\.jsonl: the file is empty: it holds no rows"),
        ("r.csv", "q,c,a\n", r"r\.csv: the file is empty: it holds no rows"),
        ("r.jsonl", '{"q": "x"}\n\n{"q": \n', r"r\.jsonl:3: not JSON \(Expecting value"),
        ("r.jsonl", "[1]\n", r"r\.jsonl:1: holds list, expected an object"),
        ("r.json", "[\n{]", r"r\.json:2: not JSON"),
        ("r.json", "{}", r"r\.json: holds dict, expected a list of objects"),
        ("r.json", "[{}, 1]", r"r\.json, row 2: holds int, expected an object"),
        ("r.csv", "q,c,a\n1,2,3,4\n", r"r\.csv:2: more values than the 3 columns"),
        ("r.csv", "q,q,a\n1,2,3\n", r"r\.csv:1: repeated column q"),
        ("r.csv", 'q,c,a\n1,2,"3\n', r"r\.csv:2: not CSV"),
        ("r.parquet", "junk", r"r\.parquet: not a Parquet file"),
        ("r.txt", "x", r"'\.txt' is not a known kind of file; allowed: \.jsonl, \.json, \.csv, \."),
        ("r", "x", r"no suffix is not a known kind of file"),
        ("r.jsonl", '{"q": "\\ud800", "c": "", "a": ""}', r"r\.jsonl:1: text that is not Unicode"),
        ("r.jsonl", b"\xff\xfe", r"r\.jsonl: not UTF-8 text"),
    ],
)
def test_unusable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_rows(path, FIELDS)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_rows(tmp_path / "gone.csv", FIELDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"instruction": "q", "response": "answr"},
            r"no column 'answr'; known: q, answer\. Did you mean 'answer'\?",
        ),
        ({"instruction": "q"}, "fields are instruction; allowed: instruction, response"),
        ({"instruction": "q", "response": "answer", "messages": "m"}, "or messages alone"),
        ({"instructions": "q"}, r"'instructions' is not a field; .*Did you mean 'instruction'\?"),
    ],
)
def test_wrong_fields(tmp_path, fields, message):
    path = write_jsonl(tmp_path / "r.jsonl", [{"q": "x", "answer": "y"}])
    with pytest.raises(DataError, match=message):
        read_rows(path, fields)


def test_short_csv_row_misses_its_field(tmp_path):
    (tmp_path / "r.csv").write_text("q,c,a\nx\n", encoding="utf-8")
    assert list(read_rows(tmp_path / "r.csv", FIELDS)["problem"]) == ["missing field a"]


def test_long_csv_field_is_read_whole(tmp_path):
    (tmp_path / "r.csv").write_text(f"q,c,a\nx,,{'y' * 200_000}\n", encoding="utf-8")
    assert len(read_rows(tmp_path / "r.csv", FIELDS)["response"][0]) == 200_000


def test_rows_are_drawn_with_the_seed_in_file_order(tmp_path):
    rows = [{"q": f"question {i // 2}", "c": "", "a": "y"} for i in range(100)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    whole = load_source({"path": path, "fields": FIELDS}, seed=1)
    drawn = load_source({"path": path, "fields": FIELDS, "rows": 20}, seed=1)
    order = [list(whole["sample_id"]).index(i) for i in drawn["sample_id"]]
    assert order == sorted(set(order)) and len(order) == 20
    pd.testing.assert_frame_equal(
        drawn, load_source({"path": path, "fields": FIELDS, "rows": 20}, seed=1)
    )
    other = load_source({"path": path, "fields": FIELDS, "rows": 20}, seed=2)
    assert list(other["sample_id"]) != list(drawn["sample_id"])
    everything = load_source({"path": path, "fields": FIELDS, "rows": 100}, seed=1)
    pd.testing.assert_frame_equal(everything, whole)


def test_hub_rows(monkeypatch):
    calls = []

    def load(name, subset=None, split=None):
        calls.append((name, subset, split))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load)
    spec = {"hub": "some/name", "split": "train", "fields": FIELDS}
    assert len(load_source(spec, seed=0)) == 3
    load_source({**spec, "subset": "en"}, seed=0)
    assert calls == [("some/name", None, "train"), ("some/name", "en", "train")]


def test_hub_errors_name_the_data_set(monkeypatch):
    spec = {"hub": "some/name", "split": "train", "fields": FIELDS}

    def fail(*_, **__):
        raise FileNotFoundError("not there")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(DataError, match=r"hub:some/name\[train\]: cannot be loaded \(not there\)"):
        load_source(spec, seed=0)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [])
    with pytest.raises(DataError, match=r"hub:some/name\[train\]: holds no rows"):
        load_source(spec, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 4}, r"r\.jsonl: rows is 4, allowed 1 to 3"),
        ({"rows": 0}, r"r\.jsonl: rows is 0, allowed 1 to 3"),
        ({"hub": "x"}, "give either 'path' or 'hub', got path, fields, hub"),
        ({"row": 3}, r"'row' is not a key; .*Did you mean 'rows'\?"),
    ],
)
def test_wrong_specs(tmp_path, change, message):
    path = write_jsonl(tmp_path / "r.jsonl", ROWS)
    with pytest.raises(DataError, match=message):
        load_source({"path": path, "fields": FIELDS, **change}, seed=0)


def test_specs_with_missing_keys():
    with pytest.raises(DataError, match=r"source r\.csv: missing key fields"):
        load_source({"path": "r.csv"}, seed=0)
    with pytest.raises(DataError, match="source x/y: missing key fields, split"):
        load_source({"hub": "x/y"}, seed=0)
    with pytest.raises(DataError, match="give either 'path' or 'hub', got neither"):
        load_source({}, seed=0)


def test_prompts_make_a_benchmark(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": "x"}, {"p": "z"}, {"p": "x"}])
    frame = read_prompts(path, "p")
    x, z = (hashlib.sha256(t).hexdigest()[:16] for t in (b"x", b"z"))
    assert list(frame["prompt_id"]) == [x, z, f"{x}-2"]
    write_table(frame, tmp_path / "t.parquet", "benchmark")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", "benchmark"), frame)


def test_prompt_errors_name_file_and_line(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": "x"}, {"p": " "}])
    with pytest.raises(DataError, match=r"r\.jsonl:2: empty p; give every row a prompt in 'p'"):
        read_prompts(path, "p")
    with pytest.raises(DataError, match=r"r\.jsonl: no column 'pp'; known: p"):
        read_prompts(path, "pp")
