"""The workflow as a module of another one, in another folder."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, full_log, snakemake
from planner import Job

from sqsd.tables import read_table

OTHER = """
configfile: "other.yaml"


module sqsd:
    snakefile:
        "{snakefile}"
    config:
        config["of-sqsd"]


use rule * from sqsd as sqsd_*


rule other:
    default_target: True
    input:
        rules.sqsd_all.input,
        table=rules.sqsd_table1.output.csv,
    output:
        "other.txt",
    shell:
        "cp {{input.table}} {{output}}"
"""


@pytest.fixture
def other(tmp_path) -> Path:
    """A folder with a workflow that uses this one, and has a configuration of its own."""
    (tmp_path / "Snakefile").write_text(OTHER.format(snakefile=ROOT / "Snakefile"))
    config = {"of-sqsd": yaml.safe_load(TINY.read_text()), "run": "another", "mine": 1}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def told(job: Job) -> tuple:
    return job.inputs, job.outputs, job.params, job.resources, job.log, job.times, job.local


def test_it_has_the_jobs_that_it_has_alone(planner, other, tmp_path_factory):
    alone = planner.plan(tmp_path_factory.mktemp("alone"), TINY)
    within = planner.plan(other, root=str(other))
    expected = {f"sqsd_{job.name}": told(job) for job in alone if job.rule != "all"}
    assert {job.name: told(job) for job in within if job.rule != "other"} == expected


def test_a_job_of_it_runs(other):
    wanted = "results/tiny/data/danger.parquet"
    done = snakemake(other, wanted, "--cores", "1", snakefile=other / "Snakefile")
    assert done.returncode == 0, done.stdout
    assert "rule sqsd_make_dataset" in full_log(other)
    assert len(read_table(other / wanted, "dataset")) == 48
    assert (other / "results/tiny/logs/make_dataset/danger.log").read_text()
