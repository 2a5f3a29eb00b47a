from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.subsets import window_starts, windows


def scores_table(ranks, scores=None):
    """A `scores` table with one row per rank, ids a, b, c, ..."""
    ids = [chr(ord("a") + i) for i in range(len(ranks))]
    values = scores or [float(-i) for i in range(len(ranks))]
    frame = pd.DataFrame({"sample_id": ids, "score": values, "rank": ranks, "reason": None})
    return frame.assign(response_tokens=1).astype({"rank": "Int64", "score": "float64"})


def test_window_starts_of_dolly():
    # 15,011 - 1,000 = 14,011 in quarters of 3,502.75, cut to whole ranks
    assert window_starts(15011, 1000) == [0, 3502, 7005, 10508, 14011]


@given(st.integers(1, 500), st.integers(0, 20000), st.integers(2, 9))
def test_windows_reach_from_the_first_rank_to_the_last(size, extra, count):
    n = size + extra
    starts = window_starts(n, size, count)
    assert len(starts) == count
    assert starts == sorted(starts)
    assert starts[0] == 0 and starts[-1] + size == n
    gaps = [b - a for a, b in pairwise(starts)]
    assert max(gaps) - min(gaps) <= 1


def test_windows_are_consecutive_ranks():
    # 7 ranks, windows of 3: starts int(linspace(0, 4, 3)) = 0, 2, 4
    subsets = windows(scores_table([1, 2, 3, 4, 5, 6, 7]), size=3, count=3)
    assert ["".join(subset["sample_id"]) for subset in subsets] == ["abc", "cde", "efg"]
    assert [subset["rank"].tolist() for subset in subsets] == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    assert all(isinstance(subset.index, pd.RangeIndex) for subset in subsets)
    assert all(subset.columns.tolist() == ["sample_id", "score", "rank"] for subset in subsets)


def test_windows_are_by_rank_whatever_the_scores():
    # By score the order would be b, d, a, c: a table's ranks are its method's, ties included.
    table = scores_table([3, 4, 1, 2], [2.0, 9.0, 0.5, 4.0])
    first, second = windows(table, size=2, count=2)
    assert first["sample_id"].tolist() == ["c", "d"] and first["score"].tolist() == [0.5, 4]
    assert second["sample_id"].tolist() == ["a", "b"] and second["score"].tolist() == [2, 9]


@given(st.permutations(range(1, 9)), st.permutations(range(10)), st.integers(1, 8))
def test_windows_are_naive_slices_of_the_ranks(ranks, order, size):
    # Two rows have no rank, wherever they stand, and are in no window.
    table = scores_table([*ranks, None, None]).iloc[list(order)]
    by_rank = dict(zip(ranks, "abcdefgh", strict=True))
    starts = [0, int((8 - size) / 2), 8 - size]
    expected = [[by_rank[start + i + 1] for i in range(size)] for start in starts]
    assert [subset["sample_id"].tolist() for subset in windows(table, size, 3)] == expected


@pytest.mark.parametrize("ranks", [[1, 2, 2], [1, 2, 4], [0, 1, 2], [2, 3, 4], [1, 3, None]])
def test_ranks_that_are_no_ranks_are_refused(ranks):
    n = sum(rank is not None for rank in ranks)
    message = f"the ranks of {n} rows are not 1 to {n}, each once"
    with pytest.raises(DataError, match=message):
        windows(scores_table(ranks), size=1)


def test_windows_that_do_not_fit_are_refused():
    table = scores_table([1, 2, None])
    with pytest.raises(DataError, match="size 3 do not fit 2 ranked samples; make the subset size"):
        windows(table, size=3)
    with pytest.raises(DataError, match="size 0, count 5: both must be 1 or more"):
        windows(table, size=0)
    with pytest.raises(DataError, match="size 1, count 0: both must be 1 or more"):
        windows(table, size=1, count=0)
