import re
import sys
from contextlib import contextmanager
from pathlib import Path

from snakemake.iocontainers import Wildcards
from snakemake.output_index import OutputIndex

from sqsd.config import ALL, ALL_ROWS, check_layout, read_default, resolve, smallest_batch
from sqsd.curation import what_came_of
from sqsd.devices import visible_gpus
from sqsd.errors import SqsdError, message_of_disk, not_known
from sqsd.files import export_source
from sqsd.paths import NAME
from sqsd.parts import part_inputs, part_params
from sqsd.plan import Plan, is_pinned, write_config
from sqsd.provenance import STAGE_VERSIONS, StageVersion
from sqsd.recipes import with_recipe
from sqsd.slurm import check_arrays, check_no_earlier_jobs
from sqsd.validation import check_keys, kind_of, validate_config

REGISTRIES = (
    "models",
    "datasets",
    "preferences",
    "benchmarks",
    "directions",
    "pilots",
    "states",
    "layers",
    "anchors",
    "methods",
    "finetunes",
    "groups",
    "judges",
    "tables",
    "curations",
    "treatments",
)


@contextmanager
def told_once():
    """An error of ours ends the run with one message, without Snakemake's traceback."""
    try:
        yield
    except SqsdError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def plan_of(configuration):
    with told_once():
        check_keys([ROOT / "config/config.yaml", *workflow.configfiles])
        default = read_default(ROOT / "config/config.yaml")
        schema = ROOT / "config/schemas/config.schema.json"
        given = with_recipe(configuration, default, ROOT / "config/recipes", schema)
        resolved = resolve(default, given)
        validate_config(resolved, schema)
        plan = Plan(resolved)
        check_layout(plan.paths.root)
        return plan


class Registry(dict):
    """Entries by name. Asking for one that is not there, as a path may, ends the run."""

    def __init__(self, called, entries):
        super().__init__(entries)
        self.called = called

    def __missing__(self, name):
        problem = not_known(name, kind_of(self.called), self)
        sys.exit(f"ConfigurationError: a target asks for what there is not: {problem}")


def with_registries(configuration):
    """The configuration, its registries telling which name of a path they do not have."""
    return {
        key: Registry(key, value) if key in REGISTRIES else value
        for key, value in configuration.items()
    }


export_source(ROOT)
PLAN = plan_of(config)
PLAN.config = with_registries(PLAN.config)
CONFIG, PATHS = PLAN.config, PLAN.paths

VERSION = {stage: StageVersion(version) for stage, version in STAGE_VERSIONS.items()}
SELECTED = [f for table in CONFIG["selection"]["tables"] for f in PLAN.table_files(table).values()]
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
    curation=NAME,
    # Beside it stand windows and `all`, in the folders of fine-tunes.
    treatment=rf"(?!(s\d+|{ALL})$){NAME}",
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


def other_than(names):
    """A regular expression of any name but these."""
    return rf"(?!(?:{any_of(names)})$){NAME}"


def model_of(wildcards):
    return wildcards.model


def target_of(wildcards):
    """The model that a fine-tune trains."""
    return PLAN.target(wildcards.finetune, wildcards.model)


def threads_of(kind, model=model_of):
    """Threads of a job of a kind (`train`, `infer`), by the model that it is of."""
    return lambda w: PLAN.resource(kind, "threads", model(w))


def resources_of(kind, model=model_of, gpu=None):
    """The other resources of a job of a kind, likewise; gpu: its own count of GPUs.

    Memory and time are twice as much at every further attempt, which only a profile with `retries`
    makes: what was killed for want of them may succeed.
    """
    gpu = gpu or (lambda w: PLAN.resource(kind, "gpu", model(w)))
    found = {"gpu": gpu} | {
        name: lambda w, attempt, name=name: PLAN.resource(kind, name, model(w)) * 2 ** (attempt - 1)
        for name in ("mem_mb", "runtime")
    }
    if PLAN.names_gpu_models:
        found["gpu_model"] = lambda w: PLAN.gpu_model(kind, model(w)) if gpu(w) else ""
    return found


def resources_of_one_gpu(kind):
    """The same, of a job whose model is never on more than one GPU."""
    return resources_of(kind, gpu=lambda w: min(1, PLAN.resource(kind, "gpu", w.model)))


def cap_gpus(workflow):
    """Let jobs of one machine have no more GPUs together than it has, unless --resources says.

    Without one, jobs run on the CPU, and whatever needs two says so.
    """
    settings, there = workflow.resource_settings, len(visible_gpus())
    # Whoever sends jobs elsewhere says to how many nodes at most.
    here = workflow.is_main_process and settings.nodes is None
    if there and here and "gpu" not in settings.resources:
        workflow.register_resource("gpu", there)


cap_gpus(workflow)


def check_slurm(workflow):
    """Where jobs go to SLURM, end a run that would get in its own or an earlier one's way."""
    if workflow.executor_plugin.name != "slurm":
        return
    asked = {}
    for job in workflow.dag.needrun_jobs():
        names = ("gpu", "gpu_model", "mem_mb", "runtime")
        found = {(name, job.resources.get(name)) for name in names} | {("threads", job.threads)}
        asked.setdefault(job.rule.name, set()).add(frozenset(found))
    with told_once():
        check_no_earlier_jobs(Path.cwd())
        check_arrays(workflow.executor_settings.array_jobs, asked)


def lift_default_rate_limit(scheduler):
    """Take away the 100 jobs a second that Snakemake starts at most, unless another limit is given.

    With a limit, every look for jobs to start makes another one after its timespan, and so on for
    ever: on a run of hundreds of jobs they took a third of a core (seen with Snakemake 9.27).
    """
    limit = scheduler.job_rate_limiter
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None


def curation_method(wildcards):
    return CONFIG["curations"][wildcards.curation]["method"]


def explained_rows(wildcards):
    """What `explain` asks for; a method that cannot be explained ends the run with one message."""
    with told_once():
        return PLAN.explained()


def explained_terms(made):
    """The input function of what a method's terms are made of, likewise."""

    def files(wildcards):
        with told_once():
            return made(wildcards.model, wildcards.dataset, wildcards.method)

    return files


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


def treated_rows(wildcards):
    """Rows of a treatment. Too few of them, where that is known before a run, end it."""
    with told_once():
        PLAN.check_rows_left(**wildcards)
    return PATHS.treated(**{k: v for k, v in wildcards.items() if k not in ("finetune", "seed")})


def subject_of(wildcards):
    return PLAN.subjects[wildcards.model, wildcards.subject]


def in_report(table):
    """A table's files; its values and its figure stand in what `snakemake --report` makes."""
    files = PLAN.table_files(table)
    shown = {"Tables": "csv", "Figures": "svg"}
    marked = {
        end: report(
            files[end],
            caption="../report/table.rst",
            category=category,
            labels={"name": table, "title": CONFIG["tables"][table]["title"]},
        )
        for category, end in shown.items()
        if end in files
    }
    return files | marked


def planned_jobs(targets):
    """Every job behind the files of each target, as `sqsd.costs.Job` takes it.

    Found by the rules' outputs and inputs, as Snakemake does it; all that it looks at besides, as
    changed params, would take more seconds than the plan may.
    """
    made_by, jobs = OutputIndex(list(workflow.rules)), {}
    for target, files in targets.items():
        left, seen = list(files), set()
        while left:
            file = str(left.pop())
            if file in seen:
                continue
            seen.add(file)
            for maker in made_by.match_producers(file):
                wildcards = maker.get_wildcards(file)
                key = (maker.name, *sorted(wildcards.items()))
                if key not in jobs:
                    jobs[key] = planned_job(maker, wildcards)
                job, inputs = jobs[key]
                if target not in job["targets"]:
                    job["targets"] += (target,)
                    left += inputs
    return [job for job, _ in jobs.values()]


def planned_job(maker, wildcards):
    """A job for `sqsd.costs.Job`, of no target yet, that a rule makes, and its inputs."""
    found = Wildcards(fromdict=wildcards)
    times = maker.benchmark and str(maker.expand_benchmark(found))
    done = all(Path(file).exists() for file in maker.expand_output(found)[0])
    job = {"rule": maker.name, "wildcards": wildcards, "targets": (), "done": done, "times": times}
    return job, list(map(str, maker.expand_input(found)[0]))
