"""Scoring at Qwen3-8B's shape with random weights in bfloat16, rows of 200 tokens.

    python benchmarks/gpu.py                              # on a GPU
    python benchmarks/gpu.py --layers 2 --rows 4 --rounds 1   # the same code anywhere

Samples and tokens a second, the share of the card's dense bfloat16 peak (NVIDIA's figure for an
H100 SXM, 989 TFLOP/s; 4 operations a linear weight and token, 2 forward and 2 backward), the share
of a plain matrix product in the same run, peak memory, and the published way on a few of the same
rows. Prints a table; with all 36 layers on a GPU it also saves `benchmarks/measured/gpu.json`.
"""

import argparse
import statistics
from typing import Any

import common
import contenders
import pandas as pd
import torch
from contenders import Task
from transformers import Qwen3Config, Qwen3ForCausalLM

PEAK_FLOPS = 989e12
LENGTH, PROMPT = 200, 60
LAYERS = 36


def qwen3_8b(layers: int, device: str) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
        max_position_embeddings=4096, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def measure(layers: int, rows: int, few: int, tokens: int, rounds: int) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = qwen3_8b(layers, device)
    state = common.on(common.adapter(model, seed=1), model)
    directions = {f"v{i}": common.on(common.adapter(model, seed=2 + i), model) for i in range(2)}
    samples = common.samples([(PROMPT, LENGTH - PROMPT)] * rows, model.config.vocab_size)
    task = Task(model, samples, state, directions, tokens)
    one = Task(model, samples[:few], state, directions, tokens)
    ways = {"engine": contenders.engine(task), "bare": contenders.bare(task)}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = common.in_turns(ways, rounds)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    seconds |= common.in_turns({"published": contenders.published(one)}, 1)
    ours = statistics.median(seconds["engine"])
    flops = common.pass_flops(model, samples)
    return {
        "layers": layers,
        "rows": rows,
        "tokens_per_batch": tokens,
        "samples_per_s": rows / ours,
        "tokens_per_s": rows * LENGTH / ours,
        "share_of_h100_peak": flops / ours / PEAK_FLOPS if device == "cuda" else None,
        "share_of_matmul": flops / ours / common.matmul_flops(torch.bfloat16, 4096),
        "over_bare": common.ratio(seconds["engine"], seconds["bare"]),
        "peak_gib": peak,
        "published_samples_per_s": few / seconds["published"][0],
        "published_over_engine": seconds["published"][0] / few / (ours / rows),
        "seconds": seconds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--few", type=int, default=2, help="rows of the published way")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result = measure(options.layers, options.rows, options.few, options.tokens, options.rounds)
    print(pd.Series(result).drop("seconds").to_frame("value").to_markdown())
    if options.layers == LAYERS and torch.cuda.is_available():
        common.save("gpu", result)
