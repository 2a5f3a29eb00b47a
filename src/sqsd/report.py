"""Tables (Parquet, CSV, Markdown) and figures (PNG, SVG) from measured Parquet."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from sqsd.statistics import is_strictly_decreasing, mean_interval, trend_test, wilson_interval
from sqsd.tables import write_frame

Arm = tuple[str, str]

MEASURES = {"asr": "attack success rate", "safety_score": "Safety Score (higher is safer)"}
POOLED = "mean of experiments"
COMMON_NOTE = (
    "mono: strictly monotone means (the paper's Mono). trend_p: one-sided Page test over seeds. "
    "delta and over_random (delta minus that of random order, paired): Student t over seeds. "
    f"Rows of '{POOLED}': the unit is the experiment, for every interval and test."
)
EFFECTIVENESS_NOTES = {
    "asr": (
        "Share of test prompts answered unsafely, mean over fine-tuning seeds. In brackets: 95 % "
        "Wilson interval over n prompts x seeds (it takes a prompt's answers under several seeds "
        "as independent). delta: S1 - S5. " + COMMON_NOTE
    ),
    "safety_score": (
        "Mean Safety Score of the test prompts (higher is safer), mean over fine-tuning seeds. In "
        "brackets: 95 % Student t interval over seeds. delta: S5 - S1. " + COMMON_NOTE
    ),
}

CURVE_NOTE = (
    "Means over the prompts of the tuning benchmark. In brackets: 95 % intervals over prompts, "
    "Student's t for the Safety Score (higher is safer), Wilson's for the attack success rate."
)


def effectiveness_table(
    judged: list[tuple[Arm, pd.DataFrame]], windows: list[str], seeds: list[int], measure: str
) -> pd.DataFrame:
    """Tables 1, 3 and 7: a row an experiment and method, a few columns a window.

    judged: ((experiment, method), judgements with states named `window/seed`). measure: `asr`, a
    share, or `safety_score`. Of a window: mean over seeds, Student t bounds over seeds and, for a
    share, Wilson bounds over prompts x seeds. delta is S1 - S5 for ASR and S5 - S1 for Safety
    Score; over_random is the delta minus that of `random`, paired by seed. With several
    experiments, a method also gets a row over them, in which an experiment's mean over its seeds
    is the unit.
    """
    sign = 1.0 if measure == "asr" else -1.0
    values = {arm: values_by_seed(frame, windows, seeds, measure) for arm, frame in judged}
    experiments = list(dict.fromkeys(experiment for experiment, _ in values))
    methods = list(dict.fromkeys(method for _, method in values))
    rows = []
    for (experiment, method), frame in judged:
        random = values.get((experiment, "random"))
        row = summary(values[experiment, method], random, windows, sign)
        prompts = int(frame["prompt_id"].nunique())
        if measure == "asr":
            row |= wilson_bounds(frame, windows, seeds)
        rows.append({"experiment": experiment, "method": method, "prompts": prompts} | row)
    for method in methods if len(experiments) > 1 else []:
        means = np.stack([values[e, method].mean(0) for e in experiments])
        random = [values[e, "random"].mean(0) for e in experiments if (e, "random") in values]
        row = summary(means, np.stack(random) if random else None, windows, sign)
        prompts = min(row["prompts"] for row in rows)
        rows.append({"experiment": POOLED, "method": method, "prompts": prompts} | row)
    return pd.DataFrame(rows)


def values_by_seed(
    judgements: pd.DataFrame, windows: list[str], seeds: list[int], measure: str
) -> np.ndarray:
    """Mean over prompts of the measure, [seeds, windows]."""
    column = judgements["verdict"] if measure == "asr" else judgements["score"]
    means = column.astype(float).groupby(judgements["state"]).mean()
    return np.array([[means[f"{window}/{seed}"] for window in windows] for seed in seeds])


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
    row["mono"] = is_strictly_decreasing(list(sign * values.mean(0)))
    _, row["trend_p"] = trend_test(sign * values)
    return row


def named_interval(name: str, kind: str, interval: tuple[float, float, float]) -> dict[str, float]:
    mean, low, high = interval
    return {name: mean, f"{name}_{kind}_low": low, f"{name}_{kind}_high": high}


def wilson_bounds(frame: pd.DataFrame, windows: list[str], seeds: list[int]) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for window in windows:
        states = [f"{window}/{seed}" for seed in seeds]
        verdicts = frame.loc[frame["state"].isin(states), "verdict"].dropna()
        low, high = wilson_interval(int(verdicts.sum()), len(verdicts))
        bounds |= {f"{window}_wilson_low": low, f"{window}_wilson_high": high}
    return bounds


def sensitivity_table(rankings: list[tuple[Arm, pd.DataFrame]], most: int = 5) -> pd.DataFrame:
    """Tables 4 and 5: the most sensitive states of every (experiment, direction), by rank."""
    frames = []
    for (experiment, direction), ranking in rankings:
        top = ranking.dropna(subset=["rank"]).nsmallest(most, "rank")
        top.insert(0, "direction", direction)
        top.insert(0, "experiment", experiment)
        frames.append(top)
    return pd.concat(frames, ignore_index=True)


def states_table(states: list[tuple[Arm, dict]]) -> pd.DataFrame:
    """Table 6: the chosen state of every (experiment, state), with rank and sensitivity.

    Rank and sensitivity are null for a state that was pinned without being measured.
    """
    columns = ("step", "alpha", "rank", "sensitivity")
    rows = [
        {"experiment": experiment, "state": name, **{c: state.get(c) for c in columns}}
        for (experiment, name), state in states
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(columns, "float64"))


def ranking_table(
    arms: Sequence[Arm], scores: list[pd.DataFrame], rows: list[pd.DataFrame]
) -> pd.DataFrame:
    """Every scored row of every (experiment, method), riskiest first; rows without a score last."""
    frames = []
    for (experiment, method), score, row in zip(arms, scores, rows, strict=True):
        joined = score.merge(row[["sample_id", "family", "prompt", "response"]], on="sample_id")
        joined = joined.sort_values("rank", na_position="last")
        joined.insert(0, "method", method)
        joined.insert(0, "experiment", experiment)
        frames.append(joined)
    return pd.concat(frames, ignore_index=True)


def save_ranking(ranking: pd.DataFrame, out, most: int = 10) -> None:
    """The ranking as Parquet and CSV, and a Markdown page of the `most` highest and lowest."""
    parquet, csv, markdown = out
    write_frame(ranking, parquet, {})
    ranking.to_csv(csv, index=False)
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
            reasons = group["reason"].value_counts().rename_axis("reason").reset_index(name="rows")
            lines += ["", "## Without a score", "", reasons.to_markdown(index=False)]
    Path(markdown).write_text("\n".join(lines) + "\n")


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
    return groups.reset_index().to_markdown(index=False, floatfmt=".0f")


def page_table(part: pd.DataFrame) -> str:
    shown = part[["rank", "score", "response_tokens", "prompt", "response"]].copy()
    shown["score"] = [f"{score:.3f}" for score in shown["score"]]
    for column in ("prompt", "response"):
        shown[column] = [shortened(text) for text in shown[column]]
    # Without this an answer that reads as a number would be shown rounded.
    return shown.to_markdown(index=False, disable_numparse=True)


def shortened(text: str, most: int = 120) -> str:
    """One line of at most `most` characters that cannot break a Markdown table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= most else line[: most - 1] + "…"


def save_table(table: pd.DataFrame, out, note: str = "") -> None:
    """Parquet, CSV and Markdown, in that order; the note stands below the Markdown."""
    parquet, csv, markdown = out
    write_frame(table, parquet, {})
    table.to_csv(csv, index=False)
    text = readable(table).to_markdown(index=False, floatfmt=".3g")
    Path(markdown).write_text(text + (f"\n\n{note}" if note else "") + "\n")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `value [low, high]` in one cell: Wilson's bounds where there are any."""
    shown = table.copy()
    for name in [c for c in table if {f"{c}_t_low", f"{c}_wilson_low"} & set(table)]:
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
        shown["mono"] = ["yes" if m else "no" for m in shown["mono"]]
    return shown.astype(object).where(shown.notna(), "")


def cell(value: float, low: float, high: float) -> str | None:
    """`value [low, high]`, the value alone where it has no bounds, nothing where there is none."""
    if pd.isna(value):
        return None
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if pd.notna(low) else f"{value:.2f}"


def first_bounds(table: pd.DataFrame, name: str, end: str) -> pd.Series:
    """Wilson's bounds of a column where there are any, else Student's."""
    kinds = [table[c] for c in (f"{name}_wilson_{end}", f"{name}_t_{end}") if c in table]
    return kinds[0].fillna(kinds[-1])


def curve_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Safety Score and ASR of every state of a subject, by its number (a step or an alpha).

    Of n prompts a state: means, Student t bounds of the score and Wilson bounds of the share.
    Columns of a measure that the judge does not give are null.
    """
    rows = []
    for state, group in judged.groupby(judged["state"].astype(float)):
        verdicts = group["verdict"].dropna()
        low, high = math.nan, math.nan
        if len(verdicts):
            low, high = wilson_interval(int(verdicts.sum()), len(verdicts))
        rows.append(
            {"state": state, "prompts": len(group)}
            | named_interval("safety_score", "t", mean_interval(group["score"].dropna()))
            | named_interval("asr", "wilson", (float(verdicts.astype(float).mean()), low, high))
        )
    return pd.DataFrame(rows)


def trajectory_table(
    experiments: list[str], trajectories: list[pd.DataFrame], judgements: list[pd.DataFrame]
) -> pd.DataFrame:
    """What figure 2 draws: a row a step of every experiment's pilot.

    A column `projection.<direction>` a direction, <delta theta, V normalised>, then those of
    `curve_table`.
    """
    frames = []
    for name, trajectory, judged in zip(experiments, trajectories, judgements, strict=True):
        wide = trajectory.pivot(index="step", columns="direction", values="projection")
        wide = wide.add_prefix("projection.").rename_axis(columns=None).reset_index()
        curve = curve_table(judged).rename(columns={"state": "step"})
        frame = wide.merge(curve.astype({"step": "int64"}), on="step", how="left")
        frame.insert(0, "experiment", name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def steering_table(curves: list[tuple[Arm, pd.DataFrame]]) -> pd.DataFrame:
    """What figure 5 draws: a row an alpha of every (experiment, direction), as `curve_table`."""
    frames = []
    for (experiment, direction), judged in curves:
        frame = curve_table(judged).rename(columns={"state": "alpha"})
        frame.insert(0, "direction", direction)
        frame.insert(0, "experiment", experiment)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def draw_trajectories(table: pd.DataFrame, out) -> None:
    """Figure 2: projections on the directions (left axis), Safety Score (right axis), by step."""
    experiments = list(dict.fromkeys(table["experiment"]))
    figure, panels = grid(len(experiments), (6, 3.6))
    for left, name in zip(panels, experiments, strict=True):
        rows = table[table["experiment"] == name].dropna(axis="columns", how="all")
        for column in rows.filter(like="projection."):
            direction = str(column).removeprefix("projection.")
            left.plot(rows["step"], rows[column], label=f"projection on {direction}")
        left.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        left.set(
            title=name,
            xlabel="training step",
            ylabel=r"projection $\langle\Delta\theta, \hat V\rangle$",
        )
        right = left.twinx()
        draw_curve(right, rows, "step", color="black", linestyle="--", label="Safety Score")
        right.set_ylabel("Safety Score (log-odds of a refusal)")
        handles = [*left.get_lines()[:-1], *right.get_lines()]
        left.legend(handles=handles, frameon=False, fontsize=8)
    save_figure(figure, out)


def draw_steering(table: pd.DataFrame, out) -> None:
    """Figure 5: Safety Score against alpha, a line a direction, 95 % intervals over prompts."""
    experiments = list(dict.fromkeys(table["experiment"]))
    figure, panels = grid(len(experiments), (5, 3.4))
    for axes, name in zip(panels, experiments, strict=True):
        for direction, rows in table[table["experiment"] == name].groupby("direction", sort=False):
            draw_curve(axes, rows, "alpha", marker="o", markersize=3, label=str(direction))
        axes.set(
            title=name,
            xlabel=r"steering magnitude $\alpha$",
            ylabel="Safety Score (log-odds of a refusal)",
        )
        axes.legend(frameon=False)
    save_figure(figure, out)


def draw_curve(axes, rows: pd.DataFrame, place: str, **style) -> None:
    """The Safety Score of a table against one of its columns, with its interval as a band."""
    (line,) = axes.plot(rows[place], rows["safety_score"], **style)
    low, high = rows["safety_score_t_low"], rows["safety_score_t_high"]
    axes.fill_between(rows[place], low, high, color=line.get_color(), alpha=0.15)


def draw_effectiveness(table: pd.DataFrame, windows: list[str], measure: str, out) -> None:
    """Tables 1, 3 and 7 drawn: the measure from S1 to S5, a line a method, a panel an experiment.

    Bars are 95 % intervals as in the Markdown table: Wilson's for an experiment's rates.
    """
    experiments = list(dict.fromkeys(table["experiment"]))
    figure, panels = grid(len(experiments), (5, 3.6))
    for axes, experiment in zip(panels, experiments, strict=True):
        rows = table[table["experiment"] == experiment]
        for i, (_, row) in enumerate(rows.iterrows()):
            kind = "wilson" if pd.notna(row.get(f"{windows[0]}_wilson_low")) else "t"
            means = np.array([row[w] for w in windows], dtype=float)
            low = np.array([row[f"{w}_{kind}_low"] for w in windows], dtype=float)
            high = np.array([row[f"{w}_{kind}_high"] for w in windows], dtype=float)
            # Apart sideways, or the bars of several methods would hide one another.
            places = np.arange(len(windows)) + 0.06 * (i - (len(rows) - 1) / 2)
            # At a rate of 0 or 1 Wilson's bound may miss it by a rounding error.
            bars = np.maximum([means - low, high - means], 0)
            axes.errorbar(
                places, means, bars, marker="o", markersize=3,
                linewidth=1, elinewidth=0.8, label=row["method"],
            )  # fmt: skip
        axes.set_xticks(range(len(windows)), [w.upper() for w in windows])
        axes.set(title=experiment, ylabel=MEASURES[measure])
        if measure == "asr":
            axes.set_ylim(-0.04, 1.04)
        axes.legend(frameon=False, fontsize=7)
    save_figure(figure, out)


def grid(count: int, size: tuple[float, float]):
    """A figure with `count` panels, at most three a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def save_figure(figure, out) -> None:
    """PNG and SVG, without dates so that the same data gives the same bytes."""
    png, svg = out
    plt.rcParams["svg.hashsalt"] = "sqsd"
    figure.savefig(png, dpi=150)
    figure.savefig(svg, metadata={"Date": None})
    plt.close(figure)
