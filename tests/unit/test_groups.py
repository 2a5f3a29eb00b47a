"""Groups of rows by counting, and what their fine-tunes say of scores, on tables made by hand."""

import math
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.groups import (
    group_drops,
    group_names,
    group_scores,
    make_groups,
    most_telling,
    paired_by_group,
)
from sqsd.tables import write_table


def data(families, unusable=()):
    """Rows of these families (None: of none) and their samples; some cannot be scored."""
    ids = [f"r{i:02d}" for i in range(len(families))]
    rows = pd.DataFrame({"sample_id": ids, "family": families}).astype("str")
    rows = rows.assign(prompt="p", response="r", problem=None)
    reasons = ["empty response" if i in unusable else None for i in range(len(ids))]
    samples = pd.DataFrame({"sample_id": ids, "reason": reasons}).astype("str")
    return rows, samples


def draw(families, unusable=(), size=4, random_groups=3, biased_groups=3, share=0.75, seed=1):
    return make_groups(*data(families, unusable), size, random_groups, biased_groups, share, seed)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=12, max_size=40),
    st.sets(st.integers(0, 11), max_size=3), st.integers(1, 5), st.integers(0, 4),
    st.integers(0, 4), st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.integers(0, 9),
)  # fmt: skip
def test_groups_have_what_they_are_asked_for(families, unusable, size, plain, biased, share, seed):
    inside = round(share * size)
    usable = [i for i in range(len(families)) if i not in unusable]
    counts = Counter(families[i] for i in usable if families[i] is not None)
    fit = {f for f, n in counts.items() if n >= inside and len(usable) - n >= size - inside}
    if biased and not fit:
        message = rf"no family of rows has {inside} usable rows, with {size - inside} outside it"
        with pytest.raises(DataError, match=message):
            draw(families, unusable, size, plain, biased, share, seed)
        return
    groups = draw(families, unusable, size, plain, biased, share, seed)
    assert sorted(set(groups["group"])) == group_names(plain + biased)
    for i, (_, group) in enumerate(groups.groupby("group")):
        ids = group["sample_id"].tolist()
        assert len(set(ids)) == len(ids) == size
        places = [int(sample_id[1:]) for sample_id in ids]
        assert not set(places) & unusable
        if i < plain:
            assert group["biased_to"].isna().all()
        else:
            (family,) = set(group["biased_to"])
            assert family in fit and [families[p] for p in places].count(family) == inside


def test_groups_are_drawn_by_their_seed_from_rows_in_any_order(tmp_path):
    families = ["a", "b"] * 20
    rows, samples = data(families)
    one = make_groups(rows, samples, 4, 3, 3, 0.75, 1)
    shuffled = rows.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(make_groups(shuffled, samples, 4, 3, 3, 0.75, 1), one)
    assert not make_groups(rows, samples, 4, 3, 3, 0.75, 2).equals(one)
    write_table(one, tmp_path / "groups.parquet", "groups", {})
    # The random ones stay as they are where biased ones are added behind them.
    fewer = make_groups(rows, samples, 4, 3, 0, 0.75, 1)
    pd.testing.assert_frame_equal(one[: len(fewer)], fewer)


def test_more_rows_than_there_are_in_a_group_are_refused():
    message = "groups of 5 rows: the data set has 4 usable rows; ask for smaller ones"
    with pytest.raises(DataError, match=message):
        draw(["a"] * 6, unusable=(0, 5), size=5)


GROUPS = pd.DataFrame(
    [("g0", "a"), ("g0", "b"), ("g1", "c"), ("g1", "a"), ("g2", "d"), ("g2", "d2")],
    columns=pd.Index(["group", "sample_id"]),
)
SCORES = pd.DataFrame(
    {"sample_id": ["d2", "a", "b", "c", "d"], "score": [None, 1.0, 4.0, 2.0, None]}
)
JUDGED = pd.DataFrame(
    {
        "window": ["g2", "g1", "g0", "g1", "g0", "g0", "g2", "g1"],
        "score": [7.0, 5.0, 1.0, 6.0, 2.0, 6.0, None, 7.0],
    }
)


def test_a_group_s_score_is_the_mean_of_its_rows_that_have_one():
    found = group_scores(SCORES, GROUPS).to_dict()
    assert (found["g0"], found["g1"]) == (2.5, 1.5) and math.isnan(found["g2"])


def test_a_group_s_drop_is_minus_its_model_s_mean_safety_score():
    assert group_drops(JUDGED, GROUPS).to_dict() == {"g0": -3, "g1": -6, "g2": -7}
    with pytest.raises(DataError, match=r"no Safety Score of group\(s\) g0, g2; judge them again"):
        group_drops(JUDGED[JUDGED["window"] == "g1"], GROUPS)


def test_a_group_without_a_score_is_no_pair():
    found = paired_by_group(SCORES, GROUPS, JUDGED)
    assert found.to_dict("index") == {
        "g0": {"score": 2.5, "drop": -3}, "g1": {"score": 1.5, "drop": -6},
    }  # fmt: skip


def test_the_most_telling_is_the_first_of_the_highest():
    assert most_telling([-0.5, math.nan, 0.25, 0.25]) == 2
    assert most_telling([-0.5, -0.25]) == 1
    with pytest.raises(DataError, match="no method tells the groups apart"):
        most_telling([math.nan, math.nan])
