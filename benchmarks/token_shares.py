"""What token shares cost beside the pass that they are read in, and how exactly they add up.

    python benchmarks/token_shares.py [--smollm2 FOLDER] [--rounds 5]

The same rows with and without `TokenShares`, in turns, one direction (as a job has), in seconds of
one core's time, so that what else runs on the machine counts little. And repeated rows among
100,000 of words drawn by Zipf's law. Prints a table and saves
`benchmarks/measured/token_shares.json`.
"""

import argparse
import statistics
import time
from typing import Any

import common
import numpy as np
import pandas as pd
import torch

from sqsd.encoded import EncodedSample
from sqsd.gradients import GradientEngine
from sqsd.models import load_model
from sqsd.probes import LoraUpdate, TokenShares
from sqsd.repeats import find_repeats

MAX_TOKENS = 2048
SHAPES = {128: (4, 32), 512: (3, 12), 1024: (2, 8)}
SANDBOX_ROWS, SMOLLM2_ROWS = 250, 4
REPEATS_ROWS, WORDS_PER_ROW, VOCABULARY = 100_000, 80, 20_000


def measure(name: str, model, samples: list[EncodedSample], rounds: int) -> dict[str, Any]:
    state, directions = common.adapter(model, seed=1), {"v": common.adapter(model, seed=2)}
    length = max(len(sample.input_ids) for sample in samples)
    probes: dict[str, list[Any]] = {"without": [LoraUpdate(directions)]}
    probes["with"] = [LoraUpdate(directions), TokenShares(directions, length)]

    def read(way: str) -> list[dict[str, torch.Tensor]]:
        with GradientEngine(model, probes[way], state) as engine:
            return [found.values for _, found in engine.read_all(samples, MAX_TOKENS)]

    norms = [(w.scale * w.B @ w.A).norm() for _, w in sorted(directions["v"].items())]
    off = max(
        float(((v["token_share"].double().sum(-1) - v["inner_product"])[:, 0] / v["update_norm"]
               / torch.stack(norms)).abs().max())
        for v in read("with")
    )  # fmt: skip
    seconds: dict[str, list[float]] = {way: [] for way in probes}
    for turn in range(rounds + 1):
        for way in probes:
            started = time.process_time()
            read(way)
            if turn:  # the first one is to warm up
                seconds[way].append(time.process_time() - started)
    return {
        "model": name, "rows": len(samples),
        "tokens": sum(len(sample.input_ids) for sample in samples),
        "seconds": statistics.median(seconds["without"]),
        "with_over_without": common.ratio(seconds["with"], seconds["without"]),
        "largest_difference": off, "all_seconds": seconds,
    }  # fmt: skip


def repeats() -> dict[str, Any]:
    """Seconds and megabytes of `find_repeats`; every tenth row is another with one word changed."""
    generator = np.random.default_rng(0)
    words = generator.zipf(1.2, (REPEATS_ROWS, WORDS_PER_ROW)) % VOCABULARY
    words[9::10] = words[::10]
    words[9::10, 40] = VOCABULARY
    texts = [" ".join(map(str, row)) for row in words]
    rows = pd.DataFrame({"sample_id": [f"r{i}" for i in range(len(texts))], "prompt": texts})
    started = time.process_time()
    table, peak_mb = common.peak_of(lambda: find_repeats(rows.assign(response=""), 0.8))
    seconds = time.process_time() - started
    return {"rows": REPEATS_ROWS, "alike": len(table), "seconds": seconds, "peak_mb": peak_mb}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2", help="folder of the model")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alike = repeats()  # first: later its memory would be what models have left
    print(alike, flush=True)
    results = [measure("sandbox, d 128, 3 layers", *common.sandbox(SANDBOX_ROWS), options.rounds)]
    for hidden, (layers, count) in SHAPES.items():
        model = common.llama(hidden, layers)
        samples = common.alpaca_like(count, model.config.vocab_size)
        results.append(
            measure(f"Llama, d {hidden}, {layers} layers", model, samples, options.rounds)
        )
    if options.smollm2:
        model = load_model(options.smollm2)
        samples = common.alpaca_like(SMOLLM2_ROWS, model.config.vocab_size)
        results.append(measure("SmolLM2-135M", model, samples, options.rounds))
    table = pd.DataFrame(results).drop(columns="all_seconds")
    print(table.to_markdown(index=False, floatfmt=".3g"), flush=True)
    common.save("token_shares", {"max_tokens": MAX_TOKENS, "results": results, "repeats": alike})
