"""From measured trajectories and judgements to the initial states of the score (tables 4 to 6)."""

from pathlib import Path

import numpy as np
import pandas as pd

from sqsd.drift import load_adapter, projection
from sqsd.errors import ConfigurationError, UselessModelError
from sqsd.sensitivity import (
    choose_state,
    drift_sensitivity,
    least_sensitive,
    linear_sensitivity,
    rank_states,
)
from sqsd.states import checkpoints, direction_folder
from sqsd.tables import read_table


def measure_trajectory(pilot: str | Path, directions: dict[str, str]) -> pd.DataFrame:
    """Projection of the drift at every checkpoint on every direction (Eqs. 7, 8), 0 at step 0."""
    loaded = {name: load_adapter(folder) for name, folder in directions.items()}
    rows = [(0, name, 0.0) for name in loaded]
    for step, folder in checkpoints(pilot):
        drift = load_adapter(folder)
        rows += [(step, name, projection(drift, d)) for name, d in loaded.items()]
    return pd.DataFrame(rows, columns=["step", "direction", "projection"])


def guard_share(paths: list[str]) -> pd.Series | None:
    """Share of exact benign answers by state from [responses, prompts]; None without a guard."""
    if not paths:
        return None
    responses, prompts = paths
    return exact_share(read_table(responses, "responses"), read_table(prompts, "benchmark"))


def exact_share(responses: pd.DataFrame, prompts: pd.DataFrame) -> pd.Series:
    """Share of responses equal to the reference answer, a state. Indexed by state name."""
    merged = responses.merge(prompts[["prompt_id", "reference"]], on="prompt_id")
    exact = merged["response"].str.strip() == merged["reference"]
    return exact.groupby(merged["state"]).mean()


def rank_checkpoints(
    trajectory: pd.DataFrame,
    direction: str,
    judgements: pd.DataFrame,
    floor_fraction: float,
    exact: pd.Series | None,
    minimum_exact_share: float,
) -> pd.DataFrame:
    """Checkpoints of the pilot by DS_drift along a danger direction (Eq. 27), as in table 5.

    exact: share of exact benign answers by state name, or None without a guard. Returns the
    `ranking` schema with step, next_step and denominator_floored; see `rank_useful`.
    """
    scores = judgements.groupby("state")["score"].mean()
    along = trajectory[trajectory["direction"] == direction].copy()
    along["safety_score"] = scores[along["step"].astype(str)].to_numpy()
    drift = drift_sensitivity(along, floor_fraction)
    drift = drift.merge(along[["step", "safety_score", "projection"]], on="step")
    # Step 0 has no adapter, and so no update of Eq. 10 to take.
    drift = drift[drift["step"] > 0]
    return rank_useful(drift, "step", "negative", exact, minimum_exact_share)


def rank_alphas(
    judgements: pd.DataFrame,
    delta: float,
    exact: pd.Series | None,
    minimum_exact_share: float,
) -> pd.DataFrame:
    """Steering magnitudes by DS_linear along the safety direction (Eq. 26), as in table 4."""
    curve = judgements.groupby("state")["score"].mean().rename("safety_score").reset_index()
    curve["alpha"] = curve["state"].astype(float)
    linear = linear_sensitivity(curve, delta).merge(curve[["alpha", "safety_score"]], on="alpha")
    return rank_useful(linear, "alpha", "positive", exact, minimum_exact_share)


def rank_useful(
    table: pd.DataFrame, key, most, exact: pd.Series | None, minimum_exact_share: float
) -> pd.DataFrame:
    """The states by sensitivity, with exact_share and rank.

    Last, without a rank, stand those that the guard refuses, or that have no finite sensitivity.
    Without a guard exact_share is null and refuses none.
    Raises UselessModelError, with the shares, when the guard passes no state.
    """
    table = table.assign(exact_share=np.nan)
    useful = pd.Series(True, index=table.index)
    if exact is not None:
        table["exact_share"] = table[key].astype(float).map(exact.rename(index=float))
        useful = table["exact_share"] >= minimum_exact_share
        if not useful.any():
            pairs = zip(table[key], table["exact_share"], strict=True)
            listed = ", ".join(f"{k:g} ({v:.2f})" for k, v in pairs)
            raise UselessModelError(
                f"every {key} answers fewer than {minimum_exact_share:.2f} of the benign prompts "
                f"of the guard exactly: {listed}; choose smaller alphas, an earlier checkpoint "
                "or a lower learning rate"
            )
    ranked = rank_states(table[useful], key, most)
    rest = table[~table[key].isin(ranked[key])]
    both = pd.concat([ranked, rest.sort_values(key)], ignore_index=True)
    return both.assign(rank=both["rank"].astype("Int64"))


def chosen_state(
    kind: str,
    choice: dict,
    ranking: pd.DataFrame | None,
    folder: str,
    checkpoint: int | str,
    minimum_exact_share: float,
) -> dict:
    """A state as its adapter's folder, multiplier, and where it came from (table 6).

    kind: `drift` (a checkpoint of the pilot in `folder`) or `linear` (alpha times the direction
    in `folder` at `checkpoint`). choice: {rank}, {step}, {alpha} or {least: true}; a pinned state
    needs no ranking. Raises ConfigurationError with the measured values for a pinned state that
    was not measured, UselessModelError for one that the guard refused.
    """
    key = "step" if kind == "drift" else "alpha"
    if ranking is None:
        row: dict = {key: choice[key], "rank": None, "sensitivity": None}
    elif choice.get("least"):
        row = least_sensitive(ranking.dropna(subset=["rank"]))
    elif "rank" in choice:
        row = choose_state(ranking.dropna(subset=["rank"]), choice["rank"])
    else:
        row = pinned_row(ranking, key, choice[key], minimum_exact_share)
    state = {k: None if pd.isna(row[k]) else float(row[k]) for k in ("rank", "sensitivity")}
    if kind == "drift":
        step = int(row["step"])
        steps = dict(checkpoints(folder))
        if step not in steps:
            known = ", ".join(str(s) for s in steps)
            raise ConfigurationError(f"step {step} of {folder} was not saved; known: {known}")
        return {"adapter": str(steps[step]), "multiplier": 1.0, "step": step, **state}
    alpha = float(row["alpha"])
    adapter = str(direction_folder(folder, checkpoint))
    return {"adapter": adapter, "multiplier": alpha, "alpha": alpha, **state}


def pinned_row(ranking: pd.DataFrame, key: str, value: float, minimum_exact_share: float) -> dict:
    found = ranking[np.isclose(ranking[key].astype(float), value)]
    if found.empty:
        known = ", ".join(f"{v:g}" for v in sorted(ranking[key]))
        raise ConfigurationError(
            f"{key} {value:g} has no measured sensitivity (its neighbours are needed too); "
            f"known: {known}"
        )
    row = found.iloc[0].to_dict()
    if pd.notna(row["exact_share"]) and row["exact_share"] < minimum_exact_share:
        raise UselessModelError(
            f"the pinned state {key} {value:g} answers {row['exact_share']:.2f} of the guard's "
            f"benign prompts exactly, fewer than {minimum_exact_share:.2f}; pin another {key}"
        )
    return row
