"""From trajectories and judgements to the initial states of the score (tables 4 to 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from sqsd.errors import UselessModelError
from sqsd.judged import absent_note, check_judged
from sqsd.sensitivity import (
    choose_state,
    drift_sensitivity,
    least_sensitive,
    linear_sensitivity,
    position,
    rank_states,
)
from sqsd.states import CHOSEN_BY, State, checkpoint_folder, direction_folder
from sqsd.tables import read_tables


@dataclass(frozen=True)
class Measured:
    """What was measured of a subject's states, told apart by their step or alpha.

    scores: Safety Score, a row per prompt and a column per state. exact: share of exact benign
    answers, None without a guard.
    """

    scores: pd.DataFrame
    exact: pd.Series | None

    @classmethod
    def read(cls, inputs: Any, key: str) -> Self:
        """From files: judgements, and guard and reference where there is a guard, each a list.

        Raises DataError as `judged.check_judged`.
        """
        return cls(read_scores(inputs.judgements, key), read_guard(inputs, key))


def read_scores(paths: Sequence[str], key: str) -> pd.DataFrame:
    """Safety Scores of files of judgements, a row per prompt and a column per step or alpha.

    Raises DataError as `judged.check_judged`.
    """
    judged = read_tables(paths, "judgements")
    place = str(Path(paths[0]).parent)
    check_judged(place, judged, "safety_score")
    if note := absent_note({place: judged}, "safety_score"):
        print(note.strip())
    return judged.pivot(index="prompt_id", columns=key, values="score")


def read_guard(inputs: Any, key: str) -> pd.Series | None:
    """Share of exact benign answers by step or alpha; None where `inputs` has no guard."""
    if not inputs.guard:
        return None
    prompts = read_tables(inputs.reference, "benchmark")
    return exact_share(read_tables(inputs.guard, "responses"), prompts, key)


def exact_share(responses: pd.DataFrame, prompts: pd.DataFrame, key: str) -> pd.Series:
    """Share of a state's responses that equal the reference answer, by the state's step or alpha.

    key: `step` or `alpha`, the column of the responses that tells their states apart.
    """
    merged = responses.merge(prompts[["prompt_id", "reference"]], on="prompt_id")
    exact = merged["response"].str.strip() == merged["reference"]
    return exact.groupby(merged[key].astype(float)).mean()


def rank_checkpoints(
    trajectory: pd.DataFrame,
    measured: Measured,
    floor_fraction: float,
    minimum_exact_share: float,
    rank_floored: bool = False,
    rank_by: Literal["value", "bound"] = "value",
) -> pd.DataFrame:
    """Checkpoints of the pilot by DS_drift along a danger direction (Eq. 27), as in table 5.

    trajectory: along that direction; measured: by step. rank_floored: whether a checkpoint whose
    denominator was raised to the floor is a candidate. Returns the `drift_ranking` table; see
    `rank_useful`.
    """
    drift = drift_sensitivity(measured.scores, trajectory, floor_fraction)
    drift["safety_score"] = drift["step"].map(measured.scores.mean())
    drift = drift.merge(trajectory, on="step")
    # Step 0 has no adapter, and so no update of Eq. 10 to take.
    drift = drift[drift["step"] > 0]
    candidates = ~drift["denominator_floored"] | rank_floored
    return rank_useful(
        drift, "step", "negative", measured.exact, minimum_exact_share, candidates, rank_by
    )


def rank_alphas(
    measured: Measured,
    delta: float,
    minimum_exact_share: float,
    rank_by: Literal["value", "bound"] = "value",
    wanted: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Steering magnitudes by DS_linear along the safety direction (Eq. 26), as in table 4.

    measured: by alpha. wanted: the alphas to rank, None for all that have both neighbours.
    Returns the `linear_ranking` table; see `rank_useful`.
    """
    linear = linear_sensitivity(measured.scores, delta)
    linear["safety_score"] = linear["alpha"].map(measured.scores.mean())
    if wanted is not None:
        linear = linear[[position(wanted, alpha) is not None for alpha in linear["alpha"]]]
    candidates = pd.Series(True, index=linear.index)
    return rank_useful(
        linear, "alpha", "positive", measured.exact, minimum_exact_share, candidates, rank_by
    )


def rank_useful(
    table: pd.DataFrame,
    key: Literal["step", "alpha"],
    most: Literal["positive", "negative"],
    exact: pd.Series | None,
    minimum_exact_share: float,
    candidates: pd.Series,
    rank_by: Literal["value", "bound"] = "value",
) -> pd.DataFrame:
    """The states by sensitivity, with exact_share and rank.

    Last, without a rank, stand those that are no candidates, that the guard refuses, or that have
    no finite sensitivity. Without a guard exact_share is null and refuses none.
    Raises UselessModelError, with the shares, when the guard passes no state.
    """
    table = table.assign(exact_share=np.nan)
    useful = candidates
    if exact is not None:
        table["exact_share"] = table[key].astype(float).map(exact)
        passed = table["exact_share"] >= minimum_exact_share
        if not passed.any():
            pairs = zip(table[key], table["exact_share"], strict=True)
            listed = ", ".join(f"{k:g} ({v:.2f})" for k, v in pairs)
            raise UselessModelError(
                f"every {key} answers fewer than {minimum_exact_share:.2f} of the benign prompts "
                f"of the guard exactly: {listed}; choose smaller alphas, an earlier checkpoint "
                "or a lower learning rate"
            )
        useful = candidates & passed
    ranked = rank_states(table[useful], key, most, rank_by)
    rest = table[~table[key].isin(ranked[key])]
    both = pd.concat([ranked, rest.sort_values(key)], ignore_index=True)
    return both.assign(rank=both["rank"].astype("Int64"))


def find_state(
    name: str, model: str, entry: Mapping[str, Any], inputs: Any, sensitivity: Mapping[str, Any]
) -> State:
    """The state that an entry of `states` pins or searches, named, with what it was chosen by.

    model: folder of theta_0. inputs: files and folders by name (`plan.Plan.state_sources`).
    sensitivity: the settings that its choice depends on (`plan.Plan.search_settings`). Raises
    ConfigurationError for a rank or a checkpoint that is not there, UselessModelError where the
    guard refuses a pinned state, or every candidate.
    """
    if "unadapted" in entry:
        return State(name, model, None, 1.0, dict.fromkeys(CHOSEN_BY))
    key = "step" if "pilot" in entry else "alpha"
    settings: dict[str, Any] = {"minimum_exact_share": 0.0, **sensitivity}
    if key in entry:
        chosen: dict[str, Any] = {key: entry[key]}
        exact = read_guard(inputs, key)
        if exact is not None:
            chosen["exact_share"] = float(exact.loc[entry[key]])
            check_guard(
                f"{name} ({key} {entry[key]:g})", chosen["exact_share"],
                settings["minimum_exact_share"],
            )  # fmt: skip
    else:
        measured = Measured.read(inputs, key)
        if key == "step":
            trajectory = read_tables(inputs.trajectory, "trajectory")
            ranking = rank_checkpoints(trajectory, measured, **settings)
        else:
            ranking = rank_alphas(measured, **settings, wanted=entry["alphas"])
        chosen = choose(ranking, entry)
    (run,) = inputs.run
    if key == "step":
        step = int(chosen["step"])
        state = State.checkpoint(model, str(checkpoint_folder(run, step)), step)
    else:
        folder = direction_folder(run, entry["checkpoint"])
        state = State.steered(model, str(folder), float(chosen["alpha"]))
    why = {column: number(chosen.get(column)) for column in CHOSEN_BY}
    return replace(state, name=name, origin={**state.origin, **why})


def number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def choose(ranking: pd.DataFrame, choice: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a ranking that a choice names: {rank: n}, or {least: True} for the insensitive.

    Raises ConfigurationError and DataError as `sensitivity.choose_state` and `least_sensitive`.
    """
    ranked = ranking.dropna(subset=["rank"])
    return least_sensitive(ranked) if choice.get("least") else choose_state(ranked, choice["rank"])


def check_guard(state: str, exact: float, minimum_exact_share: float) -> None:
    """Raises UselessModelError for a pinned state that answers too few benign prompts exactly."""
    if exact < minimum_exact_share:
        raise UselessModelError(
            f"the pinned state {state} answers {exact:.2f} of the guard's benign prompts exactly, "
            f"fewer than {minimum_exact_share:.2f}; pin another"
        )
