"""Ranking of scored samples and the subsets S1..S5 (method notes, section 3)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sqsd.errors import DataError


def rank_samples(sample_ids: Sequence, scores: Sequence[float | None]) -> pd.DataFrame:
    """Samples by risk score, highest first: columns sample_id, score, rank (from 1).

    sample_ids, scores: [n]. A null or NaN score (no gradient) leaves the sample out; ties go to
    the smaller sample_id, so the ranking does not depend on the order of the rows.
    Raises DataError on differing lengths or a repeated sample_id.
    """
    if len(sample_ids) != len(scores):
        raise DataError(
            f"{len(sample_ids)} sample ids but {len(scores)} scores; pass one score a sample"
        )
    ids = pd.Series(list(sample_ids), name="sample_id")
    repeated = ids.loc[ids.duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"{len(repeated)} sample_id(s) occur more than once, the first: {repeated[0]!r}; "
            "score each sample once"
        )
    table = pd.DataFrame({"sample_id": ids, "score": pd.Series(list(scores), dtype=float)})
    ranking = table.dropna(subset=["score"]).sort_values(
        ["score", "sample_id"], ascending=[False, True], ignore_index=True
    )
    return ranking.assign(rank=np.arange(1, len(ranking) + 1))


def window_starts(n: int, size: int, count: int = 5) -> list[int]:
    """First positions (from 0) of `count` windows of `size` over n ranks, evenly spread.

    `int(linspace(0, n - size, count))`, as in the paper's published code: the first window begins
    at the highest score and the last of several ends at the lowest; windows overlap where
    n < size x count. Raises DataError where a window does not fit or size or count is below 1.
    """
    if size < 1 or count < 1:
        raise DataError(f"windows of size {size}, count {count}: both must be 1 or more")
    if size > n:
        raise DataError(
            f"windows of size {size} do not fit {n} ranked samples; "
            f"make the subset size {n} or smaller, or score more samples"
        )
    return [int(start) for start in np.linspace(0, n - size, count)]


def windows(ranking: pd.DataFrame, size: int, count: int = 5) -> list[pd.DataFrame]:
    """The subsets S1..S<count>, riskiest first: `size` consecutive rows of `rank_samples` each.

    Raises DataError as `window_starts`.
    """
    starts = window_starts(len(ranking), size, count)
    return [ranking.iloc[start : start + size].reset_index(drop=True) for start in starts]
