import itertools
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
    """Scores of three prompts, whose means are the ones given; a column per alpha."""
    return pd.DataFrame(np.add.outer([-1.5, 0.5, 1.0], scores), columns=pd.Index(alphas))


def drift(steps, scores, projections, floor_fraction=0.0):
    """`drift_sensitivity` of such scores."""
    trajectory = pd.DataFrame({"step": steps, "projection": projections})
    return drift_sensitivity(curve(steps, scores), trajectory, floor_fraction)


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
    found = drift([0, 150, 300, 450], [5, 4, 1, 2], [0, 2, 2.5, 1.5])
    assert found["step"].tolist() == [0, 150, 300]
    assert found["next_step"].tolist() == [150, 300, 450]
    assert found["sensitivity"].tolist() == pytest.approx([-0.5, -6, -1])
    assert found["denominator_floored"].tolist() == [False, False, False]


def test_drift_sensitivity_floors_small_changes_and_keeps_their_sign():
    # changes 4, -0.5, 0 with floor 0.25 x 4 = 1: denominators 4, -1, +1
    found = drift([0, 1, 2, 3], [8, 4, 2, 1], [0, 4, 3.5, 3.5], floor_fraction=0.25)
    assert found["sensitivity"].tolist() == pytest.approx([-1, 2, -1])
    assert found["denominator_floored"].tolist() == [False, True, True]


def test_drift_sensitivity_without_drift_is_nan():
    found = drift([0, 1, 2], [3, 2, 1], [0, 0, 1])
    assert found["sensitivity"].tolist() == pytest.approx([math.nan, -1], nan_ok=True)


@given(st.lists(st.tuples(moderate, moderate), min_size=2, max_size=12), st.floats(0.01, 1))
def test_drift_floor_bounds_the_sensitivity(points, fraction):
    scores, projections = zip(*points, strict=True)
    found = drift(range(len(points)), scores, projections, fraction)
    largest = np.abs(np.diff(projections)).max()
    if largest == 0:
        assert np.isnan(found["sensitivity"].to_numpy()).all()
        return
    recovered = np.abs(found["sensitivity"].to_numpy()) * fraction * largest
    assert np.all(recovered <= np.abs(np.diff(scores)) * (1 + 1e-9) + 1e-12)


def test_drift_sensitivity_refusals():
    with pytest.raises(DataError, match="needs 2 checkpoints or more, got 1"):
        drift([0], [1], [0])
    with pytest.raises(DataError, match="step measured more than once: 150"):
        drift([0, 150, 150], [1, 2, 3], [0, 1, 2])
    with pytest.raises(ConfigurationError, match=r"floor_fraction 1\.5: must lie in 0 to 1"):
        drift([0, 1], [1, 2], [0, 1], floor_fraction=1.5)


# Four prompts at two states; changes -3, -1, 0, 2, whose mean is -.5.
PAIRED = pd.DataFrame({0: [5.0, 4.0, 3.0, 1.0], 10: [2.0, 3.0, 3.0, 3.0]})


def resampled_means(values, quantiles):
    """Quantiles of the mean over all resamples of the same size, every one of them once."""
    means = [np.mean(sample) for sample in itertools.product(values, repeat=len(values))]
    return np.quantile(means, quantiles)


def test_bounds_are_those_of_resampled_prompts_with_both_states_together():
    trajectory = pd.DataFrame({"step": [0, 10], "projection": [1.0, 3.0]})
    found = drift_sensitivity(PAIRED, trajectory).iloc[0]
    # All 4^4 resamples of the changes, over the drift of 2.
    low, high = resampled_means([-3, -1, 0, 2], [0.025, 0.975]) / 2
    assert found["sensitivity"] == pytest.approx(-0.25)
    # 9,999 random ones of 256 come near; a mean moves in steps of 1/8 after the division.
    assert found["sensitivity_bootstrap_low"] == pytest.approx(low, abs=0.13)
    assert found["sensitivity_bootstrap_high"] == pytest.approx(high, abs=0.13)


def test_a_negative_drift_turns_the_interval_round():
    forth = pd.DataFrame({"step": [0, 10], "projection": [1.0, 3.0]})
    back = forth.assign(projection=[3.0, 1.0])
    one, other = (drift_sensitivity(PAIRED, table).iloc[0] for table in (forth, back))
    assert other["sensitivity"] == pytest.approx(-one["sensitivity"])
    assert other["sensitivity_bootstrap_low"] == pytest.approx(-one["sensitivity_bootstrap_high"])
    assert other["sensitivity_bootstrap_high"] == pytest.approx(-one["sensitivity_bootstrap_low"])
    assert other["sensitivity_bootstrap_low"] < other["sensitivity_bootstrap_high"]


def test_prompts_are_paired():
    # Prompts differ by far more than states do; apart, the interval would be as wide as that.
    scores = pd.DataFrame(np.add.outer([-100.0, 0.0, 100.0], [0.0, 1.0, 2.0]))
    scores.columns = pd.Index([0.0, 0.1, 0.2])
    found = linear_sensitivity(scores).iloc[0]
    assert [found[name] for name in BOUNDED] == pytest.approx([10, 10, 10])


def test_a_prompt_without_a_score_at_either_state_is_left_out():
    scores = PAIRED.copy()
    scores.loc[0, 10] = scores.loc[1, 0] = np.nan
    trajectory = pd.DataFrame({"step": [0, 10], "projection": [0.0, 1.0]})
    found = drift_sensitivity(scores, trajectory).iloc[0]
    assert found["sensitivity"] == pytest.approx(1)  # of the changes 0 and 2 alone
    assert found["prompts"] == 2
    assert drift_sensitivity(PAIRED, trajectory)["prompts"].tolist() == [4]
    assert (found["sensitivity_bootstrap_low"], found["sensitivity_bootstrap_high"]) == (0, 2)


def test_one_prompt_has_no_interval():
    trajectory = pd.DataFrame({"step": [0, 10], "projection": [0.0, 1.0]})
    found = drift_sensitivity(PAIRED[:1], trajectory).iloc[0]
    assert found["sensitivity"] == -3 and found[list(BOUNDED[1:])].isna().all()


def test_a_state_that_was_not_judged_is_named():
    trajectory = pd.DataFrame({"step": [0, 10, 20, 30], "projection": [0.0, 1.0, 2.0, 3.0]})
    message = r"no Safety Score was measured of state\(s\) 20, 30; judge them"
    with pytest.raises(DataError, match=message):
        drift_sensitivity(PAIRED, trajectory)


BOUNDED = ("sensitivity", "sensitivity_bootstrap_low", "sensitivity_bootstrap_high")


def states(values, low=None, high=None):
    ends = {
        "sensitivity_bootstrap_low": low or values,
        "sensitivity_bootstrap_high": high or values,
    }
    return pd.DataFrame({"step": range(len(values)), "sensitivity": values, **ends})


def test_by_their_bounds_states_are_as_sensitive_as_is_certain():
    table = states([-9.0, -2.0, -1.0, math.nan], high=[4.0, -1.5, -0.5, math.nan])
    assert rank_states(table, "step", "negative")["step"].tolist() == [0, 1, 2]
    # 0 may as well be positive: it comes last, not first.
    assert rank_states(table, "step", "negative", "bound")["step"].tolist() == [1, 2, 0]
    table = states([9.0, 2.0, 1.0], low=[-4.0, 1.5, 0.5], high=[22.0, 2.5, 1.5])
    assert rank_states(table, "step", "positive", "bound")["step"].tolist() == [1, 2, 0]
    with pytest.raises(ConfigurationError, match="rank_by: 'width' is not a way; known: bound, va"):
        rank_states(table, "step", "positive", "width")  # pyright: ignore[reportArgumentType]


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
    with pytest.raises(ConfigurationError, match="'largest' is not an end; known: negative, pos"):
        rank_states(states([1.0]), "step", "largest")  # pyright: ignore[reportArgumentType]


def test_choose_state():
    ranked = rank_states(states([-1.0, -5.0, -2.0]), "step", "negative")
    assert choose_state(ranked, 1) == {"step": 1, **dict.fromkeys(BOUNDED, -5.0), "rank": 1}
    assert choose_state(ranked, 3) == {"step": 0, **dict.fromkeys(BOUNDED, -1.0), "rank": 3}


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
