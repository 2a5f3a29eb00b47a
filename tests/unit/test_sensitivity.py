import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import ConfigurationError, DataError, SqsdError
from sqsd.sensitivity import (
    choose_state,
    drift_sensitivity,
    least_sensitive,
    linear_sensitivity,
    rank_states,
)

moderate = st.floats(-100, 100)


def curve(alphas, scores):
    return pd.DataFrame({"alpha": alphas, "safety_score": scores})


def trajectory(steps, scores, projections):
    return pd.DataFrame({"step": steps, "safety_score": scores, "projection": projections})


def test_linear_sensitivity_by_hand():
    # (4 - 1) / 0.2 at 0.1, (4.5 - 2) / 0.2 at 0.2; the ends lack a neighbour, the order is free
    found = linear_sensitivity(curve([0.2, 0.0, 0.3, 0.1], [4, 1, 4.5, 2]))
    assert found["alpha"].tolist() == [0.1, 0.2]
    assert found["sensitivity"].tolist() == pytest.approx([15, 12.5])


@given(moderate, moderate, moderate, st.integers(3, 15))
def test_linear_sensitivity_of_a_parabola_is_its_derivative(a, b, c, n):
    alphas = np.arange(n) * 0.1 - 0.5
    found = linear_sensitivity(curve(alphas, a * alphas**2 + b * alphas + c))
    assert len(found) == n - 2
    expected = 2 * a * found["alpha"].to_numpy() + b
    assert found["sensitivity"].to_numpy() == pytest.approx(expected, abs=1e-8)


def test_linear_sensitivity_names_the_missing_alphas():
    message = "measured: 0, 0.5; missing: -0.1, 0.1, 0.4, 0.6"
    with pytest.raises(SqsdError, match=message):
        linear_sensitivity(curve([0.0, 0.5], [1, 2]))


def test_linear_sensitivity_refuses_repeats_and_a_zero_delta():
    with pytest.raises(DataError, match=r"alpha measured more than once: 0\.1; keep one row"):
        linear_sensitivity(curve([0.1, 0.1], [1, 2]))
    with pytest.raises(ConfigurationError, match="delta 0: must be above 0"):
        linear_sensitivity(curve([0.1], [1]), delta=0)


def test_drift_sensitivity_by_hand():
    # changes: -1 / 2 = -0.5; -3 / 0.5 = -6; +1 / -1 = -1
    found = drift_sensitivity(trajectory([0, 150, 300, 450], [5, 4, 1, 2], [0, 2, 2.5, 1.5]))
    assert found["step"].tolist() == [0, 150, 300]
    assert found["next_step"].tolist() == [150, 300, 450]
    assert found["sensitivity"].tolist() == pytest.approx([-0.5, -6, -1])
    assert found["denominator_floored"].tolist() == [False, False, False]


def test_drift_sensitivity_floors_small_changes_and_keeps_their_sign():
    # changes 4, -0.5, 0 with floor 0.25 x 4 = 1: denominators 4, -1, +1
    found = drift_sensitivity(
        trajectory([0, 1, 2, 3], [8, 4, 2, 1], [0, 4, 3.5, 3.5]), floor_fraction=0.25
    )
    assert found["sensitivity"].tolist() == pytest.approx([-1, 2, -1])
    assert found["denominator_floored"].tolist() == [False, True, True]


def test_drift_sensitivity_without_drift_is_nan():
    found = drift_sensitivity(trajectory([0, 1, 2], [3, 2, 1], [0, 0, 1]))
    assert found["sensitivity"].tolist() == pytest.approx([math.nan, -1], nan_ok=True)


@given(st.lists(st.tuples(moderate, moderate), min_size=2, max_size=12), st.floats(0.01, 1))
def test_drift_floor_bounds_the_sensitivity(points, fraction):
    scores, projections = zip(*points, strict=True)
    found = drift_sensitivity(trajectory(range(len(points)), scores, projections), fraction)
    largest = np.abs(np.diff(projections)).max()
    if largest == 0:
        assert np.isnan(found["sensitivity"].to_numpy()).all()
        return
    recovered = np.abs(found["sensitivity"].to_numpy()) * fraction * largest
    assert np.all(recovered <= np.abs(np.diff(scores)) * (1 + 1e-9))


def test_drift_sensitivity_refusals():
    with pytest.raises(DataError, match="needs 2 checkpoints or more, got 1"):
        drift_sensitivity(trajectory([0], [1], [0]))
    with pytest.raises(DataError, match="step measured more than once: 150"):
        drift_sensitivity(trajectory([0, 150, 150], [1, 2, 3], [0, 1, 2]))
    with pytest.raises(ConfigurationError, match=r"floor_fraction 1\.5: must lie in 0 to 1"):
        drift_sensitivity(trajectory([0, 1], [1, 2], [0, 1]), floor_fraction=1.5)


def states(values):
    return pd.DataFrame({"step": range(len(values)), "sensitivity": values})


def test_rank_states_both_ways_with_ties_to_the_smaller_key():
    table = states([-1.0, 2.0, math.nan, -1.0, 0.5]).iloc[::-1]
    negative = rank_states(table, "step", "negative")
    assert negative["step"].tolist() == [0, 3, 4, 1]
    assert negative["rank"].tolist() == [1, 2, 3, 4]
    assert rank_states(table, "step", "positive")["step"].tolist() == [1, 4, 0, 3]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.randoms())
def test_rank_states_ignores_the_order_of_rows(values, random):
    table = states([float(value) for value in values])
    order = list(range(len(values)))
    random.shuffle(order)
    expected = rank_states(table, "step", "negative")
    pd.testing.assert_frame_equal(rank_states(table.iloc[order], "step", "negative"), expected)
    assert expected["sensitivity"].is_monotonic_increasing


def test_rank_states_refuses_an_unknown_end():
    with pytest.raises(ConfigurationError, match="'largest' is not known; known: positive, neg"):
        rank_states(states([1.0]), "step", "largest")  # pyright: ignore[reportArgumentType]


def test_choose_state():
    ranked = rank_states(states([-1.0, -5.0, -2.0]), "step", "negative")
    assert choose_state(ranked, 1) == {"step": 1, "sensitivity": -5.0, "rank": 1}
    assert choose_state(ranked, 3) == {"step": 0, "sensitivity": -1.0, "rank": 3}


@pytest.mark.parametrize("rank", [0, 4, -1])
def test_choose_state_out_of_range(rank):
    ranked = rank_states(states([-1.0, -5.0, -2.0]), "step", "negative")
    with pytest.raises(ConfigurationError, match=f"rank {rank} of .*allowed: 1 to 3"):
        choose_state(ranked, rank)


def test_least_sensitive_is_by_magnitude():
    ranked = rank_states(states([-1.0, 0.5, -0.25, 3.0]), "step", "negative")
    assert least_sensitive(ranked)["step"] == 2


def test_no_ranked_state_is_refused():
    ranked = rank_states(states([math.nan]), "step", "negative")
    with pytest.raises(DataError, match="no state could be ranked"):
        least_sensitive(ranked)
    with pytest.raises(ConfigurationError, match=r"rank 1 .*no state could be ranked"):
        choose_state(ranked, 1)
