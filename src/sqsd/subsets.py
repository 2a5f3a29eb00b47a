"""The subsets S1..S5 of a ranking (paper, section 5.3)."""

import numpy as np
import pandas as pd

from sqsd.errors import DataError


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


def windows(scores: pd.DataFrame, size: int, count: int = 5) -> list[pd.DataFrame]:
    """The subsets S1..S<count>, riskiest first: `size` consecutive ranks of a `scores` table each.

    Columns sample_id, score, rank. Rows without a rank are in none. Raises DataError as
    `window_starts`, and where the ranks are not 1 to n, each once.
    """
    ranking = scores.dropna(subset=["rank"]).astype({"rank": "int64"}).sort_values("rank")
    if ranking["rank"].tolist() != list(range(1, len(ranking) + 1)):
        raise DataError(f"the ranks of {len(ranking)} rows are not 1 to {len(ranking)}, each once")
    columns = ranking[["sample_id", "score", "rank"]]
    starts = window_starts(len(ranking), size, count)
    return [columns.iloc[start : start + size].reset_index(drop=True) for start in starts]
