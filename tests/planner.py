"""Plans as Snakemake makes them, with every input, param and resource of every job."""

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from conftest import put_files

ROOT = Path(__file__).parents[1]
# Two experiments that differ in every name and value.
TWO = ROOT / "tests/workflow/two.yaml"
# Everything that it has; `explain` would refuse the method of one of its curations.
TARGETS_OF_TWO = (
    "all", "curate", "page", "results/two/explained/elm/grain/sqsd-north/page.html",
    "results/two/explained/oak/fruit/sqsd-south/page.html",
)  # fmt: skip
# Imported once: each plan is made in a process forked from one that has them.
PRELOADED = ["planner", "snakemake.api", "jsonschema", "pandera.pandas", "scipy.stats"]


# Later than any script, since a result without metadata that is older is made again.
AGE = 4e9


@dataclass(frozen=True)
class Job:
    """A job of a plan. `runs`: whether it would run; the rest as the rule and the DAG have it."""

    rule: str
    wildcards: Mapping[str, str]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    params: Mapping[str, Any]
    resources: Mapping[str, Any]
    log: str | None
    times: str | None
    local: bool
    priority: int
    runs: bool
    # Of inputs and of outputs, whatever their names.
    needs: frozenset[str] = field(repr=False)
    makes: frozenset[str] = field(repr=False)

    @property
    def name(self) -> str:
        return " ".join([self.rule, *self.wildcards.values()])


class Planner:
    """Makes plans, two at a time, as `snakemake --dry-run` does."""

    def __init__(self):
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.pool = ProcessPoolExecutor(2, context, max_tasks_per_child=1)

    def start(self, folder: Path, *configfiles: Path, **options: Any) -> "Future[list[Job]]":
        """Options: those of `make_plan`."""
        os.environ["HF_HUB_OFFLINE"] = "1"
        put_files(folder)
        return self.pool.submit(make_plan, str(folder), list(map(str, configfiles)), **options)

    def plan(self, folder: Path, *configfiles: Path, **options: Any) -> list[Job]:
        return self.start(folder, *configfiles, **options).result()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def make_plan(
    folder: str,
    configfiles: list[str],
    root: str = str(ROOT),
    snakefile: str = "Snakefile",
    targets: Iterable[str] = (),
    versions: Mapping[str, int] | None = None,
    attempt: int = 1,
) -> list[Job]:
    """Every job of the workflow in `root` for a folder; `versions` stand for those of stages.

    attempt: which one of each job it is, as a profile with `retries` counts them.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        ExecutionSettings,
        OutputSettings,
        ResourceSettings,
    )

    if versions is not None:
        sys.path.insert(0, f"{root}/src")
        from sqsd import provenance

        provenance.STAGE_VERSIONS.update(versions)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=64),
            config_settings=ConfigSettings(configfiles=[Path(f).absolute() for f in configfiles]),
            snakefile=Path(root, snakefile),
            workdir=Path(folder),
        )
        updated: list[str] = []
        workflow.dag(DAGSettings(targets=set(targets))).execute_workflow(
            pseudo_executor="dryrun",
            execution_settings=ExecutionSettings(attempt=attempt),
            updated_files=updated,
        )
        dag = workflow._workflow.dag
        assert dag is not None
        return [as_job(job, set(updated)) for job in dag.jobs]


def make_empty(jobs: Iterable[Job], folder: Path, age: float = AGE) -> None:
    """Everything that jobs make, empty, and with all else in the folder of one age, in seconds."""
    for path in (folder / name for job in jobs for name in job.makes):
        # Without an ending it is a folder.
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    for path in folder.rglob("*"):
        os.utime(path, (age, age))


def as_job(job, updated: set[str]) -> Job:
    makes = frozenset(map(str, job.output))
    return Job(
        rule=job.rule.name,
        wildcards=dict(job.wildcards_dict),
        inputs=named(job.input),
        outputs=named(job.output),
        params=named(job.params),
        resources={
            name: plain(value)
            for name, value in [*job.resources.items(), ("threads", job.threads)]
            if not name.startswith("_")
        },
        log=next(iter(map(str, job.log)), None),
        times=job.benchmark and str(job.benchmark),
        local=job.rule.name in job.dag.workflow._localrules,
        priority=job.rule.priority,
        runs=bool(updated & makes) if makes else bool(updated),
        needs=frozenset(map(str, job.input)),
        makes=makes,
    )


def named(values) -> dict[str, Any]:
    """Named values, and under "" those without a name."""
    items = [(name, plain(value)) for name, value in values._allitems()]
    unnamed = [value for name, value in items if name is None]
    return {name: v for name, v in items if name is not None} | ({"": unnamed} if unnamed else {})


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(below) for below in value]
    return value if isinstance(value, int | float | None) else str(value)


def distinct_versions() -> dict[str, int]:
    """A version for every stage; no two are the same, so that one in place of another shows."""
    from sqsd.provenance import STAGE_VERSIONS

    return {stage: 101 + i for i, stage in enumerate(sorted(STAGE_VERSIONS))}


def relative(value: Any) -> Any:
    """A value of a plan of `TWO`, with the paths below the folder of its run."""
    if isinstance(value, dict):
        return {key: relative(below) for key, below in value.items()}
    if isinstance(value, list):
        return [relative(below) for below in value]
    return value.removeprefix("results/two/") if isinstance(value, str) else value
