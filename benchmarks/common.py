"""What the engine's benchmarks share: models with random weights, rows, timing, saving."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from sqsd.chat import encode_rows
from sqsd.drift import Adapter, LoraWeights, cast
from sqsd.encoded import EncodedSample
from sqsd.models import make_model, make_word_tokenizer
from sqsd.sandbox import benign_rows, vocabulary

MEASURED = Path(__file__).parent / "measured"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Tokens of prompt and response at the 0, 10, ..., 100 % quantiles of 999 Alpaca rows in SmolLM2's
# chat template, system message and end token included.
ALPACA_PROMPT = (34, 38, 40, 41, 43, 45, 47, 50, 55, 63, 199)
ALPACA_RESPONSE = (2, 12, 20, 34, 65, 107, 162, 219, 291, 363, 595)


def llama(hidden: int, layers: int, vocabulary: int = 4096, **options) -> LlamaForCausalLM:
    """A Llama of usual proportions with random weights, heads of 64."""
    heads = max(hidden // 64, 2)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 4, 1),
        max_position_embeddings=4096,
        pad_token_id=0,
        **options,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def sandbox(rows: int) -> tuple[LlamaForCausalLM, list[EncodedSample]]:
    """The default configuration's model with random weights, and rows of its benign families."""
    config = yaml.safe_load((MEASURED.parents[1] / "config/config.yaml").read_text())
    tokenizer = make_word_tokenizer(vocabulary())
    model = make_model(tokenizer, config["sandbox"]["architecture"], seed=0)
    table = benign_rows(0, rows)
    length = config["gradients"]["max_length_tokens"]
    return model.eval().requires_grad_(False), encode_rows(table, tokenizer, length)


def adapter(model, seed: int, rank: int = 8, scale: float = 2.0) -> Adapter:
    """Random LoRA weights for every linear layer, small against the weights."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(*shape, generator=generator)

    return {
        name: LoraWeights(normal(rank, m.in_features), normal(m.out_features, rank), scale)
        for name, m in model.named_modules()
        if name.endswith(LINEAR)
    }


def quantile_lengths(quantiles: tuple[int, ...], count: int, seed: int) -> list[int]:
    """Seeded lengths with the given deciles."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(count, generator=generator) * (len(quantiles) - 1)
    low = at.long()
    values = torch.tensor(quantiles, dtype=torch.float32)
    return (values[low] + (at - low) * (values[low + 1] - values[low])).round().int().tolist()


def alpaca_like(count: int, vocabulary: int, seed: int = 0) -> list[EncodedSample]:
    """Random tokens with the lengths of Alpaca rows."""
    prompts = quantile_lengths(ALPACA_PROMPT, count, seed)
    responses = quantile_lengths(ALPACA_RESPONSE, count, seed + 1)
    return samples(list(zip(prompts, responses, strict=True)), vocabulary, seed)


def samples(lengths: list[tuple[int, int]], vocabulary: int, seed: int = 0) -> list[EncodedSample]:
    """Random tokens of (prompt, response) lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [
        EncodedSample(
            f"z{i}",
            torch.randint(1, vocabulary, (prompt + response,), generator=generator).tolist(),
            prompt,
        )
        for i, (prompt, response) in enumerate(lengths)
    ]


def in_turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; one untimed round first.

    The rounds go through the contenders in turn, so that a machine that slows down slows all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            synchronise()
            started = time.perf_counter()
            run()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median over rounds of how many times longer `slow` took."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def matmul_flops(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """What this machine does in a plain matrix product, floating-point operations a second."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(size, size, device=device, dtype=dtype)
    seconds = in_turns({"product": lambda: a @ a}, rounds=5)["product"]
    return 2 * size**3 / min(seconds)


def pass_flops(model, samples: list[EncodedSample]) -> int:
    """Operations of a forward and a backward pass for activations alone, attention not counted.

    4 per weight of a linear layer and token, and per weight of the head and label: 2 forward and
    2 backward.
    """
    linear = sum(m.weight.numel() for n, m in model.named_modules() if n.endswith(LINEAR))
    head = model.get_output_embeddings().weight.numel()
    tokens = sum(len(s.input_ids) for s in samples)
    labels = sum(s.response_tokens for s in samples)
    return 4 * (linear * tokens + head * labels)


def machine() -> dict[str, Any]:
    packages = ("torch", "transformers", "snakemake", "sqsd")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def save(name: str, result: dict[str, Any]) -> None:
    """Write the result beside the day, the versions and the device that gave it."""
    path = MEASURED / f"{name}.json"
    made = {"date": date.today().isoformat(), "machine": machine()}
    path.write_text(json.dumps(made | result, indent=2) + "\n")
    print(f"saved {path}")


def status_mb(field: str) -> float:
    """A field of this process's /proc/self/status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def peak_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """A call's result, and the megabytes it needs at its peak beyond those before (Linux)."""
    before = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = call()
    return result, status_mb("VmHWM") - before


def on(weights: Adapter, model) -> Adapter:
    """An adapter in the model's type, on its device."""
    return cast(weights, model.dtype, model.device)
