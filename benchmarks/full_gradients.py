"""Gradients over all weights per row, never projected: their norms, and products with anchors.

    python benchmarks/full_gradients.py FOLDER [--rows 12] [--rounds 3]

FOLDER holds SmolLM2-135M (`results/smollm2-135m/models/smollm2-135m` of its preset); rows have the
lengths of Alpaca rows, the anchors are three mean gradients of two rows each. The engine reads the
gradient over all parameters, and for comparison over what bergson can read: linear layers alone,
which is bergson's default, and with the vocabulary head. bergson scores rows on its way, without
projection, by its own scorer, which keeps the norm as a column; its batches hold 512 or 2,048
tokens, whichever is faster. Besides: peak memory of the passes against that of SQSD's, each a
process of its own, since for the peak all that is freed goes back to the system at once (see
`scaling.py`). Prints tables and saves `benchmarks/measured/full_gradients.json`.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import common
import contenders
import pandas as pd
import torch
from contenders import Run, Task
from torch import Tensor

from sqsd.encoded import EncodedSample
from sqsd.gradients import GradientEngine, HeadPass
from sqsd.models import load_model
from sqsd.probes import FullGradient, mean_gradient

MAX_TOKENS = 2048
BERGSON_TOKENS = (512, 2048)
ANCHORS = 3
ROWS_OF_ANCHOR = 2
# Rows whose tokens fill a batch, for the peak.
PEAK_ROWS = 12
Anchors = Mapping[str, Mapping[str, Tensor]]


class Part(FullGradient):
    """The gradient over the linear layers alone, or these and the head, embeddings left out."""

    def __init__(self, anchors: Anchors, with_head: bool):
        super().__init__(anchors)
        self.with_head = with_head

    def other_modules(self) -> list[str]:
        return []

    def read_head(self, head: HeadPass) -> None:
        if self.with_head:
            super().read_head(head)


def engine(model, samples: list[EncodedSample], probe: FullGradient) -> Run:
    """Norm and products of every row, [n, 1 + K]."""
    reader = GradientEngine(model, [probe])

    def run() -> Tensor:
        batches, parts = [], []
        with reader:
            for batch, readings in reader.read_all(samples, MAX_TOKENS):
                norm = readings.values["gradient_norm"]
                products = readings.values.get("anchor_product", norm.new_empty(len(norm), 0))
                batches.append(batch)
                parts.append(torch.cat([norm[:, None], products], 1))
        return contenders.in_order(batches, parts)

    return run


def linear_anchors(model, anchors: Anchors) -> dict[str, Tensor]:
    """The anchors' rows [K, d_out d_in] of every linear layer, by its name, the head last."""
    probe = FullGradient()
    probe.attach(model, {})
    weights = {name: f"{name}.weight" for name in probe.linear}
    weights[probe.head_name] = probe.head_weight
    return {
        name: torch.stack([a[weight].flatten() for a in anchors.values()])
        if anchors
        else torch.empty(0, model.get_parameter(weight).numel())
        for name, weight in weights.items()
    }


def bergson(
    model, samples: list[EncodedSample], queries: Mapping[str, Tensor], max_tokens: int
) -> Run:
    """The same numbers by bergson, over the linear layers of `queries` [K, d_out d_in].

    Raises ImportError where bergson is not installed.
    """
    contenders.quiet_bergson()
    from bergson import (  # pyright: ignore[reportMissingImports]
        CollectorComputer,
        InMemoryCollector,
    )
    from bergson.data import allocate_batches  # pyright: ignore[reportMissingImports]
    from bergson.score.score_writer import (  # pyright: ignore[reportMissingImports]
        InMemorySequenceScoreWriter,
    )
    from bergson.score.scorer import Scorer  # pyright: ignore[reportMissingImports]

    class WithNorm(Scorer):
        """Keeps the norm that a score would be divided by, behind the scores."""

        def _reduce(self, scores: Tensor, sq_norm: Tensor) -> Tensor:
            return torch.cat([scores, sq_norm.sqrt()[:, None]], 1)

    names = list(queries)
    count = len(queries[names[0]])
    rows, settings = contenders.bergson_rows(samples)
    batches = allocate_batches([len(s.input_ids) for s in samples], max_tokens)

    def run() -> Tensor:
        # A leaf below the layers, without the gradient of a whole embedding that bergson's own
        # command line takes.
        handle = model.get_input_embeddings().register_forward_hook(
            lambda *called: called[-1].requires_grad_()
        )
        writer = InMemorySequenceScoreWriter(len(samples), count + 1)
        scorer = WithNorm(queries, names, writer, model.device, model.dtype, unit_normalize=True)
        collector = InMemoryCollector(
            model=model, data=rows, cfg=settings, target_modules=set(names), scorer=scorer
        )
        computer = CollectorComputer(
            model, rows, collector=collector, batches=batches, cfg=settings
        )
        computer.run_with_collector_hooks()
        handle.remove()
        return writer.scores.roll(1, 1)

    return run


def mean_gradients(model) -> Anchors:
    samples = common.alpaca_like(ANCHORS * ROWS_OF_ANCHOR, model.config.vocab_size, seed=1)
    starts = range(0, ANCHORS * ROWS_OF_ANCHOR, ROWS_OF_ANCHOR)
    return {f"a{i}": mean_gradient(model, samples[i : i + ROWS_OF_ANCHOR]) for i in starts}


def compare(
    model, samples: list[EncodedSample], anchors: Anchors, rounds: int
) -> list[dict[str, Any]]:
    """A row of figures for each part of the weights."""
    # bergson's hooks leave names on the modules; the engine takes their forward.
    other = copy.deepcopy(model)
    ours = {
        "layers": Part(anchors, with_head=False),
        "layers and head": Part(anchors, with_head=True),
        "all": FullGradient(anchors),
    }
    ways = {scope: engine(model, samples, probe) for scope, probe in ours.items()}
    with_head = linear_anchors(model, anchors)
    layers = dict(list(with_head.items())[:-1])
    try:
        for scope, queries in (("layers", layers), ("layers and head", with_head)):
            for most in BERGSON_TOKENS:
                ways[f"bergson, {scope}, {most}"] = bergson(other, samples, queries, most)
    except ImportError as error:
        print(f"without bergson: {error}")
    values: dict[str, Tensor] = {}
    kept = {way: partial(keep, values, way, run) for way, run in ways.items()}
    seconds = common.in_turns(kept, rounds)
    lengths = torch.tensor([1.0, *(length(anchor, model) for anchor in anchors.values())])
    found = []
    for scope in ours:
        row: dict[str, Any] = {"anchors": len(anchors), "weights": scope}
        row["rows_per_s"] = len(samples) / statistics.median(seconds[scope])
        # bergson reads no embeddings and no norms.
        of_bergson = "layers and head" if scope == "all" else scope
        theirs = [way for way in ways if way.rpartition(", ")[0] == f"bergson, {of_bergson}"]
        if theirs:
            best = min(theirs, key=lambda way: statistics.median(seconds[way]))
            row["bergson"] = best
            row["bergson_rows_per_s"] = len(samples) / statistics.median(seconds[best])
            row["bergson_over_engine"] = common.ratio(seconds[best], seconds[scope])
            if scope != "all":
                off = (values[best] - values[scope]) / values[scope][:, :1] / lengths
                row["largest_difference"] = float(off.abs().max())
        found.append(row)
        print(pd.Series(row).to_frame("").to_markdown(floatfmt=".3g"), flush=True)
    found[0]["seconds"] = seconds
    return found


def keep(values: dict[str, Tensor], way: str, run: Run) -> None:
    values[way] = run()


def length(anchor: Mapping[str, Tensor], model) -> float:
    squares = [anchor[name].square().sum() for name, _ in model.named_parameters()]
    return float(torch.stack(squares).sum().sqrt())


def peak(folder: str, way: str) -> dict[str, Any]:
    """What a pass needs beyond the model, the adapters and the anchors, in this process."""
    model = load_model(folder)
    samples = common.alpaca_like(PEAK_ROWS, model.config.vocab_size)
    # The weights come from a file, and into memory when they are first used.
    shortest = min(samples, key=lambda sample: len(sample.input_ids))
    contenders.bare(Task(model, [shortest], {}, {}, MAX_TOKENS))()
    if way == "sqsd":
        directions = {f"v{i}": common.adapter(model, seed=2 + i) for i in range(2)}
        state = common.adapter(model, seed=1)
        run = contenders.engine(Task(model, samples, state, directions, MAX_TOKENS))
    else:
        parameters = dict(model.named_parameters())
        count = ANCHORS if way == "anchors" else 0
        anchors = {f"a{i}": {n: p + i for n, p in parameters.items()} for i in range(count)}
        run = engine(model, samples, FullGradient(anchors))
    _, extra = common.peak_of(run)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return {"pass": way, "extra_mb": extra, "model_mb": weights}


def peaks(folder: str) -> list[dict[str, Any]]:
    """The peak of each pass, and how many times that of SQSD's it is."""
    found = []
    for way in ("sqsd", "norm", "anchors"):
        command = [sys.executable, __file__, folder, "--peak", way]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        row = json.loads(done.stdout.splitlines()[-1])
        found.append(row)
        row["over_sqsd"] = row["extra_mb"] / found[0]["extra_mb"]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="folder of the model")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", choices=("sqsd", "norm", "anchors"))
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(options.folder, options.peak)))
        sys.exit()
    memory = peaks(options.folder)
    print(pd.DataFrame(memory).to_markdown(index=False, floatfmt=".4g"), flush=True)
    model = load_model(options.folder)
    samples = common.alpaca_like(options.rows, model.config.vocab_size)
    results = [
        row
        for anchors in ({}, mean_gradients(model))
        for row in compare(model, samples, anchors, options.rounds)
    ]
    print(pd.DataFrame(results).drop(columns="seconds").to_markdown(floatfmt=".3g"))
    found = {"max_tokens": MAX_TOKENS, "rows": options.rows, "results": results}
    common.save("full_gradients", found | {"memory": memory})
