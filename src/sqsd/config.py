"""Validation of the configuration: schema and cross-references, all problems reported at once."""

import difflib
import json
from pathlib import Path

from jsonschema import Draft202012Validator

from sqsd.errors import ConfigurationError

JUDGES = ("sandbox",)
METHODS = (
    "sqsd-danger",
    "unnormalised",
    "danger-only",
    "safety-only",
    "insensitive-state",
    "random",
    "length",
)


def validate_config(config: dict, schema_file: Path) -> None:
    """Raises ConfigurationError listing every problem with its place and what is allowed."""
    schema = json.loads(schema_file.read_text())
    problems = [
        schema_problem(error)
        for error in sorted(
            Draft202012Validator(schema).iter_errors(config), key=lambda e: e.json_path
        )
    ]
    if not problems:
        problems = reference_problems(config)
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


def not_known(name: str, kind: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"'{name}' is not a {kind}; known: {', '.join(known)}.{hint}"


def reference_problems(config: dict) -> list[str]:
    """Names that point nowhere, an alpha or rank that the rest of the configuration rules out."""
    chosen = config["selection"]
    wanted = [
        ("selection.model", chosen["model"], "model", config["models"]),
        ("selection.scored", chosen["scored"], "data set", config["datasets"]),
        ("selection.pilot", chosen["pilot"], "data set", config["datasets"]),
        ("selection.danger", chosen["danger"], "direction", config["directions"]),
        ("selection.safety", chosen["safety"], "direction", config["directions"]),
        (
            "selection.tuning_benchmark",
            chosen["tuning_benchmark"],
            "benchmark",
            config["benchmarks"],
        ),
        ("selection.test_benchmark", chosen["test_benchmark"], "benchmark", config["benchmarks"]),
        ("evaluation.judge", config["evaluation"]["judge"], "judge", JUDGES),
        *(
            (f"selection.methods[{i}]", method, "method", METHODS)
            for i, method in enumerate(chosen["methods"])
        ),
        *(
            (
                f"directions.{name}.data",
                direction["data"],
                "data set" if direction["objective"] == "sft" else "set of preferences",
                config["datasets" if direction["objective"] == "sft" else "preferences"],
            )
            for name, direction in config["directions"].items()
        ),
    ]
    problems = [
        f"{place}: " + not_known(name, kind, sorted(known))
        for place, name, kind, known in wanted
        if name not in known
    ]
    for name, direction in config["directions"].items():
        if direction["objective"] == "dpo" and "beta" not in direction["training"]:
            problems.append(f"directions.{name}.training: 'beta' is a required property for dpo")
    scored = config["datasets"].get(chosen["scored"], {}).get("rows")
    if scored and config["subsets"]["rows"] > scored:
        problems.append(
            f"subsets.rows: {config['subsets']['rows']} is more than the {scored} rows of "
            f"datasets.{chosen['scored']}; at most {scored}"
        )
    return problems
