"""What the paper's study would cost, rule by rule: GPU-hours and storage, from its own plan.

    python benchmarks/paper_cost.py

Nothing here is measured: floating-point operations and bytes of the planned jobs, over a stated
share of a GPU's peak. Prints a table and saves `benchmarks/measured/paper_cost.json`, with what it
assumes.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import pandas as pd
import yaml

from sqsd import costs as costs_of
from sqsd.config import resolve
from sqsd.costs import Costs, Lengths, Machine, Model, Work, seconds
from sqsd.inventory import SIZES
from sqsd.plan import Plan

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from planner import make_plan  # noqa: E402  # pyright: ignore[reportMissingImports]

ASSUMED = {
    "gpu": "one H100 SXM: 989 dense bfloat16 TFLOP/s, 3.35 TB/s",
    "share of peak, training and gradients": 0.35,
    "share of peak, forward passes": 0.45,
    "share of bandwidth, generation": 0.5,
    "seconds to load a model of 8 billion parameters": 60,
    "tokens of a row: dolly": 220,
    "tokens of a row: alpaca": 120,
    "tokens of a row: other": 150,
    "tokens of a request, in its template": 40,
    "tokens of a response": 350,
    "requests": {"categorical-harmful-qa": 550, "advbench": 520, "hex-phi": 300},
    "rows of PKU-SafeRLHF-10K": 10_000,
}
H100 = Machine(
    989e12, 3.35e12, learning=ASSUMED["share of peak, training and gradients"],
    forward=ASSUMED["share of peak, forward passes"],
    reading=ASSUMED["share of bandwidth, generation"],
    load=ASSUMED["seconds to load a model of 8 billion parameters"] / 8e9,
)  # fmt: skip


class Assumed:
    """What is assumed of the study's models and data (`sqsd.costs.Known`)."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config

    def model(self, name: str) -> Model:
        return SIZES[self.config["models"][name]["source"]]

    def lengths(self, registry: str, name: str, model: str, most_tokens: int | None) -> Lengths:
        if registry == "benchmarks":
            asked = ASSUMED["tokens of a request, in its template"]
            return Lengths(ASSUMED["requests"][name], asked, asked)
        known = [data for data in ("dolly", "alpaca") if data in name.split("-")]
        each = ASSUMED[f"tokens of a row: {known[0] if known else 'other'}"]
        rows = self.config[registry][name].get("rows", ASSUMED["rows of PKU-SafeRLHF-10K"])
        return Lengths(rows, each, each)

    def response_tokens(self, model: str) -> float:
        return ASSUMED["tokens of a response"]


def table(costs: Mapping[str, list[tuple[int, float, float]]]) -> pd.DataFrame:
    """A line per rule that costs a tenth of an hour or of a gigabyte, and one of all."""
    rows = []
    for rule, found in costs.items():
        hours = sum(gpus * seconds for gpus, seconds, _ in found) / 3600
        longest = max(seconds for _, seconds, _ in found) / 3600
        rows.append((rule, len(found), hours, longest, sum(kept for *_, kept in found) / 1e9))
    columns = ["rule", "jobs", "gpu_hours", "longest_hours", "storage_gb"]
    every = pd.DataFrame(rows, columns=pd.Index(columns))
    shown = every[(every["gpu_hours"] >= 0.1) | (every["storage_gb"] >= 0.1)]
    total = ["all", every["jobs"].sum(), every["gpu_hours"].sum(), every["longest_hours"].max()]
    last = pd.DataFrame([[*total, every["storage_gb"].sum()]], columns=every.columns)
    return pd.concat([shown.sort_values("gpu_hours", ascending=False), last]).round(1)


if __name__ == "__main__":
    path = ROOT / "config/presets/paper.yaml"
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_plan(folder, [str(path)])
    plan = Plan(resolve(default, yaml.safe_load(path.read_text())))
    study = Costs(plan, Assumed(plan.config))
    costs = defaultdict(list)
    for job in jobs:
        work = study.work(costs_of.Job(job.rule, job.wildcards)) or Work("", "")
        gpus = job.resources.get("gpu", 0)
        costs[job.rule].append((gpus, seconds(work, H100) if gpus else 0.0, work.kept))
    found = table(costs)
    print(found.to_markdown(index=False, floatfmt=("", ".0f", ".1f", ".1f", ".1f")))
    common.save("paper_cost", {"assumed": ASSUMED, "rules": found.to_dict("records")})
