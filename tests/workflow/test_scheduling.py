"""How often Snakemake looks for jobs to start."""

import re

import pytest
from conftest import full_log, job_counts, snakemake

TARGETS = ("results/sandbox/data/mixed.parquet", "results/sandbox/benchmarks/test.parquet")


def test_it_looks_at_the_start_and_once_for_each_job_that_ends(tmp_path):
    """A limit would let it look again a second later, while a job is running."""
    output = snakemake(tmp_path, *TARGETS, "--cores", "1", "--verbose").stdout
    assert job_counts(output)["total"] == 2
    assert 1 <= output.count("Resources before job selection") <= 1 + 2


def test_a_limit_that_was_asked_for_stays(tmp_path):
    """Two jobs, and cores for both."""
    limit = ("--max-jobs-per-timespan", "1/1s")
    snakemake(tmp_path, *TARGETS, "--cores", "2", *limit)
    output = full_log(tmp_path)
    assert job_counts(output)["total"] == 2
    assert output.count("Execute 1 jobs...") == 2


@pytest.mark.parametrize(
    ("gpus", "options", "provided"),
    [
        ("0,1", (), ["2"]),
        ("0,1", ("--resources", "gpu=1"), ["1"]),
        ("", (), []),  # without a GPU jobs run on the CPU
    ],
)
def test_jobs_of_one_machine_have_no_more_gpus_than_it_has(
    tmp_path, monkeypatch, gpus, options, provided
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    snakemake(tmp_path, TARGETS[0], "--cores", "1", *options)
    output = full_log(tmp_path)
    assert job_counts(output)["total"] == 1
    assert re.findall(r"^Provided resources: gpu=\D*(\d+)", output, re.MULTILINE) == provided
