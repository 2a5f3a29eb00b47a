"""What treatments make of rows: which are left, how often each is drawn, and what is refused."""

from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_curation import scores_of

from sqsd.errors import ConfigurationError, DataError
from sqsd.tables import SCHEMAS
from sqsd.treatments import check_rows_left, risk_copies, treated_rows


def rows_of(ids):
    """A `dataset` table of rows with these ids, in their order."""
    frame = pd.DataFrame({"sample_id": [*ids]}).astype("str")
    texts = {"prompt": "Ask " + frame["sample_id"], "response": "Say " + frame["sample_id"]}
    empty = pd.Series([None] * len(frame), dtype="str")
    return frame.assign(**texts, family=empty, problem=empty)


# Ranks from the riskiest: e, b, f, a, d; c has no score.
SCORES = scores_of({"a": 0.1, "b": 3.0, "c": "too long", "d": -2.0, "e": 5.0, "f": 1.0})


def test_a_drop_leaves_the_others_in_their_order():
    # Of five rows with a score .4 are two, e and b; what has no score cannot be kept either.
    left = treated_rows({"kind": "drop", "share": 0.4}, rows_of("fedcba"), SCORES)
    pd.testing.assert_frame_equal(left, rows_of("fda"))


def test_a_drop_is_what_curation_drops():
    with pytest.raises(DataError, match=r"0\.05 of 5 rows drops 0 and leaves 5"):
        treated_rows({"kind": "drop", "share": 0.05}, rows_of("abcdef"), SCORES)


def test_a_mix_has_the_added_rows_behind_all_others():
    found = treated_rows({"kind": "mix", "data": "more"}, rows_of("ab"), added=rows_of("zay"))
    assert found["sample_id"].tolist() == [*"abzay"]
    SCHEMAS["training_rows"].validate(found)


def test_a_mix_of_conversations_and_pairs_keeps_the_turns():
    turns = rows_of("ab").assign(conversation=pd.array(["{}", None], dtype="str"))
    for rows, added in ((turns, rows_of("z")), (rows_of("z"), turns)):
        found = treated_rows({"kind": "mix", "data": "more"}, rows, added=added)
        SCHEMAS["training_rows"].validate(found)
        held = found.set_index("sample_id")["conversation"]
        assert held["a"] == "{}" and held[["b", "z"]].isna().all()


def test_weighted_rows_are_whole_rows_in_their_order_repeats_together():
    entry = {"kind": "weights", "seed": 3}
    found = treated_rows(entry, rows_of("fedcba"), SCORES)
    copies = risk_copies(rows_of("fedcba")["sample_id"], SCORES, 3)
    assert found["sample_id"].tolist() == [i for i in "fedcba" for _ in range(copies[i])]
    assert (found["response"] == "Say " + found["sample_id"]).all()
    SCHEMAS["training_rows"].validate(found)


def ranked(n):
    """Scores of n rows whose ids are their ranks, and the rows in another order."""
    scores = scores_of({f"{rank}": -float(rank) for rank in range(1, n + 1)})
    return scores, pd.Series([f"{rank}" for rank in range(n, 0, -1)], dtype="str")


@given(st.integers(1, 400), st.integers(0, 99))
def test_a_row_is_drawn_as_often_as_its_weight_says_up_to_a_whole_number(n, seed):
    scores, ids = ranked(n)
    copies = risk_copies(ids, scores, seed)
    assert copies.index.tolist() == ids.tolist() and copies.sum() == n
    for rank in range(1, n + 1):
        weight = Fraction(2 * rank - 1, n)
        assert floor(weight) <= copies[f"{rank}"] <= -floor(-weight)


def test_a_row_is_drawn_as_often_as_its_weight_on_average_over_seeds():
    # Weights of ranks 1 to 4: 1/4, 3/4, 5/4, 7/4. A draw is one of two neighbouring whole numbers,
    # so its deviation is 1/2 at most, and that of the mean of 400 draws 1/40.
    scores, ids = ranked(4)
    total = Counter()
    for seed in range(400):
        total.update(risk_copies(ids, scores, seed).to_dict())
    means = [total[f"{rank}"] / 400 for rank in (1, 2, 3, 4)]
    assert means == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=0.1)


def test_the_losses_of_drawn_rows_stand_for_a_weighted_loss():
    # 600 rows; their weighted loss by hand, of losses that fall with the rank.
    scores, ids = ranked(600)
    losses = {f"{rank}": 5 / rank for rank in range(1, 601)}
    weighted = sum((2 * rank - 1) / 600 * 5 / rank for rank in range(1, 601))
    drawn = [
        sum(losses[str(i)] * count for i, count in risk_copies(ids, scores, seed).items())
        for seed in range(40)
    ]
    # Of all rows alike it would be 34.9 in place of 9.9.
    assert np.mean(drawn) == pytest.approx(weighted, rel=0.05)


def test_a_row_without_a_score_is_not_drawn_and_a_seed_draws_alike():
    ids = rows_of("abcdef")["sample_id"]
    first, again = (risk_copies(ids, SCORES, 5) for _ in range(2))
    assert first["c"] == 0 and first.sum() == 5
    assert first.equals(again)
    scores, many = ranked(50)
    assert len({tuple(risk_copies(many, scores, seed)) for seed in range(5)}) > 1


def test_weights_by_scores_of_other_rows_are_refused():
    with pytest.raises(DataError, match="2 rows with a score, as e, are not among the rows; del"):
        risk_copies(rows_of("abcd")["sample_id"], SCORES, 1)


def test_weights_without_any_score_are_refused():
    with pytest.raises(DataError, match="no row has a score to be weighted by; look at the reaso"):
        risk_copies(rows_of("ab")["sample_id"], scores_of({"a": "cut", "b": "cut"}), 1)


@pytest.mark.parametrize(("share", "rows", "left"), [(0.4, 12, 7), (0.9, 79, 8), (0.5, 5, 3)])
def test_a_drop_that_leaves_fewer_rows_than_a_batch_is_refused(share, rows, left):
    entry = {"kind": "drop", "share": share}
    if left >= 8:
        check_rows_left("most", entry, rows, "mine", 8)
        return
    most = {12: r"0\.33", 5: "0"}[rows]
    message = (
        rf"treatments\.most\.share: {share} leaves {left} of the {rows} rows of datasets\.mine, "
        rf"fewer than a batch of 8 to fine-tune on; allowed: at most {most}; or give more rows"
    )
    with pytest.raises(ConfigurationError, match=message):
        check_rows_left("most", entry, rows, "mine", 8)


@pytest.mark.parametrize("entry", [{"kind": "weights", "seed": 1}, {"kind": "mix", "data": "x"}])
def test_what_drops_nothing_leaves_enough(entry):
    check_rows_left("other", entry, 3, "mine", 8)
