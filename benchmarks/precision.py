"""How far scores depend on the arithmetic: float64, float32 and bfloat16, large batches and small.

    python benchmarks/precision.py NAME RESULTS MODEL DATASET
        [--rows 200] [--danger DIRECTION STATE] [--safety DIRECTION STATE]

Scores the first rows of a data set of a finished run with the workflow's own code (both terms,
each at its state, the directions' final checkpoints) and compares each ranking with float64's: rank
correlation (Spearman), the share of the top and bottom tenth that is the same (S1 and S5), the
largest difference of a score. Prints a table and saves `benchmarks/measured/precision_NAME.json`.
"""

import argparse
import tempfile
from pathlib import Path

import common
import pandas as pd

from sqsd.readings import Update, read_readings
from sqsd.scorers import score_method
from sqsd.shards import Shard, collect_shard
from sqsd.states import read_state
from sqsd.tables import read_table

# A batch of one row each, and the default.
SETTINGS = [
    ("float64", 2048), ("float64", 1), ("float32", 2048), ("float32", 1),
    ("bfloat16", 2048), ("bfloat16", 1),
]  # fmt: skip


def scores(options: argparse.Namespace, dtype: str, max_tokens: int) -> pd.Series:
    """Score per sample_id of the first rows, by the workflow's code."""
    results, readings = Path(options.results), {}
    terms = {"danger": options.danger, "safety": options.safety}
    with tempfile.TemporaryDirectory() as folder:
        for term, (direction, state) in terms.items():
            samples, modules = (f"{folder}/{term}-{k}.parquet" for k in ("samples", "modules"))
            collect_shard(
                shard=Shard.of(
                    read_table(results / "data" / f"{options.dataset}.parquet", "dataset"), 0,
                    options.rows, max_length_tokens=1024, max_tokens_per_batch=max_tokens,
                    dtype=dtype, checkpointing=False,
                ),
                state=read_state(results / "states" / options.model / f"{state}.json"),
                direction=str(results / "directions" / options.model / direction),
                checkpoint="final", samples_out=samples, modules_out=modules, provenance={},
            )  # fmt: skip
            files = {"samples": [samples], "modules": [modules]}
            readings[term] = read_readings(Update(state, direction), files)
    names = {k: {"direction": d, "state": s} for k, (d, s) in terms.items()}
    table = score_method({"kind": "sqsd", **names}, readings, seed=0)
    return table.set_index("sample_id")["score"].dropna()


def compare(found: pd.Series, exact: pd.Series) -> dict[str, float]:
    both = pd.concat({"found": found, "exact": exact}, axis=1).dropna()
    tenth = max(len(both) // 10, 1)
    ordered = {name: both[name].sort_values(ascending=False).index for name in both}
    top, bottom = (
        len(set(ordered["found"][part]) & set(ordered["exact"][part])) / tenth
        for part in (slice(tenth), slice(-tenth, None))
    )
    return {
        "rows": len(both),
        "rank_correlation": float(both["found"].corr(both["exact"], method="spearman")),
        "overlap_s1": top,
        "overlap_s5": bottom,
        "largest_difference": float((both["found"] - both["exact"]).abs().max()),
        "score_std": float(both["exact"].std()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("name", "results", "model", "dataset"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--danger", nargs=2, default=["danger", "d-danger"])
    parser.add_argument("--safety", nargs=2, default=["safety", "s"])
    options = parser.parse_args()
    exact = scores(options, *SETTINGS[0])
    rows = [
        {"dtype": dtype, "tokens_per_batch": tokens}
        | compare(scores(options, dtype, tokens), exact)
        for dtype, tokens in SETTINGS[1:]
    ]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".4g"))
    common.save(f"precision_{options.name}", {"results": rows})
