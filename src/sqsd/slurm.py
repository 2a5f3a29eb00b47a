"""What SLURM still runs of a workflow, whose main process may have been lost."""

import subprocess
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from sqsd.errors import SqsdError

# What a job asks for, by name.
Asked = frozenset[tuple[str, object]]
# Number, folder and comment (the executor's is `rule_...` or `group_...`) of this user's jobs. No
# name of a folder holds the mark between them.
COMMAND = ("squeue", "--me", "--noheader", "--format=%A\x1f%Z\x1f%k")


class EarlierJobs(SqsdError):
    """Jobs of an earlier run still write to this folder."""


def check_no_earlier_jobs(folder: str | Path) -> None:
    """Raises EarlierJobs where jobs that a workflow sent from a folder wait or run.

    Where their main process was killed they go on, and whoever runs the workflow again would send
    them a second time, to the same outputs.
    """
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    found = sorted(earlier_jobs(done.stdout.splitlines(), Path(folder).resolve()), key=int)
    if found:
        numbers = " ".join(found)
        raise EarlierJobs(
            f"{folder}: {len(found)} jobs of an earlier run are still in the queue and may write "
            f"what this one would: {numbers}; let them end, or end them with `scancel {numbers}`, "
            "then run again"
        )


class MixedArray(SqsdError):
    """Jobs that ask for different things would go as one array."""


def check_arrays(array_jobs: str | None, asked: Mapping[str, Set[Asked]]) -> None:
    """Raises MixedArray where jobs of a rule would go as an array and ask for different things.

    array_jobs: as `--slurm-array-jobs`, names of rules, or `all`; asked: what the jobs of each rule
    ask for. An array has the resources of its first job for all: a model on one GPU would share
    one with another that needs two.
    """
    named = {name.strip() for name in (array_jobs or "").replace(";", ",").split(",")}
    mixed = {
        rule: found for rule, found in asked.items()
        if len(found) > 1 and (rule in named or "all" in named)
    }  # fmt: skip
    if mixed:
        rule, found = min(mixed.items())
        told = sorted(
            ", ".join(f"{n} {value}" for n, value in sorted(one) if value) for one in found
        )
        shown = " and ".join(told[:2])
        raise MixedArray(
            f"--slurm-array-jobs: jobs of {rule} ask for different resources ({shown}), and an "
            "array has those of its first job for all; leave the rule out, or set `resources` of "
            "its models alike"
        )


def earlier_jobs(lines: Iterable[str], folder: Path) -> set[str]:
    """Numbers of the jobs that a workflow has sent from a folder; lines: as `COMMAND` prints."""
    found = set()
    for line in lines:
        number, place, comment = line.split("\x1f")
        if comment.startswith(("rule_", "group_")) and Path(place).resolve() == folder:
            found.add(number)
    return found
