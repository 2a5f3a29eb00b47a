"""The workflow through a real SLURM: what it asks for, and what kills it survives."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import cluster as slurm
import pandas as pd
import pytest
import yaml
from cluster import Cluster, said
from conftest import ROOT, TINY, snakemake, snakemake_command, write_config

from sqsd.tables import read_table

RUN = Path("results/tiny")
SCORES = RUN / "scores/sandbox/mixed/sqsd-danger.parquet"
# Those of the tiny chain, with stand-ins for GPUs.
RESOURCES = {
    "train": {"gpu": 1, "gpu_model": "a100", "mem_mb": 1800, "runtime": 20},
    "infer": {"gpu": 1, "mem_mb": 1500, "runtime": 10},
}
PARTITIONS = {
    "cpu": {"max_runtime": 120, "max_mem_mb": slurm.MEMORY_MB, "max_threads": slurm.CPUS},
    "gpu": {"max_runtime": 120, "max_mem_mb": slurm.MEMORY_MB, "max_threads": slurm.CPUS,
            "max_gpu": 2, "available_gpu_models": ["a100"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    why = slurm.missing()
    if why:
        pytest.skip(why)
    with ExitStack() as stack:
        try:
            running = stack.enter_context(slurm.started(tmp_path_factory.mktemp("slurm")))
        except slurm.NotStarted as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Path:
    """The profile as a user fills it in, with a quicker look at jobs than is kind to a cluster."""
    folder = Path(shutil.copytree(ROOT / "profiles/slurm", tmp_path_factory.mktemp("p") / "slurm"))
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings.pop("default-resources") == {"slurm_account": "your-account"}
    # There is no slurmdbd, which sacct would ask.
    settings |= {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 5,
                 "slurm-status-command": "squeue"}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "partitions.yaml").write_text(yaml.safe_dump({"partitions": PARTITIONS}))
    return folder


def wait_for(what: str, found: Callable[[], Any], seconds: float = 600) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return result


@contextmanager
def head(folder: Path, profile: Path, *arguments: str, configfiles: tuple) -> Iterator:
    """A main process of a run on the cluster; `said` is a file of what it prints."""
    options = ("--workflow-profile", str(profile))
    command = snakemake_command(folder, *arguments, *options, configfiles=configfiles)
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            # Whatever it has sent, so that no test runs beside another's jobs.
            left = [job["JobId"] for job in running_in(folder)]
            if left:
                said("scancel", *left)


def running_in(folder: Path) -> list[dict[str, str]]:
    states = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")
    jobs = Cluster(folder).jobs()
    return [j for j in jobs if j["JobState"] in states and j["WorkDir"] == str(folder)]


def running(cluster: Cluster, folder: Path, rule: str) -> dict[str, str] | None:
    found = [
        job for job in cluster.of(rule)
        if job["JobState"] == "RUNNING" and job["WorkDir"] == str(folder)
    ]  # fmt: skip
    return found[-1] if found else None


def printed(folder: Path) -> str:
    return (folder / "head.log").read_text()


def of_folder(cluster: Cluster, folder: Path, rule: str) -> list[dict[str, str]]:
    return [job for job in cluster.of(rule) if job["WorkDir"] == str(folder)]


def test_the_tiny_chain_survives_scancel_and_a_lost_head(cluster, profile, tiny_run, tmp_path):
    # From the model on: the other test has seen one pretrained.
    folder = tmp_path / "chain"
    shutil.copytree(tiny_run / RUN / "models/sandbox", folder / RUN / "models/sandbox")
    config = write_config(tmp_path / "slurm.yaml", resources=RESOURCES)
    files = (TINY, config)

    # scancel in the middle of a training, after its first checkpoint.
    checkpoint = RUN / "resume/directions/sandbox/danger/*/checkpoint-10/trainer_state.json"
    with head(folder, profile, str(SCORES), configfiles=files) as main:
        wait_for("a checkpoint", lambda: list(folder.glob(str(checkpoint))) or main.poll())
        job = running(cluster, folder, "train_direction_wildcards_sandbox_danger")
        assert job, printed(folder)
        said("scancel", job["JobId"])
        # The main process is lost while responses are made; its jobs go on.
        wait_for("responses", lambda: running(cluster, folder, "generate_responses") or main.poll())
        main.send_signal(signal.SIGKILL)
        main.wait()
        left = [job["JobId"] for job in running_in(folder)]
        assert left, printed(folder)
        assert snakemake(folder, "--unlock", configfiles=files).returncode == 0
        refused = snakemake(
            folder, str(SCORES), "--workflow-profile", str(profile), configfiles=files
        )
        assert refused.returncode != 0, refused.stdout
        named = re.search(r"^EarlierJobs: .*`scancel ([\d ]+)`", refused.stdout, re.MULTILINE)
        assert named and {*named[1].split()} <= {*left}, refused.stdout
        wait_for("the jobs of the lost run", lambda: not running_in(folder))
    done = {str(path) for path in (folder / RUN).rglob("*.parquet")}

    # And scancel in the middle of scoring.
    with head(folder, profile, str(SCORES), configfiles=files) as main:
        job = wait_for("scoring", lambda: running(cluster, folder, "collect_gradients"))
        said("scancel", job["JobId"])
        assert main.wait(timeout=900) == 0, printed(folder)
    # What the lost run's jobs had finished was not made again.
    assert done <= {str(path) for path in (folder / RUN).rglob("*.parquet")}
    pd.testing.assert_frame_equal(
        read_table(folder / SCORES, "scores"), read_table(tiny_run / SCORES, "scores"),
        check_exact=True,
    )  # fmt: skip

    trained = of_folder(cluster, folder, "train_direction_wildcards_sandbox_danger")
    assert [job["JobState"] for job in trained] == ["CANCELLED", "COMPLETED"]
    log = (folder / RUN / "logs/train_direction/sandbox/danger.log").read_text()
    steps = int(re.search(r"(\d+)/60 ", log)[1])  # pyright: ignore
    assert steps >= 10, "it began anew"
    check_requests(cluster, folder)
    check_one_at_a_time(cluster, folder)


def check_requests(cluster: Cluster, folder: Path) -> None:
    """GPUs, memory, time, CPUs and partition of the jobs are those that were asked for."""
    for rule, gpus, memory, minutes in (
        ("train_pilot", "gres:gpu:a100:1", "1800M", "00:20:00"),
        ("collect_gradients", "gres:gpu:1", "1500M", "00:10:00"),
        ("generate_responses", "gres:gpu:1", "1500M", "00:10:00"),
    ):
        job = of_folder(cluster, folder, rule)[0]
        assert job["TresPerJob"] == gpus, job
        assert (job["MinMemoryNode"], job["TimeLimit"]) == (memory, minutes), job
        assert (job["Partition"], job["CPUs/Task"]) == ("gpu", "1"), job
    # What takes seconds was not sent at all.
    sent = {re.match(r"rule_([a-z_]+?)(_wildcards|$)", job["Comment"])[1]  # pyright: ignore
            for job in cluster.jobs() if job["WorkDir"] == str(folder)}  # fmt: skip
    assert sent == {
        "train_direction", "train_pilot", "generate_responses", "judge_responses",
        "collect_gradients",
    }  # fmt: skip


def check_one_at_a_time(cluster: Cluster, folder: Path) -> None:
    """No two jobs of one output have run side by side."""
    by_output: dict[str, list[tuple[datetime, datetime]]] = {}
    for job in cluster.jobs():
        if job["WorkDir"] == str(folder) and job["StartTime"] != "Unknown":
            times = [datetime.fromisoformat(job[key]) for key in ("StartTime", "EndTime")]
            by_output.setdefault(job["Comment"], []).append((times[0], times[1]))
    assert any(len(times) > 1 for times in by_output.values())
    for comment, times in by_output.items():
        assert all(a[1] <= b[0] for a, b in pairwise(sorted(times))), comment


def test_a_job_killed_for_memory_gets_more(cluster, profile, tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir()
    little = {"train": {"per_model": {"young": {"mem_mb": 450}}}}
    config = write_config(
        tmp_path / "memory.yaml", resources=little, sandbox={"corpus": {"rows": 300}}
    )
    target = str(RUN / "pretrained/young")
    with head(folder, profile, target, configfiles=(TINY, config)) as main:
        assert main.wait(timeout=600) == 0, printed(folder)
    jobs = of_folder(cluster, folder, "pretrain_model")
    states = [job["JobState"] for job in jobs]
    assert states[0] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED") and states[-1] == "COMPLETED"
    assert [job["MinMemoryNode"] for job in jobs] == ["450M", "900M", "1800M"][: len(jobs)]
    assert [job["TimeLimit"] for job in jobs][:2] == ["00:30:00", "01:00:00"]
    # It needs no GPU, and goes where there are none.
    assert {(job["Partition"], job.get("TresPerJob")) for job in jobs} == {("cpu", None)}
    assert (folder / target / "model.safetensors").is_file()


def test_a_job_killed_at_its_time_limit_goes_on_from_its_checkpoint(
    cluster, profile, tiny_run, tmp_path
):
    folder = Path(shutil.copytree(tiny_run, tmp_path / "time"))
    shutil.rmtree(folder / RUN / "directions/young/danger")
    limit = {"train": {"per_model": {"young": {"runtime": 1}}}}
    # More steps than a minute holds.
    long = {"danger": {"save_steps": 100, "training": {"epochs": 1000}}}
    config = write_config(tmp_path / "time.yaml", resources=limit, directions=long)
    log = folder / RUN / "logs/train_direction/young/danger.log"
    with head(
        folder, profile, str(RUN / "directions/young/danger"), configfiles=(TINY, config)
    ) as main:
        first = wait_for("training", lambda: running(cluster, folder, "train_direction"))
        number = first["JobId"]
        wait_for(
            "its time limit",
            lambda: job_of(cluster, number)["JobState"] not in ("RUNNING", "COMPLETING"),
        )
        assert job_of(cluster, number)["JobState"] == "TIMEOUT"
        saved = int(re.findall(r"SIGTERM: saved at step (\d+)", log.read_text())[-1])
        wait_for("the second attempt", lambda: running(cluster, folder, "train_direction"))
        begun = int(wait_for("its steps", lambda: first_step(log))[1])
        assert begun == saved > 0
        second = of_folder(cluster, folder, "train_direction")[-1]
        assert (first["TimeLimit"], second["TimeLimit"]) == ("00:01:00", "00:02:00")
        os.kill(main.pid, signal.SIGKILL)


def first_step(log: Path) -> re.Match[str] | None:
    """The first step that the second attempt tells of; its log takes the place of the first's."""
    told = log.read_text() if log.is_file() else ""
    return None if "SIGTERM" in told else re.search(r" (\d+)/6000 ", told)


def job_of(cluster: Cluster, number: str) -> dict[str, str]:
    return next(job for job in cluster.jobs() if job["JobId"] == number)
