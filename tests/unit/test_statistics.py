import itertools
import math
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from sqsd.errors import DataError
from sqsd.statistics import (
    auc_bootstrap,
    bootstrap_means,
    clustered_interval,
    cohens_kappa,
    is_strictly_decreasing,
    matched_auc_bootstrap,
    mean_interval,
    rank_correlation,
    rank_correlation_bootstrap,
    rank_correlation_interval,
    ratio_bootstrap,
    signed_rank_test,
    trend_test,
    wilson_interval,
)

Z = 1.959963984540054  # normal quantile at 0.975


@st.composite
def counts(draw):
    n = draw(st.integers(1, 600))
    return draw(st.integers(0, n)), n


def wilson_by_formula(k, n):
    # Wilson 1927: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    p = k / n
    middle = p + Z**2 / (2 * n)
    spread = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (middle - spread) / (1 + Z**2 / n), (middle + spread) / (1 + Z**2 / n)


@settings(deadline=None)  # the first call imports statsmodels or scipy
@given(counts())
def test_wilson_is_the_formula_and_holds_the_rate(pair):
    k, n = pair
    low, high = wilson_interval(k, n)
    assert (low, high) == pytest.approx(wilson_by_formula(k, n), abs=1e-9)
    assert -1e-12 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1 + 1e-12


@settings(deadline=None)  # the first call imports statsmodels or scipy
@given(counts())
def test_wilson_mirrors_and_widens_with_the_level(pair):
    k, n = pair
    low, high = wilson_interval(k, n)
    mirrored = wilson_interval(n - k, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    wider = wilson_interval(k, n, level=0.99)
    assert wider[1] - wider[0] > high - low


def clustered_by_formula(successes, counts):
    """Variance of a ratio with clusters as the unit, as survey samplers have it, by loops."""
    n, total = len(counts), sum(counts)
    p = sum(successes) / total
    effect = total / n
    if 0 < p < 1 and n > 1:
        spread = sum((x - p * m) ** 2 for x, m in zip(successes, counts, strict=True))
        clustered = n / (n - 1) * spread / total**2
        effect = min(max(clustered / (p * (1 - p) / total), 1), effect)
    return wilson_by_formula(p * total / effect, total / effect)


CLUSTERS = st.lists(
    st.integers(1, 5).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m))), min_size=1,
    max_size=12,
)  # fmt: skip


@given(CLUSTERS)
def test_clustered_is_the_formula_and_at_least_as_wide_as_independent_answers(clusters):
    successes, counts = zip(*clusters, strict=True)
    low, high = clustered_interval(successes, counts)
    assert (low, high) == pytest.approx(clustered_by_formula(successes, counts), abs=1e-9)
    plain = wilson_interval(sum(successes), sum(counts))
    rate = sum(successes) / sum(counts)
    assert 0 <= low <= plain[0] + 1e-9 and plain[1] - 1e-9 <= high <= 1
    assert low - 1e-9 <= rate <= high + 1e-9


def test_clustered_by_hand():
    # 7 of 8; by prompt 2, 2, 2, 1 of 2: deviations .25, .25, .25, -.75, so a variance of
    # 4/3 * .75 / 64 = 1/64 against .875 * .125 / 8 = 7/512: effect 8/7, 7 answers that count.
    found = clustered_interval([2, 2, 2, 1], [2, 2, 2, 2])
    assert found == pytest.approx(wilson_by_formula(7 * 7 / 8, 7), abs=1e-9)
    # Like answers of a prompt are one answer; so are those of a rate that tells nothing.
    for successes in ([3, 0, 3, 0], [0, 0, 0, 0], [3, 3, 3, 3]):
        found = clustered_interval(successes, [3] * 4)
        assert found == pytest.approx(wilson_by_formula(sum(successes) / 3, 4), abs=1e-9)
    # One answer to each prompt: nothing to cluster.
    assert clustered_interval([1, 0, 1], [1] * 3) == pytest.approx(wilson_interval(2, 3), abs=1e-9)


@pytest.mark.parametrize(("successes", "counts"), [([], []), ([2], [1]), ([0], [0])])
def test_clusters_that_are_no_rate(successes, counts):
    with pytest.raises(DataError, match="needs n > 0 and 0 <= successes <= n"):
        clustered_interval(successes, counts)


def test_wilson_of_zero_successes():
    # p = 0: low 0, high z^2 / (n + z^2) = 3.841459 / 13.841459
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775328), abs=1e-7)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(DataError, match=f"a rate of {k} in {n}: needs n > 0"):
        wilson_interval(k, n)


def test_impossible_level_is_refused():
    with pytest.raises(DataError, match="confidence level 95: must lie between 0 and 1"):
        wilson_interval(1, 2, level=95)


def test_mean_interval_by_hand():
    # mean 2, s 1, n 3, t(0.975, 2) = 4.302653, so half width 4.302653 / sqrt(3) = 2.484138
    assert mean_interval([1, 2, 3]) == pytest.approx((2, -0.484138, 4.484138), abs=1e-5)


def test_mean_interval_of_equal_values_has_no_width():
    assert mean_interval([4.0, 4.0, 4.0]) == (4, 4, 4)


def test_mean_interval_of_too_few_values():
    assert mean_interval([7.0]) == pytest.approx((7, math.nan, math.nan), nan_ok=True)
    assert all(math.isnan(value) for value in mean_interval([]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([71.27, 29.45, 10.18, 7.27, 2.55], True),  # paper, table 1, SQSD(Beaver)
        ([3, 2, 2], False),
        ([3, 1, 2], False),
        ([3, math.nan, 1], False),
        ([3], False),
        ([], False),
    ],
)
def test_strictly_decreasing(values, expected):
    assert is_strictly_decreasing(values) is expected


@given(st.lists(st.integers(), min_size=2, unique=True))
def test_sorted_distinct_values_decrease_and_reversed_ones_do_not(values):
    values = [v % 10**6 + i * 10**6 for i, v in enumerate(values)]
    assert is_strictly_decreasing(values[::-1])
    assert not is_strictly_decreasing(values)


def test_trend_of_two_seeds_by_hand():
    # L = (9 + 4 + 1) + (9 + 2 + 2) = 27. One row gives 14 in 1 of 6 orders, 13 in 2 of 6;
    # L >= 27 needs (14, 14), (14, 13) or (13, 14): (1 + 2 + 2) / 36
    assert trend_test([[3, 2, 1], [3, 1, 2]]) == pytest.approx((27, 5 / 36))


def test_trend_of_one_seed_by_hand():
    # Strictly decreasing in 1 of 5! orders; L = 25 + 16 + 9 + 4 + 1
    assert trend_test([[0.7, 0.3, 0.1, 0.07, 0.02]]) == pytest.approx((55, 1 / 120))
    # Every order reaches the smallest L, that of the increasing row: 5 + 8 + 9 + 8 + 5
    assert trend_test([[1, 2, 3, 4, 5]]) == pytest.approx((35, 1))
    # Ranks 2.5, 2.5, 1: the 1 falls in the last column in a third of the orders
    assert trend_test([[5, 5, 0]]) == pytest.approx((7.5 + 5 + 1, 1 / 3))


@settings(deadline=None)  # the first call imports statsmodels or scipy
@given(st.lists(st.permutations([1, 2, 3]), min_size=2, max_size=3))
def test_trend_against_every_table(rows):
    weights = np.array([3, 2, 1])
    one = [int(np.dot(order, weights)) for order in permutations([1, 2, 3])]
    sums = np.array([0])
    for _ in rows:
        sums = np.add.outer(sums, one).ravel()
    statistic = int(np.sum(np.array(rows) @ weights))
    assert trend_test(rows) == pytest.approx((statistic, np.mean(sums >= statistic)))


@pytest.mark.parametrize("table", [np.zeros((0, 5)), [[2, 1]], [[3, math.nan, 1], [3, 2, 1]]])
def test_trend_that_cannot_be_tested_is_nan(table):
    assert all(math.isnan(value) for value in trend_test(table))


def test_trend_of_one_long_row_has_a_statistic_only():
    statistic, p_value = trend_test([list(range(9, 0, -1))])
    assert statistic == 285  # sum of squares to 9
    assert math.isnan(p_value)


def test_trend_wants_a_table():
    with pytest.raises(DataError, match=r"1 dimension\(s\); needs 2, \[blocks, k\]"):
        trend_test([3, 2, 1])


def test_a_rank_correlation_s_interval_by_hand():
    # r .6 of 28 pairs: atanh .6 = ln 2 = .693147, half 1.959964 * sqrt(1.18 / 25) = .425812.
    low, high = rank_correlation_interval(0.6, 28)
    assert low == pytest.approx(
        (math.exp(2 * 0.267335) - 1) / (math.exp(2 * 0.267335) + 1), abs=1e-6
    )
    assert high == pytest.approx(
        (math.exp(2 * 1.118959) - 1) / (math.exp(2 * 1.118959) + 1), abs=1e-6
    )
    assert rank_correlation_interval(-0.6, 28) == pytest.approx((-high, -low))
    narrow = rank_correlation_interval(0.6, 280)
    assert low < narrow[0] < 0.6 < narrow[1] < high
    wide = rank_correlation_interval(0.6, 28, level=0.99)
    assert wide[0] < low and high < wide[1]


@pytest.mark.parametrize(("correlation", "n"), [(0.5, 3), (math.nan, 50)])
def test_a_rank_correlation_that_has_no_interval(correlation, n):
    assert all(map(math.isnan, rank_correlation_interval(correlation, n)))


def test_orders_that_are_alike_have_no_doubt():
    assert rank_correlation_interval(1.0, 9) == (1.0, 1.0)
    assert rank_correlation_interval(-1.0, 9) == (-1.0, -1.0)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=8, unique=True),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_signed_rank_test_is_the_share_of_signs_as_far_from_even(sizes, signs):
    """Of all 2^n signs of the ranks: how many have a sum at least as far from half of all."""
    differences = [size if sign else -size for size, sign in zip(sizes, signs, strict=False)]
    ranks = [sorted(sizes).index(size) + 1 for size in sizes]
    half = sum(ranks) / 2
    seen = abs(sum(r for r, d in zip(ranks, differences, strict=True) if d > 0) - half)
    sums = [
        sum(r for r, up in zip(ranks, ups, strict=True) if up)
        for ups in product((False, True), repeat=len(ranks))
    ]
    expected = np.mean([abs(found - half) >= seen for found in sums])
    assert signed_rank_test(differences) == pytest.approx(float(expected))


@pytest.mark.parametrize("differences", [[], [0.5], [0.0, 0.0, 0.0], [1.0, math.nan]])
def test_signed_rank_test_of_nothing_to_test_is_nan(differences):
    assert math.isnan(signed_rank_test(differences))


def spearman_by_hand(x, y):
    """Pearson's correlation of mid-ranks, counted one by one."""
    ranks = [[sum(b < a for b in v) + (sum(b == a for b in v) + 1) / 2 for a in v] for v in (x, y)]
    return float(np.corrcoef(ranks)[0, 1])  # pyright: ignore


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=9))
def test_rank_correlations_count_ties_as_their_mean(pairs):
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    found = float(rank_correlation(x, y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearman_by_hand(x, y), abs=1e-12)


def test_rank_correlations_of_many_samples_are_each_one_s_own():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 6, 7))
    expected = [spearman_by_hand(*pair) for pair in zip(x, y, strict=True)]
    assert rank_correlation(x, y) == pytest.approx(expected)


def test_a_bootstrap_of_a_rank_correlation_is_over_pairs():
    # All 4^4 resamples of four pairs, those with one side constant left out.
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    resampled = [
        spearman_by_hand([x[i] for i in picked], [y[i] for i in picked])
        for picked in itertools.product(range(4), repeat=4)
        if len(set(picked)) > 1
    ]
    value, low, high = rank_correlation_bootstrap(x, y)
    assert value == pytest.approx(0.8)
    # A step of the few values that four pairs can take.
    expected = np.quantile(resampled, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.06)


def test_a_difference_of_rank_correlations_is_paired():
    rng = np.random.default_rng(1)
    y = rng.normal(size=40)
    x, other = y + 0.5 * rng.normal(size=40), rng.normal(size=40)
    value, low, high = rank_correlation_bootstrap(x, y, other)
    assert value == pytest.approx(spearman_by_hand(x, y) - spearman_by_hand(other, y))
    assert 0 < low < value < high
    # One and the same on both sides has no doubt, whatever the pairs.
    assert rank_correlation_bootstrap(x, y, x) == (0, 0, 0)


def test_a_rank_correlation_without_enough_to_go_by():
    assert all(map(math.isnan, rank_correlation_bootstrap([], [])))
    assert all(map(math.isnan, rank_correlation_bootstrap([1, 1, 1, 1], [1, 2, 3, 4])))
    value, low, high = rank_correlation_bootstrap([1, 2, 3], [1, 2, 3])
    assert value == pytest.approx(1) and math.isnan(low) and math.isnan(high)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_bootstrapped_means_of_a_column_stand_alone(values):
    column = np.array(values)
    beside = np.stack([column, np.arange(len(column), dtype=float)], 1)
    alone = bootstrap_means(column[:, None])[:, 0]
    assert bootstrap_means(beside)[:, 0].tolist() == alone.tolist()
    mean, low, high = alone
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert min(values) - 1e-9 <= mean <= max(values) + 1e-9


def test_bootstrapped_means_leave_out_what_is_not_there():
    found = bootstrap_means([[1.0, math.nan, 5.0], [3.0, math.nan, math.nan]])
    assert found[:, 0].tolist() == [2, 1, 3]
    assert np.isnan(found[:, 1]).all() and found[0, 2] == 5 and np.isnan(found[1:, 2]).all()
    with pytest.raises(DataError, match="confidence level 1"):
        bootstrap_means([[1.0]], level=1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_cohen_s_kappa_is_the_agreement_beyond_chance(pairs):
    n = len(pairs)
    same = Fraction(sum(a == b for a, b in pairs), n)
    first, second = Fraction(sum(a for a, _ in pairs), n), Fraction(sum(b for _, b in pairs), n)
    chance = first * second + (1 - first) * (1 - second)
    found = cohens_kappa(*zip(*pairs, strict=True))
    if chance == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float((same - chance) / (1 - chance)), abs=1e-12)


def test_no_verdict_has_no_kappa():
    assert math.isnan(cohens_kappa([], []))


def test_a_ratio_of_sums_and_its_interval_against_scipy():
    rng = np.random.default_rng(3)
    under = rng.uniform(1, 3, 40)
    over = 0.7 * under + rng.normal(0, 0.5, 40)
    value, low, high = ratio_bootstrap(over, under)
    assert value == pytest.approx(sum(over) / sum(under))
    found = bootstrap(
        (over, under), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True,
        method="percentile", n_resamples=9999, rng=5,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.01)


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=20), st.floats(-5, 5))
@settings(deadline=None, max_examples=10)
def test_what_is_proportional_has_one_ratio(under, factor):
    values = ratio_bootstrap([factor * x for x in under], under)
    assert values == pytest.approx((factor, factor, factor))


def test_ratios_that_tell_nothing():
    assert all(math.isnan(v) for v in ratio_bootstrap([1.0, 2.0], [0.0, 0.0]))
    value, *bounds = ratio_bootstrap([1.0, 2.0, 3.0], [1.0, 1.0, 2.0])
    assert value == 1.5 and all(math.isnan(v) for v in bounds)
    assert all(math.isnan(v) for v in ratio_bootstrap([], []))
    # A resample of zeros alone is left out.
    assert all(math.isfinite(v) for v in ratio_bootstrap([1.0, 0, 0, 0], [1.0, 0, 0, 0]))
    with pytest.raises(DataError, match="confidence level 2"):
        ratio_bootstrap([1.0], [1.0], level=2)


VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(VALUES, VALUES)
@settings(max_examples=40, deadline=None)
def test_an_auc_is_the_share_of_pairs_in_which_the_first_is_higher(higher, lower):
    wins = sum((a > b) + (a == b) / 2 for a in higher for b in lower)
    value, low, high = auc_bootstrap(higher, lower, resamples=50)
    assert value == pytest.approx(wins / (len(higher) * len(lower)), abs=1e-12)
    # The other way round, and on another scale of the scores.
    assert auc_bootstrap(lower, higher, resamples=50)[0] == pytest.approx(1 - value, abs=1e-12)
    scaled, other = ([math.exp(v) for v in side] for side in (higher, lower))
    assert auc_bootstrap(scaled, other, resamples=50) == (value, low, high)


def test_the_interval_of_an_auc_is_over_the_values_of_each_side():
    draw = np.random.default_rng(3)
    higher, lower = draw.normal(0.6, 1, 60), draw.normal(0, 1, 25)
    value, low, high = auc_bootstrap(higher, lower)
    means = [
        (draw.choice(higher, 60)[:, None] > draw.choice(lower, 25)).mean() for _ in range(4000)
    ]
    # Two bootstraps of some thousand resamples: their bounds differ by some thousandths.
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)
    wide = auc_bootstrap(higher, lower, level=0.99)
    assert wide[0] == value and wide[1] < low < value < high < wide[2]
    assert auc_bootstrap(higher, lower) == (value, low, high)


def test_an_auc_of_few_values():
    assert auc_bootstrap([2.0, 3.0], [0.0, 1.0]) == (1, 1, 1)
    for sides in (([], [1.0]), ([1.0], []), ([], [])):
        assert all(map(math.isnan, auc_bootstrap(*sides)))
    for sides in (([1.0], [0.0, 2.0]), ([0.0, 2.0], [1.0])):
        value, low, high = auc_bootstrap(*sides)
        assert value == 0.5 and math.isnan(low) and math.isnan(high)
    with pytest.raises(DataError, match="level 1: must lie between 0 and 1"):
        auc_bootstrap([1.0], [0.0], level=1)


@given(st.data(), VALUES, VALUES)
@settings(max_examples=40, deadline=None)
def test_a_matched_auc_counts_only_the_pairs_that_are_marked(data, higher, lower):
    flags = st.lists(st.booleans(), min_size=len(lower), max_size=len(lower))
    matched = data.draw(st.lists(flags, min_size=len(higher), max_size=len(higher)))
    wins = [
        (a > b) + (a == b) / 2
        for a, marks in zip(higher, matched, strict=True)
        for b, mark in zip(lower, marks, strict=True)
        if mark
    ]
    value, low, high = matched_auc_bootstrap(higher, lower, matched, resamples=50)
    if not wins:
        assert all(map(math.isnan, (value, low, high)))
        return
    assert value == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    alone = sum(map(any, matched)) < 2 or sum(map(any, zip(*matched, strict=True))) < 2
    assert math.isnan(low) == math.isnan(high) == alone
    assert alone or 0 <= low <= high <= 1


def test_the_interval_of_a_matched_auc_is_over_the_values_of_each_side():
    draw = np.random.default_rng(5)
    sizes, others = draw.integers(1, 5, 50), draw.integers(1, 5, 30)
    # Sizes and values go together, so pairs of one size tell less apart than all do.
    higher, lower = sizes + draw.normal(0.5, 1, 50), others / 2 + draw.normal(0, 1, 30)
    matched = sizes[:, None] == others
    value, low, high = matched_auc_bootstrap(higher, lower, matched)
    means = []
    for _ in range(4000):
        i, j = draw.integers(0, 50, 50), draw.integers(0, 30, 30)
        means.append((higher[i][:, None] > lower[j])[matched[np.ix_(i, j)]].mean())
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)
    wide = matched_auc_bootstrap(higher, lower, matched, level=0.99)
    assert wide[0] == value and wide[1] < low < value < high < wide[2]
    everything = np.ones((50, 30))
    assert matched_auc_bootstrap(higher, lower, everything) == pytest.approx(
        auc_bootstrap(higher, lower), abs=0.01
    )


def test_resamples_without_a_matched_pair_are_left_out():
    # One pair each way, both won: whatever is drawn, nothing else than 1 can be counted.
    assert matched_auc_bootstrap([2.0, 3.0], [0.0, 1.0], np.eye(2), resamples=50) == (1, 1, 1)
    assert all(map(math.isnan, matched_auc_bootstrap([], [1.0], np.ones((0, 1)))))
    with pytest.raises(DataError, match="level 2: must lie between 0 and 1"):
        matched_auc_bootstrap([1.0], [0.0], [[True]], level=2)
