"""What `snakemake plan` says of a run beside what the run then took, by rule.

    python benchmarks/plan_accuracy.py FOLDER RUN [NAME]

FOLDER: where snakemake ran, of whose results/RUN/times the seconds and the memory are; a run that
did not finish has some of them. Seconds are planned as if nothing had run yet, for a machine that
does nothing else: where others ran beside it, the time of the processor is what to compare with
(`cpu_ratio`), as far as Snakemake saw it: it looks at a job every half second, later at longer
intervals, and sees neither the last seconds nor the peak of a short one. Prints a table and saves
`benchmarks/measured/plan_accuracy_{NAME or RUN}.json`.
"""

import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import common
import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from planner import make_plan  # noqa: E402  # pyright: ignore[reportMissingImports]

from sqsd.costs import Costs, Job  # noqa: E402
from sqsd.forecast import estimate, measure_product  # noqa: E402
from sqsd.inventory import Inventory  # noqa: E402
from sqsd.plan import Plan  # noqa: E402

# Of the figures of a process that Snakemake writes; a job of less than a second has none.
MEBIBYTE = 2**20 / 10**6


def rows_of(jobs: list, costs: Costs) -> list[dict[str, Any]]:
    """A row per rule with a job whose times are there."""
    found = defaultdict(list)
    for job in jobs:
        made = estimate(costs, Job(job.rule, job.wildcards)) if job.times else None
        if made is None or not Path(job.times).is_file():
            continue
        took = pd.read_csv(job.times, sep="\t").apply(pd.to_numeric, errors="coerce").iloc[0]
        found[job.rule].append((made, took))
    return [rule_row(rule, pairs) for rule, pairs in found.items()]


def rule_row(rule: str, pairs: list) -> dict[str, Any]:
    row = {
        "rule": rule,
        "jobs": len(pairs),
        "planned_s": sum(made.seconds for made, _ in pairs),
        "measured_s": sum(took["s"] for _, took in pairs),
        "measured_cpu_s": sum(took["cpu_time"] for _, took in pairs),
        "planned_mb": max(made.memory_mb for made, _ in pairs),
        "measured_mb": MEBIBYTE * max(took["max_rss"] for _, took in pairs),
    }
    row["time_ratio"] = row["planned_s"] / row["measured_s"]
    row["cpu_ratio"] = row["planned_s"] / row["measured_cpu_s"]
    return row | {"memory_ratio": row["planned_mb"] / row["measured_mb"]}


def main(folder: Path, run: str, name: str) -> None:
    config = (folder / "results" / run / "config.yaml").absolute()
    plan = Plan(yaml.safe_load(config.read_text()))
    jobs = make_plan(str(folder), [str(config)], targets=["all", "curate"])
    os.chdir(folder)
    table = pd.DataFrame(rows_of(jobs, Costs(plan, Inventory(plan))))
    table = table.sort_values("measured_s", ascending=False)
    total = table[["jobs", "planned_s", "measured_s", "measured_cpu_s"]].sum()
    ratios = {
        "time_ratio": total["planned_s"] / total["measured_s"],
        "cpu_ratio": total["planned_s"] / total["measured_cpu_s"],
    }
    print(table.to_markdown(index=False, floatfmt=".2f"))
    print(pd.Series({**total, **ratios}).round(2).to_string())
    common.save(
        f"plan_accuracy_{name}",
        {
            "product_operations_per_s": measure_product(),
            "load": os.getloadavg()[0],
            **ratios,
            "rules": table.to_dict("records"),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2], (sys.argv[3:] or sys.argv[2:])[0])
