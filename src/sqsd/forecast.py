"""A run before it: rows, tokens, hours and memory by rule, and what does not fit."""

import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sqsd.costs import BASE_MB, CUDA_MB, Costs, Job, Machine, Work, seconds
from sqsd.errors import UnknownSizeError
from sqsd.files import written_whole
from sqsd.inventory import ASSUMED, Inventory
from sqsd.plan import Plan
from sqsd.tables import write_table

MB = 10**6
# GPUs by what clusters call them: operations a second in bfloat16 (dense) and in float32, bytes a
# second, megabytes. NVIDIA's data sheets, of the SXM versions and the larger memory.
GPUS = {
    "a40": (149.7e12, 37.4e12, 0.696e12, 48_000),
    "a100": (312e12, 19.5e12, 2.039e12, 80_000),
    "h100": (989e12, 66.9e12, 3.35e12, 80_000),
    "h200": (989e12, 66.9e12, 4.8e12, 141_000),
    "l40s": (362e12, 91.6e12, 0.864e12, 48_000),
}
# Where the configuration names none.
USUAL_GPU = "h100"
# What passes reach of its peak, and generation of its bandwidth; 60 s load 8 billion parameters
# (docs/reproducing.md). Nothing of it has been measured.
GPU = Machine(0.0, 0.0, learning=0.35, forward=0.45, reading=0.5, load=60 / 8e9)
# A core of an AMD EPYC. The engine reaches .32 (sandbox) to .85 of a matrix product
# (benchmarks/measured/gradient_engine.json), trainings less. What jobs take beside their
# operations, for imports and files, a step of an optimiser, a new token of a batch, is that of the
# sandbox's, whose operations are few (benchmarks/measured/rule_times_sandbox.json).
CORE = Machine(
    75e9, 1e10, learning=0.45, forward=0.35, reading=0.5, load=2e-9,
    start={"infer": 4.5, "train": 7.0}, update=0.025, step=0.004,
)  # fmt: skip
PRODUCT = 1024

# Which setting makes a rule's jobs smaller.
SMALLER = {
    "collect_gradients": "gradients.max_tokens_per_batch",
    "collect_full_gradients": "gradients.max_tokens_per_batch",
    "collect_hidden_states": "gradients.max_tokens_per_batch",
    "make_anchor": "gradients.max_length_tokens",
    "generate_responses": "evaluation.batch_size",
    "search_layers": "evaluation.batch_size",
    "judge_responses": "evaluation.max_new_tokens",
}
SMALLER_TRAINING = "training.micro_batch_size"
COLUMNS = [
    "target", "rule", "done", "to_do", "hours", "longest_hours", "gpu_hours", "memory_mb",
    "allowed_mb", "measured_share",
]  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """What a job of a model will take. seconds: None where nothing is known of it.

    memory_mb, allowed_mb: of one of its GPUs where it has some. measured: whether its rule has run;
    assumed: whether nobody has seen its rows.
    """

    job: Job
    model: str | None
    gpus: float
    seconds: float | None
    memory_mb: float | None
    allowed_mb: float | None
    measured: bool = False
    assumed: bool = False


@cache
def measure_product() -> float:
    """Operations a second of one core in a plain matrix product in float32.

    Of the processor's time, which is the same whatever else the machine has to do.
    """
    a = np.ones((PRODUCT, PRODUCT), dtype="float32")
    found = []
    for _ in range(6):
        start = time.process_time()
        np.matmul(a, a)
        found.append(time.process_time() - start)
    # The first one starts the threads.
    return 2 * PRODUCT**3 / statistics.median(found[1:])


@cache
def this_machine(threads: int) -> Machine:
    """This machine's CPU with so many of its cores to itself."""
    each, cores = measure_product(), len(os.sched_getaffinity(0))
    slower = CORE.operations / each
    return replace(
        CORE,
        operations=each * min(threads, cores),
        start={kind: slower * seconds for kind, seconds in CORE.start.items()},
        update=slower * CORE.update,
        step=slower * CORE.step,
    )


def machine_of(resources: Mapping[str, Any], dtype: str) -> Machine:
    """What a job with these resources runs on.

    Raises UnknownSizeError where nothing is known of the GPU that they name.
    """
    if not resources["gpu"]:
        return this_machine(resources["threads"])
    name = resources["gpu_model"] or USUAL_GPU
    if name not in GPUS:
        raise UnknownSizeError(
            f"resources: nothing is known here of a GPU '{name}', so neither hours nor what fits "
            f"it can be told; known: {', '.join(GPUS)}"
        )
    half, single, bandwidth, _ = GPUS[name]
    return replace(GPU, operations=half if dtype == "bfloat16" else single, bandwidth=bandwidth)


def estimate(costs: Costs, job: Job) -> Estimate | None:
    """What a job will take; None for one that runs no model.

    Raises UnknownSizeError for a model, or a GPU, of which nothing is known.
    """
    work = costs.work(job)
    if work is None:
        return None
    asked = costs.resources(job.rule, work)
    # Layers of a spread model compute one after another; rows of a sharded one side by side.
    sharing = max(asked["gpu"], 1) if work.sharded else 1
    found = seconds(work, machine_of(asked, work.dtype)) / sharing
    memory, allowed = memory_of(work, asked)
    return Estimate(job, work.model, asked["gpu"], found, memory, allowed, assumed=work.assumed)


def memory_of(work: Work, asked: Mapping[str, Any]) -> tuple[float, float]:
    """Megabytes of a job, of one of its GPUs if it has some, and how many it may have."""
    if not asked["gpu"]:
        return BASE_MB[work.kind] + (work.weights + work.activations) / MB, asked["mem_mb"]
    needed = CUDA_MB + (work.weights / asked["gpu"] + work.activations) / MB
    return needed, GPUS[asked["gpu_model"] or USUAL_GPU][3]


def read_seconds(path: str | None) -> float | None:
    """Seconds of a job that has run; None where none are kept."""
    if path is None or not Path(path).is_file():
        return None
    return float(pd.read_csv(path, sep="\t")["s"].mean())


def by_measured(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Estimates times what jobs of their rule and model took, over what they were estimated at."""
    estimates = list(estimates)
    took: dict[tuple[str, str | None], list[tuple[float, float]]] = {}
    for found in estimates:
        real = read_seconds(found.job.times) if found.job.done else None
        if real is not None and found.seconds:
            took.setdefault((found.job.rule, found.model), []).append((real, found.seconds))
    factors = {key: sum(r for r, _ in pairs) / sum(s for _, s in pairs)
               for key, pairs in took.items()}  # fmt: skip
    return [
        found
        if found.seconds is None or (key := (found.job.rule, found.model)) not in factors
        else replace(found, seconds=found.seconds * factors[key], measured=True)
        for found in estimates
    ]


def estimates_of(costs: Costs, jobs: Iterable[Job]) -> tuple[list[Estimate], list[str]]:
    """Every job's estimate, and what is not known."""
    found, unknown = [], {}
    for job in jobs:
        try:
            made = estimate(costs, job)
        except UnknownSizeError as error:
            unknown[str(error)] = None
            made = Estimate(job, None, 0, None, None, None)
        found.append(made or Estimate(job, None, 0, 0.0, None, None))
    return by_measured(found), list(unknown)


def by_rule(estimates: Iterable[Estimate]) -> pd.DataFrame:
    """The `plan` table: a row per target and rule, those that take longest first.

    Rules that run no model take seconds; they are one row, `other`, with no hours.
    """
    groups: dict[tuple[str, str], list[Estimate]] = {}
    for found in estimates:
        rule = "other" if found.seconds == 0 else found.job.rule
        for target in found.job.targets:
            groups.setdefault((target, rule), []).append(found)
    rows = [(*key, *rule_row(group)) for key, group in groups.items()]
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    floats = dict.fromkeys(COLUMNS[4:], "float64")
    order = ["target", "hours"]
    frame = frame.astype(floats | {"target": "str", "rule": "str"})
    return frame.sort_values(order, ascending=[True, False], ignore_index=True)


def rule_row(group: list[Estimate]) -> tuple[Any, ...]:
    """Values of `COLUMNS` of a rule's jobs, without their names."""
    left = [found for found in group if not found.job.done]
    known = [found for found in left if found.seconds is not None]
    hours = [found.seconds / 3600 for found in known if found.seconds is not None]
    whole = len(known) == len(left)
    largest = max(
        (found for found in group if found.memory_mb is not None),
        # The one that has least room left.
        key=lambda found: (found.memory_mb or 0) - (found.allowed_mb or 0),
        default=None,
    )
    return (
        len(group) - len(left),
        len(left),
        sum(hours) if whole else None,
        max(hours, default=0.0) if whole else None,
        sum(found.gpus * h for found, h in zip(known, hours, strict=True)) if whole else None,
        largest and largest.memory_mb,
        largest and largest.allowed_mb,
        sum(found.measured for found in known) / len(known) if known else None,
    )


def too_large(estimates: Iterable[Estimate]) -> Iterator[str]:
    """A line per rule and model with jobs that do not fit, and what makes them fit."""
    worst: dict[tuple[str, str | None], Estimate] = {}
    for found in estimates:
        needed, allowed = found.memory_mb, found.allowed_mb
        if needed and allowed and needed > allowed and not found.job.done:
            key = found.job.rule, found.model
            before = worst.get(key)
            if before is None or needed > (before.memory_mb or 0):
                worst[key] = found
    for (rule, model), found in worst.items():
        assert found.memory_mb is not None and found.allowed_mb is not None
        smaller = SMALLER.get(rule, SMALLER_TRAINING)
        more = "resources: gpu" if found.gpus else "resources: mem_mb"
        needs = "may need" if found.assumed else "needs"
        yield (
            f"{rule} of {model} {needs} {found.memory_mb:,.0f} MB and has {found.allowed_mb:,.0f}: "
            f"lower `{smaller}`, or raise `{more}`"
        )


def data_rows(inventory: Inventory) -> pd.DataFrame:
    """A row per entry of data and model that jobs read it with, cut at the limit of each."""
    rows = []
    for (registry, name, model, most), lengths in inventory.read.items():
        if registry == "sandbox":  # what sandbox models are made of is no entry of data
            continue
        found = inventory.tokens(registry, name, model)
        rows.append(
            {
                "data": name,
                "model": model,
                "rows": found.rows,
                "tokens": round(lengths.rows * lengths.mean),
                "longest": None if found.cut_off(0) is None else int(found.tokens.max()),
                "cut at": most,
                "cut off": None if most is None else found.cut_off(most),
                "tokens are": found.how,
            }
        )
    return pd.DataFrame(rows)


def page_of(plan: Plan, data: pd.DataFrame, rules: pd.DataFrame, remarks: list[str]) -> str:
    """What is printed, as Markdown."""
    parts = [f"# Plan of {plan.paths.root}", without_nulls(data).to_markdown(index=False)]
    for target, own in rules.groupby("target"):
        shown = own.drop(columns="target").rename(columns=lambda name: name.replace("_", " "))
        hours = own["hours"].sum(skipna=False)
        total = "unknown" if pd.isna(hours) else f"{hours:,.2f} h, one job after another"
        gpu = own["gpu_hours"].sum(skipna=False)
        total += f", {gpu:,.1f} GPU-hours" if gpu > 0 else ""  # null where it is not known
        digits = ("", ".0f", ".0f", ".2f", ".2f", ".1f", ".0f", ".0f", ".1f")
        parts += [
            f"## `snakemake {target}`: {own['to_do'].sum()} jobs to do, {own['done'].sum()} done; "
            f"{total}",
            without_nulls(shown).to_markdown(index=False, floatfmt=digits),
        ]
    return "\n\n".join([*parts, "\n".join(f"- {remark}" for remark in remarks)]) + "\n"


def without_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """The same, None in the place of every null: it is shown as a blank."""
    return frame.astype(object).where(frame.notna(), None)


def rows_without_score(inventory: Inventory) -> Iterator[str]:
    """A line per data set with rows that nothing can be learnt from."""
    read = dict.fromkeys(name for registry, name, *_ in inventory.read if registry == "datasets")
    for name in read:
        reasons = inventory.without_score(name)
        if reasons:
            said = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
            yield f"{name}: {sum(reasons.values()):,} rows are not scored or trained on ({said})."


def remarks_on(estimates: list[Estimate], unknown: list[str], assumed: bool) -> list[str]:
    """What does not fit, what is not known, and what hours are made of."""
    unfit = list(too_large(estimates)) or ["Every job of a known model fits what it may have."]
    some_gpu = any(found.gpus for found in estimates)
    how = (
        "Hours are what jobs of the same rule and model took, where some have run (measured "
        "share), else operations over "
        + (f"a share of a GPU's peak ({USUAL_GPU}, if none is named)." if some_gpu
           else "what a matrix product takes on cores that nothing else uses.")
    )  # fmt: skip
    longest = (
        "Memory takes rows that are not here yet to be as long as the limit allows; they may well "
        "be shorter: plan again once `results/*/data` has them."
    )
    done = (
        "Done is what is there, by whichever settings: `snakemake curate -n -q rules`, with the "
        "same configuration, counts what a changed setting makes again."
    )
    some_done = any(found.job.done for found in estimates)
    return [
        *unfit, *([longest] if assumed else []), *unknown, *([done] if some_done else []), how,
    ]  # fmt: skip


def forecast(plan: Plan, jobs: list[Job], provenance: Mapping[str, Any]) -> str:
    """Save what a run of these jobs will take, and return it as Markdown.

    Raises DataError for rows that cannot be read, as the run would.
    """
    inventory = Inventory(plan)
    estimates, unknown = estimates_of(Costs(plan, inventory), jobs)
    rules = by_rule(estimates)
    data = data_rows(inventory)
    assumed = ASSUMED in list(data["tokens are"])
    remarks = [*rows_without_score(inventory), *remarks_on(estimates, unknown, assumed)]
    page = page_of(plan, data, rules, remarks)
    files = plan.paths.planned
    Path(files["parquet"]).parent.mkdir(parents=True, exist_ok=True)
    write_table(rules, files["parquet"], "plan", provenance)
    with written_whole(files["md"]) as temporary:
        temporary.write_text(page)
    return page
