"""Figures (PNG, SVG) of the report's tables."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from sqsd.bounds import first_bounds
from sqsd.judged import RATES
from sqsd.parts import Part, named

# Names in an SVG are by its content alone, so that the same data gives the same bytes.
plt.rcParams["svg.hashsalt"] = "sqsd"
POOLED = "mean of experiments"
LABELS = {
    "asr": "attack success rate",
    "asr_by_score": "share with a Safety Score of 0 or below",
    "safety_score": "Safety Score (higher is safer)",
}
# Told apart by the colour-blind too (Okabe and Ito 2008).
SKY, BLUE, ORANGE, GREEN, PINK = "#56B4E9", "#0072B2", "#E69F00", "#009E73", "#CC79A7"
# Of lines, with a mark of its own for each; then the same dashed, then dotted.
COLOURS, MARKS = (BLUE, ORANGE, GREEN, PINK, "#D55E00", SKY, "black"), "osD^vPX"
STYLES = ("-", "--", ":")
# Ends of an axis of shares: marks at 0 and 1 are whole.
SHARES = np.array([-0.04, 1.04])
# Tokens of a response whose text stands below its panel.
MOST_TOKENS_SHOWN = 16


def safety_score_in(unit: str) -> str:
    """The name of an axis, on as many lines as it takes not to be longer than the axis."""
    return textwrap.fill(f"Safety Score ({unit})", 34)


def draw_trajectories(
    table: pd.DataFrame, units: Mapping[str, str], out: Mapping[str, str]
) -> None:
    """Figures 2 to 4: projections on the directions (left axis), Safety Score (right), by step.

    A panel per model, or per model and pilot; units: of the Safety Score by model.
    """
    shown = split_by(table, ["model", "pilot"])
    figure, panels = grid(len(shown), (6, 3.6))
    for left, (name, rows) in zip(panels, shown.items(), strict=True):
        for column in rows.filter(like="projection.").dropna(axis="columns", how="all"):
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
        right.set_ylabel(safety_score_in(units[rows["model"].iloc[0]]))
        lines = [*left.get_lines(), *right.get_lines()]
        # What has no label of its own is the zero line, or the ring of a state.
        handles = [line for line in lines if not str(line.get_label()).startswith("_")]
        left.legend(
            handles=handles, frameon=False, fontsize=8, ncols=len(handles), loc="upper center",
            bbox_to_anchor=(0.5, -0.16), columnspacing=1, handlelength=1.5,
        )  # fmt: skip
    save_figure(figure, out)


def draw_steering(table: pd.DataFrame, units: Mapping[str, str], out: Mapping[str, str]) -> None:
    """Figure 5: Safety Score against alpha, a line per curve, 95 % intervals over prompts.

    A curve is a direction, at the table's checkpoint where it has several of one.
    """
    models = list(dict.fromkeys(table["model"]))
    figure, panels = grid(len(models), (5, 3.4))
    for axes, name in zip(panels, models, strict=True):
        keys = [key for key in ("direction", "checkpoint") if key in table]
        for names, rows in table[table["model"] == name].groupby(keys, sort=False):
            draw_curve(axes, rows, "alpha", marker="o", markersize=3, label=" ".join(names))
        axes.set(
            title=name,
            xlabel=r"steering magnitude $\alpha$",
            ylabel=safety_score_in(units[name]),
        )
        axes.legend(frameon=False)
    save_figure(figure, out)


def draw_groups(table: pd.DataFrame, out: Mapping[str, str]) -> None:
    """Table 11 drawn: correlations with their intervals, a line per method, a panel in all.

    Several experiments are shown by their mean, with each one as a small mark.
    """
    pooled = table[table["experiment"] == POOLED]
    shown = pooled if len(pooled) else table
    figure, (axes,) = grid(1, (6, 1.1 + 0.28 * len(shown)))
    places = np.arange(len(shown))[::-1]
    means = shown["correlation"].to_numpy(dtype=float)
    ends = [first_bounds(shown, "correlation", end).to_numpy() for end in ("low", "high")]
    bars = np.maximum([means - ends[0], ends[1] - means], 0)
    axes.errorbar(means, places, xerr=bars, fmt="o", markersize=5, color="black")
    for place, method in zip(places, shown["method"], strict=True):
        own = table[(table["method"] == method) & (table["experiment"] != POOLED)]
        if len(pooled):
            axes.plot(own["correlation"], [place] * len(own), "|", color="0.5", markersize=8)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_yticks(places, list(shown["method"]))
    axes.set_ylim(-0.7, len(shown) - 0.3)
    label = "rank correlation of mean score\nand drop in Safety Score"
    each = "\n(mean of experiments; small marks: each)" if len(pooled) else ""
    axes.set(xlabel=label + each, xlim=(-1.05, 1.05))
    save_figure(figure, out)


def draw_lengths(table: pd.DataFrame, out: Mapping[str, str]) -> None:
    """Figure 7: mean response length (bars, left axis) and ASR (line, right axis) of subsets."""
    panels = table.groupby(["experiment", "method"], sort=False)
    figure, axes = grid(panels.ngroups, (4.4, 3.4))
    several = table["experiment"].nunique() > 1
    handles = []
    for left, ((experiment, method), rows) in zip(axes, panels, strict=True):
        places = np.arange(len(rows))
        bars = left.bar(places, rows["response_tokens"], width=0.6, color=SKY)
        left.set_xticks(places, [str(window).upper() for window in rows["window"]])
        left.set(
            title=f"{experiment}: {method}" if several else method,
            ylabel="mean response length (tokens)",
            ylim=SHARES * 1.1 * rows["response_tokens"].max(),
        )
        right = left.twinx()
        rate = rows["asr"]
        ends = [first_bounds(rows, "asr", end) for end in ("low", "high")]
        spread = np.maximum([rate - ends[0], ends[1] - rate], 0)
        line = right.errorbar(
            places, rate, spread, color="black", marker="o", markersize=4, capsize=2
        )
        handles = [bars, line]
        right.set(ylabel=LABELS["asr"], ylim=SHARES)
    names = ["mean response length", "attack success rate, with its 95 % interval"]
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, out)


def draw_losses(table: pd.DataFrame, out: Mapping[str, str]) -> None:
    """Figure 8: losses by length group, boxes of quartiles with the mean, whiskers of all."""
    panels = table.groupby("experiment", sort=False)
    figure, axes = grid(panels.ngroups, (4.4, 3.4))
    for panel, (experiment, rows) in zip(axes, panels, strict=True):
        boxes = [
            {
                "label": f"{row.group}\n{row.fewest} to {row.most} tokens",
                "whislo": row.least, "q1": row.quartile_1, "med": row.median,
                "q3": row.quartile_3, "whishi": row.greatest, "mean": row.mean,
            }
            for row in rows.itertuples(name="Row")
        ]  # fmt: skip
        panel.bxp(
            boxes, showfliers=False, showmeans=True, widths=0.5, patch_artist=True,
            boxprops={"facecolor": SKY, "linewidth": 0.6}, medianprops={"color": "black"},
            meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"},
        )  # fmt: skip
        panel.set(title=experiment, ylabel="loss (nats per token)", ylim=(0, None))
    save_figure(figure, out)


def draw_token_losses(
    parts: Sequence[Part], losses: Sequence[pd.DataFrame], out: Mapping[str, str]
) -> None:
    """Figures 9 and 10: the loss of each token, a panel per response, the end token marked.

    Tokens are written out where a response has few.
    """
    panels = [
        (part.names["experiment"], sample_id, tokens)
        for part, frame in zip(parts, losses, strict=True)
        for sample_id, tokens in frame.groupby("sample_id", sort=False)
    ]
    highest = max(tokens["loss"].max() for _, _, tokens in panels)
    longest = max(len(tokens) for _, _, tokens in panels)
    figure, axes = grid(len(panels), (3.6, 2.6))
    for panel, (experiment, sample_id, tokens) in zip(axes, panels, strict=True):
        panel.bar(
            tokens["position"], tokens["loss"],
            color=[ORANGE if end else BLUE for end in tokens["is_end"]],
            hatch=["//" if end else "" for end in tokens["is_end"]],
        )  # fmt: skip
        if len(tokens) <= MOST_TOKENS_SHOWN:
            texts = [written_token(token) for token in tokens["token"]]
            panel.set_xticks(
                tokens["position"], texts, rotation=45, ha="right", rotation_mode="anchor",
                fontsize=9, parse_math=False,
            )  # fmt: skip
        else:
            panel.set_xlabel("token of the response")
        title = f"{experiment}: {sample_id}" if len(parts) > 1 else str(sample_id)
        panel.set_title(f"{title} ({len(tokens)} tokens)", fontsize=10, parse_math=False)
        panel.set(ylabel="loss (nats)", xlim=(0.3, longest + 0.7), ylim=(0, 1.05 * highest))
    handles = [
        Patch(facecolor=BLUE, label="other token"),
        Patch(facecolor=ORANGE, hatch="//", label="end token"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, out)


def written_token(token: str, most: int = 12) -> str:
    """A token's text as one short word: a blank before it left out, other blanks spelled."""
    text = repr(token.removeprefix(" "))[1:-1]
    return text if len(text) <= most else text[: most - 1] + "…"


def draw_first_order(
    parts: Sequence[Part], changes: Sequence[pd.DataFrame], out: Mapping[str, str]
) -> None:
    """Figure 11: real against predicted fall in loss, a panel per step size and a mark per row.

    Directions are colours; on the line the first order is exact.
    """
    frames = [named(part, frame) for part, frame in zip(parts, changes, strict=True)]
    panels = pd.concat(frames, ignore_index=True).groupby(
        ["experiment", "state", "alpha"], sort=False
    )
    figure, axes = grid(panels.ngroups, (3.6, 3.3))
    for panel, ((experiment, state, alpha), rows) in zip(axes, panels, strict=True):
        looks = zip((BLUE, ORANGE, GREEN, PINK), "o^sD", strict=True)
        for (direction, own), (color, mark) in zip(
            rows.groupby("direction", sort=False), itertools.cycle(looks), strict=False
        ):
            panel.scatter(
                own["predicted"], own["change"], s=16, marker=mark, facecolor="none",
                edgecolor=color, linewidth=0.9, label=str(direction),
            )  # fmt: skip
        panel.axline((0, 0), slope=1, color="0.5", linewidth=1, zorder=0, label="as predicted")
        panel.set(
            title=rf"{experiment}, {state}, $\alpha$ = {alpha:g}",
            xlabel="predicted fall in loss (nats)",
            ylabel="fall in loss (nats)",
        )
        panel.title.set_fontsize(10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save_figure(figure, out)


def draw_treatments(table: pd.DataFrame, out: Mapping[str, str]) -> None:
    """ASR and, where it was measured, held-out loss against the share of rows dropped.

    A line per method, from all rows on. What drops no share is a level: dashed by a method, dotted
    before fine-tuning, else both. Bars are 95 % intervals as in the table; levels have none.
    """
    measures = [name for name in ("asr", "heldout_loss") if name in table]
    shown = split_by(table, ["experiment"])
    figure, panels = grid(len(shown) * len(measures), (4.4, 3.4), at_most=len(measures))
    methods = list(table["method"].dropna().unique())
    looks = dict(zip(methods, zip(COLOURS, MARKS, strict=False), strict=False))
    for axes, ((title, rows), name) in zip(
        panels, itertools.product(shown.items(), measures), strict=True
    ):
        everything = rows[rows["share"] == 0]
        for method, own in rows.dropna(subset=["share", "method"]).groupby("method", sort=False):
            colour, mark = looks[method]
            line = pd.concat([everything, own]).sort_values("share")
            ends = [first_bounds(line, name, end) for end in ("low", "high")]
            bars = np.maximum([line[name] - ends[0], ends[1] - line[name]], 0)
            axes.errorbar(
                100 * line["share"], line[name], bars, color=colour, marker=mark, markersize=4,
                linewidth=1, elinewidth=0.8, label=f"dropped by {method}",
            )  # fmt: skip
        for _, row in rows[rows["share"].isna()].iterrows():
            colour = looks.get(row["method"], ("0.5", ""))[0]
            label = row["treatment"]
            label += f" by {row['method']}" if pd.notna(row["method"]) else ""
            style = ":" if pd.isna(row["rows"]) else "--" if pd.notna(row["method"]) else "-."
            axes.axhline(row[name], color=colour, linestyle=style, linewidth=1, label=label)
        label = {"asr": LABELS["asr"], "heldout_loss": "held-out loss (nats per token)"}[name]
        axes.set(title=title, xlabel="rows dropped (%)", ylabel=label)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save_figure(figure, out)


def draw_curve(axes, rows: pd.DataFrame, place: str, **style) -> None:
    """The Safety Score of a table against one of its columns, with its interval as a band."""
    (line,) = axes.plot(rows[place], rows["safety_score"], **style)
    low, high = rows["safety_score_t_low"], rows["safety_score_t_high"]
    axes.fill_between(rows[place], low, high, color=line.get_color(), alpha=0.15)
    draw_chosen(axes, rows, place, line.get_color())


def draw_chosen(axes, rows: pd.DataFrame, place: str, color: str) -> None:
    """A ring, and the name, at every chosen state of a Safety Score's curve."""
    for row in rows.dropna(subset="chosen").itertuples():
        at = getattr(row, place), row.safety_score
        axes.plot(
            *at, marker="o", markersize=9, fillstyle="none", color=color, linestyle="none",
        )  # fmt: skip
        axes.annotate(
            row.chosen, at, xytext=(6, 6), textcoords="offset points", fontsize=8, color=color,
        )  # fmt: skip


def draw_effectiveness(table: pd.DataFrame, windows: list[str], measure: str, out) -> None:
    """Tables 1 to 3, 7 to 9 drawn: from S1 to S5, a line per method, a panel per experiment.

    Of several fine-tunes (figure 6): a panel per experiment and fine-tune; with a single method a
    panel per experiment and a line per fine-tune.
    Bars are 95 % intervals as in the Markdown table: clustered by prompt for an experiment's rates.
    Rows of no subset are grey lines, dotted before fine-tuning, dashed after it on all rows; not
    among lines of several fine-tunes, each of which has its own. Panels whose lines have the same
    names share a legend.
    """
    referred = table.dropna(subset="no_subset") if "no_subset" in table else table[:0]
    on_subsets = table.drop(referred.index)
    if "finetune" not in table or on_subsets["method"].nunique() > 1:
        line, split = "method", split_by(table, ["experiment", "finetune"])
    else:
        line, split = "finetune", split_by(on_subsets, ["experiment"])
    figure, panels = grid(len(split), (5, 3.6))
    for axes, (title, shown) in zip(panels, split.items(), strict=True):
        ends = []
        references = referred.loc[referred.index.intersection(shown.index)]
        rows = shown.drop(references.index)
        for (_, row), style in zip(references.iterrows(), (":", "--"), strict=False):
            axes.axhline(
                row["no_subset"], color="0.5", linestyle=style, linewidth=1, zorder=0,
                label=row["method"],
            )  # fmt: skip
        for i, (place, row) in enumerate(rows.iterrows()):
            means = np.array([row[w] for w in windows], dtype=float)
            low, high = (
                np.array([first_bounds(rows, w, end)[place] for w in windows], dtype=float)  # pyright: ignore
                for end in ("low", "high")
            )
            # Apart sideways, or the bars of several methods would hide one another.
            apart = min(0.06, 0.5 / len(rows))
            places = np.arange(len(windows)) + apart * (i - (len(rows) - 1) / 2)
            # At a rate of 0 or 1 Wilson's bound may miss it by a rounding error.
            bars = np.maximum([means - low, high - means], 0)
            ends += [*low, *high]
            repeated, look = divmod(i, len(COLOURS))
            axes.errorbar(
                places, means, bars, color=COLOURS[look], marker=MARKS[look],
                linestyle=STYLES[repeated % len(STYLES)], markersize=3.5, linewidth=1,
                elinewidth=0.8, label=row[line],
            )  # fmt: skip
        axes.set_xticks(range(len(windows)), [w.upper() for w in windows])
        axes.set(title=title, ylabel=LABELS[measure])
        if measure in RATES:
            # Student's interval may leave 0 to 1.
            axes.set_ylim(np.nanmin([SHARES[0], *ends]), np.nanmax([SHARES[1], *ends]))
    lines = [axes.get_legend_handles_labels() for axes in panels]
    if len(panels) > 1 and all(labels == lines[0][1] for _, labels in lines):
        figure.legend(*lines[0], frameon=False, loc="outside right center")
    else:
        for axes in panels:
            axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, out)


def split_by(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Rows of a table by what they say in those of the columns that it has, in their order."""
    own = [column for column in columns if column in table]
    groups = table.groupby(own, sort=False)
    return {", ".join(map(str, names)): rows for names, rows in groups}


def grid(count: int, size: tuple[float, float], at_most: int = 3):
    """A figure with `count` panels, `at_most` so many per line."""
    columns = min(count, at_most)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for panel in axes.flat:
        panel.set_prop_cycle(color=COLOURS)
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def save_figure(figure, out: Mapping[str, str]) -> None:
    """PNG and SVG, without dates so that the same data gives the same bytes."""
    figure.savefig(out["png"], dpi=150)
    figure.savefig(out["svg"], metadata={"Date": None})
    plt.close(figure)
