"""Chat templates, tokenisation, label masks, truncation."""

from dataclasses import replace

import pandas as pd

from sqsd.errors import DataError
from sqsd.packing import EncodedSample


def check_template(tokenizer) -> None:
    """Raises DataError when the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise DataError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
            "use a chat model, or add chat_template.jinja to its folder"
        )


def encode_prompt(tokenizer, prompt: str) -> list[int]:
    """Token ids of a user message with the generation prompt, no system message."""
    check_template(tokenizer)
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_dict=False,
    )


def encode_conversation(tokenizer, prompt: str, response: str) -> list[int]:
    """Token ids of a user's and an assistant's message as the template has them, for a guard.

    Control tokens in either text are broken up, or a text could end its turn and write on as
    somebody else. Raises DataError for a missing template.
    """
    check_template(tokenizer)
    texts = (("user", prompt), ("assistant", response))
    messages = [{"role": role, "content": defused(tokenizer, text)} for role, text in texts]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def defused(tokenizer, text: str) -> str:
    """The text with a blank after the first character of every control token in it."""
    control = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    # The longest first: one may begin as another does.
    for token in sorted(control, key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def encode_pair(
    tokenizer, prompt: str, response: str, max_length_tokens: int, sample_id: str = ""
) -> EncodedSample:
    """Tokenise prompt and response as the model's chat template does, cut at the length limit.

    Labels cover the response and its end token; what a template appends after that is dropped.
    `reason` is set when nothing of the response is left to learn.
    Raises DataError for a missing template, or one whose prompt is not a prefix of the whole.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    if not response.strip():
        ids = prompt_ids[:max_length_tokens]
        return EncodedSample(sample_id, ids, len(ids), "empty response")
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    if ids[: len(prompt_ids)] != prompt_ids:
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template's prompt is not a prefix of the whole "
            "conversation, so response tokens cannot be told apart; use another template"
        )
    if tokenizer.eos_token_id in ids[len(prompt_ids) :]:
        last = len(ids) - 1 - ids[::-1].index(tokenizer.eos_token_id)
        ids = ids[: last + 1]
    ids = ids[:max_length_tokens]
    reason = None
    if len(ids) <= len(prompt_ids):
        reason = f"response cut off entirely by max_length_tokens={max_length_tokens}"
    return EncodedSample(sample_id, ids, min(len(prompt_ids), len(ids)), reason)


def encode_rows(rows: pd.DataFrame, tokenizer, max_length_tokens: int) -> list[EncodedSample]:
    """`encode_pair` of every row's sample_id, prompt and response, in order.

    A row's own `problem`, where it has one, is the reason; a null response counts as empty.
    """
    samples = []
    for row in rows.astype(object).where(rows.notna(), None).itertuples():
        prompt, response = str(row.prompt), str(row.response or "")
        sample = encode_pair(tokenizer, prompt, response, max_length_tokens, str(row.sample_id))
        problem = getattr(row, "problem", None)
        samples.append(sample if problem is None else replace(sample, reason=str(problem)))
    return samples
