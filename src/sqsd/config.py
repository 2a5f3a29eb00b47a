"""Validation of the configuration: schema and cross-references, all problems reported at once."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from jsonschema import Draft202012Validator

from sqsd.errors import ConfigurationError, DataError, not_known
from sqsd.scorers import ABLATIONS, CONTROLS, scorers
from sqsd.sources import is_hub, parse_hub

REPORTS = (
    "table1", "table3", "table4", "table5", "table6", "table7", "ranking", "figure2", "figure5",
)  # fmt: skip
# Reports that fine-tune subsets.
SUBSET_REPORTS = frozenset({"table1", "table3", "table7"})
SANDBOX = {
    "datasets": ("sandbox:benign", "sandbox:danger"),
    "preferences": ("sandbox:safety",),
    "benchmarks": ("sandbox:tuning", "sandbox:test", "sandbox:exact"),
}
ALPHA_TOLERANCE = 1e-9


def validate_config(config: dict, schema_file: Path) -> None:
    """Raises ConfigurationError listing every problem with its place and what is allowed.

    Names that point nowhere, and files that do not exist, are looked for once the schema holds.
    """
    schema = json.loads(schema_file.read_text())
    errors = Draft202012Validator(schema).iter_errors(config)
    problems = [schema_problem(e) for e in sorted(errors, key=lambda e: e.json_path)]
    if not problems:
        problems = [*reference_problems(config), *source_problems(config), *range_problems(config)]
    if problems:
        raise ConfigurationError(
            f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def schema_problem(error) -> str:
    place = error.json_path.removeprefix("$").removeprefix(".") or "(top level)"
    if error.validator == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        return "; ".join(f"{place}: " + not_known(key, "key", known) for key in unknown)
    return f"{place}: {error.message}"


def references(config: dict) -> Iterator[tuple[str, str, str, Iterable[str]]]:
    """(place, name, kind of thing, what there is) of every name that points at something."""
    selection = config["selection"]
    for i, name in enumerate(selection["experiments"]):
        yield f"selection.experiments[{i}]", name, "experiment", config["experiments"]
    for i, name in enumerate(selection["reports"]):
        yield f"selection.reports[{i}]", name, "report", REPORTS
    yield "evaluation.judge", config["evaluation"]["judge"], "judge", config["judges"]
    kinds = {
        "model": ("model", "models"),
        "scored": ("data set", "datasets"),
        "pilot": ("data set", "datasets"),
        "tuning": ("benchmark", "benchmarks"),
        "test": ("benchmark", "benchmarks"),
        "guard": ("benchmark", "benchmarks"),
    }
    for name, experiment in config["experiments"].items():
        place = f"experiments.{name}"
        for key, (kind, registry) in kinds.items():
            if key in experiment:
                yield f"{place}.{key}", experiment[key], kind, config[registry]
        for direction in experiment["danger"]:
            yield f"{place}.danger", direction, "direction", config["directions"]
        safety = experiment["safety"]["direction"]
        yield f"{place}.safety.direction", safety, "direction", config["directions"]
    for name, direction in config["directions"].items():
        sft = direction["objective"] == "sft"
        kind, registry = ("data set", "datasets") if sft else ("set of preferences", "preferences")
        if isinstance(direction["data"], str):
            yield f"directions.{name}.data", direction["data"], kind, config[registry]
            continue
        for model, data in direction["data"].items():
            yield f"directions.{name}.data", model, "model", config["models"]
            yield f"directions.{name}.data.{model}", data, kind, config[registry]


def reference_problems(config: dict) -> Iterator[str]:
    """Names that point nowhere, and methods that an experiment cannot have."""
    for place, name, kind, known in references(config):
        if name not in known:
            yield f"{place}: {not_known(name, kind, known)}"
    for name in config["selection"]["experiments"]:
        experiment = config["experiments"].get(name)
        known = scorers(experiment) if experiment else []
        for i, method in enumerate(config["selection"]["methods"]):
            if experiment and method not in known:
                problem = not_known(method, f"method of experiment '{name}'", known)
                yield f"selection.methods[{i}]: {problem}"


def source_problems(config: dict) -> Iterator[str]:
    """Sources that do not exist, or lack what their kind needs."""
    for registry, known in SANDBOX.items():
        for name, spec in config[registry].items():
            place, source = f"{registry}.{name}", spec["source"]
            if source.startswith("sandbox:"):
                if source not in known:
                    yield f"{place}.source: {not_known(source, 'part of the sandbox', known)}"
                needed = ("seed",) if registry == "benchmarks" else ("rows", "seed")
                extra = ("fields", "constants", "skip")
                extra += ("rows",) if registry == "benchmarks" else ()
            else:
                yield from missing_source(place, source)
                sampled = "rows" in spec or "skip" in spec
                needed, extra = (("fields", "seed") if sampled else ("fields",)), ()
            yield from missing_and_extra(place, spec, needed, extra)
    for name, spec in config["models"].items():
        place, source = f"models.{name}", spec["source"]
        if source == "sandbox":
            yield from missing_and_extra(place, spec, (), ("revision", "sha256"))
        elif not source.startswith(("hub:", "wheel:")) and not Path(source).is_dir():
            yield (
                f"{place}.source: '{source}' is no folder; allowed: sandbox, hub:owner/name, "
                "wheel:requirement:file.gguf, or a folder with a model"
            )
        elif source.startswith("wheel:"):
            yield from missing_and_extra(place, spec, ("sha256",), ("revision",))


def missing_source(place: str, source: str) -> Iterator[str]:
    if is_hub(source):
        try:
            parse_hub(source)
        except DataError as error:
            yield f"{place}.source: {error}"
    elif not Path(source).is_file():
        yield (
            f"{place}.source: '{source}' does not exist; allowed: a .jsonl, .json, .csv or "
            ".parquet file, hub:owner/name:split, or sandbox:part"
        )


def missing_and_extra(
    place: str, spec: dict, needed: Iterable[str], extra: Iterable[str]
) -> Iterator[str]:
    for key in needed:
        if key not in spec:
            yield f"{place}: '{key}' is missing; source '{spec['source']}' needs it"
    for key in extra:
        if key in spec:
            yield f"{place}: '{key}' means nothing for source '{spec['source']}'; remove it"


def range_problems(config: dict) -> Iterator[str]:
    """Values that the rest of the configuration rules out."""
    for place, training in trainings(config):
        size = training["batch_size"]
        if size % training.get("micro_batch_size", size):
            yield (
                f"{place}.micro_batch_size: {training['micro_batch_size']} does not divide "
                f"batch_size={size}; give a divisor of it"
            )
    for name, direction in config["directions"].items():
        has_beta = "beta" in direction["training"]
        if has_beta != (direction["objective"] == "dpo"):
            word = "means nothing" if has_beta else "is missing"
            yield f"directions.{name}.training: 'beta' {word} for {direction['objective']}"
        checkpoint, steps = direction["checkpoint"], direction["save_steps"]
        if checkpoint != "final" and checkpoint % steps:
            yield (
                f"directions.{name}.checkpoint: {checkpoint} is no checkpoint; "
                f"allowed: final, or a multiple of save_steps={steps}"
            )
    for name in config["selection"]["experiments"]:
        if name in config["experiments"]:
            yield from experiment_range_problems(config, name, config["experiments"][name])


def trainings(config: dict) -> Iterator[tuple[str, dict]]:
    """(place, entry) of everything that is trained."""
    yield "sandbox.pretraining", config["sandbox"]["pretraining"]
    yield "sandbox.alignment_training", config["sandbox"]["alignment_training"]
    for name in ("pilot", "finetunes"):
        yield f"{name}.training", config[name]["training"]
    for name, direction in config["directions"].items():
        yield f"directions.{name}.training", direction["training"]


def experiment_range_problems(config: dict, name: str, experiment: dict) -> Iterator[str]:
    place = f"experiments.{name}"
    scored = config["datasets"].get(experiment["scored"], {})
    rows, size = scored.get("rows"), config["subsets"]["rows"]
    if scored and rows is None:
        yield f"datasets.{experiment['scored']}: 'rows' is missing; a scored data set needs it"
    elif scored and size > rows and trains_subsets(config):
        yield (
            f"subsets.rows: {size} is more than the {rows} rows of "
            f"datasets.{experiment['scored']}; at most {rows}"
        )
    alphas, delta = config["steering"]["alphas"], config["sensitivity"]["delta"]
    for direction in [*experiment["danger"], experiment["safety"]["direction"]]:
        data = config["directions"].get(direction, {}).get("data", "")
        if not isinstance(data, str) and experiment["model"] not in data:
            yield f"directions.{direction}.data: nothing for model '{experiment['model']}'; add it"
    ranked = [a for a in alphas if all(is_measured(a + side * delta, alphas) for side in (-1, 1))]
    safety, steps = experiment["safety"], config["pilot"]["save_steps"]
    needs_ranking = "rank" in safety or any(
        "insensitive" in m for m in config["selection"]["methods"]
    )
    if needs_ranking and not ranked:
        yield (
            f"steering.alphas: no alpha has both neighbours at sensitivity.delta={delta}; "
            "list alphas that far apart"
        )
    elif safety.get("rank", 0) > len(ranked):
        yield f"{place}.safety.rank: {safety['rank']} is out of range; allowed: 1 to {len(ranked)}"
    for direction, choice in experiment["danger"].items():
        if choice.get("step", steps) % steps:
            yield (
                f"{place}.danger.{direction}.step: {choice['step']} is no checkpoint; "
                f"allowed: multiples of pilot.save_steps={steps}"
            )


def direction_data(config: dict, direction: str, model: str) -> str:
    """Name of the data that a direction of a model is trained on."""
    data = config["directions"][direction]["data"]
    return data if isinstance(data, str) else data[model]


def is_measured(alpha: float, alphas: list[float]) -> bool:
    return any(abs(alpha - other) <= ALPHA_TOLERANCE for other in alphas)


def trains_subsets(config: dict) -> bool:
    """Whether any selected report fine-tunes subsets."""
    return bool(SUBSET_REPORTS & set(config["selection"]["reports"]))


def states_needed(config: dict, experiment: str) -> list[str]:
    """States that the selected methods read; state S where only controls are selected."""
    spec = config["experiments"][experiment]
    known = scorers(spec)
    needed = {s for m in config["selection"]["methods"] for s in known[m].states}
    return sorted(needed) or ["safety"]


def comparison_methods(methods: list[str]) -> list[str]:
    """The full methods and controls of table 1, without table 3's ablations."""
    return [m for m in methods if m in CONTROLS or not is_ablation(m)]


def ablation_methods(methods: list[str]) -> list[str]:
    """The full methods and their ablations (table 3), without the controls."""
    return [m for m in methods if m not in CONTROLS]


def is_ablation(method: str) -> bool:
    return any(method.endswith(f"-{ablation}") for ablation in ABLATIONS)
