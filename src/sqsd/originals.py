"""The rows of a source as they stand in it, and files of some of them in the same format.

What is written of a text file are its own bytes. New columns, where they are asked for, stand
behind those that a row has.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet as parquet

from sqsd.errors import DataError
from sqsd.sources import Row, all_rows, is_hub

BOM = "\ufeff"
Columns = Mapping[str, Sequence[Any]]


class Original(Protocol):
    """A source's rows, in its order; suffix and columns: of the files that `write` makes."""

    @property
    def suffix(self) -> str: ...

    @property
    def columns(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def write(self, path: Path, rows: Sequence[int], added: Columns) -> None:
        """Write rows, by their places from 0; added: new columns, with a value for each of them."""
        ...

    def table(self, rows: Sequence[int]) -> pyarrow.Table:
        """Rows as a table."""
        ...


@dataclass(frozen=True)
class TextRows:
    """Rows of a text file.

    head: what stands before the rows. pieces: the text of each. between: what stands between two.
    tail: what stands behind them. extended: a piece with new values; extended_head: the head with
    the names of new columns.
    """

    suffix: str
    columns: Sequence[str]
    head: str
    pieces: Sequence[str]
    between: str
    tail: str
    extended: Callable[[int, Mapping[str, Any]], str]
    extended_head: Callable[[Iterable[str]], str]
    values: Sequence[Row]

    def __len__(self) -> int:
        return len(self.pieces)

    def write(self, path: Path, rows: Sequence[int], added: Columns) -> None:
        head, pieces = self.head, [self.pieces[row] for row in rows]
        if added:
            head = self.extended_head(added)
            pieces = [
                self.extended(row, {name: values[i] for name, values in added.items()})
                for i, row in enumerate(rows)
            ]
        text = head + self.between.join(pieces) + self.tail
        path.write_bytes(text.encode())

    def table(self, rows: Sequence[int]) -> pyarrow.Table:
        return arrow_table([self.values[row] for row in rows], self.columns)


@dataclass(frozen=True)
class ArrowRows:
    """Rows of a Parquet file, or of a source that is no file."""

    whole: pyarrow.Table
    suffix: str = ".parquet"

    @property
    def columns(self) -> Sequence[str]:
        return self.whole.column_names

    def __len__(self) -> int:
        return self.whole.num_rows

    def table(self, rows: Sequence[int]) -> pyarrow.Table:
        return self.whole.take(pyarrow.array(rows, pyarrow.int64()))

    def write(self, path: Path, rows: Sequence[int], added: Columns) -> None:
        part = self.table(rows)
        for name, values in added.items():
            part = part.append_column(name, [column(values)])
        parquet.write_table(part, path)


def read_original(spec: Mapping[str, Any]) -> Original:
    """The rows of a specification's source, all of them, whatever `where` and `rows` select.

    A hub's rows are written as Parquet. Raises DataError as `sources.load_dataset`.
    """
    rows, source = all_rows(spec), spec["source"]
    path = Path(source)
    if is_hub(source):
        return ArrowRows(arrow_table(rows, columns_of(rows)))
    if path.suffix == ".parquet":
        return ArrowRows(parquet.read_table(path))
    text = path.read_bytes().decode()
    head, text = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    read = {".jsonl": jsonl_rows, ".json": json_rows, ".csv": csv_rows}[path.suffix]
    found = read(head, text, rows, "columns" in spec)
    if len(found) != len(rows):
        raise DataError(f"{source}: has changed while it was read; run again")
    return found


def columns_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))


def text_of_objects(rows: Sequence[Row]) -> TextRows:
    """Rows that stand in no file, as JSONL."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return jsonl_rows("", text, rows, False)


def jsonl_rows(head: str, text: str, rows: Sequence[Row], unnamed: bool) -> TextRows:
    # A line ends as the reader takes it; only the last may lack its end, and gets one.
    lines = [line for line in io.StringIO(text, newline="") if line.strip()]
    pieces = [line if line.endswith(("\n", "\r")) else f"{line}\n" for line in lines]

    def extended(row: int, values: Mapping[str, Any]) -> str:
        body, end = without_end(pieces[row])
        return extended_object(body, values) + end

    names = columns_of(rows)
    return TextRows(".jsonl", names, head, pieces, "", "", extended, lambda names: head, rows)


def json_rows(head: str, text: str, rows: Sequence[Row], unnamed: bool) -> TextRows:
    decoder, blank = json.JSONDecoder(), re.compile(r"[\s,]*")
    spans, end = [], text.index("[") + 1
    while text[start := blank.match(text, end).end()] != "]":  # pyright: ignore
        end = decoder.raw_decode(text, start)[1]
        spans.append((start, end))
    pieces = [text[start:end] for start, end in spans]
    gaps = [text[one[1] : other[0]] for one, other in itertools.pairwise(spans)]
    head, tail = head + text[: spans[0][0]], text[spans[-1][1] :]

    def extended(row: int, values: Mapping[str, Any]) -> str:
        return extended_object(pieces[row], values)

    between, names = gaps[0] if gaps else ",\n", columns_of(rows)
    return TextRows(".json", names, head, pieces, between, tail, extended, lambda names: head, rows)


def csv_rows(head: str, text: str, rows: Sequence[Row], unnamed: bool) -> TextRows:
    lines = list(io.StringIO(text, newline=""))
    reader, first, found = csv.reader(lines, strict=True), 0, []
    for values in reader:
        if values:
            found.append(("".join(lines[first : reader.line_num]), len(values)))
        first = reader.line_num
    end = without_end(lines[0])[1] or "\n"
    if found and not found[-1][0].endswith(("\n", "\r")):
        found[-1] = (found[-1][0] + end, found[-1][1])
    names, read = ("", found) if unnamed else (found[0][0], found[1:])
    columns = columns_of(rows)

    def extended(row: int, values: Mapping[str, Any]) -> str:
        # A short row lacks its last values.
        piece, width = read[row]
        body, end = without_end(piece)
        return body + "," * (len(columns) - width) + "," + separated(values.values()) + end

    def extended_head(new: Iterable[str]) -> str:
        body, end = without_end(names)
        return head + (f"{body},{separated(new)}{end}" if names else "")

    pieces = [piece for piece, _ in read]
    return TextRows(".csv", columns, head + names, pieces, "", "", extended, extended_head, rows)


def without_end(line: str) -> tuple[str, str]:
    """A line's text and its end."""
    body = line.rstrip("\r\n")
    return body, line[len(body) :]


def extended_object(text: str, values: Mapping[str, Any]) -> str:
    """The text of a JSON object with new keys behind its own."""
    body = text.rstrip()[:-1].rstrip()
    more = json.dumps(dict(values), ensure_ascii=False)[1:]
    return body + ("" if body.endswith("{") else ", ") + more


def separated(values: Iterable[Any]) -> str:
    """Values as a part of a CSV file's line; null is nothing."""
    line = io.StringIO()
    # What may end a line is quoted if it is in the terminator.
    csv.writer(line, lineterminator="\r\n").writerow(list(values))
    return line.getvalue().removesuffix("\r\n")


def arrow_table(rows: Sequence[Row], names: Iterable[str]) -> pyarrow.Table:
    """Rows as a table of these columns; one of no one type holds its values as JSON."""
    return pyarrow.table({name: column([row.get(name) for row in rows]) for name in names})


def column(values: Sequence[Any]) -> pyarrow.Array:
    try:
        return pyarrow.array(values, from_pandas=False)
    except (pyarrow.ArrowException, OverflowError, UnicodeError):
        return pyarrow.array([None if v is None else json.dumps(v, default=str) for v in values])
