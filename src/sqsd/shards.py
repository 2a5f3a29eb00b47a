"""One shard of a data set at one state: from rows to Parquet readings."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch

from sqsd.chat import encode_rows
from sqsd.drift import load_adapter, module_norms
from sqsd.errors import ConfigurationError
from sqsd.gradients import BatchReadings, GradientEngine
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer
from sqsd.packing import EncodedSample
from sqsd.probes import LoraUpdate
from sqsd.states import State, direction_folder
from sqsd.tables import write_table

NOT_FINITE = "gradient is not finite"
GPU_TOKENS = 2**16
CPU_TOKENS = 2**11


def collect_shard(
    rows: pd.DataFrame,
    state: State,
    direction: str,
    checkpoint: int | str,
    shard: int,
    samples_out: str,
    modules_out: str,
    rows_per_shard: int,
    max_length_tokens: int,
    max_tokens_per_batch: int | str,
    dtype: str,
    checkpointing: bool,
    provenance: Mapping[str, Any],
) -> None:
    """Write the `gradient_samples` and `gradient_modules` tables of one shard, in row order.

    rows: the whole `dataset` table. state: with an adapter, whose LoRA gradients are taken.
    direction: folder of the direction's training, of which the adapter at `checkpoint` is read
    against. A row that has no gradient (a problem of the source, a response cut off entirely, a
    NaN) keeps its place in the samples table with the reason and a null loss, and has no module
    rows. Raises ConfigurationError for a state without an adapter, or a checkpoint that is not
    there.
    """
    if state.adapter is None:
        raise ConfigurationError(
            f"state '{state.name}' has no adapter, so a row has no LoRA update there; "
            "score at a checkpoint of a pilot or at a steered state"
        )
    rows = rows.iloc[shard * rows_per_shard :][:rows_per_shard]
    tokenizer = load_tokenizer(state.model)
    with ThreadPoolExecutor(1) as other:
        encoding = other.submit(encode_rows, rows, tokenizer, max_length_tokens)
        model = load_model(state.model, dtype)
        loaded = load_adapter(direction_folder(direction, checkpoint))
        encoded = encoding.result()
    samples = samples_table(encoded)
    usable = [sample for sample in encoded if sample.reason is None]
    adapter = load_adapter(state.adapter, state.multiplier)
    probe = LoraUpdate({"direction": loaded})
    engine = GradientEngine(model, [probe], adapter, checkpointing)
    readings = no_readings(probe)
    if usable:
        readings = read_shard(engine, usable, budget(max_tokens_per_batch, model.device))
    good = readings.finite.numpy()
    ids = [sample.sample_id for sample, finite in zip(usable, good, strict=True) if finite]
    losses = dict(zip(ids, readings.loss.numpy()[good], strict=True))
    samples["loss"] = samples["sample_id"].map(losses).astype("float64")
    samples.loc[samples["loss"].isna() & samples["reason"].isna(), "reason"] = NOT_FINITE
    columns = ["sample_id", "loss", "prompt_tokens", "response_tokens", "reason"]
    modules = module_rows(
        ids,
        probe.modules,
        readings.values["update_norm"].numpy()[good],
        readings.values["inner_product"].numpy()[good, 0],
        module_norms(loaded),
    )
    write_table(samples[columns], samples_out, "gradient_samples", provenance)
    write_table(modules, modules_out, "gradient_modules", provenance)
    print(f"{len(ids)} rows with a gradient, {len(samples) - len(ids)} kept with a reason")


def samples_table(encoded: list[EncodedSample]) -> pd.DataFrame:
    """The `samples` table: lengths in tokens, and why a row cannot be scored."""
    return pd.DataFrame(
        {
            "sample_id": pd.Series([sample.sample_id for sample in encoded], dtype="str"),
            "prompt_tokens": [sample.prompt_tokens for sample in encoded],
            "response_tokens": [sample.response_tokens for sample in encoded],
            "reason": pd.Series([sample.reason for sample in encoded], dtype="str"),
        }
    )


def budget(max_tokens_per_batch: int | str, device: torch.device) -> int:
    """Tokens per batch to begin with: the configuration's, or for `auto` one by the device.

    A GPU is offered more than it holds, and the engine halves until it fits. On a CPU more than
    `CPU_TOKENS` gains no speed.
    """
    if max_tokens_per_batch == "auto":
        return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    return int(max_tokens_per_batch)


def read_shard(
    engine: GradientEngine, samples: list[EncodedSample], max_tokens: int
) -> BatchReadings:
    """Readings of all samples in their order, in float64 on the CPU."""
    indices: list[int] = []
    parts: list[BatchReadings] = []
    with engine, progress("gradients", len(samples), "row") as advance:
        engine.check_loss(min(samples, key=lambda sample: len(sample.input_ids)))
        for batch, readings in engine.read_all(samples, max_tokens):
            indices += batch
            # Left on the device: to copy them now would make it wait for us.
            parts.append(readings)
            advance(len(batch))
    order = torch.tensor(indices).argsort()
    return BatchReadings(
        torch.cat([part.loss for part in parts]).double().cpu()[order],
        torch.cat([part.finite for part in parts]).cpu()[order],
        {
            name: torch.cat([part.values[name] for part in parts]).double().cpu()[order]
            for name in parts[0].values
        },
    )


def no_readings(probe: LoraUpdate) -> BatchReadings:
    """Those of a shard in which no row has a gradient."""
    modules, directions = len(probe.modules), len(probe.directions)
    values = {
        "update_norm": torch.empty(0, modules).double(),
        "inner_product": torch.empty(0, directions, modules).double(),
    }
    return BatchReadings(torch.empty(0).double(), torch.empty(0, dtype=torch.bool), values)


def module_rows(
    ids: list[str],
    modules: list[str],
    update_norm: np.ndarray,
    inner_product: np.ndarray,
    direction_norms: Mapping[str, float],
) -> pd.DataFrame:
    """The `gradient_modules` table of samples ids [n], update_norm and inner_product [n, M].

    direction_norms: the direction's norm by module.
    """
    module = np.tile(np.arange(len(modules)), len(ids))
    return pd.DataFrame(
        {
            "sample_id": pd.array(ids, dtype="str").repeat(len(modules)),
            "module": pd.array(modules, dtype="str").take(module),
            "update_norm": update_norm.ravel(),
            "inner_product": inner_product.ravel(),
            "direction_norm": np.tile([direction_norms[m] for m in modules], len(ids)),
        }
    )
