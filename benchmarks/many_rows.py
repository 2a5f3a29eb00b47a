"""100,000 rows scored: memory of each step against 10,000 rows, and seconds of what follows.

    python benchmarks/many_rows.py [--rows 100000] [--folder FOLDER]

The rows are the sandbox's, in JSONL files as a user brings them; the model is the default's.
Both data sets are scored by SQSD at pinned states. Prints and saves `measured/many_rows.json`: the
peak memory of a gradient shard and of the score table for either, the seconds that the score table
takes from finished shards, and those that a plan takes.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import common
import pandas as pd
import psutil
import yaml

from sqsd.sandbox import benign_rows

ROOT = Path(__file__).parents[1]
RUN, METHOD = "results/many-rows", "sqsd-danger"
FIELDS = {"instruction": "prompt", "response": "response"}


def configuration(rows: dict[str, int]) -> dict:
    """Two data sets of one model at states that need no search."""
    return {
        "run": "many-rows",
        "selection": {"experiments": list(rows), "tables": ["ranking"]},
        "experiments": {name: {"model": "sandbox", "dataset": name} for name in rows},
        "datasets": {
            name: {"source": f"{name}.jsonl", "fields": FIELDS, "rows": count}
            for name, count in rows.items()
        },
        "states": {"d-danger": {"pilot": "pilot", "step": 10}},
        "gradients": {"rows_per_shard": 5000},
    }


def snakemake(folder: Path, *arguments: str) -> list[str]:
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    files = ["--directory", str(folder), "--cores", "2", "--configfile", str(folder / "many.yaml")]
    return [*base, *arguments, *files]


def watched(command: list[str], script: str) -> tuple[float, float]:
    """Seconds of a command, and the peak memory in MB of the rule's script in it."""
    started, peak, done = time.perf_counter(), [0.0], threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def watch() -> None:
        while not done.wait(0.02):
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    if script in " ".join(child.cmdline()):
                        peak[0] = max(peak[0], child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    said, _ = process.communicate()
    done.set()
    thread.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-3000:]}")
    return time.perf_counter() - started, peak[0]


def shard_memory(folder: Path, dataset: str) -> float:
    """Peak memory in MB of the gradient shards of a data set."""
    files = (folder / RUN / f"times/collect_gradients/sandbox/{dataset}").rglob("*.tsv")
    return max(float(pd.read_csv(path, sep="\t")["max_rss"].max()) for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/sqsd-many-rows"))
    given = parser.parse_args()
    folder, sizes = given.folder, {"few": given.rows // 10, "many": given.rows}
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in sizes.items():
        path = folder / f"{name}.jsonl"
        if not path.exists():
            benign_rows(3, count)[list(FIELDS.values())].to_json(path, orient="records", lines=True)
    (folder / "many.yaml").write_text(yaml.safe_dump(configuration(sizes)))
    found = []
    plan_s, _ = watched(snakemake(folder, "-n", "-q", "all"), "nothing")
    print(f"planned in {plan_s:.1f} s", flush=True)
    for name, count in sizes.items():
        target = f"{RUN}/scores/sandbox/{name}/{METHOD}.parquet"
        shards_s, _ = watched(
            snakemake(folder, target, "--omit-from", "score_samples"), "collect_gradients"
        )
        (folder / target).unlink(missing_ok=True)
        score_s, score_mb = watched(snakemake(folder, target), "score_samples")
        found.append(
            {
                "rows": count,
                "shards_s": round(shards_s, 1),
                "shard_peak_mb": round(shard_memory(folder, name), 1),
                "score_table_s": round(score_s, 1),
                "score_table_peak_mb": round(score_mb, 1),
            }
        )
        print(found[-1], flush=True)
    common.save("many_rows", {"plan_s": round(plan_s, 1), "results": found})


if __name__ == "__main__":
    main()
