"""One shard of a data set at one state: from rows to Parquet readings."""

import json

import pandas as pd

from sqsd.chat import encode_pair
from sqsd.drift import load_adapter, module_norms
from sqsd.gradients import EncodedSample, GradientEngine, pack
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer
from sqsd.tables import read_table, write_table


def collect_shard(
    model_folder: str,
    rows_file: str,
    states_file: str,
    state: str,
    directions: dict[str, str],
    shard: int,
    samples_out: str,
    modules_out: str,
    rows_per_shard: int,
    max_length_tokens: int,
    max_tokens_per_batch: int,
) -> None:
    """Write the `gradient_samples` and `gradient_modules` tables of one shard, in row order.

    A row that has no gradient (a problem of the source, a response cut off entirely, a NaN) keeps
    its place in the samples table with the reason and a null loss, and has no module rows.
    """
    rows = read_table(rows_file, "dataset").iloc[shard * rows_per_shard :][:rows_per_shard]
    with open(states_file) as file:
        chosen = json.load(file)[state]
    tokenizer = load_tokenizer(model_folder)
    samples, encoded = encode_rows(rows, tokenizer, max_length_tokens)
    loaded = {name: load_adapter(folder) for name, folder in directions.items()}
    norms = {name: module_norms(adapter) for name, adapter in loaded.items()}
    frames = []
    engine = GradientEngine(
        load_model(model_folder), load_adapter(chosen["adapter"], chosen["multiplier"]), loaded
    )
    losses: dict[str, float] = {}
    failed: dict[str, str] = {}
    batches = pack([len(s.input_ids) for s in encoded], max_tokens_per_batch)
    with engine, progress(None, "gradients", len(encoded), "row") as bar:
        for batch in batches:
            members = [encoded[i] for i in batch]
            readings = engine.read(members, tokenizer.pad_token_id)
            for i, sample in enumerate(members):
                if not readings.finite[i]:
                    failed[sample.sample_id] = "gradient is not finite"
                    continue
                losses[sample.sample_id] = float(readings.loss[i])
                for d, direction in enumerate(loaded):
                    frames.append(
                        pd.DataFrame(
                            {
                                "sample_id": sample.sample_id,
                                "module": engine.modules,
                                "direction": direction,
                                "update_norm": readings.update_norm[i].double(),
                                "inner_product": readings.inner_product[i, d].double(),
                                "direction_norm": [norms[direction][m] for m in engine.modules],
                            }
                        )
                    )
            bar.update(len(members))
    samples["loss"] = samples["sample_id"].map(losses).astype("float64")
    samples["reason"] = samples["reason"].fillna(samples["sample_id"].map(failed))
    order = {sample_id: i for i, sample_id in enumerate(samples["sample_id"])}
    modules = pd.concat(frames, ignore_index=True)
    modules = modules.sort_values(
        "sample_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True
    )
    columns = ["sample_id", "loss", "prompt_tokens", "response_tokens", "reason"]
    write_table(samples[columns], samples_out, "gradient_samples")
    write_table(modules, modules_out, "gradient_modules")
    print(f"{len(losses)} rows scored, {len(samples) - len(losses)} kept with a reason")


def encode_rows(
    rows: pd.DataFrame, tokenizer, max_length_tokens: int
) -> tuple[pd.DataFrame, list[EncodedSample]]:
    """The samples table (without loss) of all rows, and the encoded rows that have a gradient."""
    table, encoded = [], []
    known = rows.astype({"problem": object}).where(rows.notna(), None)
    for row in known.itertuples():
        pair = encode_pair(tokenizer, str(row.prompt), str(row.response or ""), max_length_tokens)
        reason = pair.reason if row.problem is None else str(row.problem)
        counts = (pair.prompt_tokens, max(pair.response_tokens, 0))
        table.append((str(row.sample_id), *counts, reason))
        if reason is None:
            encoded.append(EncodedSample(str(row.sample_id), pair.input_ids, pair.prompt_tokens))
    columns = ["sample_id", "prompt_tokens", "response_tokens", "reason"]
    frame = pd.DataFrame(table, columns=columns).astype({"reason": "str"})
    return frame, encoded
