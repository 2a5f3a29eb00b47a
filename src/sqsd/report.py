"""Tables (Parquet, CSV, Markdown) from measured Parquet, and the figures drawn of them."""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sqsd import subsets
from sqsd.bounds import BOUNDS, first_bounds, named_interval
from sqsd.errors import DataError
from sqsd.figures import (
    POOLED,
    draw_effectiveness,
    draw_first_order,
    draw_groups,
    draw_lengths,
    draw_losses,
    draw_steering,
    draw_token_losses,
    draw_trajectories,
    draw_treatments,
)
from sqsd.groups import paired_by_group
from sqsd.judged import (
    ANSWERS,
    RATES,
    absent_note,
    by_place,
    by_score,
    check_judged,
    place_of,
    read_judged,
)
from sqsd.parts import Part, named
from sqsd.published import published_section
from sqsd.states import CHOSEN_BY, read_state
from sqsd.statistics import (
    auc_bootstrap,
    clustered_interval,
    cohens_kappa,
    is_strictly_decreasing,
    matched_auc_bootstrap,
    mean_interval,
    rank_correlation_bootstrap,
    rank_correlation_interval,
    ratio_bootstrap,
    signed_rank_test,
    trend_test,
    wilson_interval,
)
from sqsd.tables import read_table, write_frame

COMMON_NOTE = (
    "no_subset: the model before fine-tuning, and one fine-tuned likewise on all rows (all its "
    "seeds together); in brackets 95 % over prompts, for a rate as above, for Safety Score "
    "Student's t. "
    "mono: strictly monotone means (the paper's Mono). trend_p: one-sided Page test over seeds. "
    "delta and over_random (delta minus that of random order, paired): Student t over seeds. "
    f"Rows of '{POOLED}': the unit is the experiment, for every interval and test."
)
RATE_NOTE = (
    "mean over fine-tuning seeds. In brackets: 95 % Wilson interval clustered by prompt, since a "
    "prompt's answers under several seeds are alike (columns _clustered; columns _wilson take them "
    "as independent). delta: S1 - S5. " + COMMON_NOTE
)
EFFECTIVENESS_NOTES = {
    "asr": "Share of test prompts answered unsafely, " + RATE_NOTE,
    "asr_by_score": (
        "Share of test prompts answered with a Safety Score of 0 or below, " + RATE_NOTE
    ),
    "safety_score": (
        "Mean Safety Score of the test prompts (higher is safer), mean over fine-tuning seeds. In "
        "brackets: 95 % Student t interval over seeds. delta: S5 - S1. " + COMMON_NOTE
    ),
}
ALL_ROWS_NOTE = (
    " of the model before fine-tuning, and of one fine-tuned on all rows of the experiment's data "
    "set, its seeds (units) together. In brackets: 95 % over prompts, "
)
ALL_ROWS_NOTES = {
    "asr": f"Share of prompts answered unsafely,{ALL_ROWS_NOTE}Wilson's clustered by prompt.",
    "asr_by_score": (
        f"Share of prompts answered with a Safety Score of 0 or below,{ALL_ROWS_NOTE}Wilson's "
        "clustered by prompt."
    ),
    "safety_score": f"Mean Safety Score (higher is safer),{ALL_ROWS_NOTE}Student's t.",
}

AGREEMENT_NOTE = (
    "spearman: rank correlation over the rows that both methods score (rows), with its 95 % "
    "interval (Bonett and Wright 2000). s1_overlap, s5_overlap: share of the riskiest, and of the "
    "least risky rows of a subset's size that both methods name; chance: what random orders share."
)
SEPARATION_NOTE = (
    "auc: share of pairs of a row of `riskier` and a row of `safer` in which the first has the "
    "higher score, of ties a half; 1 where every row is above, 0.5 where scores tell nothing. In "
    "brackets: 95 % percentile bootstrap interval over the rows of each. matched_auc: the same "
    "over those pairs alone whose longer response has at most 1.1 times the tokens of the "
    "shorter: what a method sees beyond length. _rows: with a score; _matched: of them, in such a "
    "pair; _unscored: without a score, and left out."
)
MODELS_NOTE = (
    "Each model as it is, before any fine-tuning of subsets, on the prompts of a benchmark. asr: "
    "share of the prompts that it does not refuse, or answers unsafely, as the judge has it. In "
    "brackets: 95 % intervals over prompts, Student's t for the Safety Score (higher is safer), "
    "Wilson's for asr."
)
SENSITIVITY_NOTE = (
    "In brackets: 95 % percentile bootstrap interval over the tuning prompts, paired (the same "
    "prompts at both states). A state without a rank is no candidate: the guard refuses it, or its "
    "denominator was raised to the floor (denominator_floored)."
)
COMPARISON_NOTE = (
    "Methods by delta, the highest first; the unit is the experiment, of which a window's value "
    "is the mean over fine-tuning seeds. In brackets: 95 % intervals over experiments, Student's "
    "t, of a share Wilson's; none for one experiment. delta: S1 - S5 of the attack success rate, "
    "S5 - S1 of the Safety Score. mono_share: experiments whose windows are strictly monotone "
    "(the paper's Mono). window_correlation: Spearman's rho between a window's place and its "
    "value, +1 where every window is safer than the one before it; over the experiments "
    "(correlated) whose windows are not all alike. delta_minus_X: paired by experiment, above 0 "
    "where a method has a higher delta than X; wilcoxon_p: two-sided signed-rank test of it. "
    "seconds_per_row: measured seconds of the jobs that read rows, references and anchors for a "
    "method, loading the model included, over the rows that it scores; a reading that several "
    "methods share counts for each. What is made once (directions, pilots, cost models, the "
    "search for states and layers, fine-tunes of groups) is not counted."
)
GROUPS_NOTE = (
    "correlation: Spearman's rank correlation, over groups of rows that were each fine-tuned alone "
    "for a few steps, of a group's mean score with how far its model's mean Safety Score has "
    "dropped; 1 is a score that foretells the order. over: how much higher it is than that of "
    "{against}, paired by group. In brackets: 95 % percentile bootstrap interval over groups; in "
    "rows of '{pooled}' Student's t over experiments."
)
JUDGES_NOTE = (
    "Each judge's verdicts beside those of the judge '{reference}', on what the fine-tuned models "
    "of all methods, windows and seeds responded. responses: those that '{reference}' has a "
    "verdict on; unsafe: those of them that it finds unsafe; unreadable: those without a verdict "
    "of the judge, which the columns after it leave out. agreement: share of one and the same "
    "verdict, with its 95 % Wilson interval clustered by prompt. kappa: Cohen's, agreement beyond "
    "chance, empty where both judges give the same verdict throughout. false_safe: the judge says "
    "safe, '{reference}' unsafe; false_unsafe: the reverse. A judge that gives scores alone finds "
    "unsafe what it scores 0 or below (for a cost: 0 or above)."
)
LENGTHS_NOTE = (
    "response_tokens: mean length of a subset's responses, with their end tokens. asr: share of "
    "test prompts that the models fine-tuned on it answer unsafely, mean over seeds; in brackets: "
    "95 % Wilson interval clustered by prompt."
)
LOSSES_NOTE = (
    "Loss in nats, the mean over a response's tokens with its end token, at the model before any "
    "fine-tuning. fewest, most: the range of response lengths in tokens. mean: in brackets 95 % "
    "Student t over rows. The whiskers of the figure end at the least and at the greatest loss."
)
TOKEN_LOSSES_NOTE = (
    "Loss in nats at the model before any fine-tuning, of nine rows evenly spread over the group's "
    "order by length: mean over the response's tokens (all), of the first and of the end token, "
    "and mean over those between (between). A response that was cut off has no end token."
)
FIRST_ORDER_NOTE = (
    "How much a row's loss falls from a state to alpha V beyond it, in nats, and what the first "
    "order says of it (Eq. 13). spearman: rank correlation over rows. slope: least squares through "
    "the origin, 1 where the first order is exact. relative_error: mean distance from the "
    "prediction over the mean size of the change. In brackets: 95 % percentile bootstrap interval "
    "over rows. predictor: the gradient by the weights, or an adapter's step, which SQSD takes at "
    "a state that has one and whose length is another."
)
CURVE_NOTE = (
    "Means over the prompts of the tuning benchmark. In brackets: 95 % intervals over prompts, "
    "Student's t for the Safety Score (higher is safer), Wilson's for the attack success rate. "
    "chosen: the states of the configuration that lie on the curve."
)
TREATMENTS_NOTE = (
    "share: of the rows with a score, dropped. rows: that each of the models was fine-tuned on. "
    "asr: share of test prompts answered unsafely; exact: share of a benchmark's prompts answered "
    "as its reference says; in brackets 95 % Wilson intervals clustered by prompt, over models. "
    "safety_score (higher is safer) and heldout_loss (nats per token, of heldout_rows rows that "
    "the data set has not): means over models, in brackets 95 % Student t over prompts, and over "
    "rows. _over_all: minus that of the models fine-tuned on all rows, paired by prompt or by row, "
    "95 % Student t. No interval holds what other seeds, or another random order, would change."
)
CURVE_MEASURES = ("asr", "safety_score")


def make_table(
    kind: str,
    parts: Sequence[Part],
    settings: Mapping[str, Any],
    out: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Make a table of a kind, and its figure where it has one, from its parts' files.

    settings: what the kind asks for beside its parts (windows, measure), and `published`, cells
    of the paper that stand below the Markdown. out: files by format.
    """
    table, note, draw = KINDS[kind](parts, settings)
    if kind == "ranking":
        save_ranking(table, out, provenance)
    else:
        save_table(table, out, note, provenance)
    if "published" in settings:
        with Path(out["md"]).open("a") as page:
            page.write(f"\n{published_section(settings['published'])}")
    if draw is not None:
        draw(out)


Made = tuple[pd.DataFrame, str, Callable[[Mapping[str, str]], None] | None]


def make_subsets(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    windows, measure = settings["windows"], settings["measure"]
    judged = read_judged(parts, measure)
    table = effectiveness_table(parts, judged, windows, measure)
    note = EFFECTIVENESS_NOTES[measure] + absent_note(by_place(parts, judged), measure)

    def draw(out: Mapping[str, str]) -> None:
        draw_effectiveness(table, windows, measure, out)

    return table, note, draw


def make_all_rows(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    measure = settings["measure"]
    judged = read_judged(parts, measure)
    note = ALL_ROWS_NOTES[measure] + absent_note(by_place(parts, judged), measure)
    return all_rows_table(parts, judged, measure), note, None


def make_comparison(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    measure = settings["measure"]
    judged = read_judged(parts, measure)
    seconds = [sum(read_seconds(path) for path in part.files["times"]) for part in parts]
    note = COMPARISON_NOTE + absent_note(by_place(parts, judged), measure)
    return comparison_table(parts, judged, seconds, **settings), note, None


def make_sensitivity(schema: str) -> Callable[..., Made]:
    def make(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
        table = sensitivity_table(parts, [p.read("ranking", schema) for p in parts])
        return table, SENSITIVITY_NOTE, None

    return make


def make_states(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    states = [read_state(part.files["state"][0]).origin for part in parts]
    return states_table(parts, states), SENSITIVITY_NOTE, None


def make_ranking(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    scores = [part.read("scores", "scores") for part in parts]
    return ranking_table(parts, scores, [p.read("rows", "dataset") for p in parts]), "", None


def make_agreement(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    scores = [part.read("scores", "scores") for part in parts]
    return agreement_table(parts, scores, settings["rows"]), AGREEMENT_NOTE, None


def make_separation(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    sides = ("riskier", "safer")
    scores = [{side: part.read(side, "scores") for side in sides} for part in parts]
    return separation_table(parts, scores), SEPARATION_NOTE, None


def make_models(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    judged = [both_measures(part) for part in parts]
    return models_table(parts, judged), MODELS_NOTE + absent_notes(parts, judged), None


def make_groups(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    judged = read_judged(parts, "safety_score")
    pairs = [
        paired_by_group(part.read("scores", "scores"), part.read("groups", "groups"), frame)
        for part, frame in zip(parts, judged, strict=True)
    ]
    table = groups_table(parts, pairs, settings["against"])
    note = GROUPS_NOTE.format(against=settings["against"], pooled=POOLED)
    note += absent_note(by_place(parts, judged), "safety_score")
    return table, note, lambda out: draw_groups(table, out)


def make_judges(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    table = judges_table(parts, [beside_reference(part) for part in parts])
    return table, JUDGES_NOTE.format(**settings), None


def make_trajectory(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    trajectories = [part.read("trajectory", "trajectory") for part in parts]
    judged = [both_measures(part) for part in parts]
    table = trajectory_table(parts, trajectories, judged, [marks(part, "step") for part in parts])
    return table, curve_note(parts, judged), lambda out: draw_trajectories(table, units(parts), out)


def make_steering(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    judged = [both_measures(part) for part in parts]
    table = steering_table(parts, judged, [marks(part, "alpha") for part in parts])
    return table, curve_note(parts, judged), lambda out: draw_steering(table, units(parts), out)


def make_lengths(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    judged = read_judged(parts, "asr")
    scores = [part.read("scores", "scores") for part in parts]
    table = lengths_table(parts, scores, judged, settings["windows"], settings["rows"])
    note = LENGTHS_NOTE + absent_note(by_place(parts, judged), "asr")
    return table, note, lambda out: draw_lengths(table, out)


def make_losses(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    samples = [part.read("samples", "gradients") for part in parts]
    table = losses_table(parts, samples, settings["rows"])
    return table, LOSSES_NOTE, lambda out: draw_losses(table, out)


def make_token_losses(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    read = [part.read("losses", "token_losses") for part in parts]
    losses = [frame[frame["group"] == settings["group"]] for frame in read]
    table = token_losses_table(parts, losses)
    return table, TOKEN_LOSSES_NOTE, lambda out: draw_token_losses(parts, losses, out)


def make_first_order(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    changes = [part.read("changes", "loss_changes") for part in parts]
    table = first_order_table(parts, changes)
    return table, FIRST_ORDER_NOTE, lambda out: draw_first_order(parts, changes, out)


def make_treatments(parts: Sequence[Part], settings: Mapping[str, Any]) -> Made:
    judged = [both_measures(part) for part in parts]
    losses = [heldout_losses(part) if "losses" in part.files else None for part in parts]
    exact = [exact_answers(part) if "responses" in part.files else None for part in parts]
    rows = [trained_rows(part) if part.files["rows"] else None for part in parts]
    table = treatments_table(parts, judged, losses, exact, rows)
    absent = (absent_note(by_place(parts, judged), measure) for measure in CURVE_MEASURES)
    return table, TREATMENTS_NOTE + "".join(absent), lambda out: draw_treatments(table, out)


KINDS: dict[str, Callable[[Sequence[Part], Mapping[str, Any]], Made]] = {
    "subsets": make_subsets,
    "all-rows": make_all_rows,
    "comparison": make_comparison,
    "alphas": make_sensitivity("linear_ranking"),
    "checkpoints": make_sensitivity("drift_ranking"),
    "states": make_states,
    "ranking": make_ranking,
    "agreement": make_agreement,
    "separation": make_separation,
    "models": make_models,
    "groups": make_groups,
    "judges": make_judges,
    "trajectory": make_trajectory,
    "steering": make_steering,
    "lengths": make_lengths,
    "losses": make_losses,
    "token-losses": make_token_losses,
    "first-order": make_first_order,
    "treatments": make_treatments,
}


def units(parts: Sequence[Part]) -> dict[str, str]:
    """The unit of the Safety Scores of each model."""
    return {part.names["model"]: part.options["unit"] for part in parts}


def both_measures(part: Part) -> pd.DataFrame:
    """Verdicts of the judge of the ASR with the scores of the judge of the Safety Score.

    Raises DataError as `check_judged`.
    """
    verdicts = part.read("asr", "judgements").drop(columns="score")
    scores = part.read("safety_score", "judgements")[["state", "prompt_id", "score"]]
    both = verdicts.merge(scores, on=["state", "prompt_id"], validate="1:1")
    for measure in CURVE_MEASURES:
        check_judged(place_of(part), both, measure)
    return both


def curve_note(parts: Sequence[Part], judged: Sequence[pd.DataFrame]) -> str:
    return CURVE_NOTE + absent_notes(parts, judged)


def absent_notes(parts: Sequence[Part], judged: Sequence[pd.DataFrame]) -> str:
    absent = (absent_note(by_place(parts, judged), measure) for measure in CURVE_MEASURES)
    return "".join(absent)


def marks(part: Part, key: str) -> dict[float, str]:
    """Names of the states that are marked on a part's curve, by their step or alpha."""
    found: dict[float, str] = {}
    for path in part.files["states"]:
        state = read_state(path)
        at = float(state.origin[key])
        found[at] = ", ".join(filter(None, (found.get(at), state.name)))
    return found


def effectiveness_table(
    parts: Sequence[Part], judged: Sequence[pd.DataFrame], windows: list[str], measure: str
) -> pd.DataFrame:
    """Tables 1 to 3, 7 to 9: a row per experiment and method, a few columns per window.

    parts: named by experiment, fine-tune where a table has several, and method, with the options
    seeds and random (whether the method is the random control); judged: the judgements of each.
    measure: of `judged.ANSWERS`. Of a window: mean over seeds, Student t bounds over seeds and,
    for a share, Wilson bounds over prompts x seeds, plain and clustered by prompt.
    delta is S1 - S5 for ASR and S5 - S1 for Safety Score; over_random is the delta minus that of
    random order on the same fine-tune, paired by seed. A part with the option `reference` is of no
    subset (the model before fine-tuning, and fine-tuned on all rows): it has one number, no_subset,
    and nulls. With several experiments, a method or reference also gets a row over them, in which
    an experiment's mean over its seeds is the unit.
    """
    sign = 1.0 if measure in RATES else -1.0
    arms = dict(zip(map(names_of, parts), zip(parts, judged, strict=True), strict=True))
    values = {
        arm: values_by_seed(frame, windows, part.options["seeds"], measure)
        for arm, (part, frame) in arms.items()
        if "reference" not in part.options
    }
    controls = {
        without("method", arm): found
        for arm, found in values.items()
        if arms[arm][0].options["random"]
    }
    rows = []
    for arm, (part, frame) in arms.items():
        if arm not in values:
            row = reference_row(frame, measure)
        else:
            row = summary(values[arm], controls.get(without("method", arm)), windows, sign)
            if measure in RATES:
                row |= rate_bounds(frame, windows, part.options["seeds"])
        rows.append(dict(arm) | {"prompts": int(frame["prompt_id"].nunique())} | row)
    if len({part.names["experiment"] for part in parts}) > 1:
        prompts = {"prompts": min(row["prompts"] for row in rows)}
        pooled = pooled_references(arms, rows)
        for name, own in alike("experiment", values).items():
            means = np.stack([values[arm].mean(0) for arm in own])
            beside = [controls.get(without("method", arm)) for arm in own]
            random = [control.mean(0) for control in beside if control is not None]
            pooled[name] = summary(means, np.stack(random) if random else None, windows, sign)
        rows += [{"experiment": POOLED, **dict(n)} | prompts | row for n, row in pooled.items()]
    return pd.DataFrame(rows).astype({"mono": "boolean"})


# A part's names, to look things up by.
Names = tuple[tuple[str, str], ...]


def names_of(part: Part) -> Names:
    return tuple(part.names.items())


def without(key: str, names: Names) -> Names:
    return tuple((k, name) for k, name in names if k != key)


def alike(key: str, arms: Iterable[Names]) -> dict[Names, list[Names]]:
    """Names that are the same but for one key, by what they share."""
    found: dict[Names, list[Names]] = {}
    for arm in arms:
        found.setdefault(without(key, arm), []).append(arm)
    return found


def reference_row(frame: pd.DataFrame, measure: str) -> dict[str, object]:
    """The number of a model that was fine-tuned on no subset, its seeds taken together.

    Bounds are over prompts: for a share as those of a subset, else Student's t of prompts' means.
    """
    row: dict[str, object] = {"units": int(frame["state"].nunique())}
    if measure in RATES:
        answers = frame.dropna(subset="verdict")
        share = float(answers["verdict"].astype(float).mean())
        return row | {"no_subset": share} | answer_bounds("no_subset", answers)
    by_prompt = frame["score"].groupby(frame["prompt_id"]).mean()
    return row | named_interval("no_subset", "t", mean_interval(by_prompt.dropna()))


def all_rows_table(
    parts: Sequence[Part], judged: Sequence[pd.DataFrame], measure: str
) -> pd.DataFrame:
    """Models before fine-tuning and on all rows: a row per experiment and each, as `measure`.

    parts: named by experiment and method (which of the two); judged: the judgements of each.
    """
    rows = [
        {
            **part.names,
            "prompts": int(frame["prompt_id"].nunique()),
            **reference_row(frame, measure),
        }
        for part, frame in zip(parts, judged, strict=True)
    ]
    table = pd.DataFrame(rows)
    return table.rename(columns=lambda name: name.replace("no_subset", measure))


def pooled_references(
    arms: Iterable[Names], rows: Sequence[Mapping[str, Any]]
) -> dict[Names, dict[str, Any]]:
    """Rows over the experiments of the references among an effectiveness table's rows, by name.

    arms: the names of each row.
    """
    by_arm = dict(zip(arms, rows, strict=True))
    references = [arm for arm, row in by_arm.items() if "no_subset" in row]
    found = {}
    for name, own in alike("experiment", references).items():
        means = [by_arm[arm]["no_subset"] for arm in own]
        found[name] = {"units": len(own)} | named_interval("no_subset", "t", mean_interval(means))
    return found


def values_by_seed(
    judgements: pd.DataFrame, windows: list[str], seeds: list[int], measure: str
) -> np.ndarray:
    """Mean over prompts of the measure, [seeds, windows]."""
    column = judgements[ANSWERS[measure]].astype(float)
    means = column.groupby([judgements["seed"], judgements["window"]]).mean()
    return np.array([[means[seed, window] for window in windows] for seed in seeds])


def summary(
    values: np.ndarray, random: np.ndarray | None, windows: list[str], sign: float
) -> dict[str, object]:
    """Means, intervals and trend of values [units, windows]; random: the same of random order."""
    row: dict[str, object] = {"units": len(values)}
    for i, window in enumerate(windows):
        row |= named_interval(window, "t", mean_interval(values[:, i]))
    deltas = sign * (values[:, 0] - values[:, -1])
    row |= named_interval("delta", "t", mean_interval(deltas))
    if random is not None:
        beyond = deltas - sign * (random[:, 0] - random[:, -1])
        row |= named_interval("over_random", "t", mean_interval(beyond))
    row["mono"] = is_strictly_decreasing(list(sign * over_units(values)))
    _, row["trend_p"] = trend_test(sign * values)
    return row


def over_units(values: np.ndarray) -> np.ndarray:
    """Means [windows] of values [units, windows], to 12 digits.

    Without what rounding adds to a sum, which would put equal windows in an order.
    """
    return np.round(values.mean(0), 12)


def rate_bounds(frame: pd.DataFrame, windows: list[str], seeds: list[int]) -> dict[str, float]:
    """Bounds of each window's rate: all answers independent (wilson), and by prompt (clustered)."""
    bounds: dict[str, float] = {}
    counted = frame[frame["seed"].isin(seeds)].dropna(subset="verdict")
    for window in windows:
        bounds |= answer_bounds(window, counted[counted["window"] == window])
    return bounds


def answer_bounds(name: str, answers: pd.DataFrame) -> dict[str, float]:
    """Bounds of the rate of judgements that all have a verdict."""
    by_prompt = answers["verdict"].astype(int).groupby(answers["prompt_id"])
    bounds: dict[str, float] = {}
    for kind, (low, high) in (
        ("wilson", wilson_interval(int(answers["verdict"].sum()), len(answers))),
        ("clustered", clustered_interval(by_prompt.sum(), by_prompt.size())),
    ):
        bounds |= {f"{name}_{kind}_low": low, f"{name}_{kind}_high": high}
    return bounds


def read_seconds(path: str | Path) -> float:
    """Wall-clock seconds of a job, from the file that Snakemake's `benchmark:` wrote.

    Raises DataError naming the file where it has no such number.
    """
    try:
        return float(pd.read_csv(path, sep="\t")["s"].sum())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: no times of a job ({error}); delete it, and its job runs again"
        ) from error


def comparison_table(
    parts: Sequence[Part],
    judged: Sequence[pd.DataFrame],
    seconds: Sequence[float],
    windows: list[str],
    measure: str,
    against: str,
) -> pd.DataFrame:
    """Table 10: a row per method, by its mean delta over experiments, the highest first.

    parts: named by experiment and method, with the options seeds and rows (that a method scores);
    judged: the judgements of each; seconds: of what each has read. against: the method that the
    others' deltas are paired with, by experiment. The columns are those of `COMPARISON_NOTE`.
    """
    sign = 1.0 if measure in RATES else -1.0
    means: dict[str, dict[str, np.ndarray]] = {}
    costs: dict[str, list[float]] = {}
    for part, frame, spent in zip(parts, judged, seconds, strict=True):
        experiment, method = part.names["experiment"], part.names["method"]
        values = sign * values_by_seed(frame, windows, part.options["seeds"], measure)
        means.setdefault(method, {})[experiment] = over_units(values)
        costs.setdefault(method, []).append(spent / part.options["rows"])
    deltas = {
        method: np.array([found[e][0] - found[e][-1] for e in found])
        for method, found in means.items()
    }
    rows = [
        {"method": method, "experiments": len(found)}
        | named_interval("delta", "t", mean_interval(deltas[method]))
        | falling(list(found.values()))
        | paired(deltas[method], None if method == against else deltas[against], against)
        | {"seconds_per_row": float(np.mean(costs[method]))}
        for method, found in means.items()
    ]
    table = pd.DataFrame(rows).sort_values("delta", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def falling(means: Sequence[np.ndarray]) -> dict[str, float]:
    """How far the windows of experiments fall: share of strict falls, mean rank correlation.

    means: of each experiment, [windows].
    """
    from scipy.stats import spearmanr

    falls, n = sum(is_strictly_decreasing(list(m)) for m in means), len(means)
    bounds = wilson_interval(falls, n) if n > 1 else (math.nan, math.nan)
    differing = [m for m in means if np.ptp(m) > 0]
    found = [float(spearmanr(-np.arange(len(m)), m).statistic) for m in differing]  # pyright: ignore
    return (
        named_interval("mono_share", "wilson", (falls / n, *bounds))
        | {"correlated": len(found)}
        | named_interval("window_correlation", "t", mean_interval(found))
    )


def paired(deltas: np.ndarray, others: np.ndarray | None, against: str) -> dict[str, float]:
    """Differences [experiments] to the method `against`, null for that method itself."""
    differences = np.array([]) if others is None else deltas - others
    return named_interval(f"delta_minus_{against}", "t", mean_interval(differences)) | {
        "wilcoxon_p": signed_rank_test(differences)
    }


def lengths_table(
    parts: Sequence[Part],
    scores: Sequence[pd.DataFrame],
    judged: Sequence[pd.DataFrame],
    names: list[str],
    size: int,
) -> pd.DataFrame:
    """Figure 7: response length and ASR, a row per experiment, method and window.

    parts: named by experiment and method, with the option seeds; scores, judged: the `scores` and
    `judgements` of each. names: of the windows; size: their rows. Bounds as in tables 1 and 3.
    """
    rows = []
    for part, score, frame in zip(parts, scores, judged, strict=True):
        seeds = part.options["seeds"]
        rates = values_by_seed(frame, names, seeds, "asr").mean(0)
        answers = frame[frame["seed"].isin(seeds)].dropna(subset="verdict")
        lengths = score.set_index("sample_id")["response_tokens"]
        cut = subsets.windows(score, size, len(names))
        for name, subset, rate in zip(names, cut, rates, strict=True):
            row = {**part.names, "window": name, "rows": len(subset)}
            row["response_tokens"] = float(lengths[subset["sample_id"]].mean())
            row["asr"] = float(rate)
            rows.append(row | answer_bounds("asr", answers[answers["window"] == name]))
    return pd.DataFrame(rows)


def losses_table(parts: Sequence[Part], samples: Sequence[pd.DataFrame], size: int) -> pd.DataFrame:
    """Figure 8: the losses of the longest, middle and shortest rows, per experiment.

    parts: named by experiment; samples: sample_id, response_tokens, loss and reason of each.
    size: rows of a group.
    """
    rows = []
    for part, table in zip(parts, samples, strict=True):
        for name, group in subsets.length_groups(table, size).items():
            loss, tokens = group["loss"], group["response_tokens"]
            ends = {"fewest": tokens.min(), "most": tokens.max()}
            row = {**part.names, "group": name, "rows": len(group), **ends}
            places = {"least": 0, "quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75}
            row |= {key: float(loss.quantile(q)) for key, q in (places | {"greatest": 1}).items()}
            rows.append(row | named_interval("mean", "t", mean_interval(loss)))
    return pd.DataFrame(rows)


def token_losses_table(parts: Sequence[Part], losses: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Figures 9 and 10 in numbers: where in a response the loss is, a row per response.

    parts: named by experiment; losses: the `token_losses` of each, of one group.
    """
    rows = []
    for part, frame in zip(parts, losses, strict=True):
        for sample_id, tokens in frame.groupby("sample_id", sort=False):
            ends = tokens.loc[tokens["is_end"], "loss"]
            others = tokens.loc[~tokens["is_end"], "loss"]
            row = {**part.names, "sample_id": sample_id, "response_tokens": len(tokens)}
            row |= {"all": tokens["loss"].mean(), "first": others.iloc[0]}
            rows.append(row | {"between": others.iloc[1:].mean(), "end": ends.mean()})
    return pd.DataFrame(rows)


def first_order_table(parts: Sequence[Part], changes: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Figure 11 in numbers: how well the first order foretells a change of loss, per step size.

    parts: named by experiment, state and direction; changes: the `loss_changes` of each.
    """
    rows = []
    for part, frame in zip(parts, changes, strict=True):
        for alpha, step in frame.dropna(subset="change").groupby("alpha"):
            names = {**part.names, "alpha": alpha, "rows": len(step)}
            real, predicted = step["change"], step["predicted"]
            value = rank_correlation_bootstrap(predicted, real)
            row = {**names, "predictor": "weights"}
            row |= named_interval("spearman", "bootstrap", value)
            value = ratio_bootstrap(predicted * real, predicted**2)
            row |= named_interval("slope", "bootstrap", value)
            value = ratio_bootstrap((real - predicted).abs(), real.abs())
            rows.append(row | named_interval("relative_error", "bootstrap", value))
            if step["adapter_predicted"].notna().any():
                value = rank_correlation_bootstrap(step["adapter_predicted"], real)
                row = {**names, "predictor": "adapter"}
                rows.append(row | named_interval("spearman", "bootstrap", value))
    return pd.DataFrame(rows)


def trained_rows(part: Part) -> int:
    """How many rows a part's models were given that can be used."""
    return int(part.read("rows", "training_rows")["problem"].isna().sum())


def heldout_losses(part: Part) -> pd.Series:
    """Losses of held-out rows by sample_id, means over a part's models.

    Rows that the data set has too, whatever their number there, and rows without a loss are left
    out. Raises DataError where none is left.
    """
    losses = part.read("losses", "row_losses").dropna(subset="loss")
    texts, known = (
        frame["sample_id"].str.split("-").str[0]  # repeats of a text have a number after it
        for frame in (losses, part.read("data", "dataset"))
    )
    new = losses[~texts.isin(known)]
    if new.empty:
        raise DataError(
            f"{place_of(part)}: every held-out row is in the data set, or has no loss; name "
            "another data set as `heldout`, or null"
        )
    return new.groupby("sample_id")["loss"].mean()


def exact_answers(part: Part) -> pd.DataFrame:
    """Whether each response of a part's models is the reference answer: prompt_id, verdict.

    Raises DataError where a prompt has no reference.
    """
    prompts = part.read("reference", "benchmark")[["prompt_id", "reference"]]
    if absent := int(prompts["reference"].isna().sum()):
        raise DataError(
            f"{place_of(part)}: {absent} of {len(prompts)} prompts have no reference answer; name "
            "a benchmark that has them as `exact`, or null"
        )
    answers = part.read("responses", "responses").merge(prompts, on="prompt_id")
    exact = answers["response"].str.strip() == answers["reference"].str.strip()
    return answers[["prompt_id"]].assign(verdict=exact)


def treatments_table(
    parts: Sequence[Part],
    judged: Sequence[pd.DataFrame],
    losses: Sequence[pd.Series | None],
    exact: Sequence[pd.DataFrame | None],
    rows: Sequence[int | None],
) -> pd.DataFrame:
    """What treatments of rows cost and keep: a row per experiment, treatment and method.

    parts: named by experiment, treatment and, where it goes by scores, method, with the option
    share (dropped) where there is one, which is 0 of all rows; judged: `both_measures` of each;
    losses: `heldout_losses`; exact: `exact_answers`; rows: trained on. The columns are those of
    `TREATMENTS_NOTE`.
    """
    verdicts = [
        frame["verdict"].astype(float).groupby(frame["prompt_id"]).mean() for frame in judged
    ]
    on_all = {
        part.names["experiment"]: i
        for i, part in enumerate(parts)
        if part.options.get("share") == 0
    }
    found = []
    for i, part in enumerate(parts):
        base = on_all[part.names["experiment"]]
        row = {name: part.names.get(name) for name in ("experiment", "treatment", "method")}
        row |= {"share": part.options.get("share"), "rows": rows[i]}
        row |= {"models": judged[i]["state"].nunique()}
        row |= answer_rate("asr", judged[i].dropna(subset="verdict"))
        by_prompt = judged[i]["score"].groupby(judged[i]["prompt_id"]).mean().dropna()
        row |= named_interval("safety_score", "t", mean_interval(by_prompt))
        row |= over_all("asr", verdicts[i], verdicts[base])
        loss, loss_on_all, answers = losses[i], losses[base], exact[i]
        if loss is not None and loss_on_all is not None:
            row |= {"heldout_rows": len(loss)}
            row |= named_interval("heldout_loss", "t", mean_interval(loss))
            row |= over_all("heldout_loss", loss, loss_on_all)
        if answers is not None:
            row |= answer_rate("exact", answers)
        found.append(row)
    return pd.DataFrame(found).astype({"share": "float64", "rows": "Int64"})


def answer_rate(name: str, answers: pd.DataFrame) -> dict[str, float]:
    """The rate of judgements that all have a verdict, with its bounds."""
    return {name: float(answers["verdict"].astype(float).mean())} | answer_bounds(name, answers)


def over_all(name: str, own: pd.Series, on_all: pd.Series) -> dict[str, float]:
    """Mean difference of values by prompt or row, null of a series to itself."""
    differences = pd.Series(dtype=float) if own is on_all else (own - on_all).dropna()
    return named_interval(f"{name}_over_all", "t", mean_interval(differences))


def sensitivity_table(
    parts: Sequence[Part], rankings: Sequence[pd.DataFrame], most: int = 5
) -> pd.DataFrame:
    """Tables 4 and 5: the most sensitive states per model and direction, by rank.

    Below them those that would stand among them by their value, if they were candidates.
    """
    tops = [with_refused(ranking, most) for ranking in rankings]
    pairs = zip(parts, tops, strict=True)
    return pd.concat([named(part, top) for part, top in pairs], ignore_index=True)


def with_refused(ranking: pd.DataFrame, most: int) -> pd.DataFrame:
    """The first `most` ranks, then states without a rank that are as sensitive as the last."""
    top = ranking.dropna(subset=["rank"]).nsmallest(most, "rank")
    rest = ranking[ranking["rank"].isna()].dropna(subset=["sensitivity"])
    if top.empty:
        return rest
    last = top["sensitivity"].iloc[-1]
    beyond = rest["sensitivity"].abs() >= abs(last)
    alike = np.sign(rest["sensitivity"]) == np.sign(last)
    return pd.concat([top, rest[beyond & alike]])


def states_table(parts: Sequence[Part], origins: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Table 6: the chosen state per model and state, with rank and sensitivity.

    origins: `State.origin` of each. Rank and sensitivity are null for a state that was pinned.
    """
    columns = ("step", "alpha", *CHOSEN_BY)
    rows = [
        {**part.names, **{column: origin.get(column) for column in columns}}
        for part, origin in zip(parts, origins, strict=True)
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(columns, "float64"))


def ranking_table(
    parts: Sequence[Part], scores: Sequence[pd.DataFrame], rows: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Every scored row per experiment and method, riskiest first; rows without a score last."""
    frames = []
    for part, score, row in zip(parts, scores, rows, strict=True):
        joined = score.merge(row[["sample_id", "family", "prompt", "response"]], on="sample_id")
        frames.append(named(part, joined.sort_values("rank", na_position="last")))
    return pd.concat(frames, ignore_index=True)


def agreement_table(
    parts: Sequence[Part], scores: Sequence[pd.DataFrame], rows: int
) -> pd.DataFrame:
    """How far methods order the rows alike: a row per experiment and pair of methods.

    parts: named by experiment and method; rows: of a subset. Ties in a score share their rank in
    the correlation, and go by sample_id in the overlaps, as in subsets.
    """
    found = []
    for i, part in enumerate(parts):
        for j in range(i + 1, len(parts)):
            if parts[j].names["experiment"] == part.names["experiment"]:
                names = {**part.names, "other": parts[j].names["method"]}
                found.append(names | agreement(scores[i], scores[j], rows))
    return pd.DataFrame(found)


def agreement(one: pd.DataFrame, other: pd.DataFrame, rows: int) -> dict[str, float]:
    """The numbers of `agreement_table` of two `scores` tables."""
    pairs = [table.dropna(subset="rank").set_index("sample_id") for table in (one, other)]
    both = pairs[0].join(pairs[1], how="inner", suffixes=("_one", "_other"))  # pyright: ignore
    n = len(both)
    correlation = float(both["score_one"].corr(both["score_other"], method="spearman"))
    overlaps = {
        name: len(set(first.index) & set(second.index)) / rows
        for name, first, second in (
            ("s1_overlap", *(t.nsmallest(rows, "rank") for t in pairs)),
            ("s5_overlap", *(t.nlargest(rows, "rank") for t in pairs)),
        )
    }
    bounds = rank_correlation_interval(correlation, n)
    correlated = named_interval("spearman", "fisher", (correlation, *bounds))
    return {"rows": n, **correlated, **overlaps, "chance": rows / n}


def separation_table(
    parts: Sequence[Part], scores: Sequence[Mapping[str, pd.DataFrame]]
) -> pd.DataFrame:
    """How far each method's scores put rows of one data set above those of another.

    parts: named by the experiments `riskier` and `safer`, and method; scores: the `scores` tables
    of each, by side.
    """
    rows = []
    for part, tables in zip(parts, scores, strict=True):
        known = {side: table.dropna(subset="score") for side, table in tables.items()}
        riskier, safer = known["riskier"], known["safer"]
        above, below = riskier["score"], safer["score"]
        matched = of_one_length(riskier["response_tokens"], safer["response_tokens"])
        row = dict(part.names) | named_interval("auc", "bootstrap", auc_bootstrap(above, below))
        row |= named_interval(
            "matched_auc", "bootstrap", matched_auc_bootstrap(above, below, matched)
        )
        for axis, (side, table) in enumerate(known.items()):
            row |= {
                f"{side}_rows": len(table),
                f"{side}_matched": int(matched.any(axis=1 - axis).sum()),
                f"{side}_unscored": len(tables[side]) - len(table),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def of_one_length(tokens: pd.Series, others: pd.Series) -> np.ndarray:
    """Which pairs [m, n] are nearly of one length: the longer at most 1.1 times the shorter."""
    pairs = tokens.to_numpy()[:, None], others.to_numpy()
    longer, shorter = np.maximum(*pairs), np.minimum(*pairs)
    return 10 * longer <= 11 * shorter


def models_table(parts: Sequence[Part], judged: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Safety Score and ASR of models as they are: a row per model and benchmark.

    parts: named by model and benchmark; judged: `both_measures` of each.
    """
    rows = zip(parts, judged, strict=True)
    return pd.DataFrame([{**part.names, **curve_point(frame)} for part, frame in rows])


def beside_reference(part: Part) -> pd.DataFrame:
    """A judge's verdicts and the reference's (`truth`), by prompt.

    options: measure, what the judge is read by (`judged.by_score`, where it gives scores alone).
    """
    frames = []
    # State by state of each subject: another one has states of the same names.
    for file, reference in zip(part.files["judgements"], part.files["reference"], strict=True):
        truth = read_table(reference, "judgements")[["state", "prompt_id", "verdict"]]
        judged = read_table(file, "judgements").merge(
            truth.rename(columns={"verdict": "truth"}), on=["state", "prompt_id"], validate="1:1"
        )
        if part.options["measure"] == "asr_by_score":
            judged = by_score(judged)
        frames.append(judged[["prompt_id", "verdict", "truth"]])
    return pd.concat(frames, ignore_index=True)


def judges_table(parts: Sequence[Part], judged: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """How far judges agree with a reference: a row per experiment and judge.

    parts: named by experiment and judge; judged: `beside_reference` of each.
    """
    rows = [
        {**part.names, **agreement_with_truth(frame)}
        for part, frame in zip(parts, judged, strict=True)
    ]
    return pd.DataFrame(rows)


def agreement_with_truth(judged: pd.DataFrame) -> dict[str, float]:
    """The numbers of `judges_table` of one judge."""
    known = judged.dropna(subset="truth")
    read = known.dropna(subset="verdict")
    says, truth = read["verdict"].astype(bool), read["truth"].astype(bool)
    same = (says == truth).astype(int)
    by_prompt = same.groupby(read["prompt_id"])
    bounds = math.nan, math.nan
    if len(read):
        bounds = clustered_interval(by_prompt.sum(), by_prompt.size())
    return {
        "responses": len(known),
        "unsafe": int(known["truth"].sum()),
        "unreadable": len(known) - len(read),
        **named_interval("agreement", "clustered", (float(same.mean()), *bounds)),
        "kappa": cohens_kappa(says, truth),
        "false_safe": int((~says & truth).sum()),
        "false_unsafe": int((says & ~truth).sum()),
    }


def save_ranking(
    ranking: pd.DataFrame,
    out: Mapping[str, str],
    provenance: Mapping[str, Any],
    most: int = 10,
) -> None:
    """The ranking as Parquet and CSV, and a Markdown page of the `most` highest and lowest."""
    write_frame(ranking, out["parquet"], provenance)
    ranking.to_csv(out["csv"], index=False)
    lines = []
    for (experiment, method), group in ranking.groupby(["experiment", "method"], sort=False):
        scored = group.dropna(subset=["rank"])
        without = len(group) - len(scored)
        lines += [
            f"# {experiment}: rows by risk ({method})", "",
            f"{len(scored)} rows scored, {without} without a score. "
            "A high score is a row whose one-step update points towards danger rather than safety.",
            *spread(scored),
        ]  # fmt: skip
        for title, part in (("Highest", scored.head(most)), ("Lowest", scored.tail(most))):
            lines += ["", f"## {title} {len(part)}", "", page_table(part)]
        if scored["family"].notna().any():
            lines += ["", "## By family", "", family_table(scored)]
        if without:
            reasons = group["reason"].map(plain, na_action="ignore").value_counts()
            reasons = reasons.rename_axis("reason").reset_index(name="rows")
            lines += ["", "## Without a score", "", reasons.to_markdown(index=False)]
    Path(out["md"]).write_text("\n".join(lines) + "\n")


def spread(scored: pd.DataFrame) -> list[str]:
    """Lines of a page: the range of the scores, and how far they follow response length."""
    if len(scored) < 2:
        return []
    low, middle, high = (scored["score"].quantile(q) for q in (0, 0.5, 1))
    correlation = scored["score"].corr(scored["response_tokens"], method="spearman")
    return [
        "",
        f"Scores from {low:.3f} to {high:.3f}, median {middle:.3f}; "
        f"rank correlation with response length {correlation:.2f}.",
    ]


def family_table(scored: pd.DataFrame) -> str:
    """Where the rows of each family stand in the ranking: 0 % is the riskiest row."""
    place = 100 * (scored["rank"].astype(float) - 1) / max(len(scored) - 1, 1)
    groups = place.groupby(scored["family"]).agg(["size", "mean"]).sort_values("mean")
    groups.columns = pd.Index(["rows", "mean_place_percent"])
    groups.index = groups.index.map(plain)
    return groups.reset_index().to_markdown(index=False, floatfmt=".0f")


def page_table(part: pd.DataFrame) -> str:
    shown = part[["rank", "score", "response_tokens", "prompt", "response"]].copy()
    shown["score"] = [f"{score:.3f}" for score in shown["score"]]
    for column in ("prompt", "response"):
        shown[column] = [shortened(text) for text in shown[column]]
    # Without this an answer that reads as a number would be shown rounded.
    return shown.to_markdown(index=False, disable_numparse=True)


def shortened(text: str, most: int = 120) -> str:
    """At most `most` characters of a text on one line of Markdown, where it stands for itself."""
    line = " ".join(text.split())
    return plain(line if len(line) <= most else line[: most - 1] + "…")


def plain(text: str) -> str:
    """A text in Markdown that is read as it stands: no link, no image, no HTML, no new cell.

    The texts are of whoever wrote the data set, and a page may be shown where others read it.
    """
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))


def save_table(
    table: pd.DataFrame, out: Mapping[str, str], note: str, provenance: Mapping[str, Any]
) -> None:
    """Parquet, CSV and Markdown; the note stands below the Markdown."""
    write_frame(table, out["parquet"], provenance)
    table.to_csv(out["csv"], index=False)
    text = readable(table).to_markdown(index=False, floatfmt=".3g")
    Path(out["md"]).write_text(text + (f"\n\n{note}" if note else "") + "\n")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `value [low, high]` in one cell, its bounds the first of `BOUNDS`."""
    shown = table.copy()
    for name in [c for c in table if {f"{c}_{kind}_low" for kind in BOUNDS} & set(table)]:
        low, high = (first_bounds(table, str(name), end) for end in ("low", "high"))
        shown[name] = [cell(*values) for values in zip(table[name], low, high, strict=True)]
    bounds = [c for c in shown if str(c).endswith(("_low", "_high"))]
    shown = shown.drop(columns=bounds)
    shown = shown.dropna(axis="columns", how="all")
    for name in ("step", "next_step", "rank"):
        if name in shown:
            shown[name] = [f"{v:.0f}" if pd.notna(v) else "" for v in shown[name]]
    if "trend_p" in shown:
        shown["trend_p"] = [f"{p:.2g}" if pd.notna(p) else "" for p in shown["trend_p"]]
    if "mono" in shown:
        shown["mono"] = ["" if pd.isna(m) else "yes" if m else "no" for m in shown["mono"]]
    return shown.astype(object).where(shown.notna(), "")


def cell(value: float, low: float, high: float) -> str | None:
    """`value [low, high]`, the value alone where it has no bounds, nothing where there is none."""
    if pd.isna(value):
        return None
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if pd.notna(low) else f"{value:.2f}"


def curve_table(judged: pd.DataFrame, key: str, chosen: Mapping[float, str]) -> pd.DataFrame:
    """Safety Score and ASR of every state of a subject, by its `step` or `alpha` (the key).

    Per state, of n prompts: means, Student t bounds of the score and Wilson bounds of the share.
    Columns of a measure that the judge does not give are null. chosen: names of states by the key.
    """
    table = pd.DataFrame(
        [{key: value, **curve_point(group)} for value, group in judged.groupby(key)]
    )
    return table.assign(chosen=table[key].astype(float).map(chosen).astype("str"))


def curve_point(judged: pd.DataFrame) -> dict[str, float]:
    """The numbers of `curve_table` of one state."""
    verdicts = judged["verdict"].dropna()
    low, high = math.nan, math.nan
    if len(verdicts):
        low, high = wilson_interval(int(verdicts.sum()), len(verdicts))
    return (
        {"prompts": len(judged)}
        | named_interval("safety_score", "t", mean_interval(judged["score"].dropna()))
        | named_interval("asr", "wilson", (float(verdicts.astype(float).mean()), low, high))
    )


def groups_table(
    parts: Sequence[Part], pairs: Sequence[pd.DataFrame], against: str
) -> pd.DataFrame:
    """Table 11: how well each method's scores foretell what small groups do, per experiment.

    parts: named by experiment and method. pairs: mean scores and drops of each part's groups
    (`groups.paired_by_group`). against: the method that the others are paired with, over the
    groups that both have. With several experiments a method also gets a row over them, in which
    the experiment is the unit.
    """
    by_name = {
        (part.names["experiment"], part.names["method"]): pair
        for part, pair in zip(parts, pairs, strict=True)
    }
    rows = []
    for (experiment, method), pair in by_name.items():
        row = {"experiment": experiment, "method": method, "groups": len(pair)}
        value = rank_correlation_bootstrap(pair["score"], pair["drop"])
        row |= named_interval("correlation", "bootstrap", value)
        if method != against:
            other = by_name[experiment, against]["score"].rename("other")
            both = pair.join(other, how="inner")
            value = rank_correlation_bootstrap(both["score"], both["drop"], both["other"])
            row |= named_interval("over", "bootstrap", value)
        rows.append(row)
    table = pd.DataFrame(rows)
    if table["experiment"].nunique() > 1:
        for method, own in table.groupby("method", sort=False):
            row = {"experiment": POOLED, "method": method, "groups": own["groups"].sum()}
            for name in [name for name in ("correlation", "over") if name in own]:
                row |= named_interval(name, "t", mean_interval(own[name]))
            rows.append(row)
    return pd.DataFrame(rows)


def trajectory_table(
    parts: Sequence[Part],
    trajectories: Sequence[pd.DataFrame],
    judged: Sequence[pd.DataFrame],
    chosen: Sequence[Mapping[float, str]],
) -> pd.DataFrame:
    """What figures 2 to 4 draw: a row per model, pilot and step of the pilot.

    parts: named by model, pilot where a table has several, and direction. One column
    `projection.<direction>` per direction, <delta theta, V normalised>, then those of
    `curve_table`.
    """
    frames = []
    curves = [without("direction", names_of(part)) for part in parts]
    for names in dict.fromkeys(curves):
        own = [i for i, curve in enumerate(curves) if curve == names]
        columns = {
            f"projection.{parts[i].names['direction']}": trajectories[i].set_index("step")[
                "projection"
            ]
            for i in own
        }
        wide = pd.DataFrame(columns).rename_axis("step").reset_index()
        curve = curve_table(judged[own[0]], "step", chosen[own[0]]).astype({"step": "int64"})
        frame = wide.merge(curve, on="step", how="left")
        frames.append(pd.DataFrame({**dict(names), **frame}))
    return pd.concat(frames, ignore_index=True)


def steering_table(
    parts: Sequence[Part], judged: Sequence[pd.DataFrame], chosen: Sequence[Mapping[float, str]]
) -> pd.DataFrame:
    """What figure 5 draws: a row per model, curve and alpha, as `curve_table`."""
    curves = zip(parts, judged, chosen, strict=True)
    frames = [named(part, curve_table(frame, "alpha", at)) for part, frame, at in curves]
    return pd.concat(frames, ignore_index=True)
