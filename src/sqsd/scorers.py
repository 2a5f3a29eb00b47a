"""Every method: the readings it needs, and how they become a score per row (Eqs. 11, 12).

A method is one class in `KINDS` and one entry of `methods` in the configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from sqsd.tables import read_table


@dataclass(frozen=True)
class Update:
    """Reading: each row's one-step update at a state, against one direction, per module."""

    state: str
    direction: str


@dataclass(frozen=True)
class Tokens:
    """Reading: each row's length in tokens, and whether it can be scored; needs no model."""


Reading = Update | Tokens


@dataclass(frozen=True)
class Readings:
    """What was read of every row of a data set.

    samples: a `samples` or `gradient_samples` table, its `reason` null where the row can be
    scored. modules: the `gradient_modules` table of an `Update`, None of others.
    """

    samples: pd.DataFrame
    modules: pd.DataFrame | None = None


class Scorer(Protocol):
    """A method. Its fields are the options of its entry in the configuration, beside `kind`."""

    def needs(self) -> dict[str, Reading]:
        """The readings, by the method's own names for them; one at least."""
        ...

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        """Score per sample_id, the riskiest highest; readings by the names of `needs`."""
        ...


@dataclass(frozen=True)
class SqsdScorer:
    """Eq. 12: the update's cosine with danger, at one state, minus that with safety, at another.

    danger, safety: {direction, state}; either may be left out (table 3's ablations). normalised:
    False is table 3's "w/o norm", in which the update is not divided by its norm.
    """

    danger: Mapping[str, str] | None = None
    safety: Mapping[str, str] | None = None
    normalised: bool = True
    signs: ClassVar[Mapping[str, int]] = {"danger": 1, "safety": -1}

    def needs(self) -> dict[str, Reading]:
        terms = {"danger": self.danger, "safety": self.safety}
        return {name: Update(**term) for name, term in terms.items() if term is not None}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        column = "cosine" if self.normalised else "projection"
        parts = []
        for name, reading in readings.items():
            assert reading.modules is not None
            parts.append(self.signs[name] * sums_over_modules(reading.modules)[column])
        return pd.concat(parts, axis=1).sum(axis=1, skipna=False)


@dataclass(frozen=True)
class RandomScorer:
    """Control: a random order, seeded by the model's seed."""

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        ids = sorted(readings["tokens"].samples["sample_id"])
        values = np.random.default_rng(seed).permutation(len(ids)).astype(float)
        return pd.Series(values, index=ids)


@dataclass(frozen=True)
class LengthScorer:
    """Control: response length in tokens, end token included; the longest first."""

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        samples = readings["tokens"].samples
        return samples.set_index("sample_id")["response_tokens"].astype(float)


KINDS: dict[str, type] = {"sqsd": SqsdScorer, "random": RandomScorer, "length": LengthScorer}


def make_scorer(method: Mapping[str, Any]) -> Scorer:
    """The scorer of a method's entry in the configuration."""
    options = {key: value for key, value in method.items() if key != "kind"}
    return KINDS[method["kind"]](**options)


def read_readings(samples: Sequence[str], modules: Sequence[str]) -> Readings:
    """One reading from the files of its shards; modules is empty where there are none."""
    parts = [read_table(path, "gradient_samples" if modules else "samples") for path in samples]
    tables = [read_table(path, "gradient_modules") for path in modules]
    return Readings(
        pd.concat(parts, ignore_index=True),
        pd.concat(tables, ignore_index=True) if tables else None,
    )


def score_method(
    method: Mapping[str, Any], readings: Mapping[str, Readings], seed: int
) -> pd.DataFrame:
    """The `scores` table of one method, in the order of the data set; rank 1 is the riskiest.

    A row that any reading could not take has a null score and rank, and that reading's reason.
    """
    samples = merged_samples([reading.samples for reading in readings.values()])
    return score_table(make_scorer(method).score(readings, seed), samples)


def merged_samples(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first table with the reasons of all of them, row by row of one sample_id.

    Where several tables have a reason, the first one's stands.
    """
    merged = tables[0].copy()
    for other in tables[1:]:
        reasons = other.set_index("sample_id")["reason"]
        merged["reason"] = merged["reason"].fillna(merged["sample_id"].map(reasons))
    return merged


def sums_over_modules(modules: pd.DataFrame) -> pd.DataFrame:
    """Columns cosine and projection per sample_id, summed over modules (Eq. 12).

    A module whose update or direction is exactly zero points nowhere: it adds nothing.
    """
    norm = modules["direction_norm"]
    along = (modules["inner_product"] / norm).mask(norm == 0, 0.0)
    zero = modules["update_norm"] == 0
    values = pd.DataFrame(
        {
            "sample_id": modules["sample_id"],
            "cosine": (along / modules["update_norm"]).mask(zero, 0.0),
            "projection": along,
        }
    )
    return values.groupby("sample_id").sum()


def score_table(scores: pd.Series, samples: pd.DataFrame) -> pd.DataFrame:
    """The `scores` table: ties go to the smaller sample_id, whatever the order of the rows."""
    table = samples[["sample_id", "reason", "response_tokens"]].copy()
    usable = table["reason"].isna()
    table["score"] = table["sample_id"].map(scores).where(usable).astype("float64")
    ordered = table[usable].sort_values(["score", "sample_id"], ascending=[False, True])
    ranks = pd.Series(range(1, len(ordered) + 1), index=ordered.index)
    table["rank"] = ranks.reindex(table.index).astype("Int64")
    return table[["sample_id", "score", "rank", "reason", "response_tokens"]]
