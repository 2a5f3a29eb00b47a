"""Parts of a source in its own format: no byte of a kept row is another, and none is lost."""

import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.originals import arrow_table, columns_of, read_original
from sqsd.sources import all_rows, load_dataset, sample_ids_of_rows

FIELDS = {"instruction": "q", "response": "a"}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXT, below, max_size=2),
    max_leaves=3,
)
# Unicode, nulls, and columns beyond those that are read, which not every row has.
ROW = st.builds(
    lambda own, more: more | own,
    st.fixed_dictionaries({"q": st.none() | TEXT, "a": st.none() | TEXT}),
    st.dictionaries(TEXT.filter(lambda name: not name.startswith("sqsd")), VALUE, max_size=3),
)
ROWS = st.lists(ROW, min_size=1, max_size=6)
# What does not matter in a file, and is to stay.
END = st.sampled_from(["\n", "\r\n"])
BOM = st.sampled_from(["", "\ufeff"])


def spec(path, **more):
    return {"source": str(path), "fields": FIELDS, **more}


def written(path, rows, added=None):
    """The file that a source's part becomes, as rows and as text or table."""
    original = read_original(spec(path))
    part = path.with_name(f"part{original.suffix}")
    original.write(part, rows, added or {})
    return part


def parts(draw, count):
    """A random partition of so many rows into three parts, each in order."""
    labels = draw.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return [[i for i, label in enumerate(labels) if label == part] for part in range(3)]


def check_parts(path, data, rows, read):
    """Three parts hold each row once, as it was; with new columns too."""
    for part in parts(data, len(rows)):
        assert read(written(path, part)) == [rows[i] for i in part]
        texts = [f"ä\n{i}" if i % 2 else f'"\r{i},' for i in part]
        added = {"sqsd_score": [i / 7 for i in part], "sqsd_why": texts}
        more = read(written(path, part, added))
        assert [{k: row[k] for k in rows[i]} for row, i in zip(more, part, strict=True)] == [
            rows[i] for i in part
        ]
        assert [float(row["sqsd_score"]) for row in more] == added["sqsd_score"]
        assert [row["sqsd_why"] for row in more] == added["sqsd_why"]


def read_jsonl(path):
    # Only \n, \r and \r\n end a line.
    lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    return [json.loads(line) for line in lines if line.strip()]


def read_json(path):
    return json.loads(path.read_bytes().decode("utf-8-sig"))


@settings(deadline=None)
@given(ROWS, END, BOM, st.booleans(), st.booleans(), st.data())
def test_parts_of_jsonl(rows, end, bom, ascii_only, last_end, data):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    text = bom + end.join(lines) + (end if last_end else "")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.jsonl"
        path.write_bytes(text.encode())
        check_parts(path, data, rows, read_jsonl)
        whole = written(path, range(len(rows))).read_bytes().decode()
        assert whole == text if last_end else whole == text + "\n"


@settings(deadline=None)
@given(ROWS, st.sampled_from([None, 2]), BOM, st.booleans(), st.data())
def test_parts_of_json(rows, indent, bom, ascii_only, data):
    text = bom + json.dumps(rows, ensure_ascii=ascii_only, indent=indent) + "\n"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.json"
        path.write_bytes(text.encode())
        check_parts(path, data, rows, read_json)
        assert written(path, range(len(rows))).read_bytes().decode() == text


# Text that a CSV file gives back: no line end within it is changed by the reader.
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = st.lists(st.sampled_from(["id", "nöte", "x, y", 'say "z"']), unique=True)


@settings(deadline=None)
@given(NAMES, END, BOM, st.booleans(), st.data())
def test_parts_of_csv(names, end, bom, last_end, data):
    columns = ["q", *names, "a"]
    cells = st.lists(CELL, min_size=len(columns), max_size=len(columns))
    values = data.draw(st.lists(cells, min_size=1, max_size=5))
    # A writer leaves an end of line unquoted that is not its own.
    odd = any("\r" in cell for row in values for cell in row)
    quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=quoting).writerows([columns, *values])
    text = bom + (out.getvalue() if last_end else out.getvalue().removesuffix(end))
    rows = [dict(zip(columns, row, strict=True)) for row in values]

    def read(path):
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        return list(csv.DictReader(lines, strict=True))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.csv"
        path.write_bytes(text.encode())
        check_parts(path, data, rows, read)
        whole = written(path, range(len(rows))).read_bytes().decode()
        assert whole == (text if last_end else text + end)


def test_a_short_row_of_csv_gets_its_new_values_under_their_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("q,a,note\nHello,There\n\nBye,Then,so\n")
    part = written(path, [0, 1], {"sqsd_score": [0.5, None], "sqsd_reason": ["a, b", "c"]})
    assert part.read_text() == (
        'q,a,note,sqsd_score,sqsd_reason\nHello,There,,0.5,"a, b"\nBye,Then,so,,c\n'
    )


def test_csv_without_a_header_gets_none(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("Hello,There\nBye,Then\n")
    original = read_original(spec(path, columns=["q", "a"]))
    original.write(tmp_path / "kept.csv", [1], {})
    original.write(tmp_path / "more.csv", [0], {"sqsd_score": [2]})
    assert (tmp_path / "kept.csv").read_text() == "Bye,Then\n"
    assert (tmp_path / "more.csv").read_text() == "Hello,There,2\n"


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, st.none() | TEXT, st.none() | st.integers(0, 9))), st.data())
def test_parts_of_parquet(values, data):
    values = [("q", "a", None), *values]
    rows = [dict(zip(("q", "a", "n"), row, strict=True)) for row in values]
    types = pyarrow.schema(
        [("q", pyarrow.large_string()), ("a", pyarrow.string()), ("n", pyarrow.int16())],
        metadata={"theirs": "kept"},
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows, types), path)
        check_parts(path, data, rows, lambda part: parquet.read_table(part).to_pylist())
        assert parquet.read_schema(written(path, [])).equals(types, check_metadata=True)


@settings(deadline=None)
@given(ROWS)
def test_rows_of_no_one_type_are_a_table_too(rows):
    """As of a hub's data set; what no column can hold stands there as JSON."""
    table = arrow_table(rows, columns_of(rows))
    assert table.num_rows == len(rows)
    assert set(table.column_names) == {name for row in rows for name in row}
    for name in ("q", "a"):
        assert table[name].to_pylist() == [row[name] for row in rows]


def test_a_column_of_two_types_holds_json():
    table = arrow_table([{"n": 1}, {"n": "ä"}, {"n": None}, {}], ["n"])
    assert table["n"].to_pylist() == ["1", '"\\u00e4"', None, None]


@pytest.mark.parametrize("where", [None, {"kind": "good"}])
def test_rows_are_known_by_the_ids_of_their_data_set(tmp_path, where):
    path = tmp_path / "mine.jsonl"
    kinds = ["good", "bad", "good", "good", "bad"]
    rows = [{"q": f"Ask {i % 3}", "a": f"Say {i % 3}", "kind": k} for i, k in enumerate(kinds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    selection = spec(path, rows=2, skip=1, seed=3) | ({"where": where} if where else {})
    ids = sample_ids_of_rows(selection)
    assert len(ids) == len(all_rows(selection)) == 5
    frame = load_dataset(selection)
    # In the file's order, each row's own text.
    assert [i for i in ids if i is not None] == frame["sample_id"].tolist()
    found = [row for row, known in zip(rows, ids, strict=True) if known is not None]
    assert [row["q"] for row in found] == frame["prompt"].tolist()
    if where:
        assert all(row["kind"] == "good" for row in found)
