"""Conversations of several turns: what a row says of them, and what of it is kept."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqsd.errors import DataError

Message = dict[str, Any]
# Which turns of the assistant are learnt. `all` is the default, as in TRL's assistant_only_loss: a
# fine-tune on conversations usually learns them all, and a risk may lie in any.
LOSSES = ("all", "last")
# The names of roles where messages are `from` and `value` (ShareGPT's form).
ROLES = {"human": "user", "gpt": "assistant"}
# What a template reads of a message beside its role, text and calls.
KEPT = ("tool_call_id", "name")
# One letter a message, c for an assistant's that calls tools.
TURNS = re.compile("s?(u(ct+)*a)*u(ct+)*[ac]")
TURNS_PROBLEM = (
    "messages are not user and assistant in turn to an assistant's end (a system message may come "
    "first, and tool messages behind a tool call)"
)
CALLS_FORM = "a list of {function: {name: TEXT, arguments: OBJECT}}"
TOOLS_FORM = "a list of {type: function, function: {name: TEXT, ...}}"


def message_of(given: Mapping[str, Any]) -> Message:
    """A message as chat templates take it, from OpenAI's form or from ShareGPT's.

    Raises DataError where its tool calls are not in OpenAI's form.
    """
    if "role" not in given and "from" in given:
        given = {
            "role": ROLES.get(str(given["from"]), given["from"]),
            "content": given.get("value"),
        }
    message = {"role": given.get("role"), "content": given.get("content")}
    if given.get("tool_calls"):
        message["tool_calls"] = _calls(given["tool_calls"])
    return message | {key: given[key] for key in KEPT if given.get(key) is not None}


def tools_of(given: Any) -> list[dict[str, Any]]:
    """A row's tools, given as a list or as the JSON of one. Raises DataError for another form."""
    tools = _parsed(given) if isinstance(given, str) and given.strip() else given or []
    if not isinstance(tools, list) or not all(_has_a_function(tool) for tool in tools):
        raise DataError(f"tools are not {TOOLS_FORM}")
    return _without_nulls(tools)


def turns_problem(messages: Sequence[Message]) -> str | None:
    """What is wrong with the turns of a conversation, None where nothing is."""
    letters = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
    order = "".join(
        "c" if m["role"] == "assistant" and "tool_calls" in m else letters.get(str(m["role"]), "-")
        for m in messages
    )
    if not TURNS.fullmatch(order):
        roles = ", ".join(str(m["role"]) for m in messages) or "none"
        # No table can hold a surrogate.
        return f"{TURNS_PROBLEM}: {roles.encode(errors='backslashreplace').decode()}"
    for number, (message, letter) in enumerate(zip(messages, order, strict=True), start=1):
        content, where = message["content"], f"message {number} ({message['role']})"
        if content is None and letter == "c":
            continue
        if not isinstance(content, str):
            found = "missing" if content is None else f"{type(content).__name__}, not text"
            return f"{where}: content is {found}"
        if letter in "ua" and not content.strip():
            return f"{where}: empty content"
    return None


def is_pair(messages: Sequence[Message]) -> bool:
    """Whether a user's text and an assistant's are all there is."""
    roles = [m["role"] for m in messages]
    return roles == ["user", "assistant"] and not any("tool_calls" in m for m in messages)


def as_text(messages: Sequence[Message]) -> tuple[str, str]:
    """A conversation up to its last message, for people and judges; and the last message."""
    before = [f"{m['role']}: {_said(m)}" for m in messages[:-1]]
    return "\n\n".join(before), _said(messages[-1])


def as_json(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
    """The JSON of a conversation, by which rows are told apart."""
    # A message that only calls tools has no text, which some templates cannot join.
    told = [m | {"content": m["content"] or ""} for m in messages]
    return json.dumps({"messages": told, "tools": list(tools)}, ensure_ascii=False, default=str)


def _said(message: Message) -> str:
    calls = [
        f"{call['function']['name']}({json.dumps(call['function']['arguments'], default=str)})"
        for call in message.get("tool_calls", [])
    ]
    return "\n".join([*filter(None, [message["content"]]), *calls])


def _calls(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(_has_a_function(call) for call in given):
        raise DataError(f"tool_calls are not {CALLS_FORM}")
    calls = _without_nulls(given)
    for call in calls:
        # OpenAI's form has the JSON of an object; templates take the object.
        arguments = call["function"].get("arguments", {})
        arguments = _parsed(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, dict):
            raise DataError(f"tool_calls are not {CALLS_FORM}")
        call["function"]["arguments"] = arguments
    return calls


def _has_a_function(given: Any) -> bool:
    function = given.get("function") if isinstance(given, Mapping) else None
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without_nulls(value: Any) -> Any:
    """The value without keys that hold null: Parquet gives every object the keys of all."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value
