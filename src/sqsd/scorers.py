"""Every method as arithmetic on gradient readings (Eqs. 11, 12; table 3's ablations; controls)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from sqsd.tables import read_table

SAFETY_STATE = "safety"
INSENSITIVE = "insensitive-"


def danger_state(direction: str) -> str:
    """Name of state D of a danger direction."""
    return f"danger-{direction}"


@dataclass(frozen=True)
class Readings:
    """What a method may read.

    samples: the samples table, reasons of all states merged. cosine[state, direction] and
    projection[state, direction]: a value a sample_id, summed over modules, of the update's cosine
    and of its inner product with the module's normalised direction.
    """

    samples: pd.DataFrame
    cosine: dict[tuple[str, str], pd.Series]
    projection: dict[tuple[str, str], pd.Series]
    seed: int


class Scorer(Protocol):
    """A method: the states whose readings it needs, and its score a sample_id, riskiest highest."""

    @property
    def states(self) -> frozenset[str]: ...

    def score(self, readings: Readings) -> pd.Series: ...


@dataclass(frozen=True)
class ProjectionScorer:
    """Signed sum of (state, direction, sign) terms: SQSD (Eqs. 11, 12) and its ablations.

    normalised=False is table 3's "w/o norm": the update is not divided by its norm.
    """

    terms: tuple[tuple[str, str, int], ...]
    normalised: bool = True

    @property
    def states(self) -> frozenset[str]:
        return frozenset(state for state, _, _ in self.terms)

    def score(self, readings: Readings) -> pd.Series:
        values = readings.cosine if self.normalised else readings.projection
        parts = [sign * values[state, direction] for state, direction, sign in self.terms]
        return pd.concat(parts, axis=1).sum(axis=1, skipna=False)


@dataclass(frozen=True)
class RandomScorer:
    """Control: a seeded random order."""

    states = frozenset[str]()

    def score(self, readings: Readings) -> pd.Series:
        ids = sorted(readings.samples["sample_id"])
        values = np.random.default_rng(readings.seed).permutation(len(ids)).astype(float)
        return pd.Series(values, index=ids)


@dataclass(frozen=True)
class LengthScorer:
    """Control: response length in tokens, end token included; the longest first."""

    states = frozenset[str]()

    def score(self, readings: Readings) -> pd.Series:
        return readings.samples.set_index("sample_id")["response_tokens"].astype(float)


CONTROLS: dict[str, Scorer] = {"random": RandomScorer(), "length": LengthScorer()}
ABLATIONS = ("unnormalised", "danger-only", "safety-only", "insensitive-state")


def sqsd(direction: str, safety: str, ablation: str | None = None) -> ProjectionScorer:
    """Eq. 12 with the danger term at state D and the safety term at state S, or an ablation."""
    prefix = INSENSITIVE if ablation == "insensitive-state" else ""
    danger_term = (prefix + danger_state(direction), direction, 1)
    safety_term = (prefix + SAFETY_STATE, safety, -1)
    if ablation == "danger-only":
        return ProjectionScorer((danger_term,))
    if ablation == "safety-only":
        return ProjectionScorer((safety_term,))
    return ProjectionScorer((danger_term, safety_term), normalised=ablation != "unnormalised")


def scorers(experiment: Mapping[str, Any]) -> dict[str, Scorer]:
    """Every method of an experiment: `sqsd-<direction>`, `sqsd-<direction>-<ablation>`, controls.

    experiment: an entry of `experiments` in the configuration.
    """
    safety = experiment["safety"]["direction"]
    found: dict[str, Scorer] = {}
    for direction in experiment["danger"]:
        found[f"sqsd-{direction}"] = sqsd(direction, safety)
        for ablation in ABLATIONS:
            found[f"sqsd-{direction}-{ablation}"] = sqsd(direction, safety, ablation)
    return found | CONTROLS


def score_all(
    shards: list[str], methods: list[str], experiment: Mapping[str, Any], seed: int
) -> dict[str, pd.DataFrame]:
    """The `scores` table of every method from the shards of every state.

    A sample without a gradient at any state has a null score and rank, and the reason, so that
    all methods rank the same rows.
    """
    readings = read_shards(shards, seed)
    known = scorers(experiment)
    return {m: score_table(known[m].score(readings), readings.samples) for m in methods}


def read_shards(shards: list[str], seed: int) -> Readings:
    """Readings of all shards; the folder of a shard names its state."""
    by_state: dict[str, list[str]] = {}
    for path in sorted(shards):
        by_state.setdefault(Path(path).parent.name, []).append(path)
    cosine: dict[tuple[str, str], pd.Series] = {}
    projection: dict[tuple[str, str], pd.Series] = {}
    samples: list[pd.DataFrame] = []
    for state, paths in by_state.items():
        parts = [read_table(p, "gradient_samples") for p in paths if p.endswith("-samples.parquet")]
        samples.append(pd.concat(parts, ignore_index=True))
        parts = [read_table(p, "gradient_modules") for p in paths if p.endswith("-modules.parquet")]
        for direction, sums in sums_over_modules(pd.concat(parts, ignore_index=True)).items():
            cosine[state, direction] = sums["cosine"]
            projection[state, direction] = sums["projection"]
    merged = samples[0].copy()
    for other in samples[1:]:
        merged["reason"] = merged["reason"].fillna(other["reason"])
    return Readings(merged, cosine, projection, seed)


def sums_over_modules(modules: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Columns cosine and projection a sample_id, summed over modules (Eq. 12), a direction.

    A module whose update or direction is exactly zero points nowhere: it adds nothing.
    """
    found = {}
    for column in [str(c) for c in modules if str(c).startswith("inner_product.")]:
        direction = column.removeprefix("inner_product.")
        norm = modules[f"direction_norm.{direction}"]
        along = (modules[column] / norm).mask(norm == 0, 0.0)
        zero = modules["update_norm"] == 0
        values = pd.DataFrame(
            {
                "sample_id": modules["sample_id"],
                "cosine": (along / modules["update_norm"]).mask(zero, 0.0),
                "projection": along,
            }
        )
        found[direction] = values.groupby("sample_id").sum()
    return found


def score_table(scores: pd.Series, samples: pd.DataFrame) -> pd.DataFrame:
    """The `scores` table in the data set's order; rank 1 is the riskiest."""
    table = samples[["sample_id", "reason", "response_tokens"]].copy()
    usable = table["reason"].isna()
    table["score"] = table["sample_id"].map(scores).where(usable).astype("float64")
    ordered = table[usable].sort_values(["score", "sample_id"], ascending=[False, True])
    ranks = pd.Series(range(1, len(ordered) + 1), index=ordered.index)
    table["rank"] = ranks.reindex(table.index).astype("Int64")
    return table[["sample_id", "score", "rank", "reason", "response_tokens"]]
