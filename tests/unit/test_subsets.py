import math
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.subsets import rank_samples, window_starts, windows


def test_rank_samples_highest_first_without_null_scores():
    ranking = rank_samples(["d", "c", "b", "a", "e"], [1.0, None, 2.0, 1.0, math.nan])
    assert ranking["sample_id"].tolist() == ["b", "a", "d"]
    assert ranking["score"].tolist() == [2, 1, 1]
    assert ranking["rank"].tolist() == [1, 2, 3]


@given(
    st.dictionaries(st.integers(), st.one_of(st.none(), st.integers(-3, 3).map(float))),
    st.randoms(),
)
def test_ranking_ignores_the_order_of_rows(scores, random):
    ids = list(scores)
    random.shuffle(ids)
    ranking = rank_samples(ids, [scores[i] for i in ids])
    scored = [i for i in scores if scores[i] is not None]
    assert ranking["sample_id"].tolist() == sorted(scored, key=lambda i: (-scores[i], i))


def test_rank_samples_refusals():
    with pytest.raises(DataError, match="2 sample ids but 1 scores"):
        rank_samples(["a", "b"], [1.0])
    with pytest.raises(DataError, match=r"1 sample_id\(s\) occur more than once, the first: 'a'"):
        rank_samples(["a", "b", "a"], [1.0, 2.0, 3.0])


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
    ranking = rank_samples(list("abcdefg"), [7.0, 6, 5, 4, 3, 2, 1])
    subsets = windows(ranking, size=3, count=3)
    assert ["".join(subset["sample_id"]) for subset in subsets] == ["abc", "cde", "efg"]
    assert [subset["rank"].tolist() for subset in subsets] == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    assert all(isinstance(subset.index, pd.RangeIndex) for subset in subsets)


def test_windows_that_do_not_fit_are_refused():
    ranking = rank_samples(["a", "b"], [1.0, 2.0])
    with pytest.raises(DataError, match="size 3 do not fit 2 ranked samples; make the subset size"):
        windows(ranking, size=3)
    with pytest.raises(DataError, match="size 0, count 5: both must be 1 or more"):
        windows(ranking, size=0)
