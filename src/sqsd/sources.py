"""Rows of raw files and hub data sets as a 'dataset' table; what is wrong with which row."""

import csv
import difflib
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet

from sqsd.errors import DataError

Row = Mapping[str, Any]
FIELDS = ("instruction", "context", "response", "messages")
SPEC_KEYS = ("path", "hub", "subset", "split", "fields", "rows")
CONVERSATION_PROBLEM = "messages are not one user message and then one assistant message"


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


def read_rows(path: str | Path, fields: Mapping[str, str]) -> pd.DataFrame:
    """Rows of a .jsonl, .json, .csv or .parquet file as a 'dataset' table, in file order.

    fields: {instruction, response, optional context} or {messages}, each to a column's name.
    A row that cannot be used is kept, `problem` saying why. Raises DataError naming the file,
    and the line or row, when it is missing, empty, malformed or lacks a mapped column.
    """
    return _dataset(_records(Path(path)), fields, str(path))


def load_source(spec: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Rows of a local file or a hub data set as a 'dataset' table.

    spec: {path} or {hub, split, optional subset}, with `fields` as in `read_rows`; `rows` takes
    that many rows at random without replacement, in file order and with the whole file's
    sample_ids. Raises DataError naming the source.
    """
    _refuse_unknown(spec, SPEC_KEYS, "source", "key")
    if ("path" in spec) == ("hub" in spec):
        raise DataError(f"source: give either 'path' or 'hub', got {', '.join(spec) or 'neither'}")
    needed = ["fields", "split"] if "hub" in spec else ["fields"]
    if missing := [key for key in needed if key not in spec]:
        name = spec.get("path", spec.get("hub"))
        raise DataError(f"source {name}: missing key {', '.join(missing)}")
    if "path" in spec:
        where = str(spec["path"])
        frame = read_rows(where, spec["fields"])
    else:
        where = f"hub:{spec['hub']}[{spec['split']}]"
        frame = _dataset(_hub_records(spec, where), spec["fields"], where)
    rows = spec.get("rows")
    if rows is None:
        return frame
    if not 1 <= rows <= len(frame):
        raise DataError(f"{where}: rows is {rows}, allowed 1 to {len(frame)} (what it holds)")
    kept = np.sort(np.random.default_rng(seed).choice(len(frame), size=rows, replace=False))
    return frame.iloc[kept].reset_index(drop=True)


def read_prompts(path: str | Path, column: str) -> pd.DataFrame:
    """Prompts of a file as a 'benchmark' table; prompt_id depends on the prompt's text alone.

    Raises DataError as `read_rows`, and for a row whose prompt is missing or empty: a benchmark
    has no place for a row without one.
    """
    records = _records(Path(path))
    _refuse_missing_columns(records, [column], str(path))
    prompts = []
    for where, row in records:
        text, problem = _text(row, column, column)
        if problem:
            raise DataError(f"{where}: {problem}; give every row a prompt in '{column}'")
        prompts.append(_storable(text, where))
    empty = pd.Series([None] * len(prompts), dtype="str")
    return pd.DataFrame(
        {
            "prompt_id": pd.Series(sample_ids(prompts, [None] * len(prompts)), dtype="str"),
            "prompt": pd.Series(prompts, dtype="str"),
            "category": empty,
            "reference": empty,
        }
    )


def _dataset(
    records: list[tuple[str, Row]], fields: Mapping[str, str], source: str
) -> pd.DataFrame:
    _refuse_unknown(fields, FIELDS, f"{source}: fields", "field")
    chat = set(fields) == {"messages"}
    if not chat and ("messages" in fields or not {"instruction", "response"} <= set(fields)):
        raise DataError(
            f"{source}: fields are {', '.join(fields) or 'empty'}; "
            "allowed: instruction, response and optionally context, or messages alone"
        )
    _refuse_missing_columns(records, fields.values(), source)
    prompts: list[str] = []
    responses: list[str | None] = []
    problems: list[str | None] = []
    for where, row in records:
        read = _read_messages if chat else _read_instruction
        prompt, response, problem = read(row, fields)
        prompts.append(_storable(prompt or "", where))
        responses.append(None if response is None else _storable(response, where))
        problems.append(problem)
    return pd.DataFrame(
        {
            "sample_id": pd.Series(sample_ids(prompts, responses), dtype="str"),
            "prompt": pd.Series(prompts, dtype="str"),
            "response": pd.Series(responses, dtype="str"),
            "family": pd.Series([None] * len(prompts), dtype="str"),
            "problem": pd.Series(problems, dtype="str"),
        }
    )


def _text(row: Row, column: str, name: str) -> tuple[str | None, str | None]:
    """A field's text and its problem, at most one of them null."""
    value = row.get(column)
    if value is None:
        return None, f"missing field {column}"
    if not isinstance(value, str):
        return None, f"field {column} is {type(value).__name__}, not text"
    return value, None if value.strip() else f"empty {name}"


def _read_instruction(
    row: Row, fields: Mapping[str, str]
) -> tuple[str | None, str | None, str | None]:
    prompt, problem = _text(row, fields["instruction"], "instruction")
    response, response_problem = _text(row, fields["response"], "response")
    problems = [problem, response_problem]
    if "context" in fields and row.get(fields["context"]) is not None:
        context, context_problem = _text(row, fields["context"], "context")
        if context is None:
            problems.append(context_problem)
        elif context.strip():
            prompt = f"{prompt or ''}\n{context}"
    return prompt, response, "; ".join(p for p in problems if p) or None


def _read_messages(
    row: Row, fields: Mapping[str, str]
) -> tuple[str | None, str | None, str | None]:
    messages = row.get(fields["messages"])
    if messages is None:
        return None, None, f"missing field {fields['messages']}"
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        return None, None, f"field {fields['messages']} is not a list of messages"
    users = [m for m in messages if m.get("role") == "user"]
    prompt, problem = _text(users[0], "content", "instruction") if users else (None, None)
    response, response_problem = None, None
    if messages and messages[-1].get("role") == "assistant":
        response, response_problem = _text(messages[-1], "content", "response")
    if [m.get("role") for m in messages] != ["user", "assistant"]:
        roles = ", ".join(str(m.get("role")) for m in messages) or "none"
        return prompt, response, f"{CONVERSATION_PROBLEM}: {roles}"
    return prompt, response, "; ".join(p for p in (problem, response_problem) if p) or None


def _storable(text: str | None, where: str) -> str:
    text = text or ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: text that is not Unicode ({error.reason}); repair it") from error
    return text


def _records(path: Path) -> list[tuple[str, Row]]:
    """The objects of a file, each with where it stands."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        got = f"'{path.suffix}'" if path.suffix else "no suffix"
        raise DataError(f"{path}: {got} is not a known kind of file; allowed: {', '.join(readers)}")
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
            yield where, _object(row, where)


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds {type(rows).__name__}, expected a list of objects")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        yield where, _object(row, where)


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: holds {type(row).__name__}, expected an object")
    return row


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    # csv refuses fields above 131072 characters by default; the C long bounds what it takes.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
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
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _hub_records(spec: Mapping[str, Any], where: str) -> list[tuple[str, Row]]:
    import datasets  # takes seconds, and local files do not need it

    try:
        loaded = datasets.load_dataset(spec["hub"], spec.get("subset"), split=spec["split"])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{where}: cannot be loaded ({error}); check name, subset, split"
        ) from error
    records: list[tuple[str, Row]] = [
        (f"{where}, row {number}", dict(row)) for number, row in enumerate(iter(loaded), start=1)
    ]
    if not records:
        raise DataError(f"{where}: holds no rows")
    return records


def _refuse_missing_columns(
    records: list[tuple[str, Row]], columns: Iterable[str], source: str
) -> None:
    known = list(dict.fromkeys(name for _, row in records for name in row))
    for column in columns:
        if column not in known:
            raise DataError(f"{source}: no column '{column}'; {_known(column, known)}")


def _refuse_unknown(
    given: Mapping[str, Any], allowed: Sequence[str], where: str, kind: str
) -> None:
    for name in given:
        if name not in allowed:
            raise DataError(f"{where}: '{name}' is not a {kind}; {_known(name, allowed)}")


def _known(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"known: {', '.join(known)}" + (f". Did you mean '{near[0]}'?" if near else "")
