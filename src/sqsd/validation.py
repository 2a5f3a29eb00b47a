"""What is wrong with a configuration: every problem with its place and what is allowed, at once."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators

from sqsd import judges, scorers, treatments
from sqsd.config import (
    ALL,
    ALL_ROWS,
    READ_BY,
    SHAPES,
    count_rows,
    curve_of,
    experiment_names,
    for_model,
    listed,
    named_experiments,
    rows_at_once,
    smallest_batch,
    training_steps,
)
from sqsd.curation import drop_problem
from sqsd.errors import ConfigurationError, DataError, not_known
from sqsd.published import published
from sqsd.score_files import matched
from sqsd.sensitivity import position
from sqsd.sources import (
    check_spec,
    is_hub,
    is_sandbox,
    load_benchmark,
    load_dataset,
    load_preferences,
    load_scores,
    parse_hub,
    row_keys,
    several,
    wheel_parts,
)

# Options of a kind, beside what every kind has: those that it needs, and those that it may have.
Options = tuple[Sequence[str], Sequence[str]]
TABLES: dict[str, Options] = {
    "subsets": (("methods", "finetune", "benchmark", "measure"), ("judge", "experiments")),
    "all-rows": (("finetune", "benchmark", "measure"), ("judge", "experiments")),
    "comparison": (
        ("methods", "finetune", "benchmark", "measure", "against"),
        ("judge", "experiments"),
    ),
    "ranking": (("methods",), ("experiments",)),
    "agreement": (("methods",), ("experiments",)),
    "separation": (("methods", "riskier", "safer"), ()),
    "groups": (("methods", "groups", "finetune", "benchmark", "against"), ("experiments",)),
    "judges": (("methods", "finetune", "benchmark", "judges", "reference"), ("experiments",)),
    "models": (("models", "benchmarks"), ()),
    "states": (("states",), ()),
    "alphas": (("directions",), ("states",)),
    "checkpoints": (("pilot", "directions"), ()),
    "trajectory": (("pilot", "directions", "benchmark"), ("states", "experiments")),
    "steering": (("directions", "benchmark"), ("states",)),
    "lengths": (("methods", "finetune", "benchmark"), ("judge", "experiments")),
    "losses": ((), ("experiments",)),
    "token-losses": (("group",), ("experiments",)),
    "first-order": (("directions", "states", "rows", "alphas"), ("experiments",)),
    "treatments": (
        ("methods", "treatments", "finetune", "benchmark", "heldout", "exact"),
        ("experiments",),
    ),
}
# Keys of a table that may hold a list of names, each by the kind that takes one.
LISTS = {"finetune": "subsets", "pilot": "trajectory"}
SANDBOX = {
    "datasets": ("sandbox:benign", "sandbox:danger", "sandbox:refusal"),
    "preferences": ("sandbox:safety",),
    "benchmarks": (
        "sandbox:tuning", "sandbox:test", "sandbox:seen", "sandbox:reworded", "sandbox:exact",
        "sandbox:over-refusal",
    ),
}  # fmt: skip
# Models that are made here, and what they end in.
MADE_HERE = {
    "sandbox": "language", "sandbox:cost": "cost", "sandbox:guard": "language", "tuned": "language",
}  # fmt: skip
# A model's name on the hub.
HUB_NAME = r"[\w.-]+/[\w.-]+"
MODEL_SOURCES = (
    "sandbox, sandbox:cost, sandbox:guard, tuned, hub:owner/name, "
    "wheel:package==version:folder/file.gguf, a .gguf file, or a folder with a model"
)
FEWEST_GROUPS = 4
# What a direction of others has at least: its adapter, and what it was trained on.
DIRECTION_FILES = ("adapter_config.json", "adapter_model.safetensors", "training.json")
# Jobs that one data set may be scored in per state, and checkpoints of one pilot: many more would
# fill the memory of a dry run.
MOST_JOBS = 10_000


# What a check finds: problems, and checks of a part. A check that fails ends there, and no other.
Checks = Iterable["str | Checks"]


def check_keys(files: Iterable[str | Path]) -> None:
    """Raises ConfigurationError listing every key that a mapping of a YAML or JSON file has twice.

    Who reads such a file gets the last of them, and is told nothing. What is no file here, as a
    pipe that Snakemake has read, is left out. Raises it too for a file that cannot be read as YAML,
    which knows less than all of JSON.
    """
    problems: list[str] = []
    for file in filter(is_file, files):
        try:
            # To JSON a tab is a blank, to YAML an error.
            text = Path(file).read_text(encoding="utf-8").replace("\t", " ")
            root = yaml.compose(text, yaml.SafeLoader)
        except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            problems.append(f"{file}: cannot be read as YAML ({error}); correct it")
            continue
        problems += key_problems(root, file, "", set())
    if problems:
        raise ConfigurationError(listed(list(dict.fromkeys(problems))))


def key_problems(
    node: yaml.Node | None, file: str | Path, place: str, seen: set[int]
) -> Iterator[str]:
    """Repeated keys at and below a node of a file; seen: the nodes so far, for its aliases.

    A key that `<<` merges in is there once.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, list[int]] = {}
        for key, below in node.value:
            where = place
            if key.tag != "tag:yaml.org,2002:merge":
                where = f"{place}.{key.value}".removeprefix(".")
                lines.setdefault(where, []).append(key.start_mark.line + 1)
            yield from key_problems(below, file, where, seen)
        for where, found in lines.items():
            if len(found) > 1:
                given = " and ".join(map(str, found))
                yield f"{where}: given {len(found)} times in {file}, lines {given}; keep one"
    elif isinstance(node, yaml.SequenceNode):
        for i, below in enumerate(node.value):
            yield from key_problems(below, file, f"{place}[{i}]", seen)


def validate_config(config: Mapping[str, Any], schema_file: Path) -> None:
    """Raises ConfigurationError listing every problem with its place and what is allowed.

    Beside what the schema says: names that point nowhere, files that do not exist or cannot be
    read, and values that the rest rules out.
    """
    schema = json.loads(schema_file.read_text())
    errors = schema_errors(config, schema)
    known = known_part(config, errors)
    problems: list[str] = []
    for check in (
        number_problems(config), map(schema_problem, errors),
        per_model_problems(known, schema), kind_problems(known), reference_problems(known),
        source_problems(known), range_problems(known),
    ):  # fmt: skip
        collect(check, problems)
    if problems:
        raise ConfigurationError(listed(list(dict.fromkeys(problems))))


def collect(check: Checks, problems: list[str]) -> None:
    """Add what a check finds.

    A check may rest on what another has found wrong: then it is not made, until that is mended.
    """
    try:
        for found in check:
            if isinstance(found, str):
                problems.append(found)
            else:
                collect(found, problems)
    except Exception:
        if not problems:
            raise


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


def schema_errors(config: Any, schema: dict) -> list[Any]:
    """What jsonschema finds wrong, by place."""
    return sorted(Validator(schema).iter_errors(config), key=lambda error: error.json_path)


def known_part(config: Mapping[str, Any], errors: Iterable[Any]) -> dict[str, Any]:
    """The configuration without the keys that the schema does not know."""
    known = deepcopy(dict(config))
    for error in errors:
        if error.validator == "additionalProperties":
            place: Any = known
            for step in error.absolute_path:
                place = place[step]
            for key in set(place) - set(error.schema["properties"]):
                del place[key]
    return known


def schema_problem(error: Any) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    place = "".join(steps).removeprefix(".") or "(top level)"
    if error.validator == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        return "; ".join(f"{place}: " + not_known(key, "key", known) for key in unknown)
    if error.validator == "required":
        return "; ".join(
            f"{place}: " + missing(key, error.schema)
            for key in error.validator_value
            if key not in error.instance
        )
    if "title" in error.schema:
        return f"{place}: {error.instance!r} is not {error.schema['title']}"
    return f"{place}: {error.message}"


def missing(key: str, schema: Mapping[str, Any]) -> str:
    """That a key is, and what is to be given, where the schema says it."""
    about = schema.get("properties", {}).get(key, {}).get("description")
    return f"'{key}' is missing" + (f"; give {about}" if about else "")


def per_model_problems(config: Mapping[str, Any], schema: dict) -> Checks:
    """Models that `per_model` does not know, and entries that are wrong for a model."""
    known = set(map(schema_problem, schema_errors(config, schema)))
    for path, entry in varying(config):
        yield model_variant_problems(config, schema, path, entry, known)


def model_variant_problems(
    config: Mapping[str, Any],
    schema: dict,
    path: tuple[str, ...],
    entry: Mapping[str, Any],
    known: set[str],
) -> Iterator[str]:
    """The same of one entry; known: what is wrong whatever the model."""
    place = ".".join(path)
    for model in entry.get("per_model", {}):
        if model not in config["models"]:
            yield f"{place}.per_model: {not_known(model, 'model', config['models'])}"
        for key in {"per_model", "model", "kind"} & set(entry["per_model"][model]):
            yield f"{place}.per_model.{model}: '{key}' cannot differ per model; remove it"
        changed = with_value(config, path, for_model(entry, model))
        for problem in map(schema_problem, schema_errors(changed, schema)):
            if problem not in known:
                yield f"{problem} (with {place}.per_model.{model})"


def varying(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(path, value) of everything that may have a `per_model`."""
    for section in ("sandbox", "steering", "sensitivity", "evaluation"):
        yield (section,), config[section]
    registries = (
        "directions", "pilots", "states", "layers", "anchors", "methods", "finetunes", "resources",
    )  # fmt: skip
    for registry in registries:
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


def kind_problems(config: Mapping[str, Any]) -> Checks:
    """Options that a kind of method, judge, table or state does not have, or lacks."""
    for registry, kinds in (("methods", scorers.KINDS), ("judges", judges.KINDS)):
        options = {kind: options_of(known) for kind, known in kinds.items()}
        for place, _, entry in variants(config, registry):
            yield option_problems(place, entry, options, ("kind",))
    for name, entry in config["treatments"].items():
        options = {kind: (needed, ()) for kind, needed in treatments.KINDS.items()}
        yield option_problems(f"treatments.{name}", entry, options, ("kind",))
        yield treatment_name_problems(name)
    for name, entry in config["tables"].items():
        yield option_problems(f"tables.{name}", entry, TABLES, ("kind", "title", "published"))
        yield list_problems(f"tables.{name}", entry)
    for place, _, entry in variants(config, "methods"):
        if entry.get("kind") == "sqsd" and not {"danger", "safety"} & set(entry):
            yield f"{place}: neither 'danger' nor 'safety'; give one of them, or both"
    for place, _, entry in variants(config, "states"):
        yield state_key_problems(place, entry)
    for place, _, entry in variants(config, "layers"):
        yield layer_key_problems(place, entry)
    for place, training, objective in trainings(config):
        if ("beta" in training) != (objective == "dpo"):
            word = "means nothing" if "beta" in training else "is missing"
            yield f"{place}: 'beta' {word} for {objective}"
    if "responses" in config["judges"]:
        yield "judges.responses: the name of the folder that judgements are made from; rename it"
    if ALL_ROWS in config["methods"]:
        yield f"methods.{ALL_ROWS}: the name of the folder of fine-tunes on all rows; rename it"


def treatment_name_problems(name: str) -> Iterator[str]:
    if name == ALL or re.fullmatch(r"s\d+", name):
        yield (
            f"treatments.{name}: the name of a folder of fine-tunes on a subset, or on all rows; "
            "rename it"
        )


def option_problems(
    place: str, entry: Mapping[str, Any], kinds: Mapping[str, Options], common: tuple[str, ...]
) -> Iterator[str]:
    """An unknown kind, and options that it does not have, or lacks; common: of every kind."""
    kind = entry["kind"]
    if kind not in kinds:
        yield f"{place}.kind: {not_known(kind, 'kind', kinds)}"
        return
    needed, allowed = kinds[kind]
    rest = {key: value for key, value in entry.items() if key not in common}
    yield from keys_problems(place, rest, f"kind '{kind}'", needed, allowed)


def list_problems(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """A list of names under a key where the table's kind takes one."""
    for key, kind in LISTS.items():
        if isinstance(table.get(key), list) and table["kind"] != kind:
            yield f"{place}.{key}: a list, which only kind '{kind}' takes; give one name"


def options_of(kind: type) -> tuple[list[str], list[str]]:
    """The options of a kind, those that must be given and those that may, from its fields."""
    options = [field for field in fields(kind) if field.init]
    needed = [f.name for f in options if f.default is MISSING and f.default_factory is MISSING]
    return needed, [f.name for f in options if f.name not in needed]


def state_key_problems(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if "unadapted" in entry:
        what = "theta_0 itself, without an adapter"
        yield from keys_problems(place, entry, what, ("unadapted",), ())
        return
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


def layer_key_problems(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if "layer" in entry:
        yield from keys_problems(place, entry, "a layer that is named", ("layer",), ())
    else:
        needed = ("benchmark", "judge", "first", "factors", "max_new_tokens")
        yield from keys_problems(place, entry, "a layer that is searched", needed, ("last",))


# What a name points at: an entry of a registry, or a role that a benchmark plays.
ROLES = "roles"
# What it is called, where that is not the registry in the singular.
CALLED = {
    "datasets": "data set", "preferences": "set of preferences", "finetunes": "fine-tune",
    "groups": "set of groups",
    ROLES: "role of evaluation.benchmarks",
}  # fmt: skip
# What the keys of a registry's entries point at.
POINTERS = {
    "experiments": {"model": "models", "dataset": "datasets"},
    "models": {"base": "models", "data": "datasets"},
    "curations": {"method": "methods", "experiments": "experiments"},
    "finetunes": {"model": "models"},
    "judges": {"model": "models"},
    "treatments": {"data": "datasets"},
    "tables": {
        "experiments": "experiments", "methods": "methods", "states": "states",
        "directions": "directions", "finetune": "finetunes", "pilot": "pilots",
        "judge": "judges", "judges": "judges", "reference": "judges", "benchmark": ROLES,
        "groups": "groups", "treatments": "treatments", "heldout": "datasets", "exact": ROLES,
        "riskier": "experiments", "safer": "experiments", "models": "models", "benchmarks": ROLES,
    },
}  # fmt: skip
# The same of entries that may differ per model.
VARYING_POINTERS = {
    "anchors": {"data": "datasets"},
    "pilots": {"data": "datasets"},
    "states": {"pilot": "pilots", "direction": "directions"},
    "layers": {"benchmark": ROLES, "judge": "judges"},
}


def reference_problems(config: Mapping[str, Any]) -> Checks:
    """Names that point nowhere, entry by entry."""
    selected = {name: name for name in ("experiments", "tables", "curations")}
    yield pointer_problems(config, "selection", config["selection"], selected)
    for registry, keys in POINTERS.items():
        for name, entry in config[registry].items():
            yield pointer_problems(config, f"{registry}.{name}", entry, keys)
    for registry, keys in VARYING_POINTERS.items():
        for place, _, entry in variants(config, registry):
            yield pointer_problems(config, place, entry, keys)
    for place, _, direction in variants(config, "directions"):
        yield direction_reference_problems(config, place, direction)
    for place, _, method in variants(config, "methods"):
        yield method_reference_problems(config, place, method)
    for place, _, evaluation in section_variants(config, "evaluation"):
        for registry in ("benchmarks", "judges"):
            yield role_reference_problems(config, place, evaluation, registry)
    for place, _, sensitivity in section_variants(config, "sensitivity"):
        roles = {"benchmark": ROLES, "guard": ROLES}
        yield pointer_problems(config, place, sensitivity, roles)
    for name, table in config["tables"].items():
        yield against_problems(f"tables.{name}", table)
        yield published_problems(f"tables.{name}", table)
        yield separation_problems(config, f"tables.{name}", table)
        yield all_rows_problems(config, f"tables.{name}", table)
    if "all" in config["tables"]:
        yield "tables.all: 'all' is the target that makes every selected table; rename it"


def kind_of(registry: str) -> str:
    """What an entry of a registry is called in a message."""
    return CALLED.get(registry, registry.removesuffix("s"))


def pointer_problems(
    config: Mapping[str, Any], place: str, entry: Mapping[str, Any], keys: Mapping[str, str]
) -> Iterator[str]:
    """Names under an entry's keys, one or a list of each, that their registries do not have."""
    for key, registry in keys.items():
        known = config["evaluation"]["benchmarks"] if registry == ROLES else config[registry]
        given = entry.get(key)
        several = isinstance(given, list)
        for i, name in enumerate(given if several else [given]):
            if name is not None and name not in known:
                where = f"{place}.{key}[{i}]" if several else f"{place}.{key}"
                yield f"{where}: {not_known(name, kind_of(registry), known)}"


def against_problems(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """A method that a table compares its methods with, and that is none of them."""
    if "against" in table and table["against"] not in table["methods"]:
        kind, known = "method of the table", table["methods"]
        yield f"{place}.against: {not_known(table['against'], kind, known)}"


def published_problems(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Published numbers that there are none of; null stands for none."""
    if table.get("published") and table["published"] not in published():
        kind = "entry of config/published.yaml"
        yield f"{place}.published: {not_known(table['published'], kind, published())}"


def separation_problems(
    config: Mapping[str, Any], place: str, table: Mapping[str, Any]
) -> Iterator[str]:
    """Two experiments whose scores are not to be compared."""
    if table["kind"] != "separation":
        return
    riskier, safer = (config["experiments"][table[side]]["model"] for side in ("riskier", "safer"))
    if riskier != safer:
        yield (
            f"{place}: '{table['riskier']}' is of model '{riskier}' and '{table['safer']}' of "
            f"'{safer}', whose scores are not comparable; name two experiments of one model"
        )
    if table["riskier"] == table["safer"]:
        yield f"{place}: riskier and safer are both '{table['safer']}'; name two experiments"


def all_rows_problems(
    config: Mapping[str, Any], place: str, table: Mapping[str, Any]
) -> Iterator[str]:
    """A table of fine-tunes on all rows, of a fine-tune that makes none for one of its models."""
    if table["kind"] != "all-rows":
        return
    for model in without_all_rows_seeds(config, table):
        yield (
            f"{place}.finetune: '{table['finetune']}' trains on no data set's rows together "
            f"(model '{model}'); give it 'all_rows_seeds', a list of seeds"
        )


def without_all_rows_seeds(config: Mapping[str, Any], table: Mapping[str, Any]) -> Iterator[str]:
    """The models that a table's fine-tunes train, but on all rows of a data set on no seed."""
    for name, model in dict.fromkeys(finetunes_of(config, table)):
        if not for_model(config["finetunes"][name], model).get("all_rows_seeds"):
            yield model


def direction_reference_problems(
    config: Mapping[str, Any], place: str, direction: Mapping[str, Any]
) -> Iterator[str]:
    if "source" not in direction:
        yield from pointer_problems(config, place, direction, {"data": trained_on(direction)})


def trained_on(direction: Mapping[str, Any]) -> str:
    """The registry that a direction's data are in."""
    return "datasets" if direction["objective"] == "sft" else "preferences"


def method_reference_problems(
    config: Mapping[str, Any], place: str, method: Mapping[str, Any]
) -> Checks:
    terms = {"direction": "directions", "state": "states"}
    for term in ("danger", "safety"):
        yield pointer_problems(config, f"{place}.{term}", method.get(term, {}), terms)
    yield pointer_problems(config, place, method, scorers.KINDS[method["kind"]].points)


def role_reference_problems(
    config: Mapping[str, Any], place: str, evaluation: Mapping[str, Any], registry: str
) -> Iterator[str]:
    """Of the benchmarks by their roles, or the judges by their measures."""
    named = evaluation[registry]
    keys = dict.fromkeys(named, registry)
    yield from pointer_problems(config, f"{place}.{registry}", named, keys)


def source_problems(config: Mapping[str, Any]) -> Checks:
    """Sources that do not exist, cannot be read, or lack what their kind needs."""
    for registry in SANDBOX:
        for name, spec in config[registry].items():
            yield data_source_problems(registry, f"{registry}.{name}", spec)
    for name, spec in config["models"].items():
        yield model_source_problems(f"models.{name}", spec)
        yield base_problems(config, f"models.{name}.base", spec)
    for name, direction in config["directions"].items():
        yield direction_source_problems(config, f"directions.{name}", direction)
    for place, _, method in variants(config, "methods"):
        yield score_file_problems(place, method)
    for name, judge in config["judges"].items():
        if judge["kind"] == "guard":
            yield guard_problems(config, f"judges.{name}.model", judge)


def data_source_problems(registry: str, place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    source, known = spec["source"], SANDBOX[registry]
    if not is_sandbox(source):
        yield from row_source_problems(registry, place, spec)
    elif source not in known:
        yield f"{place}.source: {not_known(source, 'part of the sandbox', known)}"
    else:
        needed = ("seed",) if registry == "benchmarks" else ("rows", "seed")
        yield from keys_problems(place, spec, f"source '{source}'", ("source", *needed), ())


def row_source_problems(registry: str, place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    source = spec["source"]
    if is_hub(source):
        try:
            parse_hub(source)
        except DataError as error:
            yield f"{place}.source: {error}"
            return
    elif not is_file(source):
        problem = "is no file" if on_disk(source, Path.exists) else "does not exist"
        yield (
            f"{place}.source: '{source}' {problem}; allowed: a .jsonl, .json, .csv or "
            ".parquet file, hub:owner/name:split, or sandbox:part"
        )
        return
    sampled = "rows" in spec or "skip" in spec
    needed = ("source", "seed") if sampled else ("source",)
    allowed = ("fields", *row_keys(source, SHAPES[registry]))
    problems = list(keys_problems(place, spec, f"source '{source}'", needed, allowed))
    yield from problems
    if not problems:
        try:
            check_rows(registry, spec)
        except DataError as error:
            yield f"{place}: {error}"


def check_rows(registry: str, spec: Mapping[str, Any]) -> None:
    """Raises DataError for a specification that is wrong, and for rows of a file that are.

    A data set may have rows that cannot be used; preferences and benchmarks may not.
    """
    if is_hub(spec["source"]):
        check_spec(spec, *SHAPES[registry])
        return
    count_rows(registry, spec)
    if registry == "benchmarks":
        load_benchmark(spec)
    elif registry == "preferences":
        load_preferences(spec)


def score_file_problems(place: str, method: Mapping[str, Any]) -> Iterator[str]:
    """A file of scores that does not exist, or cannot be read as one."""
    if method["kind"] != "file":
        return
    if not is_file(method["source"]):
        yield (
            f"{place}.source: '{method['source']}' does not exist; allowed: a .jsonl, .json, .csv "
            "or .parquet file"
        )
        return
    try:
        load_scores(method["source"], method["fields"])
    except DataError as error:
        yield f"{place}: {error}"


def direction_source_problems(
    config: Mapping[str, Any], place: str, direction: Mapping[str, Any]
) -> Iterator[str]:
    """A direction of others that is no whole folder, or whose adapters are not like the run's."""
    for model, entry in direction.get("per_model", {}).items():
        if "source" in entry:
            yield (
                f"{place}.per_model.{model}: 'source' cannot differ per model; give each model's "
                "direction a name of its own"
            )
    if "source" not in direction:
        return
    source = direction["source"]
    lacking = [name for name in DIRECTION_FILES if not is_file(Path(source) / name)]
    if lacking:
        yield (
            f"{place}.source: '{source}' has no {' and no '.join(lacking)}; give a whole folder "
            "as it lies in results/RUN/directions/MODEL, whose training.json says which model it "
            "is of"
        )
        return
    yield from kept_problems(place, direction["checkpoint"], source)
    try:
        found = json.loads((Path(source) / "adapter_config.json").read_text())
        ranks = {key: found[key] for key in config["lora"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{place}.source: '{source}/adapter_config.json' is none ({error!r}); copy it anew"
        return
    for key, needed in config["lora"].items():
        if ranks[key] != needed:
            yield (
                f"{place}.source: '{source}' has {key}={ranks[key]}, the run's adapters have "
                f"lora.{key}={needed}; give one with {needed}, or set lora.{key} to {ranks[key]}"
            )


def kept_problems(place: str, checkpoint: int | str, source: str) -> Iterator[str]:
    """A checkpoint that a direction of others does not have."""
    if checkpoint != "final" and not on_disk(f"{source}/checkpoint-{checkpoint}", Path.is_dir):
        yield (
            f"{place}.checkpoint: '{source}' has no checkpoint-{checkpoint}; give final, or the "
            "number of one that is there"
        )


def on_disk(source: str | Path, is_there: Callable[[Path], bool]) -> bool:
    """Whether a file or folder is there; no file system has one of some names."""
    try:
        return is_there(Path(source))
    except OSError:
        return False


def is_file(source: str | Path) -> bool:
    return on_disk(source, Path.is_file)


def model_source_problems(place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    source = spec["source"]
    known = ("source", "seed")
    if source in MADE_HERE:
        needed = (*known, "base", "data", "training") if source == "tuned" else known
        yield from keys_problems(place, spec, f"source '{source}'", needed, ())
    elif source.startswith("wheel:"):
        if wheel_parts(source) is None:
            yield f"{place}.source: '{source}' is no wheel; allowed: {MODEL_SOURCES}"
        yield from keys_problems(place, spec, f"source '{source}'", (*known, "sha256"), ())
    elif source.startswith("hub:"):
        if not re.fullmatch(f"hub:{HUB_NAME}", source):
            yield f"{place}.source: '{source}' is no model of the hub; allowed: {MODEL_SOURCES}"
        yield from keys_problems(place, spec, f"source '{source}'", known, ("revision", "head"))
    elif source.endswith(".gguf") and not is_file(source):
        yield f"{place}.source: '{source}' is no file; allowed: {MODEL_SOURCES}"
    elif source.endswith(".gguf"):
        yield from keys_problems(place, spec, f"source '{source}'", known, ())
    elif not on_disk(source, Path.is_dir):
        hint = f". Did you mean 'hub:{source}'?" if re.fullmatch(HUB_NAME, source) else ""
        yield f"{place}.source: '{source}' is no folder; allowed: {MODEL_SOURCES}{hint}"
    elif not is_file(f"{source}/config.json"):
        yield f"{place}.source: '{source}' has no config.json; give one written by save_pretrained"
    else:
        yield from keys_problems(place, spec, f"source '{source}'", known, ("head",))


def base_problems(config: Mapping[str, Any], place: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """A model that is tuned from one that is tuned itself."""
    others = {k: v for k, v in config["models"].items() if v["source"] != "tuned"}
    if spec.get("base") in config["models"].keys() - others.keys():
        fit = sorted(name for name, other in others.items() if head_of(other) == "language")
        yield (
            f"{place}: '{spec['base']}' is tuned itself; allowed: {', '.join(fit) or 'none'}; tune "
            "one of them on all the data sets at once"
        )


def guard_problems(
    config: Mapping[str, Any], place: str, judge: Mapping[str, Any]
) -> Iterator[str]:
    """A guard in a folder, whose tokenizer cannot write its verdicts; of others a job says it."""
    from tokenizers import Tokenizer

    source = config["models"][judge["model"]]["source"]
    try:
        tokenizer = Tokenizer.from_file(f"{source}/tokenizer.json")
    except Exception:  # it raises no other; `fetch_model` says what is wrong with a folder
        return
    try:
        judges.check_verdicts(tokenizer, source)
    except DataError as error:
        yield f"{place}: {error}"


def range_problems(config: Mapping[str, Any]) -> Checks:
    """Values that the rest of the configuration rules out."""
    yield batch_problems(config)
    yield shared_batch_problems(config)
    for place, _, direction in variants(config, "directions"):
        yield direction_range_problems(config, place, direction)
    for place, _, pilot in variants(config, "pilots"):
        yield pilot_range_problems(config, place, pilot)
    yield shared_path_problems(config)
    for name in config["selection"]["curations"]:
        yield drop_problems(config, name)
    for name in experiments(config):
        yield experiment_problems(config, name)
    used = used_methods(config)
    for place, _, method in variants({"methods": used}, "methods"):
        yield reading_problems(config, place, method)
    for place, _, method in variants(config, "methods"):
        yield chosen_problems(config, place, method)
    yield score_match_problems(config)
    for place, _, layer in variants(config, "layers"):
        yield search_range_problems(place, layer)
    yield group_problems(config)
    for name in config["selection"]["tables"]:
        yield group_size_problems(config, name)
    models = dict.fromkeys(config["experiments"][e]["model"] for e in experiments(config))
    for model in models:
        for name in used_states(config):
            yield state_range_problems(config, name, model)
        yield curve_problems(config, model)
        yield trust_problems(config, model)
        yield layer_range_problems(config, model)
    yield measure_problems(config)
    for name, table in config["tables"].items():
        yield mark_problems(config, f"tables.{name}", table)
        yield treatment_seed_problems(config, f"tables.{name}", table)
    for name in config["selection"]["tables"]:
        yield first_order_problems(config, f"tables.{name}", config["tables"][name])


def mark_problems(config: Mapping[str, Any], place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """States of a table of curves that are of no run that it has a curve of."""
    if table["kind"] not in ("trajectory", "steering", "alphas"):
        return
    key = "pilot" if table["kind"] == "trajectory" else "direction"
    runs = several(table["pilot"]) if key == "pilot" else table["directions"]
    for i, name in enumerate(table.get("states", [])):
        entries = [for_model(config["states"][name], model) for model in config["models"]]
        points = [entry[key] for entry in entries if curve_of(entry)[0] == key]
        known = config[f"{key}s"].keys() >= {*runs, *points}
        if known and not set(points) & set(runs):
            yield (
                f"{place}.states[{i}]: '{name}' is no state of {key} {', '.join(runs)}, which the "
                "table has curves of; leave it out"
            )


def treatment_seed_problems(
    config: Mapping[str, Any], place: str, table: Mapping[str, Any]
) -> Iterator[str]:
    """A fine-tune of a table of treatments that has no seeds of fine-tunes on all rows."""
    if table["kind"] != "treatments":
        return
    for model in without_all_rows_seeds(config, table):
        yield (
            f"{place}.finetune: '{table['finetune']}' has no all_rows_seeds (model '{model}'), "
            "which treated rows and all of them are fine-tuned on; give it one or more"
        )


def first_order_problems(
    config: Mapping[str, Any], place: str, table: Mapping[str, Any]
) -> Iterator[str]:
    """More rows whose loss changes are to be measured than a data set has."""
    if table["kind"] != "first-order":
        return
    for name in experiment_names(config, table):
        dataset = config["experiments"][name]["dataset"]
        yield from more_than_rows(config, f"{place}.rows", table["rows"], dataset)


def more_than_rows(
    config: Mapping[str, Any], place: str, wanted: int, dataset: str
) -> Iterator[str]:
    """A number of rows that a data set does not have, where it is known how many it has."""
    rows = count_rows("datasets", config["datasets"][dataset])
    if rows is not None and wanted > rows:
        yield (
            f"{place}: {wanted} is more than the {rows} rows of datasets.{dataset}; at most {rows}"
        )


def direction_range_problems(
    config: Mapping[str, Any], place: str, direction: Mapping[str, Any]
) -> Iterator[str]:
    if "source" in direction:
        return
    every, steps = direction["save_steps"], direction_steps(config, direction)
    yield from save_problems(place, every, steps)
    if every <= steps:
        yield from checkpoint_problems(place, direction["checkpoint"], "save_steps", every, steps)


def pilot_range_problems(
    config: Mapping[str, Any], place: str, pilot: Mapping[str, Any]
) -> Iterator[str]:
    yield from counted_problems(config, pilot["data"], f"{place}.data")
    rows = count_rows("datasets", config["datasets"][pilot["data"]])
    if rows is None:
        return
    steps = training_steps(rows, pilot["training"])
    yield from save_problems(place, pilot["save_steps"], steps)
    if steps > MOST_JOBS * pilot["save_steps"]:
        yield (
            f"{place}.save_steps: {pilot['save_steps']} saves more than {MOST_JOBS} "
            "checkpoints; save less often"
        )


def batch_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for place, training, _ in trainings(config):
        size = training["batch_size"]
        if size % training.get("micro_batch_size", size):
            yield (
                f"{place}.micro_batch_size: {training['micro_batch_size']} does not divide "
                f"batch_size={size}; give a divisor of it"
            )


def drop_problems(config: Mapping[str, Any], curation: str) -> Iterator[str]:
    """A share that drops no row of a data set or leaves less than a batch, where that is known."""
    entry, fewest = config["curations"][curation], smallest_batch(config)
    for experiment in experiment_names(config, entry):
        dataset = config["experiments"][experiment]["dataset"]
        rows = count_rows("datasets", config["datasets"][dataset])
        if rows is not None and (problem := drop_problem(entry["drop"], rows, fewest)):
            yield f"curations.{curation}.drop: {problem} (datasets.{dataset})"


def shared_batch_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Batches of full fine-tunes of selected tables that their model's GPUs cannot share."""
    for name, model in finetuned(config):
        entry = for_model(config["finetunes"][name], model)
        gpus = for_model(config["resources"]["train"], model)["gpu"]
        if entry["tuning"] == "full" and gpus > 1:
            try:
                rows_at_once(entry["training"], gpus)
            except ConfigurationError as error:
                yield f"finetunes.{name}.training: {error} (of model '{model}')"


def finetuned(config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(fine-tune, model that it trains) of selected tables, and of methods that one has."""
    tables = map(config["tables"].__getitem__, config["selection"]["tables"])
    found = {pair for table in tables for pair in finetunes_of(config, table)}
    for _, _, method in variants({"methods": used_methods(config)}, "methods"):
        entry = {"finetune": method.get("finetune", []), "experiments": experiments(config)}
        found |= set(finetunes_of(config, entry))
    return found


def finetunes_of(config: Mapping[str, Any], table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of one table, or of what names fine-tunes and experiments as one does."""
    for name in several(table.get("finetune", [])):
        for experiment in map(config["experiments"].get, experiment_names(config, table)):
            yield name, config["finetunes"][name].get("model", experiment["model"])


def experiments(config: Mapping[str, Any]) -> list[str]:
    """The selected experiments, and those that a table names itself, of those that there are."""
    named = map(named_experiments, config["tables"].values())
    names = dict.fromkeys([*config["selection"]["experiments"], *itertools.chain(*named)])
    return [name for name in names if name in config["experiments"]]


def used_states(config: Mapping[str, Any]) -> dict[str, Any]:
    """The states that a selected table is about, or that a method of one reads at."""
    tables = [config["tables"].get(table, {}) for table in config["selection"]["tables"]]
    names = {state for table in tables for state in table.get("states", [])}
    for _, _, method in variants({"methods": used_methods(config)}, "methods"):
        names.update(method[term]["state"] for term in ("danger", "safety") if term in method)
    return {name: entry for name, entry in config["states"].items() if name in names}


def trainings(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(place, entry, objective) of everything that is trained."""
    for place, _, sandbox in section_variants(config, "sandbox"):
        for name in ("pretraining", "alignment_training"):
            yield f"{place}.{name}", sandbox[name], "sft"
        yield f"{place}.cost.training", sandbox["cost"]["training"], "reward"
        yield f"{place}.guard.training", sandbox["guard"]["training"], "sft"
    for name, spec in config["models"].items():
        if "training" in spec:
            yield f"models.{name}.training", spec["training"], "sft"
    for registry in ("directions", "pilots", "finetunes"):
        for place, _, entry in variants(config, registry):
            if registry == "directions" and "source" in entry:
                continue
            yield f"{place}.training", entry["training"], entry.get("objective", "sft")


def direction_steps(config: Mapping[str, Any], direction: Mapping[str, Any]) -> float:
    """Steps that a direction's training takes; infinite where only the hub knows its rows."""
    registry = trained_on(direction)
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
    spec = config["datasets"][dataset]
    if is_hub(spec["source"]) and "rows" not in spec:
        yield (
            f"datasets.{dataset}: 'rows' is missing; the hub's rows are not counted before a run, "
            f"and {why} needs their number"
        )


def shard_problems(config: Mapping[str, Any], dataset: str, why: str) -> Iterator[str]:
    """A data set that is read in shards, whose rows are not known, or are too many."""
    yield from counted_problems(config, dataset, why)
    size = config["gradients"]["rows_per_shard"]
    rows = count_rows("datasets", config["datasets"][dataset])
    if rows is not None and rows > MOST_JOBS * size:
        yield (
            f"datasets.{dataset}.rows: {rows} in shards of gradients.rows_per_shard={size} are "
            f"more than {MOST_JOBS} jobs for each state; at most {MOST_JOBS * size} rows, "
            "or larger shards"
        )


def shared_path_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Experiments whose results would be the same files."""
    pairs: dict[tuple[str, str], str] = {}
    for name in experiments(config):
        pair = (config["experiments"][name]["model"], config["experiments"][name]["dataset"])
        if pair in pairs:
            yield (
                f"experiments.{name}: model and data set are those of '{pairs[pair]}', so both "
                "would write the same files; select one of them"
            )
        pairs[pair] = name


def experiment_problems(config: Mapping[str, Any], name: str) -> Iterator[str]:
    dataset = config["experiments"][name]["dataset"]
    yield from shard_problems(config, dataset, f"experiments.{name}")
    if cuts_subsets(config):
        yield from more_than_rows(config, "subsets.rows", config["subsets"]["rows"], dataset)


def reading_problems(
    config: Mapping[str, Any], place: str, method: Mapping[str, Any]
) -> Iterator[str]:
    """Data sets that a method of a selected table reads beside the rows that it scores."""
    for reading in scorers.make_scorer(method).needs().values():
        if reading.dataset is not None:
            yield from shard_problems(config, reading.dataset, place)
    if "most" in method:
        yield from more_than_rows(config, f"{place}.most", method["most"], method["anchors"])


def used_methods(config: Mapping[str, Any]) -> dict[str, Any]:
    """The methods of selected tables, and those that one chooses among, of those that there are."""
    tables = [config["tables"].get(table, {}) for table in config["selection"]["tables"]]
    known = config["methods"]
    names = {name for table in tables for name in table.get("methods", [])} & set(known)
    for _, _, method in variants({"methods": {name: known[name] for name in names}}, "methods"):
        names |= set(method.get("among", [])) & set(known)
    return {name: entry for name, entry in known.items() if name in names}


def chosen_problems(
    config: Mapping[str, Any], place: str, method: Mapping[str, Any]
) -> Iterator[str]:
    """Methods that a calibrated one cannot choose among."""
    for i, other in enumerate(method.get("among", [])):
        if config["methods"][other]["kind"] == "calibrated":
            yield (
                f"{place}.among[{i}]: '{other}' is calibrated itself; list the methods that "
                "it chooses among"
            )


def score_match_problems(config: Mapping[str, Any]) -> Checks:
    """Files of scores of selected tables, against the rows that they are to score."""
    seen = []
    for table in map(config["tables"].__getitem__, config["selection"]["tables"]):
        for experiment in map(config["experiments"].get, experiment_names(config, table)):
            known = {m: for_model(e, experiment["model"]) for m, e in config["methods"].items()}
            names = table.get("methods", [])
            for name in [*names, *(n for m in names for n in known[m].get("among", []))]:
                case = name, known[name], experiment["dataset"]
                if known[name]["kind"] == "file" and case not in seen:
                    seen.append(case)
                    yield unmatched_problems(config, *case)


def unmatched_problems(
    config: Mapping[str, Any], name: str, method: Mapping[str, Any], dataset: str
) -> Iterator[str]:
    """A file of scores that has no row of a data set, where that is a file too."""
    spec = config["datasets"][dataset]
    if is_file(spec["source"]):
        rows, given = load_dataset(spec), load_scores(method["source"], method["fields"])
        try:
            matched(rows, given, f"datasets.{dataset}", method["source"])
        except DataError as error:
            yield f"methods.{name}: {error}"


def group_problems(config: Mapping[str, Any]) -> Checks:
    """Too few groups."""
    for name, spec in config["groups"].items():
        count = spec["random_groups"] + spec["biased_groups"]
        if count < FEWEST_GROUPS:
            yield (
                f"groups.{name}: {count} group(s) in all; a rank correlation with an interval "
                f"needs {FEWEST_GROUPS}; raise random_groups or biased_groups"
            )


def group_size_problems(config: Mapping[str, Any], selected: str) -> Iterator[str]:
    """Groups, of a selected table or of a method in it, that are larger than a data set."""
    table = config["tables"][selected]
    for name in experiment_names(config, table):
        experiment = config["experiments"][name]
        methods = [
            for_model(config["methods"][m], experiment["model"]) for m in table.get("methods", [])
        ]
        for groups in dict.fromkeys(e["groups"] for e in (table, *methods) if "groups" in e):
            size = config["groups"][groups]["size"]
            yield from more_than_rows(config, f"groups.{groups}.size", size, experiment["dataset"])


def search_range_problems(place: str, layer: Mapping[str, Any]) -> Iterator[str]:
    """A search of layers that ends before it begins."""
    if "last" in layer and layer["last"] < layer["first"]:
        yield (
            f"{place}.last: {layer['last']} is below first={layer['first']}; give "
            f"{layer['first']} or more, or leave it out for the model's last layer"
        )


def layers_of(config: Mapping[str, Any], model: str) -> int | None:
    """How many layers a model has; None where only a job will know.

    Of the sandbox the configuration says it, of a folder its config.json; a tuned model has those
    of its base.
    """
    model = config["models"][model].get("base", model)
    source = config["models"][model]["source"]
    settings = for_model(config["sandbox"], model)["architecture"]
    if source != "sandbox":
        try:
            settings = json.loads((Path(source) / "config.json").read_text())
        except (OSError, ValueError):
            return None
    found = settings.get("num_hidden_layers") if isinstance(settings, Mapping) else None
    return found if isinstance(found, int) else None


def layer_range_problems(config: Mapping[str, Any], model: str) -> Iterator[str]:
    """Layers that a model, of which is known how many it has, does not have."""
    last = layers_of(config, model)
    if last is None:
        return
    methods = [for_model(method, model) for method in used_methods(config).values()]
    for name in dict.fromkeys(method["layer"] for method in methods if "layer" in method):
        entry = for_model(config["layers"][name], model)
        for key, first in (("layer", 0), ("first", 1), ("last", 1)):
            if entry.get(key, "last") != "last" and entry[key] > last:
                yield (
                    f"layers.{name}.{key}: {entry[key]} is no layer of model '{model}'; allowed: "
                    f"{first} to {last}"
                )


def cuts_subsets(config: Mapping[str, Any]) -> bool:
    """Whether a selected table fine-tunes subsets, or groups rows by length."""
    tables = [config["tables"][table] for table in config["selection"]["tables"]]
    return any(
        t["kind"] in ("losses", "token-losses") or ("finetune" in t and t["kind"] != "treatments")
        for t in tables
    )


def state_range_problems(config: Mapping[str, Any], name: str, model: str) -> Iterator[str]:
    """What is wrong with a state, all as it is for a model."""
    state = for_model(config["states"][name], model)
    if "unadapted" in state:
        return
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
    if "source" in direction:
        yield from kept_problems(place, state["checkpoint"], direction["source"])
    else:
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
    """A grid on which the alphas of a selected table cannot be ranked, or a state not marked."""
    tables = {table: config["tables"][table] for table in config["selection"]["tables"]}
    kinds = [table["kind"] for table in tables.values()]
    grid = for_model(config["steering"], model)["alphas"]
    delta = for_model(config["sensitivity"], model)["delta"]
    ranked = [a for a in grid if None not in (position(grid, a + s * delta) for s in (-1, 1))]
    if "alphas" in kinds and not ranked:
        yield (
            f"steering.alphas: no alpha has both neighbours at sensitivity.delta={delta:g} "
            f"(model '{model}'); list alphas that far apart"
        )
    for table, spec in tables.items():
        for i, name in enumerate(spec.get("states", []) if spec["kind"] == "steering" else []):
            alpha = for_model(config["states"][name], model).get("alpha")
            if alpha is not None and position(grid, alpha) is None:
                yield (
                    f"tables.{table}.states[{i}]: '{name}' is at alpha {alpha:g}, which no curve "
                    f"has: it is not in steering.alphas (model '{model}'); add it there, or leave "
                    "the state out"
                )


def trust_problems(config: Mapping[str, Any], model: str) -> Iterator[str]:
    """A grid that lacks what checks before scores compare: the model as it is, and steered."""
    if config["trust"] is None:
        return
    grid = for_model(config["steering"], model)["alphas"]
    for alpha in (0, config["trust"]["alpha"]):
        if alpha not in grid:
            known = ", ".join(f"{a:g}" for a in grid)
            yield (
                f"trust.alpha: {config['trust']['alpha']:g} is compared with 0, and {alpha:g} is "
                f"not in steering.alphas (model '{model}'): {known}; add it there, or give another"
            )


def measure_problems(config: Mapping[str, Any]) -> Checks:
    """Measures that the judge asked for them does not give."""
    for place, _, evaluation in section_variants(config, "evaluation"):
        for measure, judge in evaluation["judges"].items():
            yield judge_problems(config, f"{place}.judges.{measure}", judge, measure)
    for place, model, wanted in model_uses(config):
        yield model_head_problems(config, place, model, wanted)
    for place, _, method in variants(config, "methods"):
        if "judge" in method:
            yield judge_problems(config, f"{place}.judge", method["judge"], "safety_score")
            yield row_judge_problems(config, f"{place}.judge", method["judge"])
    for place, _, layer in variants(config, "layers"):
        if "judge" in layer:
            yield judge_problems(config, f"{place}.judge", layer["judge"], "asr")
            yield layer_judge_problems(config, f"{place}.judge", layer["judge"])
    for name, table in config["tables"].items():
        if "judge" in table:
            measure = READ_BY[table.get("measure", "asr")]
            yield judge_problems(config, f"tables.{name}.judge", table["judge"], measure)
        if "reference" in table:
            yield judge_problems(config, f"tables.{name}.reference", table["reference"], "asr")


def judge_problems(
    config: Mapping[str, Any], place: str, judge: str, measure: str
) -> Iterator[str]:
    known = {j: e["kind"] for j, e in config["judges"].items() if e["kind"] in judges.KINDS}
    gives = judges.KINDS[known[judge]].gives
    if measure not in gives:
        fit = [name for name, kind in known.items() if measure in judges.KINDS[kind].gives]
        yield (
            f"{place}: '{judge}' gives {', '.join(sorted(gives))}, not {measure}; "
            f"judges that give it: {', '.join(fit) or 'none'}"
        )


def layer_judge_problems(config: Mapping[str, Any], place: str, judge: str) -> Iterator[str]:
    if judges.KINDS[config["judges"][judge]["kind"]].reads is not None:
        yield (
            f"{place}: '{judge}' reads a model, and a search of layers judges by texts alone; "
            "name a judge of kind phrases"
        )


def row_judge_problems(config: Mapping[str, Any], place: str, judge: str) -> Iterator[str]:
    if judges.KINDS[config["judges"][judge]["kind"]].reads not in judges.OWN:
        yield (
            f"{place}: '{judge}' reads the model that responded, and a data set's responses are "
            "of none; name a judge with a model of its own"
        )


def model_uses(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(place, model, head that is needed) of every name of a model."""
    for name, experiment in config["experiments"].items():
        yield f"experiments.{name}.model", experiment["model"], "language"
    for name, spec in config["models"].items():
        if "base" in spec:
            yield f"models.{name}.base", spec["base"], "language"
    for name, table in config["tables"].items():
        for i, model in enumerate(table.get("models", [])):
            yield f"tables.{name}.models[{i}]", model, "language"
    for name, finetune in config["finetunes"].items():
        if "model" in finetune:
            yield f"finetunes.{name}.model", finetune["model"], "language"
    for name, judge in config["judges"].items():
        if "model" in judge:
            reads = judges.KINDS[judge["kind"]].reads
            yield f"judges.{name}.model", judge["model"], "cost" if reads == "cost" else "language"


def model_head_problems(
    config: Mapping[str, Any], place: str, model: str, wanted: str
) -> Iterator[str]:
    found = head_of(config["models"][model])
    if found != wanted:
        fit = [name for name, spec in config["models"].items() if head_of(spec) == wanted]
        yield (
            f"{place}: '{model}' has a {found} head, not a {wanted} one; "
            f"models that have it: {', '.join(fit) or 'none'}"
        )


def head_of(spec: Mapping[str, Any]) -> str:
    """What a model ends in: tokens (`language`), or one number (`cost`)."""
    return MADE_HERE.get(spec["source"]) or spec.get("head", "language")
