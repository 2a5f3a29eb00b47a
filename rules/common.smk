import re

import yaml

from sqsd.config import ALL, ALL_ROWS, check_layout, resolve
from sqsd.paths import NAME
from sqsd.plan import Plan, is_pinned, write_config
from sqsd.provenance import STAGE_VERSIONS, StageVersion
from sqsd.validation import check_keys, validate_config

check_keys([ROOT / "config/config.yaml", *workflow.configfiles])
RESOLVED = resolve(yaml.safe_load((ROOT / "config/config.yaml").read_text()), config)
validate_config(RESOLVED, ROOT / "config/schemas/config.schema.json")
PLAN = Plan(RESOLVED)
CONFIG, PATHS = PLAN.config, PLAN.paths
check_layout(PATHS.root)

VERSION = {stage: StageVersion(version) for stage, version in STAGE_VERSIONS.items()}
SCRIPTS = "../workflow/scripts"
ENVIRONMENT = "../envs/sqsd.yaml"


wildcard_constraints:
    model=NAME,
    source=NAME,
    dataset=NAME,
    benchmark=NAME,
    direction=NAME,
    pilot=NAME,
    method=NAME,
    finetune=NAME,
    groups=NAME,
    state=NAME,
    table=NAME,
    layer=NAME,
    token=r"-\d+",
    anchor=NAME,
    judge=NAME,
    subject=f"{NAME}(/{NAME})+",
    window=r"s\d+",
    seed=r"\d+",
    shard=r"\d+",
    part=r"\d+",


def picked(settings, *keys, may_have=()):
    """Some settings as one param, and those of `may_have` that are there.

    Snakemake compares a job's params as a set of texts: two params whose values change places
    would be no change.
    """
    return {key: settings[key] for key in (*keys, *(k for k in may_have if k in settings))}


def any_of(names):
    """A regular expression of these names, that matches nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def model_of(wildcards):
    return wildcards.model


def target_of(wildcards):
    """The model that a fine-tune trains."""
    return PLAN.target(wildcards.finetune, wildcards.model)


def threads_of(kind, model=model_of):
    """Threads of a job of a kind (`train`, `infer`), by the model that it is of."""
    return lambda w: PLAN.resource(kind, "threads", model(w))


def resources_of(kind, model=model_of):
    """The other resources of a job of a kind, likewise."""
    return {
        name: lambda w, name=name: PLAN.resource(kind, name, model(w))
        for name in ("gpu", "mem_mb", "runtime")
    }


def resources_of_one_gpu(kind):
    """The same, of a job whose model is never on more than one GPU."""
    return resources_of(kind) | {"gpu": lambda w: min(1, PLAN.resource(kind, "gpu", w.model))}


def lift_default_rate_limit(scheduler):
    """Take away the 100 jobs a second that Snakemake starts at most, unless another limit is given.

    With a limit, every look for jobs to start makes another one after its timespan, and so on for
    ever: on a run of hundreds of jobs they took a third of a core (seen with Snakemake 9.27).
    """
    limit = scheduler.job_rate_limiter
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None


def judging_model(wildcards):
    return PLAN.judge_model(wildcards.judge, wildcards.model)


def row_judging_model(wildcards):
    """The model that a judge of rows has: no subject responded."""
    return PLAN.own_model(wildcards.judge)


def judge_gpu(wildcards):
    """GPUs of a judge's job: none where it loads no model, one at most where it loads a cost model."""
    model = PLAN.own_model(wildcards.judge) or wildcards.model
    gpus = PLAN.resource("infer", "gpu", model)
    return {None: 0, "cost": min(1, gpus)}.get(PLAN.judge_reads(wildcards.judge), gpus)


def subject_of(wildcards):
    return PLAN.subjects[wildcards.model, wildcards.subject]
