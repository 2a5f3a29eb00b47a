"""Jobs that a lost main process has left in a cluster's queue."""

import subprocess
from types import SimpleNamespace

import pytest

from sqsd import slurm
from sqsd.slurm import (
    EarlierJobs,
    MixedArray,
    check_arrays,
    check_no_earlier_jobs,
    earlier_jobs,
)


def line(number, place, comment):
    return f"{number}\x1f{place}\x1f{comment}"


def test_the_jobs_of_a_folder(tmp_path):
    here, other = tmp_path / "run", tmp_path / "other"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    lines = [
        line(7, here, "rule_train_pilot_wildcards_sandbox_pilot"),
        line(12, here, "group_evaluation"),
        line(8, other, "rule_train_pilot_wildcards_sandbox_pilot"),
        line(9, here, "(null)"),
        line(10, here, "my own rule_book"),
        line(11, tmp_path / "link", "rule_all"),
    ]
    assert earlier_jobs(lines, here.resolve()) == {"7", "11", "12"}
    assert earlier_jobs([], here) == set()


def test_a_run_beside_them_is_refused(tmp_path, monkeypatch):
    lines = [line(number, tmp_path, "rule_a") for number in (112, 9)]

    def run(command, **options):
        assert command[:3] == ("squeue", "--me", "--noheader") and options["check"]
        return SimpleNamespace(stdout="\n".join(lines))

    monkeypatch.setattr(subprocess, "run", run)
    message = (
        rf"{tmp_path}: 2 jobs of an earlier run are still in the queue and may write what this one "
        r"would: 9 112; let them end, or end them with `scancel 9 112`, then run again"
    )
    with pytest.raises(EarlierJobs, match=message):
        check_no_earlier_jobs(tmp_path)
    lines.clear()
    check_no_earlier_jobs(tmp_path)
    assert slurm.COMMAND[3] == "--format=%A\x1f%Z\x1f%k"


def asks(**names):
    return frozenset(names.items())


SHARDS = {
    "collect_gradients": {asks(gpu=1, mem_mb=64), asks(gpu=2, mem_mb=64)},
    "generate_responses": {asks(gpu=1, mem_mb=64)},
    "make_table": {asks(gpu=None, mem_mb=1)},
}


@pytest.mark.parametrize("named", ["all", "collect_gradients", "make_table; collect_gradients"])
def test_an_array_of_jobs_that_ask_for_different_things_is_refused(named):
    message = (
        r"--slurm-array-jobs: jobs of collect_gradients ask for different resources "
        r"\(gpu 1, mem_mb 64 and gpu 2, mem_mb 64\), and an array has those of its first job for "
        "all; leave the rule out, or set `resources` of its models alike"
    )
    with pytest.raises(MixedArray, match=message):
        check_arrays(named, SHARDS)


@pytest.mark.parametrize("named", [None, "", "generate_responses", "generate_responses,make_table"])
def test_other_arrays_are_not(named):
    check_arrays(named, SHARDS)
