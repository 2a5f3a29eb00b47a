"""Losses of rows: token by token, and how they change along a direction (Eqs. 13, 17-19)."""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from sqsd.chat import encode_rows
from sqsd.drift import added, load_adapter
from sqsd.encoded import EncodedSample
from sqsd.evaluation import at_each, with_origin
from sqsd.gradients import exact
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer
from sqsd.probes import LoraUpdate, Losses, WeightUpdate
from sqsd.shards import Shard, read_probes
from sqsd.states import State, direction_folder
from sqsd.subsets import length_groups, representative


def measure_token_losses(
    rows: pd.DataFrame,
    samples: pd.DataFrame,
    model: str,
    size: int,
    max_length_tokens: int,
    dtype: str,
) -> pd.DataFrame:
    """The `token_losses` table of a few rows of each group by length, of the model as it is.

    rows, samples: the `dataset` and `samples` tables of one data set. model: folder. size: rows
    of a group, of which `subsets.representative` are taken. A response that was cut off has no
    end token. Raises DataError where a group does not fit the usable rows.
    """
    tokenizer, weights = load_tokenizer(model), load_model(model, dtype)
    by_id = rows.set_index("sample_id", drop=False)
    frames = []
    for group, members in length_groups(samples, size).items():
        chosen = by_id.loc[representative(members)["sample_id"]]
        for sample in encode_rows(chosen, tokenizer, max_length_tokens):
            labels = [sample.input_ids[place] for place in sample.label_places]
            frame = pd.DataFrame({"position": range(1, len(labels) + 1)})
            frame["token"] = [tokenizer.decode([label]) for label in labels]
            frame["is_end"] = [label == tokenizer.eos_token_id for label in labels]
            frame["loss"] = token_losses(weights, sample).double().cpu().numpy()
            frame.insert(0, "group", group)
            frame.insert(0, "sample_id", sample.sample_id)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def measure_row_losses(
    rows: pd.DataFrame, states: Sequence[State], max_length_tokens: int, dtype: str
) -> pd.DataFrame:
    """The `row_losses` table: the loss of every row of a `dataset` table at every state.

    A row that cannot be used has no loss, but the reason.
    """
    frames = []
    with progress("measuring", len(states) * len(rows), "row") as advance:
        for state, at in zip(states, at_each(states, dtype, gpus=0), strict=True):
            samples = encode_rows(rows, at.tokenizer, max_length_tokens)
            losses = []
            for sample in samples:
                usable = sample.reason is None
                loss = float(token_losses(at.model, sample).mean()) if usable else math.nan
                losses.append(loss)
                advance()
            frame = pd.DataFrame({"sample_id": [s.sample_id for s in samples], "loss": losses})
            frame["reason"] = pd.array([s.reason for s in samples], dtype="str")
            frames.append(with_origin(frame, state))
    return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def token_losses(model, sample: EncodedSample) -> Tensor:
    """Cross-entropy of each of a sample's labels in nats, in float32 at least; their mean is
    the sample's loss."""
    ids = torch.tensor([sample.input_ids], device=model.device)
    labels = torch.tensor(sample.label_places, device=model.device)
    logits = exact(model(input_ids=ids, use_cache=False).logits[0, labels - 1])
    return functional.cross_entropy(logits, ids[0, labels], reduction="none")


def measure_loss_changes(
    shard: Shard, state: State, direction: str, checkpoint: int | str, alphas: Sequence[float]
) -> pd.DataFrame:
    """The `loss_changes` table: how much less a row's loss is at `state + alpha V` than at `state`.

    change: L(z, ref) - L(z, ref + alpha V), in nats, null where it is not finite. predicted: what
    the first order says of it (Eqs. 13 and 17 to 19 over eta), `alpha <-gW, V>`, with the gradient
    by the weights that V moves (`probes.WeightUpdate`). adapter_predicted: `alpha` times the
    product that SQSD is made of (`probes.LoraUpdate`), null where the state has no adapter; that
    update is the step of an adapter, whose length is another. direction: folder of its training;
    V is the drift at `checkpoint`. Rows without a loss at the state itself are left out.
    """
    directions = {"V": load_adapter(direction_folder(direction, checkpoint))}
    ref = None if state.adapter is None else load_adapter(state.adapter, state.multiplier)
    steps = [added(ref or {}, directions["V"], alpha) for alpha in alphas]
    passes = [(WeightUpdate(directions), ref), *((Losses(), step) for step in steps)]
    if ref is not None:
        passes.append((LoraUpdate(directions), ref))
    (at_ref, products), *others = read_probes(shard, state.model, passes)
    kept = at_ref.dropna(subset="loss").set_index("sample_id")
    along = pd.Series(products["inner_product"].sum((1, 2)), kept.index)
    by_adapter = pd.Series(float("nan"), kept.index)
    if ref is not None:
        samples, products = others.pop()
        read = samples.dropna(subset="loss")["sample_id"]
        by_adapter = pd.Series(products["inner_product"].sum((1, 2)), read).reindex(kept.index)
    frames = [
        pd.DataFrame(
            {
                "alpha": alpha,
                "predicted": alpha * along,
                "adapter_predicted": alpha * by_adapter,
                "change": kept["loss"] - samples.set_index("sample_id")["loss"].reindex(kept.index),
            }
        ).reset_index()
        for alpha, (samples, _) in zip(alphas, others, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)
