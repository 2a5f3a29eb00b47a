"""Rows of raw files and hub data sets as tables; what is wrong with which row."""

import csv
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

from sqsd.conversations import (
    LOSSES,
    as_json,
    as_text,
    is_pair,
    message_of,
    tools_of,
    turns_problem,
)
from sqsd.errors import DataError, not_known

Row = Mapping[str, Any]
HUB_FORMS = (
    "hub:owner/name:split, hub:owner/name:subset:split, or hub:owner/name:files (.csv, .jsonl, "
    ".json or .parquet, with * for any part of a name)"
)
# The hub's own names; a slice such as train[:100] is refused, `rows` and `skip` say that.
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_PART = re.compile(r"[^\s\[\]]+")
FILES = (".jsonl", ".json", ".csv", ".parquet")
# What columns are usually called, by the name that `fields` would give them; in lower case.
USUAL_COLUMNS = {
    "messages": ("messages", "conversations"),
    "tools": ("tools",),
    "instruction": ("instruction", "prompt", "question", "query", "goal", "request"),
    "prompt": ("prompt", "instruction", "question", "query", "goal", "request"),
    "context": ("context", "input"),
    "response": ("response", "output", "answer", "completion"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
}
# What a column of text to go on writing is usually called.
RAW_TEXT = ("text", "content", "document")
NO_TURNS = (
    "raw text without turns, of which nothing says what is learnt: cut it into an instruction and "
    "a response"
)
# Columns that say more of a conversation than an instruction does.
OTHER_TURNS = ("system", "system_prompt", "history")


@dataclass(frozen=True)
class Shape:
    """Names that `fields` and `constants` together must give, and those they may give."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def fits(self, names: set[str]) -> bool:
        return set(self.required) <= names <= {*self.required, *self.optional}

    def __str__(self) -> str:
        return ", ".join([*self.required, *(f"optionally {name}" for name in self.optional)])


PAIR = Shape(("instruction", "response"), ("context",))
CONVERSATION = Shape(("messages",), ("tools",))
PREFERENCE = Shape(("instruction", "chosen", "rejected"), ("context",))
COMPARISON = Shape(("instruction", "first", "second", "preferred"), ("context",))
PROMPT = Shape(("prompt",), ("category", "reference"))
SCORED = Shape(("instruction", "response", "score"), ("context",))
SCORED_CONVERSATION = Shape(("messages", "score"), ("tools",))


@dataclass(frozen=True)
class Source:
    """The rows that are read, each with where it stands, and where a row's texts come from."""

    name: str
    records: list[tuple[str, Row]]
    fields: Mapping[str, str]
    constants: Mapping[str, str]

    def text(self, row: Row, name: str) -> tuple[str | None, str | None]:
        """A row's text and its problem; the text is null where it is missing or not text."""
        if name in self.constants:
            return self.constants[name], None
        return _text(row, self.fields[name], name)

    def optional_text(self, row: Row, name: str) -> tuple[str | None, str | None]:
        """As `text`, for a name that may be left out: missing or blank is null, no problem."""
        if name in self.constants:
            return self.constants[name], None
        value = row.get(self.fields[name]) if name in self.fields else None
        if value is None or (isinstance(value, str) and not value.strip()):
            return None, None
        return self.text(row, name)


@dataclass(frozen=True)
class ReadRow:
    """A row's texts and what is wrong with them.

    conversation: the JSON of turns that prompt and response cannot hold; they are then its text up
    to the last message, and the last message.
    """

    prompt: str | None
    response: str | None
    problem: str | None
    conversation: str | None = None


def sample_ids(prompts: Sequence[str], responses: Sequence[str | None]) -> list[str]:
    """Identifiers that depend on a row's text alone; repeats get -2, -3, ... in order.

    Raises ValueError where the two differ in length.
    """
    seen: Counter[str] = Counter()
    ids = []
    for prompt, response in zip(prompts, responses, strict=True):
        text = prompt if response is None else f"{prompt}\0{response}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


def several(given: Any) -> list[Any]:
    """What stands under a key that takes one value or a list of them."""
    return given if isinstance(given, list) else [given]


def is_hub(source: str) -> bool:
    """Whether a source is written as a hub data set, well formed or not."""
    return source.startswith("hub:")


def is_sandbox(source: str) -> bool:
    """Whether a source is written as rows of the sandbox, of a kind that there is or not."""
    return source.startswith("sandbox:")


def wheel_parts(source: str) -> tuple[str, str] | None:
    """Requirement and member of a model's source in a wheel; None where it is written otherwise.

    A requirement that pip would take for an option, or a member outside the wheel, is otherwise.
    """
    requirement, member = r"[A-Za-z0-9][\w.-]*==[\w.!+-]+", r"[^/:][^:]*\.gguf"
    found = re.fullmatch(f"wheel:({requirement}):({member})", source)
    if found is None or ".." in found[2].split("/"):
        return None
    return found[1], found[2]


def parse_hub(source: str) -> tuple[str, str | None, str]:
    """Name, subset (or null) and split of a hub data set; its files, in place of a split.

    Raises DataError showing the forms.
    """
    name, *parts = source.removeprefix("hub:").split(":")
    well_formed = HUB_NAME.fullmatch(name) and all(HUB_PART.fullmatch(part) for part in parts)
    most = 1 if Path(source).suffix in FILES else 2
    if not is_hub(source) or not 1 <= len(parts) <= most or not well_formed:
        raise DataError(f"source '{source}' is not a hub data set; allowed: {HUB_FORMS}")
    return name, parts[0] if len(parts) == 2 else None, parts[-1]


def row_keys(source: str, shapes: Sequence[Shape]) -> tuple[str, ...]:
    """Keys that a specification with this source may have beside source and fields."""
    keys = ["constants", "where", "where_not", "rows", "skip", "seed"]
    keys += ["columns"] if source.endswith(".csv") else []
    keys += ["revision"] if is_hub(source) else []
    return (*keys, *(["loss"] if CONVERSATION in shapes else []))


def check_spec(spec: Mapping[str, Any], *shapes: Shape) -> None:
    """Raises DataError for what is wrong with a specification whatever the rows are."""
    name = str(spec.get("source", "(not given)"))
    _refuse_unknown(spec, ("source", "fields", *row_keys(name, shapes)), f"source {name}", "key")
    if "source" not in spec:
        raise DataError(f"source {name}: missing key source")
    if spec.get("seed") is None and (spec.get("rows") is not None or spec.get("skip")):
        raise DataError(f"source {name}: rows and skip need a seed, which decides the permutation")
    _refuse_wrong_names(spec.get("fields"), spec.get("constants") or {}, shapes, name)
    if name.endswith(".csv"):
        _refuse_what_is_no_text(spec)
    if "columns" in spec:
        _refuse_missing_columns(spec["columns"], spec)
    if is_hub(name):
        parse_hub(name)


def count_records(spec: Mapping[str, Any], *shapes: Shape) -> int:
    """Rows that a file's specification selects, one that fits one of the shapes.

    Raises DataError as `load_dataset`.
    """
    source = _open(spec, *shapes)
    first, last = _selection(len(source.records), spec)
    return last - first


def load_dataset(spec: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of a source as a 'dataset' table, in the source's order.

    spec:
      source: a .jsonl, .json, .csv or .parquet file, hub:owner/name:split,
        hub:owner/name:subset:split, or hub:owner/name:files, a file of the repository or, with *,
        several, in the order of their names
      revision: commit, tag or branch of a hub data set; main where there is none
      columns: names of the columns of CSV files that have no header line
      fields: {instruction, response, optional context} or {messages, optional tools}, each to a
        column's name; where there is none, columns are known by their usual names (`usual_fields`)
      loss: which turns of the assistant are learnt in a conversation of several, `all` (where there
        is none) or `last`
      constants: texts that every row shares, by the same names, instead of a column
      where, where_not: a value or a list of them by column: a row is read if each column of `where`
        holds one of its values, and none of `where_not` does. Values are alike by type too: true is
        not 1, "1" is not 1; one that a row lacks is null; a CSV file holds texts alone.
      rows, skip, seed: a permutation by `seed` of the rows that `where` and `where_not` leave, of
        which the first `skip` are dropped and the next `rows` kept: one seed with other skips gives
        disjoint rows

    sample_id depends on the row's text alone; rows with the same text are numbered among those that
    `where` and `where_not` leave, whatever `rows`, `skip` and `seed` select. A row that cannot be
    used is kept, `problem` saying why. Raises DataError naming the source, and the line or row,
    when it is missing, empty, malformed, lacks a column that is named, or has no row that is left.
    """
    return _with_places(spec).drop(columns="place")


def _with_places(spec: Mapping[str, Any]) -> pd.DataFrame:
    """The 'dataset' table of a source, and where each row stands."""
    source = _open(spec, PAIR, CONVERSATION)
    rows = [_storable_row(_read_row(source, row), where) for where, row in source.records]
    ids = sample_ids(
        [row.conversation or row.prompt or "" for row in rows],
        [None if row.conversation else row.response for row in rows],
    )
    loss = spec.get("loss", LOSSES[0])
    frame = _selected(
        _frame(
            sample_id=ids,
            prompt=[row.prompt or "" for row in rows],
            response=[row.response for row in rows],
            family=[None] * len(ids),
            problem=[row.problem for row in rows],
            conversation=[row.conversation and _with_loss(row.conversation, loss) for row in rows],
            place=[where for where, _ in source.records],
        ),
        spec,
    )
    return frame if frame["conversation"].notna().any() else frame.drop(columns="conversation")


def _with_loss(conversation: str, loss: str) -> str:
    return json.dumps({**json.loads(conversation), "loss": loss}, ensure_ascii=False)


def all_rows(spec: Mapping[str, Any]) -> list[Row]:
    """Every row of a source, in its order, whatever the specification selects of them.

    Raises DataError as `load_dataset`.
    """
    return [row for _, row in _all_records(spec)]


def columns_read(spec: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a source that rows are read from, by the names that `fields` has for them.

    Raises DataError as `load_dataset`.
    """
    return dict(_open(spec, PAIR, CONVERSATION).fields)


def sample_ids_of_rows(spec: Mapping[str, Any]) -> list[str | None]:
    """The sample_id of every row of a source, null where the specification does not select it."""
    places = [place for place, _ in _all_records(spec)]
    known = _with_places(spec).set_index("place")["sample_id"]
    return [known.get(place) for place in places]


def load_preferences(spec: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of a source as a 'preferences' table.

    spec: as in `load_dataset`, with the names instruction, chosen, rejected, optional context; or
    instruction, first, second, preferred, optional context, where `preferred` is a column of 0 (the
    first response is the chosen one) and 1 (the second is).
    Raises DataError as `load_dataset`, and for a row with a missing or empty text, or `preferred`
    neither 0 nor 1: the table has no place for a problem.
    """
    source = _open(spec, PREFERENCE, COMPARISON)
    prompts, chosen, rejected = [], [], []
    for where, row in source.records:
        prompt, problem = _prompt(source, row)
        prompts.append(_usable(prompt, problem, where))
        better, worse = _order(source, row, where)
        chosen.append(_usable(*source.text(row, better), where))
        rejected.append(_usable(*source.text(row, worse), where))
    ids = sample_ids(prompts, [f"{c}\0{r}" for c, r in zip(chosen, rejected, strict=True)])
    return _selected(_frame(sample_id=ids, prompt=prompts, chosen=chosen, rejected=rejected), spec)


def load_benchmark(spec: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of a source as a 'benchmark' table; prompt_id depends on the prompt's text alone.

    spec: as in `load_dataset`, with the names prompt, optional category and reference (null where
    missing or blank). Raises DataError as `load_preferences`, and for a prompt that is there twice:
    an interval over prompts takes each for another one.
    """
    source = _open(spec, PROMPT)
    columns: dict[str, list[str | None]] = {"category": [], "reference": []}
    prompts = []
    for where, row in source.records:
        prompts.append(_usable(*source.text(row, "prompt"), where))
        for name, values in columns.items():
            text, problem = source.optional_text(row, name)
            values.append(_usable(text, problem, where) if text or problem else None)
    ids = sample_ids(prompts, [None] * len(prompts))
    frame = _selected(_frame(prompt_id=ids, prompt=prompts, **columns), spec)
    repeated = frame.loc[frame["prompt"].duplicated(), "prompt"]
    if len(repeated):
        text = repeated.iloc[0]
        found = zip(source.records, prompts, strict=True)
        first, second, *_ = (where for (where, _), prompt in found if prompt == text)
        raise DataError(
            f"{second}: the prompt of {first} again, {text[:60]!r}; {len(repeated)} row(s) repeat "
            "one; keep each prompt once"
        )
    return frame


def load_scores(path: str, fields: Mapping[str, str]) -> pd.DataFrame:
    """Rows of a file of scores: columns prompt, response and score, NaN where it is null or blank.

    path: a .jsonl, .json, .csv or .parquet file. fields: as in `load_dataset`, with the name score
    besides. Texts are joined as there, and empty where a row has none. Raises DataError as
    `load_dataset`, and for a score that is no finite number, naming the line or row.
    """
    source = _open({"source": path, "fields": fields}, SCORED, SCORED_CONVERSATION)
    rows = []
    for where, row in source.records:
        read = _storable_row(_read_row(source, row), where)
        score = _score(row, fields["score"], where)
        rows.append((read.prompt or "", read.response or "", score))
    return pd.DataFrame(rows, columns=pd.Index(["prompt", "response", "score"]))


def _order(source: Source, row: Row, where: str) -> tuple[str, str]:
    """The names of a row's chosen and rejected response."""
    if "preferred" not in source.fields:
        return "chosen", "rejected"
    column = source.fields["preferred"]
    value = row.get(column)
    # 0 and 1 as texts: a CSV file has no numbers.
    if type(value) not in (int, str) or str(value) not in ("0", "1"):
        raise DataError(
            f"{where}: field {column} is {value!r}; allowed: 0 (the first response is preferred) "
            "or 1 (the second); repair the row or remove it"
        )
    return ("second", "first") if str(value) == "1" else ("first", "second")


def _score(row: Row, column: str, where: str) -> float:
    value = row.get(column)
    if value is None or value == "":
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: field {column} is {value!r}, no finite number; correct it, or leave it "
            "blank (null) for a row without a score"
        )
    return number


def _open(spec: Mapping[str, Any], *shapes: Shape) -> Source:
    """The rows of a specification whose names fit one of the shapes."""
    check_spec(spec, *shapes)
    name, records, constants = spec["source"], _all_records(spec), spec.get("constants") or {}
    columns = list(dict.fromkeys(column for _, row in records for column in row))
    _refuse_missing_columns(columns, spec)
    left, fields = _left(records, spec), spec.get("fields")
    if fields is None:
        fields = usual_fields(columns, constants, shapes, name)
        _refuse_other_turns(left, name)
    if "loss" in spec and "messages" not in fields:
        raise DataError(
            f"{name}: loss says which turns of a conversation are learnt, and "
            f"{', '.join(fields.values())} give one answer; remove it, or give `fields: "
            "{messages: COLUMN}`"
        )
    return Source(name, left, fields, constants)


def usual_fields(
    columns: Sequence[str], constants: Iterable[str], shapes: Sequence[Shape], source: str
) -> dict[str, str]:
    """Columns by the name that `fields` would give them, from what columns are usually called.

    constants: names that need no column. What a row may have but need not is not looked for, but
    for a context and for tools, which are a part of the prompt. Raises DataError, with the remedy,
    where columns of such names are missing, or could be taken in more than one way.
    """
    found = []
    shapes = [shape for shape in shapes if {*constants} <= {*shape.required, *shape.optional}]
    for shape in shapes:
        wanted = [*shape.required, *({"context", "tools"} & {*shape.optional})]
        taken = {
            name: [c for c in columns if c.lower() in USUAL_COLUMNS.get(name, ())]
            for name in wanted
            if name not in constants
        }
        if all(taken.get(name, True) for name in shape.required):
            found.append({name: held for name, held in taken.items() if held})
    forms = "; or ".join(
        "{" + ", ".join(f"{name}: COLUMN" for name in shape.required if name not in constants) + "}"
        for shape in shapes
    )
    has = f"it has {', '.join(map(str, columns))}"
    if not found:
        raw = [c for c in columns if c.lower() in RAW_TEXT] if CONVERSATION in shapes else []
        more = f". {raw[0]} looks like {NO_TURNS}" if raw else ""
        raise DataError(
            f"{source}: its columns are not called as usual ({has}); say which is which, as "
            f"`fields: {forms}`{more}"
        )
    repeated = [held for taken in found for held in taken.values() if len(held) > 1]
    if len(found) > 1 or repeated:
        ways = [" or ".join(held) for held in repeated] or ["; or ".join(map(_as_fields, found))]
        raise DataError(
            f"{source}: its columns could be taken in more than one way ({ways[0]}); say which is "
            f"which, as `fields: {forms}`"
        )
    return {name: held[0] for name, held in found[0].items()}


def _as_fields(taken: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name}: {held[0]}" for name, held in taken.items())


def _refuse_other_turns(records: list[tuple[str, Row]], source: str) -> None:
    """Raises DataError for a row with a turn beside those that usual columns are read for."""
    for place, row in records:
        for column, value in row.items():
            if column.lower() in OTHER_TURNS and value not in (None, "", []):
                raise DataError(
                    f"{place}: column {column} holds {_written(value)}, which what is read of "
                    f"{source} would lack; to leave it out, say which columns are read, as "
                    "`fields: {instruction: COLUMN, response: COLUMN}`"
                )


def _all_records(spec: Mapping[str, Any]) -> list[tuple[str, Row]]:
    name, columns = spec["source"], spec.get("columns")
    if is_hub(name):
        return _hub_records(name, columns, spec.get("revision"))
    return _records(Path(name), columns)


def _left(records: list[tuple[str, Row]], spec: Mapping[str, Any]) -> list[tuple[str, Row]]:
    """The rows that `where` and `where_not` leave."""
    keys = [key for key in ("where", "where_not") if spec.get(key)]
    tests = [(column, several(given), key) for key in keys for column, given in spec[key].items()]
    left = [
        (place, row)
        for place, row in records
        if all(_holds(row, column, values) == (key == "where") for column, values, key in tests)
    ]
    if not left:
        held = "; ".join(
            f"{column} holds {_some_values(records, column)}"
            for column in dict.fromkeys(column for column, _, _ in tests)
        )
        raise DataError(
            f"{spec['source']}: no row of {len(records)} is left by {' and '.join(keys)}; {held}"
        )
    return left


def _holds(row: Row, column: str, values: list[Any]) -> bool:
    """Whether a row's value is one of some; to Python true is 1."""
    held = row.get(column)
    return any(isinstance(held, bool) == isinstance(v, bool) and held == v for v in values)


def _some_values(records: list[tuple[str, Row]], column: str) -> str:
    """The first few different values of a column, as they are written in a configuration."""
    values = dict.fromkeys(_written(row.get(column)) for _, row in records)
    return ", ".join([*list(values)[:5], *(["..."] if len(values) > 5 else [])])


def _written(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_wrong_names(
    given: Mapping[str, str] | None,
    constants: Mapping[str, Any],
    shapes: Sequence[Shape],
    source: str,
) -> None:
    known = list(
        dict.fromkeys(name for shape in shapes for name in (*shape.required, *shape.optional))
    )
    fields = given or {}
    _refuse_unknown(fields, known, f"{source}: fields", "field")
    texts = [name for name in known if name not in ("messages", "tools", "preferred")]
    _refuse_unknown(constants, texts, f"{source}: constants", "text that rows can share")
    for name, text in constants.items():
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{source}: constants: {name} is {text!r}; give a text, not blank")
        if name in fields:
            raise DataError(f"{source}: {name} is in fields and in constants; keep one of them")
    names = {*fields, *constants}
    if given is not None and not any(shape.fits(names) for shape in shapes):
        got = ", ".join([*fields, *constants]) or "nothing"
        allowed = "; or ".join(str(shape) for shape in shapes)
        raise DataError(f"{source}: fields and constants give {got}; allowed: {allowed}")


def _refuse_what_is_no_text(spec: Mapping[str, Any]) -> None:
    """Values that no column of a CSV file can hold."""
    for key in ("where", "where_not"):
        for column, given in (spec.get(key) or {}).items():
            for value in several(given):
                if not isinstance(value, str):
                    raise DataError(
                        f"{spec['source']}: {key}: {column} is {_written(value)}, and a CSV file "
                        "holds texts alone; give the text in quotes, as it is in the file"
                    )


def _selected(frame: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    first, last = _selection(len(frame), spec)
    if last - first == len(frame):
        return frame
    order = np.random.default_rng(spec["seed"]).permutation(len(frame))
    return frame.iloc[np.sort(order[first:last])].reset_index(drop=True)


def _selection(held: int, spec: Mapping[str, Any]) -> tuple[int, int]:
    """Which part of a permutation of so many rows `skip` and `rows` select."""
    rows, skip, source = spec.get("rows"), spec.get("skip") or 0, spec["source"]
    filtered = spec.get("where") or spec.get("where_not")
    holds = f"it holds {held} rows{' after where and where_not' if filtered else ''}"
    if not 0 <= skip < held:
        raise DataError(f"{source}: skip is {skip}, allowed 0 to {held - 1} ({holds})")
    left = held - skip
    if rows is None:
        rows = left
    if not 1 <= rows <= left:
        raise DataError(f"{source}: rows is {rows}, allowed 1 to {left} ({holds}, skip is {skip})")
    return skip, skip + rows


def _frame(**columns: Sequence[str | None]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype="str")


def _text(row: Row, column: str, name: str) -> tuple[str | None, str | None]:
    value = row.get(column)
    if value is None:
        return None, f"missing field {column}"
    if not isinstance(value, str):
        return None, f"field {column} is {type(value).__name__}, not text"
    return value, None if value.strip() else f"empty {name}"


def _usable(text: str | None, problem: str | None, where: str) -> str:
    if problem:
        raise DataError(f"{where}: {problem}; repair the row or remove it")
    return _storable(text, where)


def _prompt(source: Source, row: Row) -> tuple[str | None, str | None]:
    """The instruction, then the context after a newline, and what is wrong with them."""
    prompt, problem = source.text(row, "instruction")
    context, context_problem = source.optional_text(row, "context")
    if context is not None:
        prompt = f"{prompt or ''}\n{context}"
    return prompt, _joined(problem, context_problem)


def _joined(*problems: str | None) -> str | None:
    return "; ".join(p for p in problems if p) or None


def _read_row(source: Source, row: Row) -> ReadRow:
    read = _read_messages if "messages" in source.fields else _read_instruction
    return read(source, row)


def _read_instruction(source: Source, row: Row) -> ReadRow:
    prompt, problem = _prompt(source, row)
    response, response_problem = source.text(row, "response")
    return ReadRow(prompt, response, _joined(problem, response_problem))


def _read_messages(source: Source, row: Row) -> ReadRow:
    column = source.fields["messages"]
    given = row.get(column)
    if given is None:
        return ReadRow(None, None, f"missing field {column}")
    if isinstance(given, str):
        return ReadRow(None, None, f"field {column} is {NO_TURNS}")
    if not isinstance(given, list) or not all(isinstance(m, Mapping) for m in given):
        return ReadRow(None, None, f"field {column} is not a list of messages")
    try:
        messages = [message_of(message) for message in given]
        tools = tools_of(row.get(source.fields["tools"])) if "tools" in source.fields else []
    except DataError as error:
        return ReadRow(None, None, str(error))
    problem = None
    if not is_pair(messages) or tools:
        problem = turns_problem(messages)
        if problem is None:
            return ReadRow(*as_text(messages), None, as_json(messages, tools))
    users = [m for m in messages if m["role"] == "user"]
    prompt, of_prompt = _text(users[0], "content", "instruction") if users else (None, None)
    response, of_response = None, None
    if messages and messages[-1]["role"] == "assistant":
        response, of_response = _text(messages[-1], "content", "response")
    return ReadRow(prompt, response, problem or _joined(of_prompt, of_response))


def _storable_row(row: ReadRow, where: str) -> ReadRow:
    for text in (row.prompt, row.response, row.conversation):
        _storable(text, where)
    return row


def _storable(text: str | None, where: str) -> str:
    text = text or ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: text that is not Unicode ({error.reason}); repair it") from error
    return text


def _records(path: Path, columns: Sequence[str] | None) -> list[tuple[str, Row]]:
    """The objects of a file, each with where it stands; columns: of a CSV file without a header."""
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": partial(_csv, columns=columns),
        ".parquet": _parquet,
    }  # fmt: skip
    if path.suffix not in readers:
        got = f"'{path.suffix}'" if path.suffix else "no suffix"
        allowed = ", ".join([*readers, HUB_FORMS])
        raise DataError(f"{path}: {got} is not a known kind of file; allowed: {allowed}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; correct the source's path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        records = list(readers[path.suffix](path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it") from error
    if not records:
        raise DataError(f"{path}: the file is empty: it holds no rows")
    return records


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: not JSON ({error.msg}, column {error.colno})") from error
            except (RecursionError, ValueError) as error:
                raise DataError(f"{where}: {_refused(error)}") from error
            yield where, _object(row, where)


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})"
        ) from error
    except UnicodeDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: {_refused(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds {type(rows).__name__}, expected a list of objects")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        yield where, _object(row, where)


def _refused(error: Exception) -> str:
    """What is wrong with JSON that is well formed and still cannot be read."""
    if isinstance(error, RecursionError):
        return "nested too deeply to be read; rows are objects of texts, or of lists of messages"
    return f"a number that cannot be read ({error}); give such a number as a text"


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: holds {type(row).__name__}, expected an object")
    return row


def _csv(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    # csv refuses fields above 131072 characters by default; the C long bounds what it takes.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, columns, strict=True)
        try:
            names = reader.fieldnames or []
            if repeated := [name for name, count in Counter(names).items() if count > 1]:
                raise DataError(f"{path}:1: repeated column {', '.join(repeated)}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row:
                    raise DataError(f"{where}: more values than the {len(names)} columns")
                yield where, row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.reader.line_num}: not CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    except UnicodeDecodeError:
        raise
    except (LookupError, OverflowError, ValueError) as error:
        raise DataError(
            f"{path}: holds a value that cannot be read ({error}), such as a date beyond the year "
            "9999; store its column as text, or leave it out"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _hub_records(
    source: str, columns: Sequence[str] | None, revision: str | None
) -> list[tuple[str, Row]]:
    name, subset, part = parse_hub(source)
    import datasets  # takes seconds, and local files do not need it
    from datasets.exceptions import DatasetsError
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import httpx

    files, loaded = None, []
    try:
        if Path(part).suffix in FILES:
            files = Path(
                snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=part)
            )
        else:
            loaded = datasets.load_dataset(name, subset, split=part, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError, httpx.HTTPError) as error:
        raise DataError(
            f"{source}: cannot be loaded ({error}); check name, subset, split or files, revision "
            "and the network, log in with `hf auth login` if it is gated, or give a local file as "
            "the source"
        ) from error
    if files is not None:
        return _hub_files(source, files, columns)
    records: list[tuple[str, Row]] = [
        (f"{source}, row {number}", dict(row)) for number, row in enumerate(iter(loaded), start=1)
    ]
    if not records:
        raise DataError(f"{source}: holds no rows")
    return records


def _hub_files(source: str, folder: Path, columns: Sequence[str] | None) -> list[tuple[str, Row]]:
    """The rows of files of a hub's repository that lie in a folder, in the order of their names."""
    name, _, part = parse_hub(source)
    paths = sorted(folder.glob(part))
    if not paths:
        raise DataError(f"{source}: the repository has no file {part}; correct the source")
    return [
        (where.replace(f"{folder}/", f"hub:{name}:"), row)
        for path in paths
        for where, row in _records(path, columns)
    ]


def _refuse_missing_columns(known: Iterable[str], spec: Mapping[str, Any]) -> None:
    where, where_not = (spec.get(key) or {} for key in ("where", "where_not"))
    for column in (*(spec.get("fields") or {}).values(), *where, *where_not):
        if column not in known:
            raise DataError(f"{spec['source']}: {not_known(column, 'column', known)}")


def _refuse_unknown(
    given: Mapping[str, Any], allowed: Sequence[str], where: str, kind: str
) -> None:
    for name in given:
        if name not in allowed:
            raise DataError(f"{where}: {not_known(name, kind, allowed)}")
