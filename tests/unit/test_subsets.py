from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.subsets import length_groups, make_subsets, representative, window_starts, windows
from sqsd.tables import write_table


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


def test_a_subset_has_the_conversations_of_its_rows(tmp_path):
    rows = pd.DataFrame(
        {
            "sample_id": ["a", "b"], "prompt": ["p", "q"], "response": ["r", "s"],
            "family": None, "problem": None, "conversation": [None, "{}"],
        }
    )  # fmt: skip
    scores, files = scores_table([2, 1]), [str(tmp_path / name) for name in ("s", "r", "p")]
    write_table(
        scores[["sample_id", "score", "rank", "reason", "response_tokens"]], files[0], "scores", {}
    )
    write_table(rows, files[1], "dataset", {})
    first, second = make_subsets(files[0], files[1], 1, 2)
    assert first[["prompt", "response", "conversation"]].values.tolist() == [["q", "s", "{}"]]
    assert second["conversation"].isna().all()
    write_table(first, tmp_path / "t", "subset", {})
    # Rows without any have the table that they always had.
    write_table(rows.drop(columns="conversation"), files[2], "dataset", {})
    subset = make_subsets(files[0], files[2], 1, 1)[0]
    assert subset.columns.tolist() == ["sample_id", "score", "rank", "prompt", "response"]


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
    with pytest.raises(DataError, match="size 3 do not fit 2 ranked samples; make the size of a"):
        windows(table, size=3)
    with pytest.raises(DataError, match="size 0, count 5: both must be 1 or more"):
        windows(table, size=0)
    with pytest.raises(DataError, match="size 1, count 0: both must be 1 or more"):
        windows(table, size=1, count=0)


def samples_table(lengths, reasons=()):
    """A `samples` table of rows a, b, c, ... with these response tokens; reasons by id."""
    ids = [chr(ord("a") + i) for i in range(len(lengths))]
    frame = pd.DataFrame({"sample_id": ids, "response_tokens": lengths})
    return frame.assign(reason=pd.Series([dict(reasons).get(i) for i in ids], dtype="str"))


def test_groups_by_length_are_the_longest_middle_and_shortest_usable_rows():
    # Usable by length: d 9, b 8, f 6 and g 6, a 5, h 3, c 2; groups of 2 at int(linspace(0, 5, 3)).
    samples = samples_table([5, 8, 2, 9, 99, 6, 6, 3], {"e": "cut off"})
    groups = length_groups(samples, 2)
    assert list(groups) == ["longest", "middle", "shortest"]
    assert ["".join(group["sample_id"]) for group in groups.values()] == ["db", "fg", "hc"]
    with pytest.raises(DataError, match="windows of size 8 do not fit 7 ranked samples"):
        length_groups(samples, 8)


def test_groups_by_length_do_not_hang_on_the_order_of_the_rows():
    samples = samples_table([4, 4, 4, 1, 1, 7])
    turned = length_groups(samples.iloc[::-1], 2)
    for name, group in length_groups(samples, 2).items():
        pd.testing.assert_frame_equal(group, turned[name])


def test_representative_rows_are_the_middles_of_equal_parts():
    group = samples_table(list(range(12)))
    # Three parts of four, whose middles, at 2, 6 and 10, begin the third row of each.
    assert representative(group, 3)["response_tokens"].tolist() == [2, 6, 10]


@given(st.integers(1, 60), st.integers(1, 12))
def test_representative_rows_are_spread_evenly_and_occur_once(n, count):
    places = representative(pd.DataFrame({"place": range(n)}), count)["place"].tolist()
    assert len(places) == min(n, count)
    assert len(set(places)) == len(places)
    # As many are left out before the first as after the last, and gaps differ by one at most.
    gaps = [b - a for a, b in pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert abs(places[0] - (n - 1 - places[-1])) <= 1
