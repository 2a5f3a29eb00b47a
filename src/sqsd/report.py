"""Tables (Parquet, CSV, Markdown) and figures (PNG, SVG) from measured Parquet."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt

from sqsd.statistics import is_strictly_decreasing, mean_interval, trend_test, wilson_interval
from sqsd.tables import write_frame


def effectiveness_table(
    judged: dict[str, pd.DataFrame], windows: list[str], seeds: list[int], measure: str
) -> pd.DataFrame:
    """Tables 1, 3 and 7: a row a method, a column a window.

    judged: judgements by method, states named `window/seed`. measure: `asr`, a share, or
    `safety_score`. For a window: the mean over seeds and, for a share, Wilson's interval over all
    prompts and seeds (it takes the seeds' answers to one prompt as independent); for a score,
    Student's t over seeds. delta is S1 - S5 for ASR and S5 - S1 for Safety Score, with Student's t
    over seeds paired by seed. mono is the paper's strict monotonicity of the means; trend_p is
    Page's test over seeds.
    """
    rows = []
    for method, frame in judged.items():
        column = frame["verdict"].astype(float) if measure == "asr" else frame["score"]
        by_state = column.groupby(frame["state"])
        means = by_state.mean()
        table = [[float(means[f"{w}/{seed}"]) for w in windows] for seed in seeds]
        row: dict = {"method": method, "n": int(by_state.size().iloc[0]), "seeds": len(seeds)}
        for i, window in enumerate(windows):
            per_seed = [values[i] for values in table]
            mean, low, high = mean_interval(per_seed)
            if measure == "asr":
                states = [f"{window}/{seed}" for seed in seeds]
                k, n = int(by_state.sum()[states].sum()), int(by_state.size()[states].sum())
                low, high = wilson_interval(k, n)
            row |= {window: mean, f"{window}_low": low, f"{window}_high": high}
        sign = 1.0 if measure == "asr" else -1.0
        deltas = [sign * (values[0] - values[-1]) for values in table]
        row["delta"], row["delta_low"], row["delta_high"] = mean_interval(deltas)
        row["mono"] = is_strictly_decreasing([sign * row[w] for w in windows])
        _, row["trend_p"] = trend_test([[sign * v for v in values] for values in table])
        rows.append(row)
    return pd.DataFrame(rows)


def sensitivity_table(path: str, most: int = 5) -> pd.DataFrame:
    """Tables 4 and 5 from a ranked sensitivity table, table 6 from the chosen states."""
    if path.endswith(".json"):
        states = json.loads(Path(path).read_text())
        frame = pd.DataFrame([{"state": name, **state} for name, state in states.items()])
        return frame.drop(columns="adapter")
    return pd.read_parquet(path).head(most)


def save_table(table: pd.DataFrame, out) -> None:
    """Parquet, CSV and Markdown, in that order."""
    parquet, csv, markdown = out
    write_frame(table, parquet, {})
    table.to_csv(csv, index=False)
    Path(markdown).write_text(readable(table).to_markdown(index=False, floatfmt=".2f") + "\n")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `value [low, high]` in one cell."""
    shown = table.copy()
    for name in [c for c in table if f"{c}_low" in table]:
        bounds = [table[name], table[f"{name}_low"], table[f"{name}_high"]]
        cells = [
            f"{v:.2f} [{a:.2f}, {b:.2f}]" if pd.notna(a) else f"{v:.2f}"
            for v, a, b in zip(*bounds, strict=True)
        ]
        shown[name] = cells
        shown = shown.drop(columns=[f"{name}_low", f"{name}_high"])
    if "trend_p" in shown:
        shown["trend_p"] = [f"{p:.2g}" if pd.notna(p) else "" for p in table["trend_p"]]
        shown["mono"] = ["yes" if m else "no" for m in table["mono"]]
    return shown


def draw_trajectory(trajectory: pd.DataFrame, judgements: pd.DataFrame, out) -> None:
    """Figure 2: projections on the directions (left axis), Safety Score (right axis), by step."""
    figure, left = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for direction, group in trajectory.groupby("direction"):
        left.plot(group["step"], group["projection"], label=f"projection on {direction}")
    left.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    left.set(xlabel="training step", ylabel=r"projection $\langle\Delta\theta, \hat V\rangle$")
    right = left.twinx()
    scores = judgements.groupby(judgements["state"].astype(int))["score"].mean().sort_index()
    right.plot(scores.index, scores, color="black", linestyle="--", label="Safety Score")
    right.set_ylabel("Safety Score (log-odds of a refusal)")
    handles = [*left.get_lines()[:-1], *right.get_lines()]
    left.legend(handles=handles, frameon=False, fontsize=8)
    save_figure(figure, out)


def draw_steering(curves: dict[str, pd.DataFrame], out) -> None:
    """Figure 5: Safety Score against alpha, a line a direction, 95 % intervals."""
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for direction, frame in curves.items():
        groups = frame.groupby(frame["state"].astype(float))["score"]
        table = pd.DataFrame({a: mean_interval(list(s)) for a, s in groups}).T
        axes.plot(table.index, table[0], marker="o", markersize=3, label=direction)
        axes.fill_between(table.index.astype(float), table[1], table[2], alpha=0.2)
    axes.set(xlabel=r"steering magnitude $\alpha$", ylabel="Safety Score (log-odds of a refusal)")
    axes.legend(frameon=False)
    save_figure(figure, out)


def save_figure(figure, out) -> None:
    """PNG and SVG, without dates so that the same data gives the same bytes."""
    png, svg = out
    plt.rcParams["svg.hashsalt"] = "sqsd"
    figure.savefig(png, dpi=150)
    figure.savefig(svg, metadata={"Date": None})
    plt.close(figure)
