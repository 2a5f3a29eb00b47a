"""Greedy responses of a family of states (one base model, many scaled adapters)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from transformers import GenerationConfig

from sqsd.chat import encode_prompt
from sqsd.logs import progress
from sqsd.models import state_applied


@contextmanager
def generating_by(model, settings: GenerationConfig) -> Iterator[None]:
    """The model's own generation settings replaced: they fill up those passed to `generate`."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def generate_responses(
    model,
    tokenizer,
    prompts: pd.DataFrame,
    states: list[dict],
    max_new_tokens: int,
    batch_size: int,
) -> pd.DataFrame:
    """Greedy responses (left padding) of every state to every prompt.

    states: dicts of name, adapter (folder or None), multiplier. Returns the `responses` schema.
    """
    encoded = [encode_prompt(tokenizer, p) for p in prompts["prompt"]]
    frames = []
    with progress("generating", len(states) * len(prompts), "response") as advance:
        for state in states:
            with state_applied(model, state["adapter"], state["multiplier"]):
                texts, lengths = greedy(
                    model, tokenizer, encoded, max_new_tokens, batch_size, advance
                )
            frame = prompts[["prompt_id", "prompt"]].copy()
            frame.insert(0, "state", state["name"])
            frame["response"] = texts
            frame["response_tokens"] = lengths
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@torch.inference_mode()
def greedy(
    model, tokenizer, encoded: list[list[int]], max_new_tokens: int, batch_size: int, advance
) -> tuple[list[str], list[int]]:
    """(texts, token counts) of greedy continuations, longest prompts first.

    What a model's own generation_config adds (a repetition penalty, say) is left out: the
    protocol is plain greedy decoding.
    """
    plain = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    texts, lengths = [""] * len(encoded), [0] * len(encoded)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        padded = tokenizer.pad(
            {"input_ids": [encoded[i] for i in batch]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        inputs = {k: padded[k] for k in ("input_ids", "attention_mask")}
        with generating_by(model, plain):
            output = model.generate(**inputs)
        for i, ids in zip(batch, output[:, padded["input_ids"].shape[1] :], strict=True):
            kept = ids[ids != tokenizer.pad_token_id].tolist()
            texts[i] = tokenizer.decode(kept, skip_special_tokens=True)
            lengths[i] = len(kept)
        advance(len(batch))
    return texts, lengths
