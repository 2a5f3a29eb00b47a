"""Whatever a user gives is read, or refused with an error of ours that says something.

Rows and configurations are made at random, from right ones that are changed and from nothing.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
import yaml
from conftest import with_own
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snakemake.common.configfile import load_configfile

from sqsd.config import SHAPES, check_layout, listed, read_default, resolve
from sqsd.errors import ConfigurationError, SqsdError
from sqsd.plan import Plan, write_config
from sqsd.score_files import matched
from sqsd.sources import (
    count_records,
    load_benchmark,
    load_dataset,
    load_preferences,
    load_scores,
)
from sqsd.tables import SCHEMAS
from sqsd.validation import (
    check_keys,
    collect,
    data_source_problems,
    number_problems,
    schema_errors,
    schema_problem,
    validate_config,
)

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PRESETS = [
    yaml.safe_load(path.read_text()) for path in sorted((ROOT / "config/presets").glob("*.yaml"))
]
CASES = {
    "bytes": 1500,
    "json": 2500,
    "csv": 2000,
    "parquet": 1000,
    "damage": 1500,
    "options": 1000,
    "resolved": 500,
    "planned": 300,
    "files": 400,
    "defaults": 300,
}


def fuzz(name: str):
    """As many cases as are planned under a name, the same ones at every run."""
    return settings(max_examples=CASES[name], deadline=None, derandomize=True)


class Seen(Counter[str]):
    """How many calls were accepted, and how many refused."""

    def call(self, call: Callable, *args: Any) -> Any:
        """What a call returns; None where it is refused, which must be said in an error of ours."""
        try:
            found = call(*args)
        except SqsdError as error:
            assert str(error).strip()
            self["refused"] += 1
            return None
        self["accepted"] += 1
        return found

    def check(self, name: str) -> None:
        """Fails where a test has had too few cases, or next to none of one of the two."""
        assert self.total() >= CASES[name], self
        assert min(self["accepted"], self["refused"]) >= CASES[name] // 50, self


def test_there_are_ten_thousand_cases():
    assert sum(CASES.values()) >= 10_000


# By kind of rows: the registry that such entries are in, the reader, and the fields.
KINDS: dict[str, tuple[str, Callable, dict[str, str]]] = {
    "pairs": ("datasets", load_dataset, {"instruction": "q", "context": "c", "response": "a"}),
    "conversations": ("datasets", load_dataset, {"messages": "m"}),
    "preferences": (
        "preferences", load_preferences, {"instruction": "q", "chosen": "a", "rejected": "b"},
    ),
    "comparisons": (
        "preferences", load_preferences,
        {"instruction": "q", "first": "a", "second": "b", "preferred": "k"},
    ),
    "prompts": ("benchmarks", load_benchmark, {"prompt": "q", "category": "c", "reference": "a"}),
}  # fmt: skip
TABLES = {"datasets": "dataset", "preferences": "preferences", "benchmarks": "benchmark"}
SCORES = {
    "scores": {"instruction": "q", "response": "a", "score": "k"},
    "scored conversations": {"messages": "m", "score": "k"},
}


def put(path: Path, content: bytes) -> None:
    """Write a file anew: writing over one waits for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


KIND = st.sampled_from([*KINDS, *SCORES])


def read(path: Path, kind: str) -> None:
    """Read a file as one of the kinds, and check what it gives."""
    if kind in SCORES:
        read_scores(path, SCORES[kind])
    else:
        read_rows(kind, {"source": str(path), "fields": KINDS[kind][2]})


def read_rows(kind: str, spec: dict) -> None:
    registry, load, _ = KINDS[kind]
    frame = load(spec)
    assert len(frame) == count_records(spec, *SHAPES[registry]) > 0
    columns = SCHEMAS[TABLES[registry]].columns
    # Only turns that prompt and response cannot hold have a column of their own.
    assert list(frame) == [n for n, c in columns.items() if c.required or n in frame]
    assert frame.iloc[:, 0].is_unique
    assert all(isinstance(text, str) for text in frame.to_numpy().ravel() if text == text)
    needed = ["prompt", "chosen", "rejected"]
    if registry == "datasets":
        frame, needed = frame[frame["problem"].isna()], ["prompt", "response"]
    for name in {*needed} & {*frame}:
        assert frame[name].str.strip().astype(bool).all()


def read_scores(path: Path, fields: dict[str, str]) -> None:
    scores = load_scores(str(path), fields)
    assert list(scores) == ["prompt", "response", "score"]
    assert not scores["score"].isin([math.inf, -math.inf]).any()
    rows = pd.DataFrame([{"prompt": row["q"], "response": row["a"]} for row in ROWS])
    assert len(matched(rows, scores, "rows", str(path))) == len(rows)


# Two rows that every kind can be read from.
ROWS: list[dict[str, Any]] = [
    {"q": q, "c": c, "a": a, "b": "z", "k": k, "m": [
        {"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    for q, c, a, k in [("x", "", "y", 0), ("Name a colour.", "1, 2", "é \u2028 {x}", 1)]
]  # fmt: skip
COLUMNS = st.sampled_from(["q", "c", "a", "b", "k", "m", "x", ""])
ODD_TEXTS = [
    "", " ", "\0", "a\r\nb", '"', ",", "\ud800", "\udfff!", "\ufeff", "\u2028", "\x85", "{x}",
    "NaN", "inf", "-0.0", "1e999", "null", "9" * 5000, "x" * 200_000, "\u0661", "1_0", " 1 ", "0",
    "1", "x", "y", "user", "assistant",
]  # fmt: skip
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(max_size=4)
NUMBERS = st.sampled_from([0, 1, -1, 2**63, 10**400, -(10**4000), 0.5, 1e308]) | st.floats()
LEAVES = st.sampled_from([None, True, False]) | NUMBERS | TEXTS
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "\ud800", None, 1, ["user"]])},
    optional={"content": LEAVES, "x": LEAVES},
)
VALUES = st.one_of(
    LEAVES,
    st.lists(LEAVES, max_size=2),
    st.dictionaries(TEXTS, LEAVES, max_size=2),
    st.lists(MESSAGES | LEAVES, max_size=3),
)
CHANGES = st.dictionaries(COLUMNS, VALUES, max_size=2) | st.fixed_dictionaries(
    {"m": st.lists(MESSAGES, max_size=3)}
)
# JSON that no value of Python is written as.
ODD_JSON = st.sampled_from(
    [
        "", "nul", "01", "1e999", "-1e999", "9" * 4301, '"\\x"', '"\\ud800"', "'x'", '"\t"', "[",
        '{"q": "x", "q": "y", "a": "z"}', '{"a": {"a": 1, "a": 2}}', "[" * 900 + "]" * 900,
        "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"q":' * 100_000 + "1" + "}" * 100_000,
    ]
)  # fmt: skip
ENCODINGS = st.sampled_from(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-7"])
ENDS = st.sampled_from(["\n"] * 8 + ["\r\n", "\r", "\n\n", "\n \t\n", " ", "\u2028", "\0"])


def encoded(text: str, encoding: str) -> bytes:
    wrong = "surrogatepass" if encoding in ("utf-8", "utf-16", "utf-32") else "replace"
    return text.encode(encoding, wrong)


def test_files_of_any_bytes(tmp_path):
    seen = Seen()
    spec = {"fields": {"prompt": "q"}}
    signs = st.text('{}[]",:\\ \n\r\tq1aeN.-', max_size=30)
    contents = st.one_of(
        st.binary(max_size=40),
        st.builds(encoded, st.text(max_size=20) | signs, ENCODINGS),
        st.binary(max_size=40).map(lambda middle: b"PAR1" + middle + b"PAR1"),
    )

    @fuzz("bytes")
    @given(st.sampled_from([".jsonl", ".json", ".csv", ".csv", ".parquet", "", ".txt"]), contents)
    def check(suffix, content):
        path = tmp_path / f"r{suffix}"
        put(path, content)
        columns = {"columns": ["q"]} if suffix == ".csv" else {}
        seen.call(read_rows, "prompts", {**spec, **columns, "source": str(path)})

    check()
    seen.check("bytes")


def test_files_of_json(tmp_path):
    seen = Seen()

    @fuzz("json")
    @given(KIND, CHANGES, st.none() | ODD_JSON, st.booleans(), st.booleans(), ENDS, ENCODINGS)
    def check(kind, changes, odd, whole, escaped, end, encoding):
        rows = [ROWS[0], ROWS[1] | changes]
        lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
        if odd is not None:
            # In place of a row, or of a value in it.
            lines[1] = odd if whole else f'{{"q": {odd}, "a": "x", "k": {odd}, "m": {odd}}}'
        path = tmp_path / ("r.json" if whole else "r.jsonl")
        text = f"[{','.join(lines)}]" if whole else end.join(lines)
        put(path, encoded(text, encoding))
        seen.call(read, path, kind)

    check()
    seen.check("json")


def as_csv(rows: list[dict], end: str, quoted: bool) -> str:
    lines = [list(ROWS[0]), *([str(value) for value in row.values()] for row in rows)]
    if not quoted:  # texts with ends of lines and commas, and quotes that never close
        return end.join(map(",".join, lines))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows(lines)
    return text.getvalue()


def test_files_of_csv(tmp_path):
    seen = Seen()
    path = tmp_path / "r.csv"
    cells = st.dictionaries(COLUMNS, TEXTS | NUMBERS, max_size=3)

    @fuzz("csv")
    @given(KIND, cells, ENDS, st.booleans(), ENCODINGS)
    def check(kind, changes, end, quoted, encoding):
        put(path, encoded(as_csv([ROWS[0], ROWS[1] | changes], end, quoted), encoding))
        seen.call(read, path, kind)

    check()
    seen.check("csv")


def raw(kind: pyarrow.DataType, *values: int | bytes) -> pyarrow.Array:
    """Values of a type as they are stored, which may be none that Python or the type knows."""
    stored = pyarrow.int32() if kind in (pyarrow.date32(), pyarrow.time32("s")) else pyarrow.int64()
    if kind == pyarrow.string():
        stored = pyarrow.binary()
    return pyarrow.array(values, stored).view(kind)


ALIKE = pyarrow.StructArray.from_arrays([pyarrow.array([1, 2])] * 2, names=["a", "a"])
TALK = pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()}))
# Two values of every type that Parquet can hold.
ARRAYS: list[pyarrow.Array] = [
    pyarrow.array(["x", None]),
    pyarrow.array([" ", "\0"], pyarrow.large_string()),
    pyarrow.array(["0", "1"]).dictionary_encode(),
    pyarrow.array([b"x", b"\xff"]),
    pyarrow.array([b"1", b"2"], pyarrow.binary(1)),
    pyarrow.array([0, 1], pyarrow.int8()),
    pyarrow.array([2**63, 2**64 - 1], pyarrow.uint64()),
    pyarrow.array([0.5, math.nan], pyarrow.float16()),
    pyarrow.array([math.inf, -0.0]),
    pyarrow.array([True, False]),
    pyarrow.nulls(2),
    pyarrow.array([Decimal("1.5"), Decimal("1e60")], pyarrow.decimal256(76, 10)),
    pyarrow.array([["x"], []]),
    pyarrow.array([[[1]], [[None]]], pyarrow.large_list(pyarrow.list_(pyarrow.int64()))),
    pyarrow.array([ROWS[0]["m"], ROWS[1]["m"][::-1]], TALK),
    pyarrow.array([[*ROWS[0]["m"], None], [None]], TALK),
    pyarrow.array([[{"role": 1, "content": ["x"]}], [{"role": 2, "content": []}]]),
    pyarrow.array([{"role": "user"}, None]),
    pyarrow.array([[("role", "user")], []], pyarrow.map_(pyarrow.string(), pyarrow.string())),
    ALIKE,
    pyarrow.array([b"0" * 16, b"1" * 16], pyarrow.uuid()),
    raw(pyarrow.string(), b"x", b"\xff"),
    raw(pyarrow.string(), b"\xed\xa0\x80", b"x"),
    raw(pyarrow.date32(), 1, 2**31 - 1),
    raw(pyarrow.date64(), 0, 2**62),
    raw(pyarrow.timestamp("us"), 0, -(2**62)),
    raw(pyarrow.timestamp("ns"), 1, 2**62),
    raw(pyarrow.timestamp("us", "No/Where"), 0, 1),
    raw(pyarrow.time32("s"), 0, 2**31 - 1),
    raw(pyarrow.time64("us"), 0, 2**62),
    raw(pyarrow.duration("s"), 0, 2**62),
]


def test_files_of_parquet(tmp_path):
    seen = Seen()
    path = tmp_path / "r.parquet"
    right = {name: pyarrow.array([row[name] for row in ROWS]) for name in ROWS[0]}
    orders = [pyarrow.array(rows, pyarrow.int8()) for rows in ([0, 1], [1, 0], [0], [1], [])]

    @fuzz("parquet")
    @given(
        KIND, st.dictionaries(COLUMNS, st.sampled_from(ARRAYS), max_size=2),
        st.sampled_from(orders), st.booleans(),
        st.sampled_from([False] * 9 + [True]),
    )  # fmt: skip
    def check(kind, changes, order, arrow, twice):
        columns = {name: array.take(order) for name, array in (right | changes).items()}
        names, arrays = list(columns), list(columns.values())
        if twice:
            names, arrays = [*names, "q"], [*arrays, columns["q"]]
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(arrays, names=names), file, store_schema=arrow)
        put(path, file.getvalue())
        seen.call(read, path, kind)

    check()
    seen.check("parquet")


def right_files() -> list[tuple[str, bytes]]:
    """The rows as a file of every kind."""
    table = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), table)
    return [
        (".jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
        (".json", json.dumps(ROWS, indent=1).encode()),
        (".csv", as_csv(ROWS, "\n", True).encode()),
        (".parquet", table.getvalue()),
    ]


# Where, as a share of the length; what is put there; and how many bytes it takes the place of.
DAMAGE = st.tuples(
    st.floats(0, 1),
    st.binary(max_size=3)
    | st.sampled_from([b"\0", b"\xff", b'"', b",", b"\r", b"\n", b"{", b"]", b"\\ud800", b"1e999"]),
    st.sampled_from([0, 1, 1, 3, 10**6]),
)


def damaged(content: bytes, damages: list[tuple[float, bytes, int]]) -> bytes:
    for share, piece, taken in damages:
        at = int(share * len(content))
        content = content[:at] + piece + content[at + taken :]
    return content


def test_damaged_files(tmp_path):
    seen = Seen()

    @fuzz("damage")
    @given(st.sampled_from(right_files()), st.lists(DAMAGE, min_size=1, max_size=2), KIND)
    def check(file, damages, kind):
        suffix, content = file
        path = tmp_path / f"r{suffix}"
        put(path, damaged(content, damages))
        seen.call(read, path, kind)

    check()
    seen.check("damage")


# What a configuration may say anywhere, and mostly should not.
STRANGE = st.sampled_from(
    [
        None, True, False, 0, 1, 2, -1, 0.5, 1.0, 10**9, 10**400, -(10**400), 1e308, 5e-324,
        math.nan, math.inf, -math.inf, "", " ", "x", "1", "0", "{x}", "{", "\ud800", "\0", "é",
        "x" * 300, "../x", "x\n", "all", [], {}, [None], [[]], ["x", "x"], [1, True], {"": None},
        {"x": {"x": 1}}, {1: 2}, {None: 1}, {"1": 1, 1: 2}, {"x": 1, True: 2}, date(2020, 1, 1),
        b"x", (1, 2), {1, 2}, 1j, [math.nan], ["\ud800"], [{}], [10**5000],
    ]
)  # fmt: skip
SCALARS = st.sampled_from([None, True, 0, 1, 0.5, "", "0", "1", "x", "y", "z", "\ud800", 10**400])
BY_COLUMN = st.dictionaries(COLUMNS, SCALARS | st.lists(SCALARS, max_size=3), max_size=2)
COUNTS = st.sampled_from([0, 1, 2, 3, 10**9, 2**64, 10**400])
NAMES_OF_FIELDS = ["instruction", "response", "messages", "prompt", "chosen", "context", "x"]
OPTIONS: dict[str, st.SearchStrategy] = {
    "rows": COUNTS, "skip": COUNTS, "seed": COUNTS, "where": BY_COLUMN, "where_not": BY_COLUMN,
    "columns": st.lists(COLUMNS, max_size=7), "revision": st.just("main"), "x": st.just(1),
    "fields": st.dictionaries(st.sampled_from(NAMES_OF_FIELDS), COLUMNS, max_size=3),
    "constants": st.dictionaries(st.sampled_from(NAMES_OF_FIELDS), TEXTS, max_size=2),
    "source": st.sampled_from(
        ["r.jsonl", "r.csv", "sandbox:benign", "hub:", "hub:a/b:c[:9]", "", ".", "\0.csv",
         "x" * 5000 + ".csv", "\ud800.csv", "r", ".parquet"]
    ),
}  # fmt: skip


DEFINITIONS = json.loads(SCHEMA.read_text())["$defs"]
ENTRY = DEFINITIONS["rows_source"] | {"$defs": DEFINITIONS}


def checked_and_read(kind: str, spec: dict) -> None:
    """Read what a specification says that stands in a configuration, as it is checked there."""
    registry = KINDS[kind][0]
    spec = resolve({}, {registry: {"x": spec}})[registry]["x"]
    problems = [*number_problems(spec), *map(schema_problem, schema_errors(spec, ENTRY))]
    if not problems:
        collect(data_source_problems(registry, "x", spec), problems)
    if problems:
        raise ConfigurationError(listed(problems))
    if not spec["source"].startswith(("sandbox:", "hub:")):
        read_rows(kind, spec)


def test_options_of_rows(folder):
    seen = Seen()
    for suffix, content in right_files():
        (folder / f"r{suffix}").write_bytes(content)

    @fuzz("options")
    @given(
        st.sampled_from(list(KINDS)),
        st.sampled_from([".jsonl", ".json", ".csv", ".parquet"]),
        st.fixed_dictionaries({}, optional=OPTIONS),
        st.none() | st.tuples(st.sampled_from(list(OPTIONS)), STRANGE),
    )
    def check(kind, suffix, options, strange):
        spec = {"source": f"r{suffix}", "fields": KINDS[kind][2], "seed": 1, **options}
        if strange is not None:
            spec[strange[0]] = strange[1]
        seen.call(checked_and_read, kind, spec)

    check()
    seen.check("options")


def smaller(config: dict) -> dict:
    """A configuration with a few entries of every registry, so that it is checked sooner."""
    kept = {
        "models": ["sandbox", "cost"], "datasets": ["mixed", "pilot", "danger", "harmful-10"],
        "directions": ["danger", "safety"], "pilots": ["pilot"], "layers": ["last"],
        "states": ["theta-0", "d-danger", "s"], "anchors": ["harmful"], "groups": ["tuning"],
        "methods": ["sqsd-danger", "random", "bi-anchor-reps"], "finetunes": ["lora"],
        "judges": ["sandbox", "cost"], "tables": ["table4", "figure2", "ranking"],
    }  # fmt: skip
    few = {registry: {n: config[registry][n] for n in names} for registry, names in kept.items()}
    selection = {"experiments": ["sandbox"], "tables": kept["tables"], "curations": ["safer"]}
    return deepcopy(config | few | {"selection": selection})


SMALL = smaller(DEFAULT)


def planned(default: dict, given: dict) -> Plan:
    """The plan of a configuration, as rules/common.smk makes it, and what the rules ask of it."""
    resolved = resolve(default, with_own(given))
    validate_config(resolved, SCHEMA)
    plan = Plan(resolved)
    check_layout(plan.paths.root)
    for table in resolved["selection"]["tables"]:
        assert plan.table_files(table)
        for asked in (plan.table_inputs, plan.table_params, plan.table_settings):
            asked(table)
    assert plan.subjects and plan.gradient_anchors
    assert len(plan.curated()) >= len(resolved["selection"]["curations"])
    return plan


def places(value: Any, above: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every value below another, by its path."""
    below = value.items() if isinstance(value, dict) else enumerate(value)
    for key, found in below:
        yield (*above, key), found
        if isinstance(found, dict | list):
            yield from places(found, (*above, key))


# What stands under a key anywhere: of the kind that is expected there, if not what is right.
BY_KEY: dict[Any, list] = {}
for path, value in places(DEFAULT):
    BY_KEY.setdefault(path[-1], []).append(value)
SUBTREES = [value for values in BY_KEY.values() for value in values]
KEYS = [*BY_KEY, "per_model", "axes", "x", "", "{x}", "all", "responses", "all-rows", "\ud800", 1]
NUMBER = st.sampled_from([0, 1, 2, 3, 7, 1000, 10**9, 0.1, 0.25, 1.0, 4.0, -1, 1e-9, 10**400])
CHANGES_OF_CONFIG = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.sampled_from(["remove", "add", "alike", "alike", "swap", "strange", "number"]),
        st.sampled_from(KEYS) | STRANGE,
        STRANGE,
        NUMBER,
    ),
    min_size=1,
    max_size=2,
)


def changed(tree: dict, changes: list[tuple]) -> dict:
    """A tree that differs at some places, which are counted through."""
    tree = deepcopy(tree)
    for where, what, key, strange, number in changes:
        found = list(places(tree)) or [(("run",), "x")]
        (*above, last), there = found[where % len(found)]
        place: Any = tree
        for step in above:
            place = place[step]
        alike = BY_KEY.get(last, [there])
        if what == "remove":
            del place[last]
        elif what == "add" and isinstance(there, dict) and key.__hash__:
            there[key] = strange
        else:
            place[last] = deepcopy(
                {"alike": alike[where % len(alike)], "swap": SUBTREES[where % len(SUBTREES)],
                 "number": number}.get(what, strange)
            )  # fmt: skip
    return tree


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where Snakemake is started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", [{}, *PRESETS], ids=lambda given: given.get("run", "default"))
def test_presets_unchanged_are_resolved(given):
    assert resolve(DEFAULT, with_own(given))["run"] == given.get("run", DEFAULT["run"])


def test_changed_presets_laid_over_the_default():
    seen = Seen()

    @fuzz("resolved")
    @given(st.sampled_from(PRESETS), CHANGES_OF_CONFIG)
    def check(preset, changes):
        given = changed(preset, changes)
        resolved = seen.call(lambda: resolve(DEFAULT, with_own(given)))
        assert resolved is None or not {"axes", "own"} & set(resolved)

    check()
    seen.check("resolved")


def test_changed_configurations(folder):
    seen = Seen()

    @fuzz("planned")
    @given(st.sampled_from([SMALL] * 9 + [DEFAULT]), CHANGES_OF_CONFIG, st.booleans())
    def check(config, changes, laid_over):
        tree = changed(config, changes)
        seen.call(planned, *((config, tree) if laid_over else (tree, {})))

    check()
    seen.check("planned")


# Parts of YAML that mean something by themselves, or are refused there.
SNIPPETS = st.sampled_from(
    [
        "~", "yes", "-1", ".inf", ".nan", "0x" + "f" * 4000, "9" * 400, "1:30", "2020-01-01",
        "2020-99-99", "[]", "{}", "[[]]", "x", "''", "'{x}'", "{x}", '"\\ud800"', '"\\0"',
        "&x [*x]", "&x {y: *x}", "[&x {y: [*x]}]", "*x", "!!set {x}", "!!binary aGk=",
        "!!python/tuple [1, 2]", "!!python/complex 1+2j", "!!python/name:os.getcwd", "!!int x",
        "!x y", "{1: 2}", "{~: 1}", "{[1]: 2}", "{x: 1, x: 2}", "{<<: {x: 1}}", "{<<: 1}", "@",
        "[", "]", "'", "# x", "- x", "x: y", "\tx", "\x07", "[" * 300 + "]" * 300,
        "{? [1] : 2}", "{2020-01-01: 1, true: 2}",
    ]
)  # fmt: skip
SMALL_PATHS = [path for path, _ in places(SMALL) if not any(isinstance(k, int) for k in path)]
PIECES_OF_YAML = st.lists(
    st.tuples(st.sampled_from(SMALL_PATHS), st.none() | SNIPPETS, SNIPPETS), min_size=1, max_size=2
)


def as_yaml(pieces: list[tuple[tuple, str | None, str]]) -> str:
    """Values under keys of the configuration, the last of which may be another."""
    lines = []
    for (*above, last), key, value in pieces:
        keys = [*above, last if key is None else key]
        lines += [f"{'  ' * depth}{step}:" for depth, step in enumerate(keys)]
        lines[-1] += f" {value}"
    return "\n".join(lines)


def checked_and_planned(path: Path) -> Any:
    """The plan with a file laid over; None where Snakemake itself cannot read the file."""
    try:
        given = load_configfile(path)
    except Exception:
        return None
    check_keys([path])
    plan = planned(SMALL, given)
    write_config(plan)
    return plan


def test_files_of_configuration(folder):
    seen = Seen()
    path = folder / "my.yaml"
    (folder / "results/sandbox").mkdir(parents=True)

    @fuzz("files")
    @given(PIECES_OF_YAML, ENCODINGS)
    def check(pieces, encoding):
        put(path, encoded(as_yaml(pieces), encoding))
        seen.call(checked_and_planned, path)

    check()
    seen.check("files")


def check_default(path: Path) -> dict:
    """The default of a file, as rules/common.smk reads it."""
    check_keys([path])
    return resolve(read_default(path), {})


def test_defaults_that_are_damaged(folder):
    seen = Seen()
    path = folder / "config.yaml"
    texts = [
        json.dumps(SMALL, indent=1).encode(),
        yaml.safe_dump(SMALL, default_flow_style=None).encode(),
    ]

    @fuzz("defaults")
    @given(st.sampled_from(texts), st.lists(DAMAGE, min_size=1, max_size=2))
    @example(texts[0], [(0.0, b"", 10**6)])
    def check(text, damages):
        put(path, damaged(text, damages))
        seen.call(check_default, path)

    check()
    seen.check("defaults")
