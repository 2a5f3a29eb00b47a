"""Time and memory of a finished run by rule, from the files that Snakemake's `benchmark:` wrote.

    python benchmarks/rule_times.py results/sandbox [rule_times.json]

Prints the rules by total time, slowest first, and saves the same as JSON where a file is named.
"""

import json
import sys
from pathlib import Path

import pandas as pd


def rule_times(results: Path) -> pd.DataFrame:
    """Columns rule, jobs, total_s, longest_s, peak_mb (resident set), slowest rule first."""
    root = results / "times"
    parts = [
        pd.read_csv(path, sep="\t").assign(rule=path.relative_to(root).parts[0])
        for path in sorted(root.rglob("*.tsv"))
    ]
    jobs = pd.concat(parts, ignore_index=True)
    # A job too short to be sampled has no memory figure.
    jobs["max_rss"] = pd.to_numeric(jobs["max_rss"], errors="coerce")
    times = jobs.groupby("rule").agg(
        jobs=("s", "size"), total_s=("s", "sum"), longest_s=("s", "max"), peak_mb=("max_rss", "max")
    )
    return times.sort_values("total_s", ascending=False).round(1).reset_index()


if __name__ == "__main__":
    table = rule_times(Path(sys.argv[1]))
    print(table.to_markdown(index=False))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(table.to_dict("records"), indent=2) + "\n")
