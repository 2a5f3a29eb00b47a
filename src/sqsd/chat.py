"""Chat templates, tokenisation, label masks, truncation."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from itertools import cycle, pairwise
from typing import Any

import pandas as pd
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from sqsd.conversations import Message
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError

# The date that Llama 3.1's template names where nobody gives another.
DATE = date(2024, 7, 26)
# What Llama 2 and Mistral mark turns with is text, not tokens; Llama 2's own code refuses it.
TEXT_TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
TURNS_REMEDY = (
    "say it in turns that the template has (a system message's text can open the first user "
    "message), take the row out, or use a model whose chat template has such turns"
)
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
    try:
        return rendered(tokenizer, messages, opened=opened)
    except TemplateError as error:
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template cannot be used ({error}); correct "
            "chat_template.jinja in a local folder"
        ) from error


def rendered(
    tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    opened: bool = False,
) -> str:
    """Messages as the template writes them, thinking off. Raises TemplateError where it refuses."""
    # A template that does not know of thinking, or of tools, leaves the variable unread.
    return tokenizer.apply_chat_template(
        list(messages), tools=list(tools) or None, tokenize=False, add_generation_prompt=opened,
        enable_thinking=False,
    )  # fmt: skip


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
    tokenizer, prompt: str, response: str, max_length_tokens: int | None, sample_id: str = ""
) -> EncodedSample:
    """Tokenise prompt and response as the model's chat template does, cut at the length limit.

    The prompt is `encode_prompt`'s. Labels cover the response and its end token; what a template
    appends after that is dropped. Control tokens in either text are broken up.
    `reason` is set when nothing of the response is left to learn. No limit is None.
    Raises DataError for a missing template, or one whose prompt is not a prefix of the whole.
    """
    prompt, response = defused(tokenizer, prompt), defused(tokenizer, response)
    opening = written_prompt(tokenizer, prompt)
    if not response.strip():
        ids = token_ids(tokenizer, opening)[:max_length_tokens]
        return EncodedSample(sample_id, ids, len(ids), "empty response")
    whole = written(tokenizer, prompt, response)
    prompt_ids, answer = parts_ids(tokenizer, whole, [opening])
    ids = prompt_ids + up_to_end(tokenizer, answer)
    reason = None if len(ids) > len(prompt_ids) else "empty response"
    sample = EncodedSample(sample_id, ids, len(prompt_ids), reason)
    return sample if max_length_tokens is None else sample.cut(max_length_tokens)


def parts_ids(tokenizer, text: str, openings: Sequence[str]) -> list[list[int]]:
    """Token ids of a text in parts, which begin at its start and behind each of its openings.

    Where characters on both sides of such a place join in one token, the parts have tokens of their
    own: a model that answers has the tokens of what stands before it. Raises DataError where an
    opening is not the text's.
    """
    ids = token_ids(tokenizer, text)
    heads = [token_ids(tokenizer, opening) for opening in openings]
    if all(ids[: len(head)] == head for head in heads):
        places = [0, *map(len, heads), len(ids)]
        return [ids[begin:end] for begin, end in pairwise(places)]
    if not all(text.startswith(opening) for opening in openings):
        raise DataError(
            f"{tokenizer.name_or_path}: the chat template's prompt is not a prefix of the "
            "whole conversation, so response tokens cannot be told apart; use another template"
        )
    places = [0, *map(len, openings), len(text)]
    return [token_ids(tokenizer, text[begin:end]) for begin, end in pairwise(places)]


def up_to_end(tokenizer, ids: list[int]) -> list[int]:
    """Token ids up to the last end token; all of them where there is none."""
    if tokenizer.eos_token_id not in ids:
        return ids
    return ids[: len(ids) - ids[::-1].index(tokenizer.eos_token_id)]


def encode_turns(
    tokenizer, conversation: Mapping[str, Any], max_length_tokens: int | None, sample_id: str = ""
) -> EncodedSample:
    """Tokenise a conversation as the model's chat template does, cut at the length limit.

    conversation: messages and tools as `apply_chat_template` takes them, and `loss`: of which
    assistant turns labels are taken, `all` or the `last`. A turn's labels begin where a prompt of
    the messages before it ends, and end with its end token; all else is no label. Control tokens in
    what a row says are broken up.

    Raises DataError naming the row where the template refuses it, drops a message, a call or the
    tools, takes a role for the assistant's, writes the turns before an answer otherwise once there
    are more, has no end of an earlier answer, or marks other text as the assistant's.
    """
    check_template(tokenizer)
    turns = Turns(tokenizer, sample_id, *defused_turns(tokenizer, conversation))
    try:
        sample = turns.encoded(conversation["loss"] == "last")
    except TemplateError as error:
        raise turns.refusal(f"refuses its turns ({error})") from error
    return sample if max_length_tokens is None else sample.cut(max_length_tokens)


@dataclass(frozen=True)
class Turns:
    """Messages and tools of a row that a template is to write."""

    tokenizer: Any
    sample_id: str
    messages: list[Message]
    tools: list[dict[str, Any]]

    def refusal(self, what: str, remedy: str = TURNS_REMEDY) -> DataError:
        place = f"{self.tokenizer.name_or_path}: row {self.sample_id}"
        return DataError(f"{place}: the chat template {what}; {remedy}")

    def rendered(self, messages: Sequence[Message], opened: bool = False) -> str:
        return rendered(self.tokenizer, messages, self.tools, opened)

    def encoded(self, last_alone: bool) -> EncodedSample:
        text = self.rendered(self.messages)
        answers = [i for i, m in enumerate(self.messages) if m["role"] == "assistant"]
        learnt = answers[-1:] if last_alone else answers
        self.check_roles(text)
        self.check_written(learnt[:-1])
        openings = [self.opening(i, text) for i in learnt]
        self.check_marks(text, openings)
        prompt, *parts = parts_ids(self.tokenizer, text, openings)
        parts[-1] = up_to_end(self.tokenizer, parts[-1])
        ids, between = list(prompt), set()
        for part in parts[:-1]:
            end = part.index(self.tokenizer.eos_token_id) + 1
            between |= {*range(len(ids) + end, len(ids) + len(part))}
            ids += part
        return EncodedSample(
            self.sample_id, ids + parts[-1], len(prompt), between=frozenset(between)
        )

    def opening(self, i: int, text: str) -> str:
        """The text up to where the answer of message i begins, as `written_prompt` has it.

        What stands before an earlier answer may be less than before a last one, as Qwen3's think
        block: what a template writes before another answer that is not the last, too, shows that.
        """
        last = i == len(self.messages) - 1
        before = self.messages[:i]
        opened = self.rendered(before, opened=True)
        answered = [*before, {"role": "assistant", "content": ANSWER}]
        more = [] if last else [{"role": "user", "content": NEXT}]
        finished = self.rendered(answered + more).rpartition(ANSWER)[0]
        longer = finished.startswith(opened) and finished.removeprefix(opened).strip()
        for opening in [finished] if longer else [opened, finished]:
            if text.startswith(opening):
                return opening
        raise self.refusal(
            f"writes what stands before message {i + 1} (assistant) otherwise once it goes on, so "
            "that its tokens cannot be told apart",
            "use another template" if last else "say `loss: last` of the data set",
        )

    def check_roles(self, text: str) -> None:
        """Raises DataError where the template takes a role it does not know for the assistant."""
        for role in ("system", "tool"):
            if not any(m["role"] == role for m in self.messages):
                continue
            others = [m | {"role": "assistant"} if m["role"] == role else m for m in self.messages]
            with suppress(TemplateError):
                if self.rendered(others) == text:
                    raise self.refusal(f"writes a {role} message as the assistant's")

    def check_written(self, earlier: Sequence[int]) -> None:
        """Raises DataError for what the template leaves out, and an earlier answer without end.

        Each text and name is replaced by a mark, which must be there in what is written.
        """
        messages, marks = [], []
        for i, message in enumerate(self.messages):
            calls, own = message.get("tool_calls", []), []
            if message["content"].strip() or not calls:
                own.append(f"MARK-{i}.")
                message = message | {"content": own[0]}
            if calls:
                names = [f"MARK-{i}-{j}." for j in range(len(calls))]
                message = message | {"tool_calls": named(calls, names)}
                own += names
            messages.append(message)
            marks.append(own)
        tools = [f"MARK-TOOL-{j}." for j in range(len(self.tools))]
        text = rendered(self.tokenizer, messages, named(self.tools, tools))
        for i, (message, own) in enumerate(zip(messages, marks, strict=True)):
            if any(mark not in text for mark in own):
                what = "text or calls" if "tool_calls" in message else "text"
                raise self.refusal(f"leaves out {what} of message {i + 1} ({message['role']})")
        if any(mark not in text for mark in tools):
            raise self.refusal("leaves out the tools")
        for i in earlier:
            behind = text[text.index(marks[i][-1]) : text.index(marks[i + 1][0])]
            if self.tokenizer.eos_token not in behind:
                raise self.refusal(
                    f"writes no end token ({self.tokenizer.eos_token}) behind message {i + 1} "
                    "(assistant)", "say `loss: last` of the data set"
                )  # fmt: skip

    def check_marks(self, text: str, openings: Sequence[str]) -> None:
        """Raises DataError where the template says itself which text is learnt, and not this."""
        template = self.tokenizer.get_chat_template()
        if not re.search(r"{%-?\s*generation\b", template):
            return
        # Typed as a text alone; with the mask it is texts and, of each, where the marks are.
        found: Any = render_jinja_template(
            [self.messages], [*self.tools] or None, chat_template=template,
            return_assistant_tokens_mask=True, enable_thinking=False,
            **self.tokenizer.special_tokens_map,
        )  # fmt: skip
        (spans,) = found[1]
        for opening in openings:
            rest = text[len(opening) :]
            answer = rest.partition(self.tokenizer.eos_token)[0]
            begin = len(text) - len(rest.lstrip())
            end = len(opening) + len(answer.rstrip())
            if not any(first <= begin and end <= last for first, last in spans):
                raise self.refusal(
                    f"marks other text as the assistant's ({{% generation %}}) than {answer!r}",
                    "correct chat_template.jinja in a local folder",
                )


def named(functions: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Calls or tools with other names."""
    return [
        {**one, "function": {**one["function"], "name": name}}
        for one, name in zip(functions, names, strict=True)
    ]


def defused_turns(
    tokenizer, conversation: Mapping[str, Any]
) -> tuple[list[Message], list[dict[str, Any]]]:
    """Messages and tools with every text in them `defused`."""

    def of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {defused(tokenizer, key): of(held) for key, held in value.items()}
        if isinstance(value, list):
            return [of(held) for held in value]
        return defused(tokenizer, value) if isinstance(value, str) else value

    return of(conversation["messages"]), of(conversation["tools"])


def encode_rows(
    rows: pd.DataFrame, tokenizer, max_length_tokens: int | None
) -> list[EncodedSample]:
    """Every row of a `dataset` or `subset` table, in order: `encode_pair` or `encode_turns`.

    A row's own `problem`, where it has one, is the reason; a null response counts as empty. How
    many texts hold control tokens is printed. Raises DataError as those two.
    """
    texts = [*rows["prompt"], *rows["response"].dropna()]
    tell_markup(tokenizer, map(str, texts))
    samples = []
    for row in rows.astype(object).where(rows.notna(), None).itertuples():
        limit, sample_id = max_length_tokens, str(row.sample_id)
        if conversation := getattr(row, "conversation", None):
            sample = encode_turns(tokenizer, json.loads(str(conversation)), limit, sample_id)
        else:
            prompt, response = str(row.prompt), str(row.response or "")
            sample = encode_pair(tokenizer, prompt, response, limit, sample_id)
        problem = getattr(row, "problem", None)
        samples.append(sample if problem is None else replace(sample, reason=str(problem)))
    return samples


def token_texts(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it; joined, they are the text of all.

    A token that ends within a character adds nothing: the one that completes the character has it.
    """
    texts, told, begun = [], 0, 0
    for i in range(1, len(ids) + 1):
        # With the tokens told last before them, new ones keep their blanks.
        before, now = (tokenizer.decode(ids[begun:end]) for end in (told, i))
        if now.endswith("\ufffd") and i < len(ids):
            texts.append("")
        else:
            texts.append(now[len(before) :])
            begun, told = told, i
    return texts
