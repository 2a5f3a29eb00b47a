"""One shard of a data set: from rows to Parquet readings."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from sqsd.chat import encode_rows
from sqsd.drift import Adapter, load_adapter, module_norms
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError
from sqsd.files import written_whole
from sqsd.gradients import BatchReadings, GradientEngine, Probe
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer
from sqsd.probes import FullGradient, HiddenStates, LoraUpdate, WeightUpdate, mean_gradient
from sqsd.provenance import KEY
from sqsd.readings import shard_rows
from sqsd.states import State, direction_folder
from sqsd.tables import write_table

NOT_FINITE = "gradient is not finite"
GPU_TOKENS = 2**16
CPU_TOKENS = 2**11
# A run of which more rows than this share are cut off scores their beginnings.
MOST_CUT_OFF = 0.9
STAND_IN = EncodedSample("", [0] * 8, 1)


@dataclass(frozen=True)
class Shard:
    """Rows of a data set that one job reads, and how (the section `gradients`).

    dataset: the whole table, where the rows are a part of it.
    """

    rows: pd.DataFrame
    max_length_tokens: int
    max_tokens_per_batch: int | str
    dtype: str
    checkpointing: bool
    dataset: pd.DataFrame | None = None

    @classmethod
    def of(cls, rows: pd.DataFrame, shard: int, rows_per_shard: int, **settings) -> Self:
        """rows: the whole `dataset` table; settings: the other fields."""
        return cls(shard_rows(rows, shard, rows_per_shard), dataset=rows, **settings)


def collect_shard(
    shard: Shard,
    state: State,
    direction: str,
    checkpoint: int | str,
    samples_out: str,
    modules_out: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the `gradient_samples` and `gradient_modules` tables of one shard, in row order.

    state: with an adapter, whose LoRA gradients are taken, or theta_0 without one, where updates
    are those of the weights (`probes.WeightUpdate`). direction: folder of the direction's
    training, of which the adapter at `checkpoint` is read against. A row that has no gradient (a
    problem of the source, a response cut off entirely, a NaN) keeps its place in the samples
    table with the reason and a null loss, and has no module rows. Raises ConfigurationError for a
    checkpoint that is not there.
    """
    loaded = load_adapter(direction_folder(direction, checkpoint))
    adapter, probe = update_at(state, {"direction": loaded})
    samples, values = read_probe(shard, state.model, probe, adapter)
    ids = samples.loc[samples["reason"].isna(), "sample_id"].to_list()
    modules = module_rows(
        ids, probe.modules, values["update_norm"], values["inner_product"][:, 0],
        module_norms(loaded),
    )  # fmt: skip
    write_table(samples, samples_out, "gradient_samples", provenance)
    write_table(modules, modules_out, "gradient_modules", provenance)


def update_at(
    state: State, directions: Mapping[str, Adapter]
) -> tuple[Adapter | None, LoraUpdate | WeightUpdate]:
    """A state's adapter, None at theta_0, and the probe of a row's update there."""
    if state.adapter is None:
        return None, WeightUpdate(directions)
    return load_adapter(state.adapter, state.multiplier), LoraUpdate(directions)


def collect_hidden_states(
    shard: Shard, model: str, layer: int, token: int, out: str, provenance: Mapping[str, Any]
) -> None:
    """Write the `hidden_states` table of one shard, at one layer and token.

    In float32, which holds what a smaller type has too; of a float64 model in float64.

    layer, token: as in `probes.HiddenStates`. Raises DataError for a layer that is not there.
    """
    samples, values = read_probe(shard, model, HiddenStates([layer], [token]))
    kept = np.float64 if shard.dtype == "float64" else np.float32
    states = list(values["hidden_state"][:, 0, 0].astype(kept))
    read = samples["reason"].isna()
    samples["hidden_state"] = pd.Series(states, samples.index[read], dtype=object)
    write_table(samples.drop(columns="loss"), out, "hidden_states", provenance)


def collect_full_gradients(
    shard: Shard,
    model: str,
    anchors: Mapping[str, str],
    samples_out: str,
    products_out: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the `gradients` and `anchor_products` tables of one shard.

    Of gradients over all parameters of the model as it is; anchors: files of mean gradients
    (`make_anchor`) by name.
    """
    loaded = {name: load_file(path) for name, path in anchors.items()}
    samples, values = read_probe(shard, model, FullGradient(loaded))
    read = samples["reason"].isna()
    samples["gradient_norm"] = pd.Series(values["gradient_norm"], samples.index[read])
    ids = samples.loc[read, "sample_id"]
    products = pd.DataFrame(
        {
            "sample_id": ids.repeat(len(loaded)).astype("str"),
            "anchor": pd.array(list(loaded) * len(ids), dtype="str"),
            "product": values["anchor_product"].ravel() if loaded else np.empty(0),
        }
    )
    write_table(samples, samples_out, "gradients", provenance)
    write_table(products, products_out, "anchor_products", provenance)


def make_anchor(
    rows: pd.DataFrame,
    model: str,
    first_tokens: int | None,
    max_length_tokens: int,
    dtype: str,
    out: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the mean of the rows' normalised gradients over all parameters as safetensors.

    first_tokens: of each response, the loss is of so many; None is all. Raises DataError naming a
    row that has no gradient, and why: an anchor of fewer rows would be another one.
    """
    samples = encode_rows(rows, load_tokenizer(model), max_length_tokens)
    for sample in samples:
        if sample.reason is not None:
            raise DataError(
                f"anchor {sample.sample_id} has no gradient ({sample.reason}); "
                "correct the anchors' data set"
            )
    cut = samples if first_tokens is None else [sample.first(first_tokens) for sample in samples]
    gradients = mean_gradient(load_model(model, dtype), cut)
    with written_whole(out) as temporary:
        tensors = {name: g.cpu().contiguous() for name, g in gradients.items()}
        save_file(tensors, temporary, metadata={KEY: json.dumps(provenance)})


def read_probe(
    shard: Shard, model_folder: str, probe: Probe, adapter: Adapter | None = None
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The `gradient_samples` table of a shard, and a probe's readings of the rows it could read.

    adapter: the state that gradients are taken at, None for the model as it is.
    """
    (found,) = read_probes(shard, model_folder, [(probe, adapter)])
    return found


def read_probes(
    shard: Shard, model_folder: str, passes: Sequence[tuple[Probe, Adapter | None]]
) -> Iterator[tuple[pd.DataFrame, dict[str, np.ndarray]]]:
    """`read_probe` of several probes in turn, each at a state of its own."""
    tokenizer = load_tokenizer(model_folder)
    with ThreadPoolExecutor(1) as other:
        encoding = other.submit(encode_shard, shard, tokenizer)
        model = load_model(model_folder, shard.dtype)
        encoded = encoding.result()
    for probe, adapter in passes:
        yield read_encoded(shard, model, encoded, probe, adapter)


def read_encoded(
    shard: Shard, model, encoded: list[EncodedSample], probe: Probe, adapter: Adapter | None
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """`read_probe` of a loaded model and encoded rows."""
    samples = samples_table(encoded)
    usable = [sample for sample in encoded if sample.reason is None]
    engine = GradientEngine(model, [probe], adapter, shard.checkpointing)
    most = budget(shard.max_tokens_per_batch, model.device)
    # Without a usable row the readings are those of a stand-in, of which none is kept.
    readings = read_shard(engine, usable or [STAND_IN], most)
    good = readings.finite.numpy() if usable else np.zeros(1, dtype=bool)
    ids = [sample.sample_id for sample, finite in zip(usable, good, strict=False) if finite]
    losses = dict(zip(ids, readings.loss.numpy()[good], strict=True))
    samples["loss"] = samples["sample_id"].map(losses).astype("float64")
    samples.loc[samples["loss"].isna() & samples["reason"].isna(), "reason"] = NOT_FINITE
    print(f"{len(ids)} rows are read, {len(samples) - len(ids)} kept with a reason")
    columns = ["sample_id", "loss", "prompt_tokens", "response_tokens", "reason"]
    values = {name: value.numpy()[good] for name, value in readings.values.items()}
    return samples[columns], values


def encode_shard(shard: Shard, tokenizer) -> list[EncodedSample]:
    """A shard's rows, cut. Raises DataError as `check_cut_off` of its data set."""
    whole = encode_rows(shard.rows, tokenizer, None)
    if shard.dataset is not None and cut_off(whole, shard.max_length_tokens):
        # Of a data set in order of length a part may be.
        check_cut_off(encode_rows(shard.dataset, tokenizer, None), shard.max_length_tokens)
    return [sample.cut(shard.max_length_tokens) for sample in whole]


def encode_samples(rows: pd.DataFrame, model: str, max_length_tokens: int) -> pd.DataFrame:
    """The `samples` table of a `dataset` table, by the tokenizer in a model's folder.

    Raises DataError as `check_cut_off`.
    """
    whole = encode_rows(rows, load_tokenizer(model), None)
    check_cut_off(whole, max_length_tokens)
    return samples_table([sample.cut(max_length_tokens) for sample in whole])


def check_cut_off(samples: Sequence[EncodedSample], max_length_tokens: int) -> None:
    """Raises DataError where more than `MOST_CUT_OFF` of the usable samples are longer."""
    if not (cut := cut_off(samples, max_length_tokens)):
        return
    lengths = usable_lengths(samples)
    most = lengths[math.ceil(MOST_CUT_OFF * len(lengths)) - 1]
    raise DataError(
        f"{cut} of {len(lengths)} rows are longer than max_length_tokens={max_length_tokens} "
        f"and would be cut off; give `gradients: {{max_length_tokens: {most}}}` for "
        f"{MOST_CUT_OFF:.0%} of them, {lengths[-1]} for all, or shorten the rows"
    )


def cut_off(samples: Sequence[EncodedSample], max_length_tokens: int) -> int:
    """How many usable samples are longer; 0 where they are not nearly all."""
    lengths = usable_lengths(samples)
    cut = sum(length > max_length_tokens for length in lengths)
    return cut if cut > MOST_CUT_OFF * len(lengths) else 0


def usable_lengths(samples: Sequence[EncodedSample]) -> list[int]:
    return sorted(len(sample.input_ids) for sample in samples if sample.reason is None)


def samples_table(encoded: list[EncodedSample]) -> pd.DataFrame:
    """The `samples` table: lengths in tokens, and why a row cannot be scored.

    What is no label counts as prompt, wherever it stands.
    """
    return pd.DataFrame(
        {
            "sample_id": pd.Series([sample.sample_id for sample in encoded], dtype="str"),
            "prompt_tokens": [len(s.input_ids) - s.response_tokens for s in encoded],
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
