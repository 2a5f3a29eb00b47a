"""Intervals and trend tests for attack success rates and Safety Scores."""

import math
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from sqsd.errors import DataError

# 9! rankings and more take seconds in pure Python; the paper has five subsets.
MOST_COLUMNS_PERMUTED = 8


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a rate, both in [0, 1] (Wilson 1927).

    Raises DataError unless 0 <= successes <= n, n > 0 and 0 < level < 1.
    """
    check_level(level)
    check_counts(successes, n)
    return wilson_bounds(successes, n, level)


def clustered_interval(
    successes: ArrayLike, counts: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a rate whose answers come in clusters (low, high), both in [0, 1].

    successes, counts [n]: of each cluster, for example a prompt answered under several seeds. n in
    Wilson's formula is the number of answers over the design effect (Kish 1965), the variance of
    the rate with clusters as the unit over that of independent answers; at least 1, at most the
    mean size of a cluster, which is what clusters of like answers have, and what a rate of 0 or 1,
    that does not tell, is given. As in Dean and Pagano 2015, without their correction for few
    clusters. Raises DataError as `wilson_interval`.
    """
    x, m = np.asarray(successes, dtype=float), np.asarray(counts, dtype=float)
    total = m.sum()
    check_level(level)
    check_counts(int(x.sum()), int(total))
    n, rate = len(m), x.sum() / total
    effect = total / n
    if 0 < rate < 1 and n > 1:
        variance = ((x - rate * m) ** 2).sum() * n / (n - 1) / total**2
        effect = float(np.clip(variance * total / (rate * (1 - rate)), 1.0, effect))
    answers = total / effect
    return wilson_bounds(rate * answers, answers, level)


def wilson_bounds(successes: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's interval of counts that need not be whole."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    # A rounding error may put a bound a hair beyond.
    return max(float(low), 0.0), min(float(high), 1.0)  # pyright: ignore


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of values [n] with its Student t interval: (mean, low, high), in the values' unit.

    The bounds are NaN for fewer than 2 values, all three for none or where a value is NaN.
    Raises DataError unless 0 < level < 1.
    """
    from scipy.stats import t

    check_level(level)
    array = np.asarray(values, dtype=float).ravel()
    if array.size == 0:
        return math.nan, math.nan, math.nan
    mean = float(array.mean())
    if array.size == 1:
        return mean, math.nan, math.nan
    standard_error = float(array.std(ddof=1)) / math.sqrt(array.size)
    half_width = float(t.ppf((1 + level) / 2, array.size - 1)) * standard_error
    return mean, mean - half_width, mean + half_width


def bootstrap_means(values: ArrayLike, level: float = 0.95, resamples: int = 9999) -> np.ndarray:
    """Means over rows of values [n, k] with percentile bootstrap bounds: [3, k], mean, low, high.

    NaNs are left out of their column. The bounds are NaN for fewer than 2 rows, all three for
    none. The resamples are the same in every call and column (seed 0), so that the same values
    give the same bounds. Raises DataError unless 0 < level < 1.
    """
    from scipy.stats import bootstrap

    check_level(level)
    array = np.asarray(values, dtype=float)
    found = np.full((3, array.shape[1]), math.nan)
    for k, column in enumerate(array.T):
        known = column[~np.isnan(column)]
        if len(known):
            found[0, k] = known.mean()
        if len(known) > 1:
            interval = bootstrap(
                (known,), np.mean, n_resamples=resamples, confidence_level=level,
                method="percentile", rng=0,
            ).confidence_interval  # fmt: skip
            found[1:, k] = interval.low, interval.high
    return found


def signed_rank_test(differences: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired differences [n] (Wilcoxon 1945).

    By scipy, without the differences that are 0; NaN for fewer than 2 differences, where one is
    NaN, and where all are 0.
    """
    from scipy.stats import wilcoxon

    array = np.asarray(differences, dtype=float).ravel()
    if array.size < 2 or np.isnan(array).any() or not array.any():
        return math.nan
    return float(wilcoxon(array).pvalue)  # pyright: ignore


def rank_correlation(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Spearman's rank correlation along an axis; NaN where either is constant, or has no pairs.

    Unlike scipy's, it takes many pairs of samples at once, as a bootstrap asks.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=axis) for values in (x, y)]
    a, b = (r - r.mean(axis=axis, keepdims=True) for r in ranks)
    product = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    covariance = np.asarray((a * b).sum(axis=axis))
    return np.divide(covariance, product, out=np.full(covariance.shape, np.nan), where=product > 0)


def rank_correlation_bootstrap(
    x: ArrayLike,
    y: ArrayLike,
    other: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 9999,
) -> tuple[float, float, float]:
    """Spearman's correlation of n pairs with its percentile bootstrap interval over pairs.

    other [n]: instead, how much higher the correlation of x with y is than that of other with y,
    over the same resamples. Returns (value, low, high), NaN where a correlation is, the bounds for
    fewer than 4 pairs. Resamples in which one side is constant tell nothing and are left out.
    """
    check_level(level)
    sides = [np.asarray(v, dtype=float) for v in (x, y, other) if v is not None]

    def statistic(*columns: np.ndarray) -> np.ndarray:
        found = rank_correlation(columns[0], columns[1])
        return found if len(columns) < 3 else found - rank_correlation(columns[2], columns[1])

    n, value = len(sides[0]), float(statistic(*sides)) if len(sides[0]) else math.nan
    if n < 4 or math.isnan(value):
        return value, math.nan, math.nan
    return value, *resampled_bounds(statistic, sides, level, resamples)


def resampled_bounds(
    statistic: Callable[..., np.ndarray], sides: Sequence[np.ndarray], level: float, resamples: int
) -> tuple[float, float]:
    """Percentile bootstrap bounds (low, high) of a statistic of columns [n], resampled together.

    statistic: of columns [resamples, n], [resamples]; its NaNs are left out. Seed 0, as in
    `bootstrap_means`.
    """
    n = len(sides[0])
    picked = np.random.default_rng(0).integers(0, n, (resamples, n))
    found = statistic(*(side[picked] for side in sides))
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc_bootstrap(
    higher: ArrayLike, lower: ArrayLike, level: float = 0.95, resamples: int = 9999
) -> tuple[float, float, float]:
    """Share of pairs whose value of `higher` [m] is above that of `lower` [n], of ties a half.

    The area under the ROC curve, by ranks (Mann and Whitney 1947), with its percentile bootstrap
    interval over the values of each side, seed 0 as in `bootstrap_means`: (value, low, high).
    All three are NaN where a side has none, the bounds for fewer than 2 of a side.
    """
    from scipy.stats import bootstrap, rankdata

    check_level(level)
    sides = tuple(np.asarray(side, dtype=float).ravel() for side in (higher, lower))
    m, n = map(len, sides)

    def auc(higher: np.ndarray, lower: np.ndarray, axis: int) -> np.ndarray:
        ranks = rankdata(np.concatenate((higher, lower), axis), axis=axis)
        above = np.take(ranks, range(m), axis).sum(axis) - m * (m + 1) / 2
        return above / (m * n)

    if not m * n:
        return math.nan, math.nan, math.nan
    value = float(auc(*sides, axis=0))
    if min(m, n) < 2:
        return value, math.nan, math.nan
    interval = bootstrap(
        sides, auc, n_resamples=resamples, batch=100, confidence_level=level,
        method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return value, float(interval.low), float(interval.high)


def matched_auc_bootstrap(
    higher: ArrayLike,
    lower: ArrayLike,
    matched: ArrayLike,
    level: float = 0.95,
    resamples: int = 9999,
) -> tuple[float, float, float]:
    """`auc_bootstrap` over those pairs alone that `matched` [m, n] marks: (value, low, high).

    As in a study matched on a covariate: what tells the two sides apart beyond what the pairs are
    matched on. The values of each side are resampled, and each pair counts as often as both of its
    values are drawn; resamples without a pair tell nothing and are left out. All three are NaN
    where no pair is marked, the bounds for fewer than 2 of a side that are in one.
    """
    check_level(level)
    above, below = (np.asarray(side, dtype=float).ravel() for side in (higher, lower))
    pairs = np.asarray(matched, dtype=float).reshape(len(above), len(below))
    wins = pairs * (np.sign(np.subtract.outer(above, below)) + 1) / 2
    if not pairs.any():
        return math.nan, math.nan, math.nan
    value = float(wins.sum() / pairs.sum())
    if min(pairs.any(axis).sum() for axis in (0, 1)) < 2:
        return value, math.nan, math.nan
    draw = np.random.default_rng(0)
    drawn, against = (
        draw.multinomial(n, np.full(n, 1 / n), resamples).astype(float) for n in pairs.shape
    )
    won, counted = (((drawn @ of) * against).sum(axis=1) for of in (wins, pairs))
    found = won[counted > 0] / counted[counted > 0]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def ratio_bootstrap(
    over: ArrayLike, under: ArrayLike, level: float = 0.95, resamples: int = 9999
) -> tuple[float, float, float]:
    """Sum of `over` [n] by the sum of `under` [n], with its percentile bootstrap interval.

    Resampled in pairs. Returns (value, low, high), NaN where the sum of `under` is zero, the bounds
    for fewer than 4 pairs.
    """
    check_level(level)
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if not b.sum():
        return math.nan, math.nan, math.nan
    value = float(a.sum() / b.sum())
    if len(a) < 4:
        return value, math.nan, math.nan

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        sums = b.sum(1)
        return np.divide(a.sum(1), sums, out=np.full(len(sums), np.nan), where=sums != 0)

    return value, *resampled_bounds(ratio, [a, b], level, resamples)


def rank_correlation_interval(
    correlation: float, n: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval (low, high) of Spearman's rank correlation of n pairs (Bonett and Wright 2000).

    On Fisher's scale, with variance (1 + r^2 / 2) / (n - 3); NaN for fewer than 4 pairs or where
    the correlation is NaN (a score that is the same for every row).
    """
    from scipy.stats import norm

    check_level(level)
    if n < 4 or math.isnan(correlation):
        return math.nan, math.nan
    if abs(correlation) >= 1:
        return correlation, correlation
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    middle = math.atanh(correlation)
    return math.tanh(middle - half), math.tanh(middle + half)


def cohens_kappa(one: ArrayLike, other: ArrayLike) -> float:
    """Agreement of two judges' verdicts [n], as booleans, beyond chance (Cohen 1960), at most 1.

    NaN where chance alone agrees wholly, both giving one verdict throughout, and for no verdict.
    """
    x, y = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if x.size == 0:
        return math.nan
    same, chance = (x == y).mean(), x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean())
    return float((same - chance) / (1 - chance)) if chance < 1 else math.nan


def is_strictly_decreasing(values: Sequence[float]) -> bool:
    """Whether each value is below the one before it (the paper's Mono, for ASR over S1..S5).

    False for fewer than 2 values, where there is no order to show, and where a value is NaN.
    """
    array = np.asarray(values, dtype=float)
    return array.size >= 2 and bool(np.all(array[1:] < array[:-1]))


def trend_test(table: ArrayLike) -> tuple[float, float]:
    """Page's test that the columns decrease from left to right: (L, one-sided p-value).

    table: [blocks, k], one row per seed, one column per subset in the predicted order. L is large
    where the first column is highest. Two rows and more go to scipy.stats.page_trend_test, which
    takes no single row; one row is tested exactly, against every order of its own (mid-)ranks.
    (NaN, NaN) for no row, fewer than 3 columns or a NaN; p is NaN for one row of more than 8
    columns, whose orders are too many to list.
    Raises DataError unless the table has two dimensions.
    """
    from scipy.stats import page_trend_test

    array = np.asarray(table, dtype=float)
    if array.ndim != 2:
        raise DataError(
            f"trend_test: got a table of {array.ndim} dimension(s); "
            "needs 2, [blocks, k]: pass a single seed as [values]"
        )
    blocks, columns = array.shape
    if blocks == 0 or columns < 3 or np.isnan(array).any():
        return math.nan, math.nan
    predicted = np.arange(columns, 0, -1)
    if blocks == 1:
        return single_block_trend(array[0], predicted)
    result = page_trend_test(array, predicted_ranks=predicted)
    return float(result.statistic), float(result.pvalue)


def single_block_trend(row: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Page's L of one row [k] and its exact permutation p-value (NaN for more than 8 columns)."""
    from scipy.stats import rankdata

    ranks = rankdata(row)
    statistic = float(ranks @ predicted)
    if len(row) > MOST_COLUMNS_PERMUTED:
        return statistic, math.nan
    # Mid-ranks are multiples of 1/2, so these sums are exact and may be compared with >=.
    null = np.array(list(permutations(ranks))) @ predicted
    return statistic, float(np.mean(null >= statistic))


def check_counts(successes: int, n: int) -> None:
    """Raises DataError unless 0 <= successes <= n and n > 0."""
    if n <= 0 or not 0 <= successes <= n:
        raise DataError(
            f"a rate of {successes} in {n}: needs n > 0 and 0 <= successes <= n; check the counts"
        )


def check_level(level: float) -> None:
    """Raises DataError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise DataError(f"confidence level {level}: must lie between 0 and 1, for example 0.95")
