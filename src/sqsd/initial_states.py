"""From measured trajectories and judgements to the initial states of the score (tables 4 to 6)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sqsd.drift import load_adapter, projection
from sqsd.errors import ConfigurationError
from sqsd.sensitivity import (
    choose_state,
    drift_sensitivity,
    least_sensitive,
    linear_sensitivity,
    rank_states,
)
from sqsd.states import checkpoints
from sqsd.tables import write_frame


def measure_trajectory(pilot: str | Path, directions: dict[str, str]) -> pd.DataFrame:
    """Projection of the drift at every checkpoint on every direction (Eqs. 7, 8), 0 at step 0."""
    loaded = {name: load_adapter(folder) for name, folder in directions.items()}
    rows = [(0, name, 0.0) for name in loaded]
    for step, folder in checkpoints(pilot):
        drift = load_adapter(folder)
        rows += [(step, name, projection(drift, d)) for name, d in loaded.items()]
    return pd.DataFrame(rows, columns=["step", "direction", "projection"])


def chosen_row(ranked: pd.DataFrame, key: str, wanted: dict, place: str) -> dict:
    """The ranked state that the configuration names by its rank, or pins by its key.

    Raises ConfigurationError with the measured values for a pinned state that was not measured.
    """
    if "rank" in wanted:
        return choose_state(ranked, wanted["rank"])
    found = ranked[np.isclose(ranked[key], wanted[key])]
    if found.empty:
        known = ", ".join(f"{value:g}" for value in sorted(ranked[key]))
        raise ConfigurationError(f"{place}.{key}: {wanted[key]} was not measured; known: {known}")
    return found.iloc[0].to_dict()


def choose_states(
    trajectory: pd.DataFrame,
    pilot: str,
    pilot_judgements: pd.DataFrame,
    safety: str,
    steering_judgements: pd.DataFrame,
    states: dict,
    delta: float,
    danger: str,
    out,
) -> None:
    """Sensitivity tables and the four states: danger, safety and their insensitive counterparts.

    Writes out.drift and out.linear (Parquet, ranked) and out.states (JSON: adapter folder,
    multiplier, and the step or alpha chosen).
    """
    scores = pilot_judgements.groupby("state")["score"].mean()
    along = trajectory[trajectory["direction"] == danger].copy()
    along["safety_score"] = scores[along["step"].astype(str)].to_numpy()
    drift = drift_sensitivity(along, states["danger"]["floor_fraction"])
    # Step 0 has no adapter, and so no update of Eq. 10 to take.
    drift = rank_states(drift[drift["step"] > 0], "step", "negative")

    curve = steering_judgements.groupby("state")["score"].mean().rename("safety_score")
    curve = curve.reset_index().assign(alpha=lambda f: f["state"].astype(float))
    linear = rank_states(linear_sensitivity(curve, delta), "alpha", "positive")

    chosen = {
        "danger": chosen_row(drift, "step", states["danger"], "states.danger"),
        "safety": chosen_row(linear, "alpha", states["safety"], "states.safety"),
        "insensitive-danger": least_sensitive(drift),
        "insensitive-safety": least_sensitive(linear),
    }
    described = {name: describe(row, pilot, safety) for name, row in chosen.items()}
    write_frame(drift, out.drift, {"equation": "27"})
    write_frame(linear, out.linear, {"equation": "26"})
    Path(out.states).write_text(json.dumps(described, indent=2) + "\n")


def describe(row: dict, pilot: str, safety: str) -> dict:
    """Where a chosen state's adapter is, its multiplier, and why it was chosen."""
    if "step" in row:
        step = int(row["step"])
        state = {"adapter": f"{pilot}/checkpoint-{step}", "multiplier": 1.0, "step": step}
    else:
        alpha = float(row["alpha"])
        state = {"adapter": safety, "multiplier": alpha, "alpha": alpha}
    return state | {"rank": int(row["rank"]), "sensitivity": float(row["sensitivity"])}
