"""Greedy decoding."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig


@contextmanager
def generating_by(model, settings: GenerationConfig) -> Iterator[None]:
    """The model's own generation settings replaced: they fill up those passed to `generate`."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


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
