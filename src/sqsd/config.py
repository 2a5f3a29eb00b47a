"""The configuration: defaults, axes, per-model values."""

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sqsd.errors import ConfigurationError
from sqsd.sources import (
    COMPARISON,
    CONVERSATION,
    PAIR,
    PREFERENCE,
    PROMPT,
    count_records,
    is_hub,
    is_sandbox,
)

MEASURES = ("asr", "safety_score")
# What a table may show, by the measure whose judge it is read from.
READ_BY = {"asr": "asr", "asr_by_score": "safety_score", "safety_score": "safety_score"}
# Kinds of tables that are drawn as a figure too.
DRAWN = frozenset(
    (
        "subsets", "groups", "trajectory", "steering", "lengths", "losses", "token-losses",
        "first-order", "treatments",
    )
)  # fmt: skip
# Far more than any configuration has; a value that holds itself, by an alias of YAML, has no end.
MOST_LEVELS = 50
# Of numpy, and of tables.
LARGEST_INTEGER = 2**63 - 1
SURROGATE = re.compile("[\ud800-\udfff]")
# In the paths of fine-tunes on all rows, where those on subsets have a method's name and a window.
ALL_ROWS, ALL = "all-rows", "all"
SHAPES = {
    "datasets": (PAIR, CONVERSATION),
    "preferences": (PREFERENCE, COMPARISON),
    "benchmarks": (PROMPT,),
}


def read_default(path: str | Path) -> Any:
    """What a YAML file holds. Raises ConfigurationError where it cannot be read."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    # Of a value that is not of the kind it is marked as, the constructors of YAML raise the rest.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as YAML ({error}); correct it") from error


def resolve(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run: what is given laid over the defaults, axes written out.

    Dictionaries are merged, everything else is replaced. An axis is a list of values under
    `axes`; a key or an item of a list that holds its name in braces stands for one for each
    value, and so does what lies below it. A text that is a whole number once its braces are
    filled becomes one. Raises ConfigurationError for a value that no configuration has
    (`refuse_value`), one that an axis has twice, two keys that become one, and braces of an axis
    where no key or item above them has it.
    """
    for part in (defaults, given):
        refuse_value(part)
        if not isinstance(part, Mapping):
            problem = f"(top level): {type(part).__name__} is no dictionary; give values by key"
            raise ConfigurationError(listed([problem]))
    config = merged(defaults, given)
    axes = config.pop("axes", {})
    problems = list(axis_problems(axes))
    if problems:
        raise ConfigurationError(listed(problems))
    return expanded(config, axes, {})


def refuse_value(value: Any, place: str = "", level: int = 0) -> None:
    """Raises ConfigurationError for the first value, at or below one, that JSON could not hold.

    YAML has other kinds of values too, and such as hold themselves.
    """
    problem = None
    if level > MOST_LEVELS:
        problem = f"nested more than {MOST_LEVELS} levels deep, or within itself; nest it less"
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        problem = f"an integer of {value.bit_length()} bits; allowed: -(2^63 - 1) to 2^63 - 1"
    elif isinstance(value, str) and SURROGATE.search(value):
        problem = f"{value!r} is not Unicode; take the surrogates out"
    elif not isinstance(value, Mapping | list | str | int | float | None):
        problem = f"{type(value).__name__} is no kind of value here; write a text, in quotes"
    if problem:
        raise ConfigurationError(listed([f"{place or '(top level)'}: {problem}"]))
    if isinstance(value, Mapping):
        for key, below in value.items():
            refuse_value(key, place, level)
            refuse_value(below, f"{place}.{key}".removeprefix("."), level + 1)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            refuse_value(below, f"{place}[{i}]", level + 1)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def ordered(value: Any) -> Any:
    """A value with every dictionary sorted: to Snakemake another order is another param."""
    if isinstance(value, Mapping):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


def for_model(entry: Mapping[str, Any], model: str) -> dict[str, Any]:
    """An entry, or a section of settings, with what its `per_model` says of one model."""
    plain = {key: value for key, value in entry.items() if key != "per_model"}
    return merged(plain, entry.get("per_model", {}).get(model, {}))


def named_experiments(table: Mapping[str, Any]) -> list[str]:
    """The experiments that a table names itself; none where it is of the selected ones."""
    sides = [table[side] for side in ("riskier", "safer") if side in table]
    return table.get("experiments", sides)


def experiment_names(config: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    """The experiments that a table is of: its own, or the selected ones."""
    return named_experiments(table) or config["selection"]["experiments"]


def curve_of(state: Mapping[str, Any]) -> tuple:
    """What an entry of `states` is a point of: a pilot, a direction's checkpoint, or neither."""
    if "unadapted" in state:
        return ("neither",)
    if "pilot" in state:
        return "pilot", state["pilot"]
    return "direction", state["direction"], state["checkpoint"]


def axis_problems(axes: Any) -> Iterator[str]:
    if not isinstance(axes, Mapping):
        yield f"axes: {axes!r} is no dictionary; give a list of values by name"
        return
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            yield f"axes.{name}: {values!r} is no list of values"
            continue
        if not all(type(value) in (str, int, float) for value in values):
            yield f"axes.{name}: {values!r} holds what is no text or number"
            continue
        repeated = [v for i, v in enumerate(values) if v in values[:i]]
        for value in dict.fromkeys(repeated):
            yield f"axes.{name}: {value!r} is given more than once; keep one of it"


def expanded(value: Any, axes: Mapping[str, list], bound: Mapping[str, Any]) -> Any:
    """A value with axes written out, where `bound` says which value each axis has above it."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, below in value.items():
            for name, names in bindings(str(key), axes, bound):
                if name in found:
                    raise ConfigurationError(
                        f"'{key}' becomes '{name}', which is there already; give every axis that "
                        "an entry varies along in its name"
                    )
                found[name] = expanded(below, axes, names)
        return found
    if isinstance(value, list):
        return [
            expanded(filled(item, names) if isinstance(item, str) else item, axes, names)
            for item in value
            for _, names in bindings(item if isinstance(item, str) else "", axes, bound)
        ]
    if isinstance(value, str):
        for name in axes_in(value, axes):
            if name not in bound:
                raise ConfigurationError(
                    f"'{value}': no key or item of a list above it has {{{name}}}; give it one"
                )
        return filled(value, bound)
    return value


def axes_in(text: str, axes: Iterable[str]) -> list[str]:
    return [name for name in axes if f"{{{name}}}" in text]


def bindings(
    text: str, axes: Mapping[str, list], bound: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text filled with every combination of its axes that are not bound yet."""
    new = [name for name in axes_in(text, axes) if name not in bound]
    for values in itertools.product(*(axes[name] for name in new)):
        names = {**bound, **dict(zip(new, values, strict=True))}
        yield str(filled(text, names)), names


def filled(text: str, bound: Mapping[str, Any]) -> str | int | float:
    """The text with its axes' values; a number where it is one value, or all digits."""
    value = bound.get(text[1:-1])
    if text == f"{{{text[1:-1]}}}" and isinstance(value, int | float):
        return value
    found = text
    for name, value in bound.items():
        found = found.replace(f"{{{name}}}", str(value))
    return int(found) if found != text and re.fullmatch(r"\d{1,18}", found) else found


def listed(problems: list[str]) -> str:
    return f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)


def count_rows(registry: str, spec: Mapping[str, Any]) -> int | None:
    """Rows that an entry of data will have; None where only the hub knows.

    Raises DataError as `sources.load_dataset`, for a file.
    """
    if is_sandbox(spec["source"]) or is_hub(spec["source"]):
        return spec.get("rows")
    return _count_rows(json.dumps(spec, sort_keys=True), registry)


@functools.cache
def _count_rows(spec: str, registry: str) -> int:
    return count_records(json.loads(spec), *SHAPES[registry])


def training_steps(rows: int, training: Mapping[str, Any]) -> int:
    """Steps that a training of so many rows takes, as transformers counts them."""
    micro = training.get("micro_batch_size", training["batch_size"])
    batches = -(-rows // micro)
    per_epoch = max(-(-batches // max(training["batch_size"] // micro, 1)), 1)
    return math.ceil(training["epochs"] * per_epoch)


def smallest_batch(config: Mapping[str, Any]) -> int:
    """The fewest rows that a fine-tune of the configuration takes a step on."""
    return min(entry["training"]["batch_size"] for entry in config["finetunes"].values())


def rows_at_once(training: Mapping[str, Any], processes: int = 1) -> int:
    """Rows of a batch that each process takes at once, where all of them share it.

    Raises ConfigurationError where the batch cannot be shared, or a share cannot be taken in parts.
    """
    size = training["batch_size"]
    share, left = divmod(size, processes)
    if left:
        raise ConfigurationError(
            f"batch_size={size} cannot be shared by {processes} GPUs; give a multiple of "
            f"{processes}, or another `gpu` under `resources.train`"
        )
    rows = min(training.get("micro_batch_size", share), share)
    if share % rows:
        raise ConfigurationError(
            f"micro_batch_size={rows} does not divide {share}, the rows of batch_size={size} that "
            f"each of {processes} GPUs takes; give a divisor of {share}"
        )
    return rows


def check_layout(root: str | Path) -> None:
    """Raises ConfigurationError where a folder of results has the layout of an earlier version."""
    old = Path(root) / "benchmarks-of-rules"
    if old.exists():
        raise ConfigurationError(
            f"{root} holds results of an earlier layout ({old.name}), which this version neither "
            "reads nor deletes; move the folder away, or choose another `run`"
        )
