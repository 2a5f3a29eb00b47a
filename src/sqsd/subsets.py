"""The subsets S1..S5 of a ranking (paper, section 5.3)."""

import numpy as np
import pandas as pd

from sqsd.errors import AGAIN, DataError
from sqsd.tables import read_table

# Of a data set's rows by response length (paper, figures 8 to 10).
LENGTH_GROUPS = ("longest", "middle", "shortest")


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
            f"make the size of a subset (subsets.rows) {n} or smaller, or score more samples"
        )
    return [int(start) for start in np.linspace(0, n - size, count)]


def windows(scores: pd.DataFrame, size: int, count: int = 5) -> list[pd.DataFrame]:
    """The subsets S1..S<count>, riskiest first: `size` consecutive ranks of a `scores` table each.

    Columns sample_id, score, rank. Rows without a rank are in none. Raises DataError as
    `window_starts`, and where the ranks are not 1 to n, each once.
    """
    ranking = scores.dropna(subset=["rank"]).astype({"rank": "int64"}).sort_values("rank")
    if ranking["rank"].tolist() != list(range(1, len(ranking) + 1)):
        raise DataError(
            f"the ranks of {len(ranking)} rows are not 1 to {len(ranking)}, each once; {AGAIN}"
        )
    columns = ranking[["sample_id", "score", "rank"]]
    starts = window_starts(len(ranking), size, count)
    return [columns.iloc[start : start + size].reset_index(drop=True) for start in starts]


def make_subsets(scores: str, rows: str, size: int, count: int) -> list[pd.DataFrame]:
    """The `subset` tables of a file of scores, with the texts of a file of rows.

    Raises DataError naming the files, as `windows`, and where a row is not among the rows.
    """
    table = read_table(scores, "scores")
    try:
        cut = windows(table, size, count)
    except DataError as error:
        raise DataError(f"{scores}: {error}") from error
    texts = read_table(rows, "dataset").drop(columns=["family", "problem"])
    subsets = [subset.merge(texts, on="sample_id") for subset in cut]
    for subset, made in zip(cut, subsets, strict=True):
        if lost := sorted({*subset["sample_id"]} - {*made["sample_id"]}):
            raise DataError(
                f"{scores}: {len(lost)} rows, as {lost[0]}, are not in {rows}; delete the scores "
                "and run again"
            )
    return subsets


def length_groups(samples: pd.DataFrame, size: int) -> dict[str, pd.DataFrame]:
    """The `size` longest, middle and shortest usable rows by response tokens, longest first.

    samples: a table with sample_id, response_tokens and reason, which is null where a row is
    usable. Rows of one length go by sample_id. Raises DataError as `window_starts`.
    """
    usable = samples[samples["reason"].isna()]
    ordered = usable.sort_values(["response_tokens", "sample_id"], ascending=[False, True])
    starts = window_starts(len(ordered), size, len(LENGTH_GROUPS))
    parts = [ordered.iloc[start : start + size].reset_index(drop=True) for start in starts]
    return dict(zip(LENGTH_GROUPS, parts, strict=True))


def representative(group: pd.DataFrame, count: int = 9) -> pd.DataFrame:
    """`count` rows evenly spread over a group's order; every row where there are fewer.

    The group is cut into `count` parts of one size, and the row in the middle of each is taken:
    `int((i + 1/2) n / count)`, from 0. The paper has nine, and does not say how they were chosen.
    """
    places = {int((i + 0.5) * len(group) / count) for i in range(count)}
    return group.iloc[sorted(places)].reset_index(drop=True)
