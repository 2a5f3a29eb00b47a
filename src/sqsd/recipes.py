"""A configuration out of a few lines about one's own model and rows."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqsd.config import count_rows, expanded, listed, merged, read_default, refuse_value
from sqsd.errors import ConfigurationError, not_known
from sqsd.validation import (
    collect,
    model_source_problems,
    row_source_problems,
    schema_errors,
    schema_problem,
)

# What a single model or data set is called that has no name of its own.
NAME = "mine"
# Of which a recipe makes what directions are trained on and what is asked of a model.
FEWEST_REQUESTS = 100
# Ten steps of eight rows, after which a recipe's state lies on the pilot.
FEWEST_PILOT_ROWS = 80
# What `own` gives, by the registry of its checks.
REGISTRIES = {
    "data": "datasets", "requests": "benchmarks", "pilot": "datasets", "heldout": "datasets",
}  # fmt: skip
# Rows that nothing is fine-tuned on, among the data sets.
HELDOUT = "heldout-rows"
# Else the results would lie among the sandbox's.
NO_RUN = "run: is missing beside `own`; name the folder of results, as run: mine for results/mine"
# Of a model or a data set: whoever writes one means `source`.
NO_NAMES = ("file", "folder", "path")
# What a recipe cuts for itself, of whatever `own` gives.
CUT = ("rows", "skip", "seed")


def with_recipe(
    given: Mapping[str, Any], default: Mapping[str, Any], folder: Path, schema_file: Path
) -> dict[str, Any]:
    """What is given, its section `own` replaced by the configuration that it stands for.

    own: recipe, the name of a file in `folder`; model and data, each a source, an entry with a
    source, or several of them by name; requests, and pilot if it is given, a source or an entry
    with one; heldout, rows whose loss is measured, likewise; drop, a share. Without pilot its rows
    are of the first data set. What else is given goes before what the recipe says.

    A recipe is a configuration where `{model}` and `{data}` are axes. `extends` names a recipe that
    it is laid over. An entry with `from` is what `own` gives by that name, and what stands beside
    it; of `requests`, `share` says from where to where they are taken, as parts of 1; of these and
    of `pilot`, `at_most` how many rows. Raises ConfigurationError listing every problem with `own`,
    by its place there.
    """
    if "own" not in given:
        return dict(given)
    refuse_value(given["own"], "own")
    own = expanded(given["own"], {}, {})
    rest = {key: value for key, value in given.items() if key != "own"}
    schema = own_schema(json.loads(schema_file.read_text()))
    problems = [] if "run" in given else [NO_RUN]
    problems += [schema_problem(error) for error in schema_errors({"own": own}, schema)]
    if not problems:
        collect(own_problems(own, default, folder), problems)
    if problems:
        raise ConfigurationError(listed(list(dict.fromkeys(problems))))
    recipe = read_recipe(folder, own["recipe"])
    models, data = by_name(own["model"]), by_name(own["data"])
    found = expanded(recipe, {"model": list(models), "data": list(data)}, {})
    for registry in ("models", "datasets", "preferences", "benchmarks"):
        found[registry] = {
            name: entry_of(registry, name, entry, own) for name, entry in found[registry].items()
        }
    # What the paper printed is of other models and rows.
    unpublished = {
        name: {"published": None} for name, table in default["tables"].items()
        if "published" in table
    }  # fmt: skip
    found = merged({"tables": unpublished}, found)
    if "heldout" in own:
        found["datasets"][HELDOUT] = one_of(own["heldout"])
        found = merged(found, {"tables": {"dropping": {"heldout": HELDOUT}}})
    if "drop" in own:
        drop = {name: {"drop": own["drop"]} for name in found["curations"]}
        found = merged(found, {"curations": drop})
    return merged(found, rest)


def own_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of `own` alone, whose problems are to be told before all others."""
    return {"properties": {"own": schema["properties"]["own"]}, "$defs": schema["$defs"]}


def by_name(given: Any) -> dict[str, dict[str, Any]]:
    """The entries of what is a source, an entry with a source, or several of them by name."""
    several = given if isinstance(given, Mapping) and "source" not in given else {NAME: given}
    return {name: one_of(entry) for name, entry in several.items()}


def one_of(given: Any) -> dict[str, Any]:
    return {"source": given} if isinstance(given, str) else dict(given)


def own_problems(
    own: Mapping[str, Any], default: Mapping[str, Any], folder: Path
) -> Iterator["str | Iterator[str]"]:
    """What is wrong with a section `own` that its schema allows."""
    known = [file.stem for file in folder.glob("*.yaml")]
    if own["recipe"] not in known:
        yield f"own.recipe: {not_known(own['recipe'], 'recipe', known)}"
    for key, registry in (("model", "models"), ("data", "datasets")):
        for name, entry in by_name(own[key]).items():
            place = f"own.{key}" if name == NAME else f"own.{key}.{name}"
            if name in default[registry]:
                yield f"{place}: the default has an entry of that name in `{registry}`; rename it"
            elif name in NO_NAMES:
                yield f"{place}: '{name}' would be its name; where it lies is its `source`"
            elif key == "model":
                yield model_source_problems(place, {"seed": 1} | entry)
            else:
                piloting = "pilot" not in own and entry == first_rows(own)
                yield data_problems(place, key, entry, piloting)
    for key in ("requests", "pilot", "heldout"):
        if key in own:
            yield data_problems(f"own.{key}", key, one_of(own[key]), key == "pilot")


def data_problems(place: str, key: str, spec: Mapping[str, Any], piloting: bool) -> Iterator[str]:
    """piloting: whether a pilot is fine-tuned on the rows."""
    if key == "requests" and "constants" in spec:
        yield f"{place}: constants are the recipe's own; remove them"
        return
    problems = list(row_source_problems(REGISTRIES[key], place, spec))
    yield from problems
    if problems:
        return
    count = count_rows(REGISTRIES[key], spec)
    if count is None:
        yield (
            f"{place}: 'rows' is missing; the hub's rows are not counted before a run, so give "
            "their number, and a seed"
        )
    elif piloting and count < FEWEST_PILOT_ROWS:
        yield (
            f"{place}: {count} rows; at least {FEWEST_PILOT_ROWS} are needed to fine-tune a pilot "
            "on, which shows where the model drifts; give more, or other rows as own.pilot"
        )
    elif key == "requests" and count < FEWEST_REQUESTS:
        yield (
            f"{place}: {count} requests; at least {FEWEST_REQUESTS} are needed, which are parted "
            "among directions and evaluation; give more"
        )


def read_recipe(folder: Path, name: str) -> dict[str, Any]:
    """A recipe laid over those that it extends."""
    recipe = read_default(folder / f"{name}.yaml")
    below = recipe.pop("extends", None)
    return merged(read_recipe(folder, below), recipe) if below else recipe


def entry_of(
    registry: str, name: str, entry: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """A recipe's entry, with what `own` gives by the name that `from` has."""
    beside = {k: v for k, v in entry.items() if k not in ("from", "share", "at_most")}
    key = entry.get("from")
    if key in ("model", "data"):
        return beside | by_name(own[key])[name]
    if key is None:
        return beside
    spec = one_of(own[key]) if key in own else first_rows(own)
    count = count_rows(REGISTRIES[key], spec)
    assert count is not None  # `own_problems` has seen to it
    cut = {k: spec.pop(k) for k in CUT if k in spec}
    if key == "requests" and "fields" in spec and registry != "benchmarks":
        spec["fields"] = {"instruction": spec["fields"]["prompt"]}
    first, last = (cut_at(part, count) for part in entry.get("share", (0, 1)))
    rows = min(entry.get("at_most", count), last - first)
    return beside | spec | {"seed": 1} | cut | {"skip": cut.get("skip", 0) + first, "rows": rows}


def first_rows(own: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a pilot that has none of its own."""
    return next(iter(by_name(own["data"]).values()))


def cut_at(part: float, count: int) -> int:
    return math.floor(round(part * count, 6))
