"""What a method reads of every row: kinds of readings, and the tables that each is kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from sqsd.score_files import match_scores
from sqsd.tables import read_table


@dataclass(frozen=True)
class Update:
    """Each row's one-step update at a state, against one direction, per module (Eqs. 9 to 11)."""

    state: str
    direction: str
    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {
        "samples": "gradient_samples", "modules": "gradient_modules",
    }  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """Each row's length in tokens, and whether it can be scored; needs no model."""

    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "samples"}


@dataclass(frozen=True)
class Texts:
    """Each row's prompt and response, beside what `Tokens` reads."""

    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "samples", "rows": "dataset"}


@dataclass(frozen=True)
class HiddenState:
    """Each row's hidden state at a layer (an entry of `layers`), of the model as it is.

    token: counted from the row's end, -1 is its last. dataset: whose rows; None for those that
    are scored.
    """

    layer: str
    token: int
    dataset: str | None = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "hidden_states"}


@dataclass(frozen=True)
class Gradient:
    """Norm of each row's gradient over all parameters of the model as it is.

    anchors: entries of `anchors`, with whose mean gradients it is multiplied.
    """

    anchors: tuple[str, ...] = ()
    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "gradients", "products": "anchor_products"}

    @property
    def name(self) -> str:
        """What its tables are kept under."""
        return "+".join(["norm", *self.anchors])


@dataclass(frozen=True)
class Judged:
    """A judge's score of each row's own response, whatever model the rows are scored for."""

    judge: str
    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "row_judgements"}


@dataclass(frozen=True)
class Scores:
    """Another method's score of each row."""

    method: str
    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"samples": "scores"}


@dataclass(frozen=True)
class Outcomes:
    """What small groups of the rows did to models fine-tuned on them; of no single row.

    groups, finetune: entries of the configuration; benchmark: a role, by whose Safety Score.
    """

    groups: str
    finetune: str
    benchmark: str
    dataset: ClassVar[None] = None
    tables: ClassVar[Mapping[str, str]] = {"groups": "groups", "judgements": "judgements"}


@dataclass(frozen=True)
class ScoreFile:
    """Each row's score in a file of anyone's, matched by its texts.

    source: the file's path; fields: as in `sources.load_scores`.
    """

    source: str
    fields: Mapping[str, str]
    dataset: ClassVar[None] = None
    # `file` is no table of a run: `match_scores` reads it, and gives `samples`.
    tables: ClassVar[Mapping[str, str]] = {"rows": "dataset", "file": "a file of anyone's"}


Reading = Update | Tokens | Texts | HiddenState | Gradient | Judged | Scores | Outcomes | ScoreFile
# The tables of a reading, each with all its shards (`read_shard`), by role. `samples`, of a reading
# of rows, has a row per sample, its `reason` null where the row can be scored.
Readings = Mapping[str, pd.DataFrame]


def shard_rows(rows: pd.DataFrame, shard: int, rows_per_shard: int) -> pd.DataFrame:
    """The rows of a shard, counted from 0; the last one may have fewer than the others."""
    return rows.iloc[shard * rows_per_shard :][:rows_per_shard]


def read_readings(reading: Reading, files: Mapping[str, Sequence[str]]) -> Readings:
    """A reading from the files of its shards, by role; of a `ScoreFile` its `samples` alone."""
    if isinstance(reading, ScoreFile):
        (dataset,), (path,) = files["rows"], files["file"]
        return {"samples": match_scores(dataset, path, reading.fields)}
    return {
        role: pd.concat([read_shard(path, schema) for path in files[role]], ignore_index=True)
        for role, schema in reading.tables.items()
    }


def read_shard(path: str, schema: str) -> pd.DataFrame:
    """A table of a shard; of updates the sums over modules, of which a large model has hundreds."""
    table = read_table(path, schema)
    return sums_over_modules(table) if schema == "gradient_modules" else table


def sums_over_modules(modules: pd.DataFrame) -> pd.DataFrame:
    """Columns sample_id, cosine and projection, summed over modules (Eq. 12)."""
    values = values_of_modules(modules).drop(columns="module")
    return values.groupby("sample_id").sum().reset_index()


def values_of_modules(modules: pd.DataFrame) -> pd.DataFrame:
    """Columns sample_id, module, cosine and projection of a `gradient_modules` table (Eq. 11).

    A module whose update or direction is exactly zero points nowhere: it has 0.
    """
    norm = modules["direction_norm"]
    along = (modules["inner_product"] / norm).mask(norm == 0, 0.0)
    zero = modules["update_norm"] == 0
    cosine = (along / modules["update_norm"]).mask(zero, 0.0)
    return modules[["sample_id", "module"]].assign(cosine=cosine, projection=along)
