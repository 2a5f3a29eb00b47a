"""Time and peak memory of the engine against rows, length, layers and directions.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --draw      # the figure alone, from the saved points

Each point is a process of its own, so that its peak is its own, and another for its time, since
for the peak all that is freed goes back to the system at once, which is slow (glibc's
MALLOC_MMAP_THRESHOLD_): gaps in a heap are no need of the pass. Memory is what the pass needs
beyond the model and the adapters as they are given. `bare` is a forward and backward pass for
activations alone; `activations` one that also keeps the input of every linear layer, as the
gradient of any of its weights must, and reads nothing of it.
A slope is that of log(time) against log(size): 1 is a straight line. Prints tables and saves
`benchmarks/measured/scaling.json` and `scaling.png`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import contenders
import numpy as np
import pandas as pd
from contenders import Task
from matplotlib import pyplot as plt

HIDDEN = 512
FIXED = {"rows": 64, "length": 128, "layers": 2, "directions": 2}
SERIES: dict[str, list[int]] = {
    "rows": [64, 256, 1024, 4096],
    "length": [32, 128, 512, 2048],
    "layers": [1, 2, 4, 8],
    "directions": [1, 2, 4, 8, 16],
}
# A series needs work enough at its small end, and no more than a minute at its large one.
ROWS_OF = {"length": 32, "directions": 32}
HIDDEN_OF = {"rows": 128, "directions": 2048}
MAX_TOKENS = 2048
# A label and a colour; the last way for the series of directions only.
WAYS = {
    "engine": ("engine", "tab:orange"),
    "bare": ("bare pass", "tab:blue"),
    "activations": ("activations kept", "tab:green"),
}


def measure(series: str, value: int, way: str) -> dict[str, Any]:
    """Seconds and peak megabytes of one point, in this process."""
    sizes = FIXED | {"rows": ROWS_OF.get(series, FIXED["rows"])} | {series: value}
    model = common.llama(HIDDEN_OF.get(series, HIDDEN), sizes["layers"])
    state = common.adapter(model, seed=1)
    directions = {f"v{i}": common.adapter(model, seed=2 + i) for i in range(sizes["directions"])}
    half = sizes["length"] // 2
    lengths = [(half, sizes["length"] - half)] * sizes["rows"]
    samples = common.samples(lengths, model.config.vocab_size)
    warm = Task(model, samples[:1], state, {"v0": directions["v0"]}, MAX_TOKENS)
    contenders.bare(warm)()
    task = Task(model, samples, state, directions, MAX_TOKENS)
    make = {f.__name__: f for f in (contenders.engine, contenders.bare, contenders.activations)}

    def timed() -> float:
        run = make[way](task)
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    seconds, extra = common.peak_of(timed)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return {
        "series": series, "value": value, "way": way, "seconds": seconds,
        "extra_mb": extra, "model_mb": weights,
    }  # fmt: skip


def point(series: str, value: int, way: str) -> dict[str, Any]:
    """Time of one process and peak of another."""
    command = [sys.executable, __file__, "--point", series, str(value), way]
    found = []
    for settings in ({}, {"MALLOC_MMAP_THRESHOLD_": str(2**17)}):
        environment = os.environ | settings
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found[1] | {"seconds": found[0]["seconds"]}


def slope(table: pd.DataFrame) -> float:
    """Of log(seconds) against log(value), the upper half of the points, where work dominates."""
    upper = table.iloc[len(table) // 2 - 1 :]
    return float(np.polyfit(np.log(upper["value"]), np.log(upper["seconds"]), 1)[0])


def draw(points: pd.DataFrame, out: Path) -> None:
    """Time with both axes in logarithms, memory from 0, a column a series, a line a way."""
    figure, axes = plt.subplots(2, len(SERIES), figsize=(13, 5.5), layout="constrained")
    for (time_axis, memory_axis), (series, values) in zip(axes.T, SERIES.items(), strict=True):
        rows = points[points["series"] == series].pivot(index="value", columns="way")
        name = "tokens a row" if series == "length" else series
        for way, (label, colour) in WAYS.items():
            if way in rows["seconds"]:
                style: dict[str, Any] = {"marker": "o", "label": label, "color": colour}
                time_axis.plot(values, rows["seconds"][way], **style)
                memory_axis.plot(values, rows["extra_mb"][way], **style)
        time_axis.set(yscale="log", title=name)
        time_axis.yaxis.set_major_formatter("{x:g}")
        low, high = time_axis.get_ylim()
        if high < 10 * low:
            # A flat line should look flat.
            time_axis.set_ylim(low / 3, high * 3)
        time_axis.yaxis.set_minor_formatter("")
        memory_axis.set(ylim=(0, 1.1 * rows["extra_mb"].to_numpy().max()), xlabel=name)
        for axis in (time_axis, memory_axis):
            axis.set_xscale("log", base=2)
            axis.set_xticks(values, [f"{value:,}" for value in values])
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("MB beyond the model")
    axes[0, -1].legend(frameon=False, loc="lower right")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--point", nargs=3, metavar=("SERIES", "VALUE", "WAY"))
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    figure = common.MEASURED / "scaling.png"
    if options.draw:
        saved = json.loads((common.MEASURED / "scaling.json").read_text())
        draw(pd.DataFrame(saved["points"]), figure)
        sys.exit()
    if options.point:
        series, value, way = options.point
        print(json.dumps(measure(series, int(value), way)))
        sys.exit()
    rows = [
        point(series, value, way)
        for series, values in SERIES.items()
        for value in values
        for way in list(WAYS)[: 3 if series == "directions" else 2]
    ]
    points = pd.DataFrame(rows)
    print(points.to_markdown(index=False, floatfmt=".3g"))
    ours = points[points["way"] == "engine"]
    slopes = {s: slope(ours[ours["series"] == s]) for s in SERIES}
    print(pd.Series(slopes, name="slope of time").to_markdown(floatfmt=".2f"))
    most = points[(points["series"] == "directions") & (points["value"] == 16)].set_index("way")
    both = most["model_mb"] + most["extra_mb"]
    beyond = float((both["engine"] - both["activations"]) / both["activations"])
    print(f"memory beyond model and activations at 16 directions: {beyond:.1%}")
    common.save("scaling", {"points": rows, "slopes": slopes, "memory_beyond_at_16": beyond})
    draw(points, figure)
