from pathlib import Path

from sqsd.config import validate_config

validate_config(config, Path(workflow.basedir) / "config/schemas/config.schema.json")

RESULTS = f"results/{config['run']}"
LOGS = f"{RESULTS}/logs"
SCRIPTS = "../workflow/scripts"
NAME = r"[a-z0-9]+(-[a-z0-9.]+)*"

SELECTED = config["selection"]
MODEL, SCORED, PILOT = SELECTED["model"], SELECTED["scored"], SELECTED["pilot"]
DANGER, SAFETY = SELECTED["danger"], SELECTED["safety"]
TUNING, TEST = SELECTED["tuning_benchmark"], SELECTED["test_benchmark"]
JUDGE = config["evaluation"]["judge"]
WINDOWS = [f"s{k}" for k in range(1, config["subsets"]["count"] + 1)]

TABLES = ["table1", "table3", "table4", "table5", "table6", "table7"]
FIGURES = ["figure2", "figure5"]


wildcard_constraints:
    model=NAME,
    dataset=NAME,
    benchmark=NAME,
    direction=NAME,
    method=NAME,
    state=NAME,
    window=r"s\d+",
    shard=r"\d+",
    judge=NAME,
    subject=rf"base|steering/{NAME}|pilot/{NAME}|finetunes/{NAME}/{NAME}",


def resource(kind, name):
    """A resource of the configuration: kind is `train` or `infer`."""
    return config["resources"][kind][name]


def subject_adapters(wildcards):
    """Folders of the adapters that a subject of evaluation is made of."""
    kind, *names = wildcards.subject.split("/")
    if kind == "steering":
        return [f"{RESULTS}/directions/{wildcards.model}/{names[0]}"]
    if kind == "pilot":
        return [f"{RESULTS}/pilots/{wildcards.model}/{names[0]}"]
    if kind == "finetunes":
        return [f"{RESULTS}/finetunes/{wildcards.model}/{names[0]}/{names[1]}/{w}" for w in WINDOWS]
    return []


def subject_kind(wildcards):
    return wildcards.subject.split("/")[0]


def table_files(name):
    return [f"{RESULTS}/tables/{name}.{suffix}" for suffix in ("parquet", "csv", "md")]


def figure_files(name):
    return [f"{RESULTS}/figures/{name}.{suffix}" for suffix in ("png", "svg")]


def judgements(subject, benchmark):
    return f"{RESULTS}/evaluations/{MODEL}/{subject}/{benchmark}/{JUDGE}.parquet"
