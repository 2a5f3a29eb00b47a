import re
from pathlib import Path

from sqsd import config as configuration

configuration.validate_config(config, Path(workflow.basedir) / "config/schemas/config.schema.json")

RESULTS = f"results/{config['run']}"
LOGS = f"{RESULTS}/logs"
TIMES = f"{RESULTS}/benchmarks-of-rules"
RESUME = f"{RESULTS}/resume"
SCRIPTS = "../workflow/scripts"
ENVIRONMENT = "../envs/sqsd.yaml"
NAME = r"[a-z0-9]+(-[a-z0-9.]+)*"

EXPERIMENTS = config["selection"]["experiments"]
METHODS = config["selection"]["methods"]
JUDGE = config["evaluation"]["judge"]
WINDOWS = [f"s{k}" for k in range(1, config["subsets"]["count"] + 1)]


wildcard_constraints:
    model=NAME,
    dataset=NAME,
    benchmark=NAME,
    direction=NAME,
    experiment=NAME,
    method=NAME,
    state=rf"(insensitive-)?(danger-{NAME}|safety)",
    window=r"s\d+",
    shard=r"\d+",
    judge=NAME,
    subject=rf"base|steering/{NAME}|pilot/{NAME}|finetunes/{NAME}/{NAME}",


def any_of(names):
    """A regular expression of these names, that matches nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def resource(kind, name):
    """A resource of the configuration: kind is `train` or `infer`."""
    return config["resources"][kind][name]


def experiment_of(wildcards):
    return config["experiments"][wildcards.experiment]


def model_of(wildcards):
    return f"{RESULTS}/models/{experiment_of(wildcards)['model']}"


def direction_path(model, direction):
    return f"{RESULTS}/directions/{model}/{direction}"


def directions_of(experiment):
    """Directions of an experiment by name: its danger directions and its safety direction."""
    spec = config["experiments"][experiment]
    names = [*spec["danger"], spec["safety"]["direction"]]
    return {name: direction_path(spec["model"], name) for name in names}


def subject_adapters(wildcards):
    """Folders of the adapters that a subject of evaluation is made of."""
    kind, *names = wildcards.subject.split("/")
    if kind == "steering":
        return [direction_path(wildcards.model, names[0])]
    if kind == "pilot":
        return [f"{RESULTS}/pilots/{wildcards.model}/{names[0]}"]
    if kind == "finetunes":
        return [f"{RESULTS}/finetunes/{names[0]}/{names[1]}/{w}" for w in WINDOWS]
    return []


def subject_states(wildcards):
    """What, beside the folders, names the states of a subject."""
    kind, *names = wildcards.subject.split("/")
    steered = kind == "steering"
    return {
        "kind": kind,
        "alphas": config["steering"]["alphas"] if steered else [],
        "checkpoint": config["directions"][names[0]]["checkpoint"] if steered else "final",
        "seeds": config["finetunes"]["seeds"] if kind == "finetunes" else [],
    }


def evaluation(experiment, subject, benchmark, table):
    """Path of a table (responses or a judge's) of a subject on one of an experiment's benchmarks."""
    spec = config["experiments"][experiment]
    return f"{RESULTS}/evaluations/{spec['model']}/{subject}/{spec[benchmark]}/{table}.parquet"


def report_files(name):
    """Files of a report; a figure comes with its numbers, a table over S1 to S5 is drawn too."""
    tables = [f"{RESULTS}/tables/{name}.{suffix}" for suffix in ("parquet", "csv", "md")]
    figures = [f"{RESULTS}/figures/{name}.{suffix}" for suffix in ("png", "svg")]
    drawn = name.startswith("figure") or name in configuration.SUBSET_REPORTS
    return tables + figures if drawn else tables
