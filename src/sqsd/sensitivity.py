"""Directional sensitivity of model states, and the choice of states D and S (paper App. E)."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from sqsd.errors import ConfigurationError, DataError, SqsdError

ALPHA_TOLERANCE = 1e-9


def linear_sensitivity(curve: pd.DataFrame, delta: float = 0.1) -> pd.DataFrame:
    """DS_linear, the central difference of the Safety Score along a direction (paper Eq. 26).

    curve: a row per steered state, columns alpha (dimensionless), safety_score; any order.
    Returns alpha, sensitivity (Safety Score per unit alpha), by alpha, for each alpha whose
    alpha - delta and alpha + delta are both measured (to 1e-9).
    Raises ConfigurationError unless delta > 0, DataError on a repeated alpha, and SqsdError
    naming the missing alphas where no alpha has both neighbours.
    """
    if not delta > 0:
        raise ConfigurationError(f"delta {delta}: must be above 0; the paper has 0.1")
    ordered = sorted_without_repeats(curve, "alpha")
    alphas = ordered["alpha"].to_numpy(dtype=float)
    scores = ordered["safety_score"].to_numpy(dtype=float)
    rows, missing = [], set()
    for alpha in alphas:
        below, above = position(alphas, alpha - delta), position(alphas, alpha + delta)
        if below is not None and above is not None:
            rows.append((alpha, (scores[above] - scores[below]) / (2 * delta)))
        if below is None:
            missing.add(round(alpha - delta, 9))
        if above is None:
            missing.add(round(alpha + delta, 9))
    if not rows:
        raise SqsdError(
            f"no alpha has both alpha - {delta:g} and alpha + {delta:g} measured; "
            f"measured: {listing(alphas)}; missing: {listing(sorted(missing))}. "
            "Measure both neighbours of one alpha, or change delta to the grid's spacing"
        )
    return pd.DataFrame(rows, columns=pd.Index(["alpha", "sensitivity"]))


def drift_sensitivity(trajectory: pd.DataFrame, floor_fraction: float = 0.0) -> pd.DataFrame:
    """DS_drift, the Safety Score's change per unit of drift along a direction (paper Eq. 27).

    trajectory: a row per checkpoint, columns step, safety_score, projection (the drift's
    projection on the unit direction); any order.
    Returns step, next_step, sensitivity, denominator_floored, a row for each two consecutive
    checkpoints, attributed to the earlier. Deviation: the change in projection is held at
    floor_fraction times its largest magnitude or more, keeping its sign (+ for zero), so that a
    pair that hardly drifts does not rank first on noise; 0 is the paper's formula. A denominator
    that is still zero gives NaN.
    Raises ConfigurationError unless 0 <= floor_fraction <= 1, DataError on a repeated step or
    fewer than two checkpoints.
    """
    if not 0 <= floor_fraction <= 1:
        raise ConfigurationError(f"floor_fraction {floor_fraction}: must lie in 0 to 1")
    ordered = sorted_without_repeats(trajectory, "step")
    if len(ordered) < 2:
        raise DataError(
            f"drift sensitivity needs 2 checkpoints or more, got {len(ordered)}; "
            "save checkpoints more often"
        )
    steps = ordered["step"].to_numpy()
    score_change = np.diff(ordered["safety_score"].to_numpy(dtype=float))
    drift_change = np.diff(ordered["projection"].to_numpy(dtype=float))
    denominator, floored = floor_magnitude(drift_change, floor_fraction)
    sensitivity = np.full(len(denominator), np.nan)
    np.divide(score_change, denominator, out=sensitivity, where=denominator != 0)
    return pd.DataFrame(
        {
            "step": steps[:-1],
            "next_step": steps[1:],
            "sensitivity": sensitivity,
            "denominator_floored": floored,
        }
    )


def rank_states(
    table: pd.DataFrame, key: Literal["step", "alpha"], most: Literal["positive", "negative"]
) -> pd.DataFrame:
    """States by sensitivity, the most positive or the most negative first, with a rank from 1.

    table: columns key, sensitivity and any others, all kept. Ties go to the smaller key. States
    whose sensitivity is not finite cannot be ranked and are left out.
    Most positive is state S (Eq. 26 along V_safety), most negative state D (Eq. 27 along
    V_danger). Raises ConfigurationError on another value of most.
    """
    if most not in ("positive", "negative"):
        raise ConfigurationError(f"most: '{most}' is not known; known: positive, negative")
    finite = table.loc[np.isfinite(table["sensitivity"].to_numpy(dtype=float))]
    ranked = finite.sort_values(
        ["sensitivity", key], ascending=[most == "negative", True], ignore_index=True
    )
    return ranked.assign(rank=np.arange(1, len(ranked) + 1))


def choose_state(ranked: pd.DataFrame, rank: int) -> dict[str, Any]:
    """The row of a rank (1 is the most sensitive) of `rank_states`, column to value.

    Raises ConfigurationError naming the ranks there are.
    """
    chosen = np.flatnonzero(ranked["rank"].to_numpy() == rank)
    if not len(chosen):
        allowed = f"allowed: 1 to {len(ranked)}" if len(ranked) else "no state could be ranked"
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
        raise DataError("no state could be ranked: none has a finite sensitivity; measure more")
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


def sorted_without_repeats(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """The table by its key; raises DataError naming the values that occur more than once."""
    repeated = table.loc[table[key].duplicated(), key].unique()
    if len(repeated):
        raise DataError(f"{key} measured more than once: {listing(repeated)}; keep one row of each")
    return table.sort_values(key, ignore_index=True)


def listing(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values) or "none"


def row_as_dict(table: pd.DataFrame, index: int) -> dict[str, Any]:
    return {str(k): v for k, v in table.iloc[[index]].to_dict(orient="records")[0].items()}
