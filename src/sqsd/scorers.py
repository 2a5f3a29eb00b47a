"""Every method as arithmetic on gradient readings (Eqs. 11, 12; table 3's ablations; controls)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sqsd.tables import read_table


@dataclass(frozen=True)
class Readings:
    """What a method may read.

    samples: the samples table. cosine[state, direction] and projection[state, direction]: a score
    a sample_id, summed over modules, of the cosine and of the inner product with the module's
    normalised direction.
    """

    samples: pd.DataFrame
    cosine: dict[tuple[str, str], pd.Series]
    projection: dict[tuple[str, str], pd.Series]
    seed: int


def sqsd(readings: Readings) -> pd.Series:
    """Eq. 12: danger term at state D minus safety term at state S."""
    return readings.cosine["danger", "danger"] - readings.cosine["safety", "safety"]


def unnormalised(readings: Readings) -> pd.Series:
    """Table 3, w/o norm: the update is not divided by its norm."""
    return readings.projection["danger", "danger"] - readings.projection["safety", "safety"]


def danger_only(readings: Readings) -> pd.Series:
    return readings.cosine["danger", "danger"]


def safety_only(readings: Readings) -> pd.Series:
    return -readings.cosine["safety", "safety"]


def insensitive_state(readings: Readings) -> pd.Series:
    """Table 3, insensitive initial state: both terms where sensitivity is smallest."""
    return (
        readings.cosine["insensitive-danger", "danger"]
        - readings.cosine["insensitive-safety", "safety"]
    )


def random_order(readings: Readings) -> pd.Series:
    ids = sorted(readings.cosine["danger", "danger"].index)
    values = np.random.default_rng(readings.seed).permutation(len(ids)).astype(float)
    return pd.Series(values, index=ids)


def length(readings: Readings) -> pd.Series:
    """Response length in tokens, end token included; the longest first."""
    return readings.samples.set_index("sample_id")["response_tokens"].astype(float)


METHODS: dict[str, Callable[[Readings], pd.Series]] = {
    "sqsd-danger": sqsd,
    "unnormalised": unnormalised,
    "danger-only": danger_only,
    "safety-only": safety_only,
    "insensitive-state": insensitive_state,
    "random": random_order,
    "length": length,
}


def score_all(shards: list[str], methods: list[str], seed: int) -> dict[str, pd.DataFrame]:
    """The `scores` table of every method from the shards of every state.

    A sample without a gradient at any state has a null score and rank, and the reason.
    """
    readings = read_shards(shards, seed)
    return {m: score_table(METHODS[m](readings), readings.samples) for m in methods}


def read_shards(shards: list[str], seed: int) -> Readings:
    cosine: dict[tuple[str, str], pd.Series] = {}
    projection: dict[tuple[str, str], pd.Series] = {}
    samples: list[pd.DataFrame] = []
    states = sorted({Path(path).parent.name for path in shards})
    for state in states:
        paths = sorted(p for p in shards if Path(p).parent.name == state)
        parts = [read_table(p, "gradient_samples") for p in paths if p.endswith("-samples.parquet")]
        samples.append(pd.concat(parts, ignore_index=True))
        modules = pd.concat(
            [read_table(p, "gradient_modules") for p in paths if p.endswith("-modules.parquet")]
        )
        along = modules["inner_product"] / modules["direction_norm"]
        # A module whose update is exactly zero points nowhere: it adds nothing to the sum.
        zero = modules["update_norm"] == 0
        modules = modules.assign(
            along=along, cosine=(along / modules["update_norm"]).mask(zero, 0.0)
        )
        for direction, group in modules.groupby("direction"):
            sums = group.groupby("sample_id")[["along", "cosine"]].sum()
            cosine[state, str(direction)] = sums["cosine"]
            projection[state, str(direction)] = sums["along"]
    merged = samples[0].copy()
    for other in samples[1:]:
        merged["reason"] = merged["reason"].fillna(other["reason"])
    return Readings(merged, cosine, projection, seed)


def score_table(scores: pd.Series, samples: pd.DataFrame) -> pd.DataFrame:
    """The `scores` table in the data set's order; rank 1 is the riskiest."""
    table = samples[["sample_id", "reason", "response_tokens"]].copy()
    usable = table["reason"].isna()
    table["score"] = table["sample_id"].map(scores).where(usable).astype("float64")
    ordered = table[usable].sort_values(["score", "sample_id"], ascending=[False, True])
    ranks = pd.Series(range(1, len(ordered) + 1), index=ordered.index)
    table["rank"] = ranks.reindex(table.index).astype("Int64")
    return table[["sample_id", "score", "rank", "reason", "response_tokens"]]
