"""One shard of a data set at one state: from rows to Parquet readings."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sqsd.chat import encode_rows
from sqsd.drift import cast, load_adapter, module_norms
from sqsd.gradients import EncodedSample, GradientEngine, pack
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer
from sqsd.tables import read_table, write_table

NOT_FINITE = "gradient is not finite"


def collect_shard(
    model_folder: str,
    rows_file: str,
    state_file: str,
    directions: dict[str, str],
    shard: int,
    samples_out: str,
    modules_out: str,
    rows_per_shard: int,
    max_length_tokens: int,
    max_tokens_per_batch: int,
    dtype: str,
) -> None:
    """Write the `gradient_samples` and `gradient_modules` tables of one shard, in row order.

    directions: adapter folder by direction. A row that has no gradient (a problem of the source,
    a response cut off entirely, a NaN) keeps its place in the samples table with the reason and a
    null loss, and has no module rows.
    """
    rows = read_table(rows_file, "dataset").iloc[shard * rows_per_shard :][:rows_per_shard]
    state = json.loads(Path(state_file).read_text())
    tokenizer = load_tokenizer(model_folder)
    pairs = encode_rows(rows, tokenizer, max_length_tokens)
    samples = pd.DataFrame(
        {
            "sample_id": rows["sample_id"].to_numpy(),
            "prompt_tokens": [pair.prompt_tokens for pair in pairs],
            "response_tokens": [pair.response_tokens for pair in pairs],
            "reason": pd.Series([pair.reason for pair in pairs], dtype="str"),
        }
    )
    encoded = [
        EncodedSample(sample_id, pair.input_ids, pair.prompt_tokens)
        for sample_id, pair in zip(samples["sample_id"], pairs, strict=True)
        if pair.reason is None
    ]
    loaded = {name: load_adapter(folder) for name, folder in directions.items()}
    model = load_model(model_folder, dtype)
    engine = GradientEngine(
        model,
        cast(load_adapter(state["adapter"], state["multiplier"]), model.dtype, model.device),
        {name: cast(adapter, model.dtype, model.device) for name, adapter in loaded.items()},
    )
    positions: list[int] = []
    losses, norms, products = [], [], []
    with engine, progress("gradients", len(encoded), "row") as advance:
        for batch in pack([len(s.input_ids) for s in encoded], max_tokens_per_batch):
            readings = engine.read([encoded[i] for i in batch], tokenizer.pad_token_id)
            finite = readings.finite.cpu()
            positions += [i for i, good in zip(batch, finite.tolist(), strict=True) if good]
            losses.append(readings.loss.double().cpu()[finite])
            norms.append(readings.update_norm.double().cpu()[finite])
            products.append(readings.inner_product.double().cpu()[finite])
            advance(len(batch))
    order = np.argsort(positions)
    ids = [encoded[positions[i]].sample_id for i in order]
    samples["loss"] = samples["sample_id"].map(dict(zip(ids, joined(losses)[order], strict=True)))
    samples["loss"] = samples["loss"].astype("float64")
    samples.loc[samples["loss"].isna() & samples["reason"].isna(), "reason"] = NOT_FINITE
    columns = ["sample_id", "loss", "prompt_tokens", "response_tokens", "reason"]
    modules = module_rows(
        ids,
        engine.modules,
        joined(norms, len(engine.modules))[order],
        joined(products, len(loaded), len(engine.modules))[order],
        {name: module_norms(adapter) for name, adapter in loaded.items()},
    )
    write_table(samples[columns], samples_out, "gradient_samples")
    write_table(modules, modules_out, "gradient_modules")
    print(f"{len(ids)} rows with a gradient, {len(samples) - len(ids)} kept with a reason")


def joined(parts: list[Tensor], *shape: int) -> np.ndarray:
    """The batches' readings as one array [n, *shape], also for no batch at all."""
    return torch.cat(parts).numpy() if parts else np.empty((0, *shape))


def module_rows(
    ids: list[str],
    modules: list[str],
    update_norm: np.ndarray,
    inner_product: np.ndarray,
    direction_norms: dict[str, dict[str, float]],
) -> pd.DataFrame:
    """The `gradient_modules` table of samples ids [n], update_norm [n, M], inner_product [n, D, M].

    direction_norms: norm by module, by direction, in the order of D.
    """
    columns = {
        "sample_id": pd.Series(np.repeat(ids, len(modules)), dtype="str"),
        "module": pd.Series(modules * len(ids), dtype="str"),
        "update_norm": update_norm.ravel(),
    }
    for d, name in enumerate(direction_norms):
        columns[f"inner_product.{name}"] = inner_product[:, d].ravel()
    for name, norms in direction_norms.items():
        columns[f"direction_norm.{name}"] = np.tile([norms[m] for m in modules], len(ids))
    return pd.DataFrame(columns)
