"""How long `snakemake -n` takes, and how much memory, on a grid of some 10,000 jobs.

    python benchmarks/grid.py [--rows-per-shard 300] [--check]

7 models x 3 data sets x 10 methods x 5 subsets x 3 seeds, sandbox models standing in. Prints the
jobs by rule, seconds and peak memory, and saves `benchmarks/measured/grid.json`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import yaml

ROOT = Path(__file__).parents[1]
STEPS = [10, 40, 70, 100]


def grid(rows_per_shard: int) -> dict:
    """A configuration of 21 experiments, each scored by 10 methods at 9 states."""
    danger = {"direction": "danger", "state": "d-step-{step}"}
    safety = {"direction": "safety", "state": "s"}
    methods = ["sqsd-step-{step}", "danger-step-{step}", "random", "length"]
    table = {"methods": methods}
    return {
        "run": "grid",
        "axes": {"m": [1, 2, 3, 4, 5, 6, 7], "d": [1, 2, 3], "step": STEPS},
        "selection": {"experiments": ["model-{m}-data-{d}"], "tables": ["table1", "table7"]},
        "experiments": {"model-{m}-data-{d}": {"model": "model-{m}", "dataset": "data-{d}"}},
        "models": {"model-{m}": {"source": "sandbox", "seed": "{m}"}},
        "datasets": {"data-{d}": {"source": "sandbox:benign", "rows": 15000, "seed": "{d}"}},
        "states": {"d-step-{step}": {"pilot": "pilot", "step": "{step}"}},
        "methods": {
            "sqsd-step-{step}": {"kind": "sqsd", "danger": danger, "safety": safety},
            "danger-step-{step}": {"kind": "sqsd", "danger": danger},
        },
        "gradients": {"rows_per_shard": rows_per_shard},
        "tables": {"table1": table, "table7": table},
    }


def dry_run(folder: Path, configuration: dict) -> tuple[dict[str, int], float, float]:
    """Jobs by rule, seconds and peak memory in GB of a dry run in an empty folder."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(configuration))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "-n", "--quiet", "rules", "--configfile", str(path)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        sys.exit(output)
    lines = [line.split() for line in output.split("Job stats:\n", 1)[1].splitlines()[2:]]
    jobs = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    return jobs, seconds, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows-per-shard", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs, seconds, peak = dry_run(Path(folder), grid(options.rows_per_shard))
    for rule, count in jobs.items():
        print(f"{rule:20} {count:6}")
    print(f"{seconds:.1f} s, {peak:.2f} GB")
    common.save("grid", {"jobs": jobs, "seconds": round(seconds, 1), "peak_gb": round(peak, 2)})
