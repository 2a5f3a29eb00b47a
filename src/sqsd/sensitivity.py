"""Directional sensitivity of model states, and the choice of states D and S (paper App. E)."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from sqsd.errors import ConfigurationError, DataError, SqsdError, not_known
from sqsd.statistics import bootstrap_means

ALPHA_TOLERANCE = 1e-9
# The bound that says how sensitive a state is at least.
BOUND = {"positive": "sensitivity_bootstrap_low", "negative": "sensitivity_bootstrap_high"}
UNRANKED = "none has a finite sensitivity that the guard and the floor let through"


def linear_sensitivity(scores: pd.DataFrame, delta: float = 0.1) -> pd.DataFrame:
    """DS_linear, the central difference of the Safety Score along a direction (paper Eq. 26).

    scores: a row per prompt, a column per steered state, by its alpha (dimensionless); any order.
    Returns alpha, sensitivity (Safety Score per unit alpha) and its bounds (`paired_change`), by
    alpha, for each alpha whose alpha - delta and alpha + delta are both measured (to 1e-9).
    Raises ConfigurationError unless delta > 0, DataError on a repeated alpha, and SqsdError
    naming the missing alphas where no alpha has both neighbours.
    """
    if not delta > 0:
        raise ConfigurationError(f"delta {delta}: must be above 0; the paper has 0.1")
    refuse_repeats(scores.columns.to_numpy(dtype=float), "alpha")
    alphas = np.sort(scores.columns.to_numpy(dtype=float))
    found, below, above, missing = [], [], [], set()
    for alpha in alphas:
        ends = position(alphas, alpha - delta), position(alphas, alpha + delta)
        if ends[0] is not None and ends[1] is not None:
            found.append(alpha)
            below.append(alphas[ends[0]])
            above.append(alphas[ends[1]])
        for end, side in zip(ends, (-1, 1), strict=True):
            if end is None:
                missing.add(round(alpha + side * delta, 9))
    if not found:
        raise SqsdError(
            f"no alpha has both alpha - {delta:g} and alpha + {delta:g} measured; "
            f"measured: {listing(alphas)}; missing: {listing(sorted(missing))}. "
            "Measure both neighbours of one alpha, or change delta to the grid's spacing"
        )
    widths = np.full(len(found), 2 * delta)
    return pd.DataFrame({"alpha": found, **paired_change(scores, below, above, widths)})


def drift_sensitivity(
    scores: pd.DataFrame, trajectory: pd.DataFrame, floor_fraction: float = 0.0
) -> pd.DataFrame:
    """DS_drift, the Safety Score's change per unit of drift along a direction (paper Eq. 27).

    scores: a row per prompt, a column per checkpoint, by its step. trajectory: a row per
    checkpoint, columns step, projection (the drift's projection on the unit direction); any order.
    Returns step, next_step, sensitivity and its bounds (`paired_change`), denominator_floored, a
    row for each two consecutive checkpoints, attributed to the earlier. Deviation: the change in
    projection is held at floor_fraction times its largest magnitude or more, keeping its sign (+
    for zero); 0 is the paper's formula. A denominator that is still zero gives NaN.
    Raises ConfigurationError unless 0 <= floor_fraction <= 1, DataError on a repeated step or
    fewer than two checkpoints.
    """
    if not 0 <= floor_fraction <= 1:
        raise ConfigurationError(f"floor_fraction {floor_fraction}: must lie in 0 to 1")
    refuse_repeats(trajectory["step"], "step")
    ordered = trajectory.sort_values("step", ignore_index=True)
    if len(ordered) < 2:
        raise DataError(
            f"drift sensitivity needs 2 checkpoints or more, got {len(ordered)}; "
            "save checkpoints more often"
        )
    steps = ordered["step"].to_numpy()
    drift_change = np.diff(ordered["projection"].to_numpy(dtype=float))
    denominator, floored = floor_magnitude(drift_change, floor_fraction)
    return pd.DataFrame(
        {
            "step": steps[:-1],
            "next_step": steps[1:],
            **paired_change(scores, steps[:-1], steps[1:], denominator),
            "denominator_floored": floored,
        }
    )


def paired_change(
    scores: pd.DataFrame, before: Sequence, after: Sequence, denominator: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean change of the score from states to others over a denominator, with its interval.

    scores: a row per prompt, a column per state. before, after: columns [k]; denominator [k].
    Prompts are paired: a change is over those that have a score at both states, `prompts` of them.
    Bounds are of the 95 % bootstrap over prompts (`statistics.bootstrap_means`); the denominator,
    which hangs on weights alone, is taken as known. All three are NaN where it is zero. Raises
    DataError naming states without a score.
    """
    absent = sorted({*before, *after} - set(scores.columns))
    if absent:
        raise DataError(f"no Safety Score was measured of state(s) {listing(absent)}; judge them")
    change = scores[list(after)].to_numpy(dtype=float) - scores[list(before)].to_numpy(dtype=float)
    values = np.full((3, len(denominator)), np.nan)
    np.divide(bootstrap_means(change), denominator, out=values, where=denominator != 0)
    mean, *ends = values
    # A negative denominator turns the interval round.
    return {
        "sensitivity": mean,
        "sensitivity_bootstrap_low": np.minimum(*ends),
        "sensitivity_bootstrap_high": np.maximum(*ends),
        "prompts": np.isfinite(change).sum(0),
    }


def rank_states(
    table: pd.DataFrame,
    key: Literal["step", "alpha"],
    most: Literal["positive", "negative"],
    by: Literal["value", "bound"] = "value",
) -> pd.DataFrame:
    """States by sensitivity, the most positive or the most negative first, with a rank from 1.

    table: columns key, sensitivity, its bounds and any others, all kept. by: `value`, the paper's,
    or `bound`, the lower one for the most positive and the upper one for the most negative: how
    sensitive a state is at least, as far as the prompts can tell. Ties go to the smaller key.
    States whose value, or bound, is not finite cannot be ranked and are left out.
    Most positive is state S (Eq. 26 along V_safety), most negative state D (Eq. 27 along
    V_danger). Raises ConfigurationError on another value of most or by.
    """
    if most not in BOUND:
        raise ConfigurationError(f"most: {not_known(most, 'end', BOUND)}")
    columns = {"value": "sensitivity", "bound": BOUND[most]}
    if by not in columns:
        raise ConfigurationError(f"rank_by: {not_known(by, 'way', columns)}")
    finite = table.loc[np.isfinite(table[columns[by]].to_numpy(dtype=float))]
    ranked = finite.sort_values(
        [columns[by], key], ascending=[most == "negative", True], ignore_index=True
    )
    return ranked.assign(rank=np.arange(1, len(ranked) + 1))


def choose_state(ranked: pd.DataFrame, rank: int) -> dict[str, Any]:
    """The row of a rank (1 is the most sensitive) of `rank_states`, column to value.

    Raises ConfigurationError naming the ranks there are.
    """
    chosen = np.flatnonzero(ranked["rank"].to_numpy() == rank)
    if not len(chosen):
        none = f"no state could be ranked: {UNRANKED}"
        allowed = f"allowed: 1 to {len(ranked)}" if len(ranked) else none
        raise ConfigurationError(
            f"rank {rank} of the sensitive states: {allowed}; "
            "choose another rank, pin the state, or measure more states"
        )
    return row_as_dict(ranked, int(chosen[0]))


def least_sensitive(ranked: pd.DataFrame) -> dict[str, Any]:
    """The row with the smallest |sensitivity|, the better rank on ties (table 3's Insens. init).

    Raises DataError where there is no state.
    """
    if ranked.empty:
        raise DataError(f"no state could be ranked: {UNRANKED}; measure more")
    magnitude = np.abs(ranked["sensitivity"].to_numpy(dtype=float))
    return row_as_dict(ranked, int(np.argmin(magnitude)))


def floor_magnitude(change: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """change [n] held at fraction x its largest magnitude or more, and which were raised [n]."""
    magnitude = np.abs(change)
    floor = fraction * np.max(magnitude, where=~np.isnan(magnitude), initial=0.0)
    floored = magnitude < floor
    return np.where(floored, np.where(change < 0, -floor, floor), change), floored


def position(alphas: Sequence[float] | np.ndarray, wanted: float) -> int | None:
    """Index of the first of alphas [n] within 1e-9 of the wanted one, None where none is."""
    with np.errstate(invalid="ignore"):  # inf - inf: near nothing
        apart = np.abs(np.asarray(alphas, dtype=float) - wanted)
    matches = np.flatnonzero(apart <= ALPHA_TOLERANCE)
    return int(matches[0]) if len(matches) else None


def refuse_repeats(values: Iterable[float], what: str) -> None:
    """Raises DataError naming the values that occur more than once."""
    series = pd.Series(list(values))
    repeated = series[series.duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"{what} measured more than once: {listing(repeated)}; keep one row of each"
        )


def listing(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values) or "none"


def row_as_dict(table: pd.DataFrame, index: int) -> dict[str, Any]:
    return {str(k): v for k, v in table.iloc[[index]].to_dict(orient="records")[0].items()}
