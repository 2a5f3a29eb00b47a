"""How far scores depend on the arithmetic: float64, float32 and bfloat16, large batches and small.

    python benchmarks/precision.py NAME RESULTS EXPERIMENT MODEL DATASET
        [--rows 200] [--directions danger safety]

Scores the first rows of a data set of a finished run with the workflow's own code (both states,
`sqsd-<danger direction>`) and compares each ranking with that of float64: rank correlation
(Spearman), the share of the top and bottom tenth that is the same (S1 and S5), the largest
difference of a score. Prints a table and saves `benchmarks/measured/precision_NAME.json`.
"""

import argparse
import tempfile
from pathlib import Path

import common
import pandas as pd

from sqsd.scorers import danger_state, score_all
from sqsd.shards import collect_shard

# A batch of one row each, and the default.
SETTINGS = [
    ("float64", 2048), ("float64", 1), ("float32", 2048), ("float32", 1),
    ("bfloat16", 2048), ("bfloat16", 1),
]  # fmt: skip


def scores(options: argparse.Namespace, dtype: str, max_tokens: int) -> pd.Series:
    """Score a sample_id of the first rows, by the workflow's code."""
    results, (danger, safety) = Path(options.results), options.directions
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for state in (danger_state(danger), "safety"):
            (Path(folder) / state).mkdir()
            files = [f"{folder}/{state}/0-{kind}.parquet" for kind in ("samples", "modules")]
            collect_shard(
                model_folder=str(results / "models" / options.model),
                rows_file=str(results / "data" / f"{options.dataset}.parquet"),
                state_file=str(results / "states" / options.experiment / f"{state}.json"),
                directions={
                    d: str(results / "directions" / options.model / d) for d in (danger, safety)
                },
                shard=0, samples_out=files[0], modules_out=files[1],
                rows_per_shard=options.rows, max_length_tokens=1024,
                max_tokens_per_batch=max_tokens, dtype=dtype, checkpointing=False,
            )  # fmt: skip
            made += files
        experiment = {"danger": {danger: {}}, "safety": {"direction": safety}}
        table = score_all(made, [f"sqsd-{danger}"], experiment, seed=0)[f"sqsd-{danger}"]
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
    for name in ("name", "results", "experiment", "model", "dataset"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--directions", nargs=2, default=["danger", "safety"])
    options = parser.parse_args()
    exact = scores(options, *SETTINGS[0])
    rows = [
        {"dtype": dtype, "tokens_per_batch": tokens}
        | compare(scores(options, dtype, tokens), exact)
        for dtype, tokens in SETTINGS[1:]
    ]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".4g"))
    common.save(f"precision_{options.name}", {"results": rows})
