"""Losses of rows, token by token (paper, figures 9 and 10)."""

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from sqsd.chat import encode_rows
from sqsd.gradients import exact
from sqsd.models import load_model, load_tokenizer
from sqsd.packing import EncodedSample
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
            labels = sample.input_ids[sample.prompt_tokens :]
            frame = pd.DataFrame({"position": range(1, len(labels) + 1)})
            frame["token"] = [tokenizer.decode([label]) for label in labels]
            frame["is_end"] = [label == tokenizer.eos_token_id for label in labels]
            frame["loss"] = token_losses(weights, sample).double().cpu().numpy()
            frame.insert(0, "group", group)
            frame.insert(0, "sample_id", sample.sample_id)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def token_losses(model, sample: EncodedSample) -> Tensor:
    """Cross-entropy of each of a sample's labels in nats, in float32 at least; their mean is
    the sample's loss."""
    ids = torch.tensor([sample.input_ids], device=model.device)
    first = sample.prompt_tokens
    logits = exact(model(input_ids=ids, use_cache=False).logits[0, first - 1 : -1])
    return functional.cross_entropy(logits, ids[0, first:], reduction="none")
