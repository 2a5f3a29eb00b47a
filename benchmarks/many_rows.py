"""100,000 rows scored: memory of each step against 10,000 rows, and seconds of what follows.

    python benchmarks/many_rows.py [--rows 100000] [--folder FOLDER]

The rows are the sandbox's, in JSONL files as a user brings them; the model is the default's. Both
data sets are scored by SQSD at the model itself, a state that needs no search. Shards that an
earlier call has finished in FOLDER stay, with their times. Prints, and saves
`measured/many_rows.json`: seconds of a plan; for either data set the seconds of all shards together
and the peak memory of one; seconds and peak memory of the score table from finished shards.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import common
import pandas as pd
import psutil
import yaml

from sqsd.sandbox import benign_rows

ROOT = Path(__file__).parents[1]
RUN, METHOD = "results/many-rows", "sqsd-danger-theta-0"
FIELDS = {"instruction": "prompt", "response": "response"}


def configuration(rows: Iterable[str]) -> dict:
    """Two data sets of one model."""
    return {
        "run": "many-rows",
        "selection": {"experiments": list(rows), "tables": ["ranking"]},
        "experiments": {name: {"model": "sandbox", "dataset": name} for name in rows},
        "datasets": {name: {"source": f"{name}.jsonl", "fields": FIELDS} for name in rows},
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
            try:
                for child in psutil.Process(process.pid).children(recursive=True):
                    if script in " ".join(child.cmdline()):
                        peak[0] = max(peak[0], child.memory_info().rss / 2**20)
            except psutil.Error:  # one that has ended
                continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    said, _ = process.communicate()
    done.set()
    thread.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said[-3000:]}")
    return time.perf_counter() - started, peak[0]


def shard_times(folder: Path, dataset: str) -> pd.DataFrame:
    """What Snakemake has measured of the gradient shards of a data set, a row each."""
    files = (folder / RUN / f"times/collect_gradients/sandbox/{dataset}").rglob("*.tsv")
    return pd.concat([pd.read_csv(path, sep="\t") for path in files])


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
        watched(snakemake(folder, target, "--until", "collect_gradients"), "collect_gradients")
        shards = shard_times(folder, name)
        (folder / target).unlink(missing_ok=True)
        score_s, score_mb = watched(snakemake(folder, target), "score_samples")
        found.append(
            {
                "rows": count,
                "shards": len(shards),
                "shards_job_s": round(float(shards["s"].sum()), 1),
                "shard_peak_mb": round(float(shards["max_rss"].max()), 1),
                "score_table_s": round(score_s, 1),
                "score_table_peak_mb": round(score_mb, 1),
            }
        )
        print(found[-1], flush=True)
    common.save("many_rows", {"plan_s": round(plan_s, 1), "results": found})


if __name__ == "__main__":
    main()
