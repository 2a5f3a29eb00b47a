"""Scoring the same rows in several ways, side by side.

    python benchmarks/gradient_engine.py [--smollm2 FOLDER] [--rounds 3]

The sandbox's model and rows; Llama shapes with d = 128, 512, 1024, 2048, and SmolLM2-135M from a
folder that the workflow made (`results/smollm2-135m/models/smollm2-135m`), with the lengths of
Alpaca rows; then, for d = 128 and 1024, rows of 32 to 256 tokens, since the shorter a row, the
more its dense updates weigh. Weights are random but for SmolLM2's. Ways: the engine; a bare
forward and backward pass, which is its floor; the published way (a row at a time, everything
dense), and the same with the directions' dense matrices kept; plain hooks over padded batches with
dense updates; and bergson where that is installed. Prints tables and saves
`benchmarks/measured/gradient_engine.json`.
"""

import argparse
import statistics
from typing import Any

import common
import contenders
import pandas as pd
import torch
from contenders import Task

from sqsd.encoded import EncodedSample
from sqsd.models import load_model
from sqsd.packing import PackedBatch, pack

MAX_TOKENS = 2048
# hidden size: layers and rows, such that a round of the slowest way takes some ten seconds.
SHAPES = {128: (4, 64), 512: (3, 24), 1024: (2, 16), 2048: (1, 12)}
SMOLLM2_ROWS = 6
# One shard of the default configuration.
SANDBOX_ROWS = 750
# Rows of one length, so many that they are 4096 tokens; hidden size: layers.
LENGTHS = (32, 64, 128, 256)
LENGTHS_TOKENS = 4096
LENGTHS_SHAPES = {128: 4, 1024: 2}


def task_of(model, samples: list[EncodedSample]) -> Task:
    directions = {f"v{i}": common.adapter(model, seed=2 + i) for i in range(2)}
    return Task(model, samples, common.adapter(model, seed=1), directions, MAX_TOKENS)


def compare(name: str, model, samples: list[EncodedSample], rounds: int) -> dict[str, Any]:
    """Seconds of every way over the same rows, ratios to the engine, and how far cosines differ."""
    rows = len(samples)
    task = task_of(model, samples)
    ways = {"engine": contenders.engine(task), "bare": contenders.bare(task)}
    ways["published"] = contenders.published(task)
    ways["published_kept"] = contenders.published_kept(task)
    ways["plain_hooks"] = contenders.plain_hooks(task)
    try:
        ways["bergson"] = contenders.bergson(task)
    except ImportError as error:
        print(f"without bergson: {error}")
    cosines = {way: run() for way, run in ways.items() if way != "bare"}
    scales = normalised(task)
    seconds = common.in_turns(ways, rounds)
    tokens = sum(len(s.input_ids) for s in samples)
    best = min(seconds["engine"])
    print(f"{name}: {rows} rows, {tokens} tokens")
    result: dict[str, Any] = {"rows": rows, "tokens": tokens}
    padded = sum(
        len(PackedBatch.of([samples[i] for i in batch], "cpu").ids)
        for batch in pack([len(s.input_ids) for s in samples], MAX_TOKENS)
    )
    result["padding_share"] = 1 - tokens / padded
    result["engine_samples_per_s"] = rows / statistics.median(seconds["engine"])
    result["engine_tokens_per_s"] = tokens / statistics.median(seconds["engine"])
    flops = common.pass_flops(model, samples)
    result["engine_share_of_matmul"] = flops / best / common.matmul_flops()
    result["engine_over_bare"] = common.ratio(seconds["engine"], seconds["bare"])
    for way in ways:
        if way not in ("engine", "bare"):
            result[f"{way}_over_engine"] = common.ratio(seconds[way], seconds["engine"])
            off = (cosines[way] - cosines["engine"]) / scales
            result[f"{way}_largest_cosine_difference"] = float(off.abs().max())
    print(pd.Series(result, name=name).to_markdown(floatfmt=".3g"), flush=True)
    return {"model": name} | result | {"seconds": seconds}


def by_length(hidden: int, layers: int, rounds: int) -> list[dict[str, Any]]:
    """The bare pass and the published way over the engine's time, a length of rows."""
    model = common.llama(hidden, layers)
    found = []
    for length in LENGTHS:
        lengths = [(length // 2, length - length // 2)] * (LENGTHS_TOKENS // length)
        task = task_of(model, common.samples(lengths, model.config.vocab_size))
        ways = {"engine": contenders.engine(task), "bare": contenders.bare(task)}
        ways["published"] = contenders.published(task)
        seconds = common.in_turns(ways, rounds)
        row: dict[str, Any] = {"hidden": hidden, "layers": layers}
        row |= {"tokens_per_row": length, "rows": len(lengths)}
        row["engine_over_bare"] = common.ratio(seconds["engine"], seconds["bare"])
        row["published_over_engine"] = common.ratio(seconds["published"], seconds["engine"])
        row["published_over_bare"] = common.ratio(seconds["published"], seconds["bare"])
        found.append(row | {"seconds": seconds})
    return found


def normalised(task: Task) -> torch.Tensor:
    """The directions' norms [D, modules]: what makes products with them cosines."""
    dense = [contenders.dense_direction(task, m) for m in task.modules]
    return torch.stack([torch.stack([drift.norm() for drift in drifts]) for drifts in dense], -1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2", help="folder of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=int, help="one hidden size")
    options = parser.parse_args()
    results = []
    if options.only is None:
        model, samples = common.sandbox(SANDBOX_ROWS)
        results.append(compare("sandbox, d 128, 3 layers", model, samples, options.rounds))
    for hidden, (layers, rows) in SHAPES.items():
        if options.only in (None, hidden):
            model = common.llama(hidden, layers)
            name = f"Llama, d {hidden}, {layers} layers"
            samples = common.alpaca_like(rows, model.config.vocab_size)
            results.append(compare(name, model, samples, options.rounds))
    if options.smollm2:
        model = load_model(options.smollm2)
        samples = common.alpaca_like(SMOLLM2_ROWS, model.config.vocab_size)
        results.append(compare("SmolLM2-135M", model, samples, options.rounds))
    table = pd.DataFrame(results).drop(columns="seconds").set_index("model").T
    print(table.to_markdown(floatfmt=".3g"))
    if options.only is None:
        lengths = [
            row for shape in LENGTHS_SHAPES.items() for row in by_length(*shape, options.rounds)
        ]
        print(pd.DataFrame(lengths).drop(columns="seconds").to_markdown(floatfmt=".3g"))
        found = {"max_tokens": MAX_TOKENS, "results": results, "by_length": lengths}
        common.save("gradient_engine", found)
