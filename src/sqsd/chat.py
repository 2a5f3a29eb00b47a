"""Chat templates, tokenisation, label masks, truncation."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from itertools import cycle

import pandas as pd
from jinja2 import TemplateError

from sqsd.errors import DataError
from sqsd.packing import EncodedSample

# The date that Llama 3.1's template names where nobody gives another.
DATE = date(2024, 7, 26)
# What Llama 2 and Mistral mark turns with is text, not tokens; Llama 2's own code refuses it.
TEXT_TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
# Stand for texts, to see what a template writes around them.
QUESTION, ANSWER, NEXT = "QUESTION-0", "ANSWER-0", "QUESTION-1"


def check_template(tokenizer) -> None:
    """Raises DataError when the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise DataError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
            "use a chat model, or add chat_template.jinja to its folder"
        )


def fix_date(tokenizer) -> None:
    """Write `DATE` into a chat template that asks for the day, or its prompts change overnight.

    Raises DataError where the template asks in a form that cannot be replaced.
    """
    template = tokenizer.get_chat_template()
    asks = re.compile(r"strftime_now\(\s*(?P<quote>[\"'])(?P<form>.*?)(?P=quote)\s*\)")
    fixed = asks.sub(lambda found: repr(DATE.strftime(found["form"])), template)
    if re.search(r"strftime_now\s*\(", fixed):
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template asks for the day's date in a form that "
            "cannot be replaced by a fixed one; write a date into chat_template.jinja in a local "
            "folder"
        )
    if fixed != template:
        tokenizer.chat_template = fixed
        print(f"the chat template's date of today is {DATE} on every day")


def written(tokenizer, *texts: str, opened: bool = False) -> str:
    """A conversation as the template writes it, thinking off; the user's text is the first.

    opened: with the generation prompt. Raises DataError for a missing template.
    """
    check_template(tokenizer)
    roles = cycle(("user", "assistant"))
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    # A template that does not know of thinking leaves the variable unread.
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opened, enable_thinking=False
        )
    except TemplateError as error:
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template cannot be used ({error}); correct "
            "chat_template.jinja in a local folder"
        ) from error


def written_prompt(tokenizer, prompt: str) -> str:
    """A user's message as the template writes it, up to where the answer begins.

    That is the generation prompt, and what else a finished turn has before its answer, as an empty
    think block. Blanks alone are the answer's: they may share a token with its first word.
    """
    opening = written(tokenizer, prompt, opened=True)
    finished = written(tokenizer, prompt, ANSWER).rpartition(ANSWER)[0]
    more = finished.startswith(opening) and finished.removeprefix(opening).strip()
    return finished if more else opening


def own_message(tokenizer) -> str:
    """What the template says before a conversation by itself: a system message, a date; or blank.

    The second user message shows how a user's turn opens; what the first has besides is that.
    """
    begin, _, rest = written(tokenizer, QUESTION, ANSWER, NEXT).partition(QUESTION)
    between = rest.partition(ANSWER)[2].partition(NEXT)[0]
    first, second = token_ids(tokenizer, begin), token_ids(tokenizer, between)
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    return tokenizer.decode(first, skip_special_tokens=True).strip()


def token_ids(tokenizer, text: str) -> list[int]:
    """Token ids of a text that has all its special tokens already."""
    return tokenizer(text, add_special_tokens=False).input_ids


def control_tokens(tokenizer) -> list[str]:
    """What marks turns: special tokens, and which other added tokens and tags the template writes.

    The rest of the added tokens are words of a language (`<b>`), that a row may well use.
    """
    template = str(tokenizer.chat_template)
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    found = {text for text, special in added.items() if special}
    found |= {text for text in (*added, *TEXT_TAGS) if text in template and not text.isspace()}
    return sorted(found)


def defused(tokenizer, text: str) -> str:
    """The text with a blank after the first character of every control token in it."""
    for token in control_tokens(tokenizer):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def tell_markup(tokenizer, texts: Iterable[str]) -> None:
    """Print how many texts hold a control token, where any does."""
    control, texts = control_tokens(tokenizer), list(texts)
    found = sum(any(token in text for token in control) for text in texts)
    if found:
        print(f"{found} of {len(texts)} texts hold chat markup, which is read as plain text")


def encode_prompt(tokenizer, prompt: str) -> list[int]:
    """Token ids of a user message up to where the answer begins (`written_prompt`).

    No system message is added to what the template has. Control tokens in the message are broken
    up. Raises DataError for a missing template.
    """
    return token_ids(tokenizer, written_prompt(tokenizer, defused(tokenizer, prompt)))


def encode_conversation(tokenizer, prompt: str, response: str) -> list[int]:
    """Token ids of a user's and an assistant's message as the template has them, for a guard.

    Control tokens in either text are broken up, or a text could end its turn and write on as
    somebody else. Raises DataError for a missing template.
    """
    texts = (defused(tokenizer, text) for text in (prompt, response))
    return token_ids(tokenizer, written(tokenizer, *texts, opened=True))


def encode_pair(
    tokenizer, prompt: str, response: str, max_length_tokens: int, sample_id: str = ""
) -> EncodedSample:
    """Tokenise prompt and response as the model's chat template does, cut at the length limit.

    The prompt is `encode_prompt`'s. Labels cover the response and its end token; what a template
    appends after that is dropped. Control tokens in either text are broken up.
    `reason` is set when nothing of the response is left to learn.
    Raises DataError for a missing template, or one whose prompt is not a prefix of the whole.
    """
    prompt, response = defused(tokenizer, prompt), defused(tokenizer, response)
    opening = written_prompt(tokenizer, prompt)
    prompt_ids = token_ids(tokenizer, opening)
    if not response.strip():
        ids = prompt_ids[:max_length_tokens]
        return EncodedSample(sample_id, ids, len(ids), "empty response")
    whole = written(tokenizer, prompt, response)
    ids = token_ids(tokenizer, whole)
    if ids[: len(prompt_ids)] != prompt_ids:
        if not whole.startswith(opening):
            raise DataError(
                f"{tokenizer.name_or_path}: the chat template's prompt is not a prefix of the "
                "whole conversation, so response tokens cannot be told apart; use another template"
            )
        # The response's first characters join the prompt's last in one token; a model that
        # answers has the prompt's own tokens before it.
        ids = prompt_ids + token_ids(tokenizer, whole.removeprefix(opening))
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

    A row's own `problem`, where it has one, is the reason; a null response counts as empty. How
    many texts hold control tokens is printed.
    """
    texts = [*rows["prompt"], *rows["response"].dropna()]
    tell_markup(tokenizer, map(str, texts))
    samples = []
    for row in rows.astype(object).where(rows.notna(), None).itertuples():
        prompt, response = str(row.prompt), str(row.response or "")
        sample = encode_pair(tokenizer, prompt, response, max_length_tokens, str(row.sample_id))
        problem = getattr(row, "problem", None)
        samples.append(sample if problem is None else replace(sample, reason=str(problem)))
    return samples
