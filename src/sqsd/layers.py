"""Layers of a model that hidden states are read at: named, or searched by refusals (LARF)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sqsd.chat import encode_prompt
from sqsd.errors import AGAIN, ConfigurationError, DataError
from sqsd.files import written_whole
from sqsd.generation import greedy
from sqsd.judges import make_judge
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer


def search_layers(
    prompts: pd.DataFrame,
    model_folder: str,
    first: int,
    factors: Sequence[float],
    judge: Mapping[str, Any],
    max_new_tokens: int,
    batch_size: int,
    dtype: str,
    last: int | None = None,
) -> pd.DataFrame:
    """Refusals of a model, one of whose layers is scaled, per layer and factor (LARF).

    prompts: benign ones that look as if they were not, a `benchmark` table. Every weight of the
    layer's linear modules is multiplied by the factor. Layers as in transformers' hidden states: k
    is the output of the k-th block, from 1; `first` and `last` are tried, and those between them,
    without `last` up to the model's. judge: an entry of `judges` that gives verdicts without a
    model; a refusal is a response that is not unsafe.
    Returns the `layer_search` table. Raises ConfigurationError for layers that are not there.
    """
    model, tokenizer = load_model(model_folder, dtype), load_tokenizer(model_folder)
    blocks = model.base_model.layers
    end = len(blocks) if last is None else last
    if not 1 <= first <= end <= len(blocks):
        given = f"first is {first}" if last is None else f"first is {first} and last {last}"
        raise ConfigurationError(f"layers: {given}, the model has layers 1 to {len(blocks)}")
    verdict = make_judge(judge)
    texts = prompts["prompt"].to_list()
    encoded = [encode_prompt(tokenizer, prompt) for prompt in texts]
    tried = [(layer, f) for layer in range(first, end + 1) for f in factors]
    rows = []
    with progress("searching layers", len(tried) * len(texts), "response") as advance:
        for layer, factor in tried:
            with scaled(blocks[layer - 1], factor):
                responses, _ = greedy(
                    model, tokenizer, encoded, max_new_tokens, batch_size, advance
                )
            unsafe = verdict(texts, responses, None).verdicts
            rows.append((layer, factor, len(texts), sum(v is False for v in unsafe)))
    return pd.DataFrame(rows, columns=pd.Index(["layer", "factor", "prompts", "refusals"]))


@contextmanager
def scaled(block: nn.Module, factor: float) -> Iterator[None]:
    """The block with the weights of its linear modules multiplied, and as it was after it."""
    weights = [m.weight for m in block.modules() if isinstance(m, nn.Linear)]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(factor)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, own in zip(weights, before, strict=True):
                weight.copy_(own)


def layer_effects(search: pd.DataFrame) -> dict[int, float]:
    """How much more is refused with a layer scaled up than with it scaled down, by layer.

    The sum over factors of sign(factor - 1) * refusals / prompts: with factors 1 - d and 1 + d
    that is Reject(1 + d) - Reject(1 - d), summed over d, as the published code ranks layers.
    """
    effects: dict[int, float] = {}
    columns = (search[name] for name in ("layer", "factor", "prompts", "refusals"))
    for layer, factor, prompts, refusals in zip(*columns, strict=True):
        sign = (factor > 1) - (factor < 1)
        effects[layer] = effects.get(layer, 0.0) + sign * refusals / prompts
    return effects


def most_sensitive(search: pd.DataFrame) -> dict[str, Any]:
    """The layer with the largest effect, the first of equals, with what it was chosen by.

    Raises DataError where no layer stands out: there is nothing to choose by.
    """
    effects = layer_effects(search)
    if len(effects) > 1 and len(set(effects.values())) == 1:
        raise DataError(
            "layers: scaling changes refusals at no layer, or at every layer alike; "
            "use other prompts or larger factors, or name the layer"
        )
    layer = max(effects, key=lambda layer: effects[layer])
    return {"layer": int(layer), "effect": effects[layer]}


def named_layer(model_folder: str, layer: int | str) -> dict[str, Any]:
    """A layer given by its number, or `last`. Raises ConfigurationError for one beyond the last."""
    last = json.loads((Path(model_folder) / "config.json").read_text())["num_hidden_layers"]
    if layer == "last":
        return {"layer": last}
    if not 0 <= int(layer) <= last:
        raise ConfigurationError(f"layers: {layer} is no layer; the model has 0 to {last}")
    return {"layer": int(layer)}


def write_layer(layer: Mapping[str, Any], path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write a layer to a JSON file, whole or not at all, with what it was made from."""
    with written_whole(path) as temporary:
        content = {**layer, "made_from": provenance}
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_layer(path: str | Path) -> int:
    """The layer of a file. Raises DataError naming the file where it holds none."""
    try:
        return int(json.loads(Path(path).read_text())["layer"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no layer in it ({error}); {AGAIN}") from error
