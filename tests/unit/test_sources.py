import csv
import hashlib
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
from datasets.exceptions import DatasetsError
from huggingface_hub.utils import httpx
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.sources import (
    COMPARISON,
    CONVERSATION,
    PAIR,
    PREFERENCE,
    PROMPT,
    check_spec,
    count_records,
    is_hub,
    load_benchmark,
    load_dataset,
    load_preferences,
    parse_hub,
    sample_ids,
)
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


def read(path, fields=FIELDS, **more):
    return load_dataset({"source": str(path), "fields": fields, **more})


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def assert_stored_as_it_is(frame, path, schema):
    write_table(frame, path, schema, {})
    pd.testing.assert_frame_equal(read_table(path, schema), frame)


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
    frame = read(write_as(suffix, tmp_path), FIELDS)
    first = sha("Name a colour.\0Blue, \u2028 say.")
    second = sha("Add these.\n1 and 2\x003\nor three")
    assert list(frame["sample_id"]) == [first, second, f"{first}-2"]
    assert list(frame["prompt"]) == ["Name a colour.", "Add these.\n1 and 2", "Name a colour."]
    assert list(frame["response"]) == [r["a"] for r in ROWS]
    assert list(frame["problem"].isna()) == [True] * 3
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "dataset")


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
        ({"q": "x", "c": 3, "a": ""}, "field c is int, not text; empty response", False),
    ],
)
def test_unusable_rows_are_kept_with_a_problem(tmp_path, row, problem, response_is_null):
    frame = read(write_jsonl(tmp_path / "r.jsonl", [ROWS[0], row]), FIELDS)
    problems = [None if pd.isna(p) else p for p in frame["problem"]]
    assert problems == [None, problem]
    assert list(frame["response"].isna()) == [False, response_is_null]
    write_table(frame, tmp_path / "t.parquet", "dataset", {})


USER, ASSISTANT = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
SYSTEM, RESULT = {"role": "system", "content": "s"}, {"role": "tool", "content": ""}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ROLES = (
    "messages are not user and assistant in turn to an assistant's end (a system message may come "
    "first, and tool messages behind a tool call): "
)


@pytest.mark.parametrize(
    ("messages", "prompt", "problem"),
    [
        ([USER, ASSISTANT], "x", None),
        ([USER], "x", ROLES + "user"),
        ([], "", ROLES + "none"),
        ([USER, USER, ASSISTANT], "x", ROLES + "user, user, assistant"),
        ([USER, SYSTEM, ASSISTANT], "x", ROLES + "user, system, assistant"),
        ([SYSTEM, ASSISTANT], "", ROLES + "system, assistant"),
        ([SYSTEM, USER], "x", ROLES + "system, user"),
        ([USER, ASSISTANT, USER], "x", ROLES + "user, assistant, user"),
        ([USER, ASSISTANT, RESULT, ASSISTANT], "x", ROLES + "user, assistant, tool, assistant"),
        ([USER, CALLING, USER, ASSISTANT], "x", ROLES + "user, assistant, user, assistant"),
        ([ASSISTANT, USER], "x", ROLES + "assistant, user"),
        ([USER, {"role": "\ud800", "content": "y"}], "x", ROLES + "user, \\ud800"),
        ([USER, {"role": "assistant", "content": ""}], "x", "empty response"),
        ([USER, {"role": "assistant"}], "x", "missing field content"),
        ([{"role": "user", "content": ""}, ASSISTANT], "", "empty instruction"),
        (
            [USER, ASSISTANT, {"role": "user", "content": " "}, ASSISTANT], "x",
            "message 3 (user): empty content",
        ),
        ([SYSTEM, USER, {"role": "assistant"}], "x", "message 3 (assistant): content is missing"),
        (
            [SYSTEM, {"role": "user", "content": [1]}, ASSISTANT], "",
            "message 2 (user): content is list, not text",
        ),
        (
            [USER, CALLING | {"tool_calls": [{"name": "f"}]}, RESULT, ASSISTANT], "",
            "tool_calls are not a list of {function: {name: TEXT, arguments: OBJECT}}",
        ),
        (
            [USER, {"role": "assistant", "tool_calls": [
                {"function": {"name": "f", "arguments": "{"}}]}], "",
            "tool_calls are not a list of {function: {name: TEXT, arguments: OBJECT}}",
        ),
        (None, "", "missing field m"),
        (
            "x", "",
            "field m is raw text without turns, of which nothing says what is learnt: cut it into "
            "an instruction and a response",
        ),
        ({"role": "user"}, "", "field m is not a list of messages"),
    ],
)  # fmt: skip
def test_messages(tmp_path, messages, prompt, problem):
    path = write_jsonl(tmp_path / "r.jsonl", [{"m": messages}])
    frame = read(path, {"messages": "m"})
    row = frame.to_dict("records")[0]
    assert "conversation" not in frame
    assert str(row["prompt"]) == prompt
    if problem is None:
        assert (str(row["problem"]), row["response"]) == ("nan", "y")
    else:
        assert str(row["problem"]) == problem


TOOLS = [{"type": "function", "function": {"name": "f"}}]
SHARED = {"system": "s", "human": "x", "gpt": "y"}


@pytest.mark.parametrize(
    ("messages", "tools", "prompt", "response"),
    [
        ([SYSTEM, USER, ASSISTANT], None, "system: s\n\nuser: x", "y"),
        ([USER, ASSISTANT, USER, ASSISTANT], [], "user: x\n\nassistant: y\n\nuser: x", "y"),
        ([USER, ASSISTANT], TOOLS, "user: x", "y"),
        ([USER, CALLING], TOOLS, "user: x", 'f({"a": 1})'),
        (
            [USER, CALLING | {"content": "z"}, RESULT | {"name": "f"}, ASSISTANT], TOOLS,
            'user: x\n\nassistant: z\nf({"a": 1})\n\ntool: ', "y",
        ),
    ],
)  # fmt: skip
def test_conversations(tmp_path, messages, tools, prompt, response):
    path = write_jsonl(
        tmp_path / "r.jsonl", [{"m": messages, "t": tools}, {"m": [USER, ASSISTANT]}]
    )
    frame = read(path, {"messages": "m", "tools": "t"})
    assert (frame["prompt"][0], frame["response"][0]) == (prompt, response)
    kept = json.loads(frame["conversation"][0])
    # A call without text has none, rather than no content at all.
    told = [m | {"content": m["content"] or ""} for m in messages]
    assert kept == {"messages": told, "tools": tools or [], "loss": "all"}
    assert frame["problem"].isna().all() and pd.isna(frame["conversation"][1])
    # The pair beside it is as if it stood alone.
    assert frame["sample_id"][1] == sha("x\0y")
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "dataset")
    # Which answers are learnt is no text of the row's.
    last = read(path, {"messages": "m", "tools": "t"}, loss="last")
    assert json.loads(last["conversation"][0]) == kept | {"loss": "last"}
    assert last["sample_id"].equals(frame["sample_id"])
    # Messages of no conversation are written as they were before there were any.
    alone = read(path, {"messages": "m", "tools": "t"}, rows=1, seed=0, skip=0)
    both = [read(path, {"messages": "m"}, rows=1, skip=skip, seed=0) for skip in (0, 1)]
    assert len(alone) == 1 and any("conversation" not in frame for frame in both)


def test_sample_ids_tell_conversations_apart(tmp_path):
    talks = [
        [SYSTEM, USER, ASSISTANT], [SYSTEM, USER, ASSISTANT | {"content": "z"}],
        [SYSTEM | {"content": "t"}, USER, ASSISTANT], [SYSTEM, USER, ASSISTANT],
    ]  # fmt: skip
    path = write_jsonl(tmp_path / "r.jsonl", [{"messages": talk} for talk in talks])
    ids = load_dataset({"source": str(path)})["sample_id"].tolist()
    assert len({*ids[:3]}) == 3
    assert ids[3] == f"{ids[0]}-2"


def test_sharegpt_s_form_is_read_as_openai_s(tmp_path):
    shared = [{"from": role, "value": text} for role, text in SHARED.items()]
    rows = [{"conversations": shared}, {"conversations": shared[1:]}]
    given = [{"messages": [SYSTEM, USER, ASSISTANT]}, {"messages": [USER, ASSISTANT]}]
    found, expected = (
        load_dataset({"source": str(write_jsonl(tmp_path / f"{i}.jsonl", each))})
        for i, each in enumerate((rows, given))
    )
    pd.testing.assert_frame_equal(found, expected)
    path = write_jsonl(tmp_path / "r.jsonl", [{"conversations": [{"from": ["x"], "value": "y"}]}])
    assert load_dataset({"source": str(path)})["problem"][0] == ROLES + "['x']"


def test_arguments_and_tools_may_be_json_and_parquet_s_nulls_are_no_arguments(tmp_path):
    one, other = {"a": 1, "b": None}, {"a": None, "b": "z"}
    calls = [{"function": {"name": "f", "arguments": value}} for value in (one, other)]
    rows = [{"messages": [USER, CALLING | {"tool_calls": calls}], "tools": TOOLS}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    texts = [{"function": {"name": "f", "arguments": t}} for t in ('{"a": 1}', '{"b": "z"}')]
    rows = [{"messages": [USER, CALLING | {"tool_calls": texts}], "tools": json.dumps(TOOLS)}]
    write_jsonl(tmp_path / "r.jsonl", rows)
    for name in ("r.parquet", "r.jsonl"):
        frame = load_dataset({"source": str(tmp_path / name)})
        kept = json.loads(frame["conversation"][0])
        called = [call["function"]["arguments"] for call in kept["messages"][1]["tool_calls"]]
        assert called == [{"a": 1}, {"b": "z"}]
        assert kept["tools"] == TOOLS


@pytest.mark.parametrize("tools", ["x", "{}", [1], [{"type": "function"}], 3])
def test_tools_of_another_form_are_a_problem(tmp_path, tools):
    path = write_jsonl(tmp_path / "r.jsonl", [{"messages": [USER, ASSISTANT], "tools": tools}])
    problem = "tools are not a list of {type: function, function: {name: TEXT, ...}}"
    assert load_dataset({"source": str(path)})["problem"].tolist() == [problem]


def test_loss_is_of_conversations(tmp_path):
    path = str(write_jsonl(tmp_path / "r.jsonl", [{"q": "x", "a": "y"}]))
    message = (
        f"{path}: loss says which turns of a conversation are learnt, and q, a give one answer; "
        "remove it, or give `fields: {messages: COLUMN}`"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        read(path, {"instruction": "q", "response": "a"}, loss="all")
    with pytest.raises(DataError, match="'loss' is not a key"):
        load_benchmark({"source": path, "fields": {"prompt": "q"}, "loss": "all"})


def test_raw_text_without_turns_is_refused_with_the_remedy(tmp_path):
    path = str(write_jsonl(tmp_path / "r.jsonl", [{"text": "Once upon a time", "id": 1}]))
    message = (
        f"{path}: its columns are not called as usual (it has text, id); say which is which, as "
        "`fields: {instruction: COLUMN, response: COLUMN}; or {messages: COLUMN}`. text looks like "
        "raw text without turns, of which nothing says what is learnt: cut it into an instruction "
        "and a response"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_dataset({"source": path})
    with pytest.raises(DataError, match=r"COLUMN\}`$"):
        load_benchmark({"source": path})


DEEP = "[" * 100_000 + "]" * 100_000
LONG = '{"q": ' + "7" * 5_000 + "}"


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
        ("r", "x", r"no suffix is not a known kind of file; .*, hub:owner/name:split, hub:owner/n"),
        ("r.jsonl", '{"q": "\\ud800", "c": "", "a": ""}', r"r\.jsonl:1: text that is not Unicode"),
        ("r.jsonl", b"\xff\xfe", r"r\.jsonl: not UTF-8 text"),
        ("r.json", b"[\xff\xfe]", r"r\.json: not UTF-8 text"),
        (
            "r.jsonl",
            "{}\n" + DEEP,
            r"r\.jsonl:2: nested too deeply to be read; rows are objects of",
        ),
        ("r.json", DEEP, r"r\.json: nested too deeply to be read; rows are objects of texts, or"),
        ("r.jsonl", "{}\n\n" + LONG, r"r\.jsonl:3: a number that cannot be read \(.*\); give such"),
        (
            "r.json",
            f"[{LONG}]",
            r"r\.json: a number that cannot be read \(.*4300.*\); give such a nu",
        ),
    ],
    ids=lambda value: None if len(value) < 100 else "long",
)
def test_unusable_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read(path, FIELDS)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pyarrow.date32(), pyarrow.int32()),
        (pyarrow.time64("us"), pyarrow.int64()),
        (pyarrow.duration("s"), pyarrow.int64()),
    ],
    ids=str,
)
def test_values_of_parquet_that_python_has_none_for(tmp_path, kind, stored):
    column = pyarrow.array([2**31 - 1 if stored == "int32" else 2**62], stored).view(kind)
    parquet.write_table(pyarrow.table({"q": ["x"], "a": column}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"r\.parquet: holds a value that cannot be read \(.*store"):
        read(tmp_path / "r.parquet", {"instruction": "q", "response": "a"})


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read(tmp_path / "gone.csv", FIELDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"instruction": "q", "response": "answr"},
            r"'answr' is not a column; known: answer, q\. Did you mean 'answer'\?",
        ),
        (
            {"instruction": "q"},
            "fields and constants give instruction; "
            "allowed: instruction, response, optionally context; or messages",
        ),
        ({}, "fields and constants give nothing; allowed: "),
        (
            {"instruction": "q", "response": "answer", "messages": "q"},
            "give instruction, response, messages; allowed: .*; or messages",
        ),
        ({"instructions": "q"}, r"'instructions' is not a field; .*Did you mean 'instruction'\?"),
    ],
)
def test_wrong_fields(tmp_path, fields, message):
    path = write_jsonl(tmp_path / "r.jsonl", [{"q": "x", "answer": "y"}])
    with pytest.raises(DataError, match=message):
        read(path, fields)


def test_short_csv_row_misses_its_field(tmp_path):
    (tmp_path / "r.csv").write_text("q,c,a\nx\n", encoding="utf-8")
    assert list(read(tmp_path / "r.csv", FIELDS)["problem"]) == ["missing field a"]


def test_long_csv_field_is_read_whole(tmp_path):
    (tmp_path / "r.csv").write_text(f"q,c,a\nx,,{'y' * 200_000}\n", encoding="utf-8")
    assert len(read(tmp_path / "r.csv", FIELDS)["response"][0]) == 200_000


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"response": "y"}, r"r\.jsonl: response is in fields and in constants; keep one"),
        ({"context": " "}, r"r\.jsonl: constants: context is ' '; give a text, not blank"),
        ({"context": 3}, r"constants: context is 3; give a text"),
        ({"contxt": "y"}, r"constants: 'contxt' is not a text that .*Did you mean 'context'\?"),
        ({"messages": "y"}, r"constants: 'messages' is not a text that rows can share"),
    ],
)
def test_wrong_constants(tmp_path, constants, message):
    path = write_jsonl(tmp_path / "r.jsonl", [{"q": "x", "answer": "y"}])
    with pytest.raises(DataError, match=message):
        read(path, {"instruction": "q", "response": "answer"}, constants=constants)


def test_a_constant_stands_in_for_a_column(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"goal": "x"}, {"goal": ""}])
    frame = read(path, {"instruction": "goal"}, constants={"response": "Sure:"})
    assert list(frame["prompt"]) == ["x", ""]
    assert list(frame["response"]) == ["Sure:", "Sure:"]
    assert list(frame["sample_id"]) == [sha("x\0Sure:"), sha("\0Sure:")]
    assert [None if pd.isna(p) else p for p in frame["problem"]] == [None, "empty instruction"]
    constants = {"response": "Sure:", "context": "z"}
    frame = read(path, {"instruction": "goal"}, constants=constants)
    assert list(frame["prompt"]) == ["x\nz", "\nz"]


def test_rows_are_the_permutation_after_skip_in_file_order(tmp_path):
    rows = [{"q": f"question {i // 2}", "c": "", "a": "y"} for i in range(100)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    whole = read(path)
    order = np.random.default_rng(1).permutation(100)
    expected = whole.iloc[sorted(order[10:30])].reset_index(drop=True)
    pd.testing.assert_frame_equal(read(path, rows=20, skip=10, seed=1), expected)
    rest = whole.iloc[sorted(order[10:])].reset_index(drop=True)
    pd.testing.assert_frame_equal(read(path, skip=10, seed=1), rest)
    pd.testing.assert_frame_equal(read(path, rows=100, seed=1), whole)
    other = read(path, rows=20, skip=10, seed=2)
    assert list(other["sample_id"]) != list(expected["sample_id"])


@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=2, max_size=8))
def test_one_seed_with_other_skips_gives_disjoint_rows(seed, sizes):
    with TemporaryDirectory() as folder:
        # Repeated texts, which only the whole file's sample_ids tell apart.
        rows = [{"q": "x", "c": "", "a": "y"}] * sum(sizes)
        path = write_jsonl(Path(folder) / "r.jsonl", rows)
        draws = [
            read(path, rows=size, skip=sum(sizes[:i]), seed=seed) for i, size in enumerate(sizes)
        ]
        whole = read(path)
    assert [len(draw) for draw in draws] == sizes
    drawn = [sample_id for draw in draws for sample_id in draw["sample_id"]]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) == set(whole["sample_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rows": 4, "seed": 0},
            r"r\.jsonl: rows is 4, allowed 1 to 3 \(it holds 3 rows, skip is 0",
        ),
        ({"rows": 0, "seed": 0}, r"r\.jsonl: rows is 0, allowed 1 to 3"),
        ({"rows": 2, "skip": 2, "seed": 0}, r"rows is 2, allowed 1 to 1 \(.*, skip is 2\)"),
        ({"skip": 3, "seed": 0}, r"r\.jsonl: skip is 3, allowed 0 to 2 \(it holds 3 rows\)"),
        ({"skip": -1, "seed": 0}, r"r\.jsonl: skip is -1, allowed 0 to 2"),
        ({"rows": 1}, r"source .*r\.jsonl: rows and skip need a seed"),
        ({"skip": 1}, r"source .*r\.jsonl: rows and skip need a seed"),
        ({"row": 3}, r"source .*r\.jsonl: 'row' is not a key; .*Did you mean 'rows'\?"),
    ],
)
@pytest.mark.parametrize(
    ("load", "fields"),
    [
        (lambda spec: count_records(spec, PAIR), FIELDS),
        (load_dataset, FIELDS),
        (load_preferences, {"instruction": "q", "chosen": "a", "rejected": "a"}),
        (load_benchmark, {"prompt": "q"}),
    ],
)
def test_wrong_specs(tmp_path, load, fields, change, message):
    path = write_jsonl(tmp_path / "r.jsonl", ROWS)
    with pytest.raises(DataError, match=message):
        load({"source": str(path), "fields": fields, **change})


@given(st.data())
def test_the_rows_of_a_file_are_counted_as_they_are_read(data):
    held = data.draw(st.integers(1, 9))
    skip = data.draw(st.integers(0, held - 1))
    rows = data.draw(st.none() | st.integers(1, held - skip))
    choice = {"skip": skip, "rows": rows, "seed": 3}
    if data.draw(st.booleans()):
        choice = {}
    with TemporaryDirectory() as folder:
        path = write_jsonl(
            Path(folder) / "r.jsonl", [{"q": f"x{i}", "a": "y"} for i in range(held)]
        )
        spec = {"source": str(path), "fields": {"instruction": "q", "response": "a"}, **choice}
        found = count_records(spec, PAIR, CONVERSATION)
        assert found == len(load_dataset(spec))
    assert found == (held if not choice else rows or held - skip)


def test_rows_with_a_problem_are_counted(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [*ROWS, {"q": ""}])
    assert count_records({"source": str(path), "fields": FIELDS}, PAIR) == 4


def test_what_is_counted_must_have_the_shape(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", ROWS)
    spec = {"source": str(path), "fields": {"prompt": "q"}}
    assert count_records(spec, PROMPT) == 3
    with pytest.raises(DataError, match=r"'prompt' is not a field; known: chosen, context, instru"):
        count_records(spec, PREFERENCE)
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        count_records(spec | {"source": str(tmp_path / "gone.jsonl")}, PROMPT)


def test_a_spec_without_a_source():
    with pytest.raises(DataError, match=r"source \(not given\): missing key source"):
        load_dataset({})


def test_hub_sources_are_taken_apart():
    assert parse_hub("hub:some/name:train") == ("some/name", None, "train")
    assert parse_hub("hub:a.b/c-d:2022.en:test") == ("a.b/c-d", "2022.en", "test")
    assert parse_hub("hub:a/b:data/part_*.csv") == ("a/b", None, "data/part_*.csv")
    assert is_hub("hub:some/name:train") and is_hub("hub:some")
    assert not is_hub("data/hub:x.jsonl") and not is_hub("github.csv")


@pytest.mark.parametrize(
    "source",
    [
        "hub:some/name",
        "hub:name:train",
        "hub:some/name:",
        "hub:some/name::train",
        "hub:a/b:c:d:e",
        "hub:a/b/c:train",
        "hub:some/name:train[:100]",
        "hub:some/name:en:part_*.csv",
        "hub:some/name:part_[12].csv",
        "hub:some/name.csv",
        "hub:",
        "some/name:train",
    ],
)
def test_malformed_hub_sources(source):
    allowed = (
        "allowed: hub:owner/name:split, hub:owner/name:subset:split, or hub:owner/name:files "
        r"\(\.csv, \.jsonl, \.json or \.parquet, with \* for any part of a name\)"
    )
    message = f"source '{re.escape(source)}' is not a hub data set; {allowed}"
    with pytest.raises(DataError, match=message):
        parse_hub(source)


def test_hub_rows(monkeypatch):
    calls = []

    def load(name, subset, split, revision):
        calls.append((name, subset, split, revision))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load)
    frame = read("hub:some/name:train")
    assert list(frame["prompt"]) == ["Name a colour.", "Add these.\n1 and 2", "Name a colour."]
    assert len(read("hub:some/name:en:test", rows=2, seed=0, revision="v2")) == 2
    with pytest.raises(
        DataError, match=r"^hub:some/name:train, row 3: .*train, row 1 again, 'Name"
    ):
        load_benchmark({"source": "hub:some/name:train", "fields": {"prompt": "q"}})
    train = ("some/name", None, "train", None)
    assert calls == [train, ("some/name", "en", "test", "v2"), train]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A folder that stands for the repository owner/name; what is asked of it."""
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return tmp_path, asked


def of_hub(revision, files):
    return "owner/name", {"repo_type": "dataset", "revision": revision, "allow_patterns": files}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_files_of_the_hub_are_read_as_local_ones(hub, suffix):
    folder, asked = hub
    local = write_as(suffix, folder)
    pd.testing.assert_frame_equal(read(f"hub:owner/name:raw{suffix}"), read(local))
    assert asked == [of_hub(None, f"raw{suffix}")]


def test_several_files_of_the_hub_without_headers(hub):
    folder, asked = hub
    # A byte order mark, a quoted comma, a line break in a text, texts that look like no text.
    (folder / "part_1.csv").write_text('\ufeffx\n"y, z"\n\nNA\n"1\n2"\n007\n', encoding="utf-8")
    (folder / "part_2.csv").write_text("true\n", encoding="utf-8")
    (folder / "other.csv").write_text("not read\n", encoding="utf-8")
    spec = {"source": "hub:owner/name:part_*.csv", "fields": {"prompt": "p"}, "columns": ["p"]}
    frame = load_benchmark(spec | {"revision": "refs/pr/1"})
    assert list(frame["prompt"]) == ["x", "y, z", "NA", "1\n2", "007", "true"]
    assert asked == [of_hub("refs/pr/1", "part_*.csv")]
    (folder / "part_2.csv").write_text("x\n", encoding="utf-8")
    message = r"^hub:owner/name:part_2\.csv:1: the prompt of hub:.*part_1\.csv:1 again, 'x'"
    with pytest.raises(DataError, match=message):
        load_benchmark(spec)
    # The first line decides nothing: a comma that is not quoted is one value too many.
    (folder / "part_2.csv").write_text("v, w\n", encoding="utf-8")
    message = r"part_2\.csv:1: more values than the 1 columns"
    with pytest.raises(DataError, match=message):
        load_benchmark(spec)


def test_files_of_the_hub_that_are_not_there(hub):
    message = r"name:no\*\.csv: the repository has no file no\*\.csv; correct the source"
    with pytest.raises(DataError, match=message):
        read("hub:owner/name:no*.csv")


@pytest.mark.parametrize(
    "kind", [FileNotFoundError, ValueError, RuntimeError, DatasetsError, httpx.ConnectError]
)
def test_hub_errors_name_the_data_set(monkeypatch, kind):
    def fail(*_, **__):
        raise kind("not there")

    monkeypatch.setattr("datasets.load_dataset", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    for part in ("train", r"rows_\*\.csv"):
        message = rf"hub:some/name:{part}: cannot be loaded \(not there\); check name, subset, spl"
        with pytest.raises(DataError, match=message):
            read("hub:some/name:" + part.replace("\\", ""))


def test_hub_rows_are_checked(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [])
    with pytest.raises(DataError, match=r"hub:some/name:train: holds no rows"):
        read("hub:some/name:train")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"q": "x"}, {"q": ""}])
    with pytest.raises(DataError, match=r"hub:some/name:train: 'p' is not a column; known: q"):
        load_benchmark({"source": "hub:some/name:train", "fields": {"prompt": "p"}})
    with pytest.raises(DataError, match=r"hub:some/name:train, row 2: empty prompt; repair"):
        load_benchmark({"source": "hub:some/name:train", "fields": {"prompt": "q"}})


def test_csv_files_without_a_header_line(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('q,a\n"x, y",z\n', encoding="utf-8")
    fields = {"instruction": "q", "response": "a"}
    assert list(read(path, fields, columns=["q", "a"])["prompt"]) == ["q", "x, y"]
    assert list(read(path, fields)["prompt"]) == ["x, y"]
    message = r"r\.csv: 'a' is not a column; known: b, q"
    with pytest.raises(DataError, match=message):
        read(path, fields, columns=["q", "b"])
    with pytest.raises(DataError, match=r"r\.csv:1: more values than the 1 columns"):
        load_benchmark({"source": str(path), "fields": {"prompt": "q"}, "columns": ["q"]})


@pytest.mark.parametrize(
    "source", ["r.jsonl", "r.json", "r.parquet", "hub:a/b:c", "hub:a/b:c.json"]
)
def test_columns_of_what_is_no_csv_file(source):
    message = rf"source {re.escape(source)}: 'columns' is not a key; known: "
    with pytest.raises(DataError, match=message):
        read(source, columns=["q"])


@pytest.mark.parametrize("source", ["r.jsonl", "r.csv"])
def test_the_revision_of_a_local_file(source):
    message = rf"source {re.escape(source)}: 'revision' is not a key; known: "
    with pytest.raises(DataError, match=message):
        read(source, revision="main")


def test_a_specification_is_checked_without_its_rows():
    spec = {"source": "hub:a/b:train", "fields": {"instruction": "q", "response": "a"}}
    check_spec(spec, PAIR, CONVERSATION)
    with pytest.raises(DataError, match="fields and constants give instruction; allowed: "):
        check_spec(spec | {"fields": {"instruction": "q"}}, PAIR)
    files = spec | {"source": "hub:a/b:*.csv", "columns": ["q", "b"]}
    with pytest.raises(DataError, match=r"hub:a/b:\*\.csv: 'a' is not a column; known: b, q"):
        check_spec(files, PAIR)
    files["fields"] = {"instruction": "q", "response": "b"}
    check_spec(files | {"where": {"b": "x"}}, PAIR)
    for key in ("where", "where_not"):
        with pytest.raises(DataError, match="'c' is not a column; known: b, q"):
            check_spec(files | {key: {"c": "x"}}, PAIR)
        message = rf"b:\*\.csv: {key}: b is false, and a CSV file holds texts alone; give the text"
        with pytest.raises(DataError, match=message):
            check_spec(files | {key: {"b": ["x", False]}}, PAIR)
    with pytest.raises(DataError, match="'hub:a' is not a hub data set"):
        check_spec(spec | {"source": "hub:a"}, PAIR)


SCALARS = [True, False, None, 0, 1, 1.0, 2, 0.5, "1", "true", "null", "", "x"]


def as_json_has_it(value):
    """A value with its type, where JSON has one type of number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__, value
    return "number", float(value)


@given(st.data())
def test_the_rows_that_are_read_are_those_of_where_and_not_those_of_where_not(data):
    values = st.sampled_from(SCALARS)
    chosen = st.dictionaries(
        st.sampled_from("kl"), values | st.lists(values, min_size=1, max_size=3), max_size=2
    )
    where, where_not = data.draw(chosen), data.draw(chosen)
    held = data.draw(st.lists(st.fixed_dictionaries({}, optional={"k": values, "l": values})))
    rows = [{"q": "x", "a": "y", "k": "x", "l": 2}, *({"q": "x", "a": "y"} | row for row in held)]

    def among(row, column, given):
        given = given if isinstance(given, list) else [given]
        return as_json_has_it(row.get(column)) in [as_json_has_it(value) for value in given]

    left = [
        row
        for row in rows
        if all(among(row, column, given) for column, given in where.items())
        and not any(among(row, column, given) for column, given in where_not.items())
    ]
    with TemporaryDirectory() as folder:
        path = write_jsonl(Path(folder) / "r.jsonl", rows)
        spec = {
            "source": str(path), "fields": {"instruction": "q", "response": "a"},
            "where": where, "where_not": where_not,
        }  # fmt: skip
        if not left:
            with pytest.raises(DataError, match=f"no row of {len(rows)} is left by where"):
                load_dataset(spec)
            return
        found = load_dataset(spec)
        expected = load_dataset(
            {**spec, "source": str(write_jsonl(path, left)), "where": {}, "where_not": {}}
        )
    # Of the same texts as a file of these rows alone has, its sample_ids among them.
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_of_every_kind_of_file_are_selected(tmp_path, suffix):
    frame = read(write_as(suffix, tmp_path), where_not={"q": "Name a colour."})
    assert list(frame["prompt"]) == ["Add these.\n1 and 2"]
    frame = read(write_as(suffix, tmp_path), where={"q": "Name a colour.", "a": [ROWS[0]["a"]]})
    assert list(frame["prompt"]) == ["Name a colour."] * 2


def test_rows_and_skip_count_what_where_leaves(tmp_path):
    rows = [{"q": f"x{i}", "a": "y", "safe": i % 3 == 0} for i in range(30)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    fields, where = {"instruction": "q", "response": "a"}, {"safe": True}
    left = [f"x{i}" for i in range(0, 30, 3)]
    order = np.random.default_rng(3).permutation(10)
    found = read(path, fields, where=where, rows=4, skip=2, seed=3)
    assert list(found["prompt"]) == [left[i] for i in sorted(order[2:6])]
    spec = {"source": str(path), "fields": fields, "where": where}
    assert count_records(spec, PAIR) == 10
    assert count_records(spec | {"where": {}, "where_not": where, "skip": 3, "seed": 1}, PAIR) == 17
    message = r"rows is 11, allowed 1 to 10 \(it holds 10 rows after where and where_not, skip is 0"
    with pytest.raises(DataError, match=message):
        read(path, fields, where=where, rows=11, seed=3)


def test_a_row_that_is_left_stands_where_it_stood(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('p,k\n"x\ny",a\nz,b\n,a\n', encoding="utf-8")
    spec = {"source": str(path), "fields": {"prompt": "p"}}
    with pytest.raises(DataError, match=r"r\.csv:5: empty prompt"):
        load_benchmark(spec | {"where": {"k": "a"}})
    assert list(load_benchmark(spec | {"where": {"k": "b"}})["prompt"]) == ["z"]


@pytest.mark.parametrize("key", ["where", "where_not"])
def test_a_column_to_select_by_that_no_row_has(tmp_path, key):
    path = write_jsonl(tmp_path / "r.jsonl", ROWS)
    message = r"r\.jsonl: 'cc' is not a column; known: a, c, q"
    with pytest.raises(DataError, match=message):
        read(path, **{key: {"cc": "x"}})


def test_no_row_that_is_left(tmp_path):
    rows = [{"q": "x", "a": "y", "k": i % 6, "l": "w" * 90} for i in range(12)]
    rows[1]["k"] = False
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    fields = {"instruction": "q", "response": "a"}
    message = r"r\.jsonl: no row of 12 is left by where; k holds 0, false, 2, 3, 4, \.\.\.$"
    with pytest.raises(DataError, match=message):
        read(path, fields, where={"k": "1"})
    message = rf'is left by where and where_not; k holds 0, .*; l holds "{"w" * 59}\.\.\.$'
    with pytest.raises(DataError, match=message):
        read(path, fields, where={"k": 0}, where_not={"l": "w" * 90})


COMPARED = {"instruction": "q", "first": "r0", "second": "r1", "preferred": "better"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_preferences_as_two_responses_and_which_is_preferred(tmp_path, suffix):
    rows = [
        {"q": "x", "r0": "a", "r1": "b", "better": 0, "c": ""},
        {"q": "y", "r0": "a", "r1": "b", "better": 1, "c": "z"},
    ]
    path = tmp_path / f"r{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, rows)
    elif suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    else:
        pd.DataFrame(rows).to_parquet(path)
    frame = load_preferences({"source": str(path), "fields": COMPARED | {"context": "c"}})
    plain = {"instruction": "q", "chosen": "good", "rejected": "bad", "context": "c"}
    write_jsonl(
        tmp_path / "plain.jsonl",
        [
            {"q": "x", "good": "a", "bad": "b", "c": ""},
            {"q": "y", "good": "b", "bad": "a", "c": "z"},
        ],
    )
    expected = load_preferences({"source": str(tmp_path / "plain.jsonl"), "fields": plain})
    pd.testing.assert_frame_equal(frame, expected)
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "preferences")


@pytest.mark.parametrize("value", [2, -1, True, False, 1.0, None, "", "first", "01", [0]])
def test_what_is_preferred_is_0_or_1(tmp_path, value):
    rows = [{"q": "x", "r0": "a", "r1": "b", "better": better} for better in (0, value)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    message = (
        rf"r\.jsonl:2: field better is {re.escape(repr(value))}; allowed: 0 \(the first response "
        r"is preferred\) or 1 \(the second\); repair the row or remove it"
    )
    with pytest.raises(DataError, match=message):
        load_preferences({"source": str(path), "fields": COMPARED})


def test_what_is_preferred_is_no_constant(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"q": "x", "r0": "a", "r1": "b"}])
    fields = {name: column for name, column in COMPARED.items() if name != "preferred"}
    spec = {"source": str(path), "fields": fields, "constants": {"preferred": "0"}}
    with pytest.raises(DataError, match="'preferred' is not a text that rows can share"):
        load_preferences(spec)
    with pytest.raises(DataError, match="'preferred' is not a text that rows can share"):
        count_records(spec, PREFERENCE, COMPARISON)


@pytest.mark.parametrize(("better", "problem"), [(0, "empty first"), (1, "missing field r1")])
def test_unusable_responses_that_are_compared(tmp_path, better, problem):
    row = {"q": "x", "r0": " " if better == 0 else "a", "better": better}
    rows = [{"q": "x", "r0": "a", "r1": "b", "better": 0}, row]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    with pytest.raises(DataError, match=rf"r\.jsonl:2: {problem}; repair"):
        load_preferences({"source": str(path), "fields": COMPARED})


PREFERENCE_FIELDS = {"instruction": "q", "context": "c", "chosen": "good", "rejected": "bad"}


def test_preferences(tmp_path):
    rows = [
        {"q": "x", "c": "z", "good": "g", "bad": "b"},
        {"q": "x", "c": None, "good": "g", "bad": "b"},
        {"q": "x", "c": "", "good": "other", "bad": "b"},
        {"q": "x", "good": "g", "bad": "b"},
    ]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    frame = load_preferences({"source": str(path), "fields": PREFERENCE_FIELDS})
    assert list(frame["prompt"]) == ["x\nz", "x", "x", "x"]
    assert list(frame["chosen"]) == ["g", "g", "other", "g"]
    assert list(frame["rejected"]) == ["b"] * 4
    with_context, plain, other = sha("x\nz\0g\0b"), sha("x\0g\0b"), sha("x\0other\0b")
    assert list(frame["sample_id"]) == [with_context, plain, other, f"{plain}-2"]
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "preferences")


def test_preferences_with_a_constant_and_a_selection(tmp_path):
    rows = [{"q": f"x{i}", "bad": "b"} for i in range(10)]
    spec = {
        "source": str(write_jsonl(tmp_path / "r.jsonl", rows)),
        "fields": {"instruction": "q", "rejected": "bad"},
        "constants": {"chosen": "No."},
    }
    frame = load_preferences({**spec, "rows": 4, "skip": 3, "seed": 5})
    kept = sorted(np.random.default_rng(5).permutation(10)[3:7])
    assert list(frame["prompt"]) == [f"x{i}" for i in kept]
    assert list(frame["chosen"]) == ["No."] * 4


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"q": None, "good": "g", "bad": "b"}, "missing field q"),
        ({"q": " ", "good": "g", "bad": "b"}, "empty instruction"),
        ({"q": "x", "good": "", "bad": "b"}, "empty chosen"),
        ({"q": "x", "good": "g", "bad": 3}, "field bad is int, not text"),
        ({"q": "x", "c": 3, "good": "g", "bad": "b"}, "field c is int, not text"),
    ],
)
def test_unusable_preferences_name_file_and_line(tmp_path, row, problem):
    good = {"q": "x", "c": "", "good": "g", "bad": "b"}
    path = write_jsonl(tmp_path / "r.jsonl", [good, row])
    message = rf"r\.jsonl:2: {problem}; repair the row or remove it"
    with pytest.raises(DataError, match=message):
        load_preferences({"source": str(path), "fields": PREFERENCE_FIELDS})


def test_names_of_preferences_and_benchmarks(tmp_path):
    path = str(write_jsonl(tmp_path / "r.jsonl", ROWS))
    message = (
        "give instruction; allowed: instruction, chosen, rejected, optionally context; or "
        "instruction, first, second, preferred, optionally context$"
    )
    with pytest.raises(DataError, match=message):
        load_preferences({"source": path, "fields": {"instruction": "q"}})
    message = "give category; allowed: prompt, optionally category, optionally reference$"
    with pytest.raises(DataError, match=message):
        load_benchmark({"source": path, "fields": {"category": "q"}})
    with pytest.raises(DataError, match="'messages' is not a field; known: category, prompt, ref"):
        load_benchmark({"source": path, "fields": {"messages": "q"}})


def test_benchmarks(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": "x"}, {"p": "z"}, {"p": "w"}])
    frame = load_benchmark({"source": str(path), "fields": {"prompt": "p"}})
    assert list(frame["prompt_id"]) == [sha("x"), sha("z"), sha("w")]
    assert list(frame["prompt"]) == ["x", "z", "w"]
    assert frame["category"].isna().all() and frame["reference"].isna().all()
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "benchmark")


def test_a_benchmark_with_repeated_prompts_names_both_places(tmp_path):
    texts = ["x", "z", "x", "w" * 70, "w" * 70, "x"]
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": text} for text in texts])
    spec = {"source": str(path), "fields": {"prompt": "p"}}
    message = (
        r"r\.jsonl:3: the prompt of .*r\.jsonl:1 again, 'x'; 3 row\(s\) repeat one; keep each "
    )
    with pytest.raises(DataError, match=message + r"prompt once$"):
        load_benchmark(spec)
    write_jsonl(path, [{"p": text} for text in texts[1:5]])
    with pytest.raises(DataError, match=rf"r\.jsonl:4: .*:3 again, '{'w' * 60}'; 1 row"):
        load_benchmark(spec)


def test_prompts_that_are_repeated_elsewhere_in_the_file_do_not_matter(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": text} for text in "xyxz"])
    found = set()
    for seed in range(12):
        spec = {"source": str(path), "fields": {"prompt": "p"}, "rows": 2, "seed": seed}
        kept = [int(i) for i in sorted(np.random.default_rng(seed).permutation(4)[:2])]
        found.add(tuple(kept))
        if kept == [0, 2]:
            with pytest.raises(DataError, match=r"r\.jsonl:3: the prompt of .*:1 again"):
                load_benchmark(spec)
        else:
            assert load_benchmark(spec)["prompt"].tolist() == ["xyxz"[i] for i in kept]
    assert (0, 2) in found and len(found) > 2


def test_benchmarks_with_category_and_reference(tmp_path):
    rows = [{"p": "x", "r": "1"}, {"p": "z", "r": " "}, {"p": "w"}]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    spec = {"source": str(path), "fields": {"prompt": "p", "reference": "r"}}
    frame = load_benchmark({**spec, "constants": {"category": "sums"}})
    assert list(frame["category"]) == ["sums"] * 3
    assert frame["reference"][0] == "1" and frame["reference"][1:].isna().all()
    assert_stored_as_it_is(frame, tmp_path / "t.parquet", "benchmark")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"p": " ", "r": "1"}, r"r\.jsonl:2: empty prompt; repair the row or remove it"),
        ({"r": "1"}, r"r\.jsonl:2: missing field p; repair"),
        ({"p": "x", "r": 1}, r"r\.jsonl:2: field r is int, not text; repair"),
    ],
)
def test_unusable_prompts_name_file_and_line(tmp_path, row, message):
    path = write_jsonl(tmp_path / "r.jsonl", [{"p": "x", "r": "1"}, row])
    with pytest.raises(DataError, match=message):
        load_benchmark({"source": str(path), "fields": {"prompt": "p", "reference": "r"}})


def rows_file(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": str(path)}


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        ({"instruction": "Q", "input": "C", "output": "A", "text": "T"}, "Q\nC", "A"),
        ({"instruction": "Q", "context": "", "response": "A", "category": "open"}, "Q", "A"),
        ({"Prompt": "Q", "is_safe": True, "Response": "A"}, "Q", "A"),
        ({"answer": "A", "question": "Q"}, "Q", "A"),
        ({"prompt": "Q", "completion": "A", "system": ""}, "Q", "A"),
        ({"prompt": "x", "prompt_id": "y", "messages": [
            {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, "Q", "A"),
    ],
)  # fmt: skip
def test_columns_of_usual_names_need_no_fields(tmp_path, row, prompt, response):
    found = load_dataset(rows_file(tmp_path / "mine.jsonl", row))
    assert found[["prompt", "response"]].values.tolist() == [[prompt, response]]
    assert found["problem"].isna().all()


def test_requests_and_preferences_by_usual_names(tmp_path):
    spec = rows_file(tmp_path / "mine.jsonl", {"goal": "Q", "target": "A"})
    assert load_benchmark(spec)["prompt"].tolist() == ["Q"]
    opened = load_dataset(spec | {"constants": {"response": "Sure"}})
    assert opened[["prompt", "response"]].values.tolist() == [["Q", "Sure"]]
    chosen = load_preferences(spec | {"constants": {"chosen": "No", "rejected": "Sure"}})
    assert chosen[["prompt", "chosen", "rejected"]].values.tolist() == [["Q", "No", "Sure"]]
    spec = rows_file(tmp_path / "both.jsonl", {"prompt": "Q", "chosen": "No", "rejected": "Yes"})
    assert load_preferences(spec)["rejected"].tolist() == ["Yes"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"frage": "Q", "antwort": "A"},
         r"mine\.jsonl: its columns are not called as usual \(it has frage, antwort\); say "
         r"which is which, as `fields: \{instruction: COLUMN, response: COLUMN\};"
         r" or \{messages: COLUMN\}`"),
        ({"prompt": "Q", "output": "A", "answer": "B"},
         r"its columns could be taken in more than one way \(output or answer\); say which is "),
        ({"prompt": "Q", "response": "A", "messages": []},
         r"more than one way \(instruction: prompt, response: response; or messages: messages\)"),
        ({"prompt": "Q", "response": "A", "system": "Be brief."},
         r"mine\.jsonl:1: column system holds \"Be brief\.\", which what is read of .*mine\.jsonl "
         r"would lack; to leave it out, say which columns are read, as `fields: "),
        ({"prompt": "Q", "response": "A", "history": [["a", "b"]]}, "column history holds"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_guessed_are_asked_for(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load_dataset(rows_file(tmp_path / "mine.jsonl", row))


def test_columns_that_are_asked_for_by_the_texts_that_rows_share(tmp_path):
    spec = rows_file(tmp_path / "mine.jsonl", {"frage": "Q"})
    with pytest.raises(DataError, match=r"as `fields: \{instruction: COLUMN\}`"):
        load_preferences(spec | {"constants": {"chosen": "No", "rejected": "Sure"}})
