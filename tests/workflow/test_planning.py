"""`snakemake plan`: the jobs are the workflow's own, the resources too, and it runs before any."""

import re
from collections.abc import Sequence

import pytest
import yaml
from conftest import ROOT, TINY, snakemake
from planner import TWO, Job

from sqsd import costs
from sqsd.config import resolve
from sqsd.costs import Costs, Lengths, Model
from sqsd.plan import Plan

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


class Fixed:
    def model(self, name: str) -> Model:
        return Model(1000, 2, 10, 20, 5, 30)

    def lengths(self, registry: str, name: str, model: str, most_tokens: int | None) -> Lengths:
        return Lengths(100, 6.0, 9)

    def response_tokens(self, model: str) -> float:
        return 3.0


@pytest.fixture(scope="module")
def plan_job(planner, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("plan")
    done = folder / "results/two/data/grain.parquet"
    done.parent.mkdir(parents=True)
    done.touch()
    (job,) = planner.plan(folder, TWO, targets=["plan"])
    return job


def named(jobs: Sequence[dict], target: str) -> set[str]:
    return {
        " ".join([job["rule"], *job["wildcards"].values()])
        for job in jobs
        if target in job["targets"]
    }


def test_the_jobs_are_those_that_snakemake_finds(plan_job, planner, tmp_path):
    jobs = plan_job.params["jobs"]
    for target in ("all", "curate"):
        own = {job.name for job in planner.plan(tmp_path, TWO, targets=[target])}
        assert named(jobs, target) == own - {target}
    assert len(jobs) == len(named(jobs, "all") | named(jobs, "curate"))


def test_each_job_has_its_times_and_whether_it_is_done(plan_job, planned):
    by_name = {" ".join([j["rule"], *j["wildcards"].values()]): j for j in plan_job.params["jobs"]}
    for name, job in by_name.items():
        assert job["times"] == planned[name].times
        assert bool(job["done"]) == (name == "make_dataset grain")


def test_the_plan_is_of_the_resolved_configuration(plan_job):
    resolved = resolve(DEFAULT, yaml.safe_load(TWO.read_text()))
    assert plan_job.params["config"]["models"].keys() == resolved["models"].keys()
    assert plan_job.params["config"]["run"] == "two"


def test_what_a_job_asks_for_is_what_its_rule_asks_for(planned):
    plan = Plan(resolve(DEFAULT, yaml.safe_load(TWO.read_text())))
    counted, rules = Costs(plan, Fixed()), set()
    for job in planned.values():
        work = counted.work(costs.Job(job.rule, job.wildcards))
        if work is None:
            assert job.local
            continue
        rules.add(job.rule)
        asked = counted.resources(job.rule, work)
        named = ("mem_mb",) if job.rule == "fetch_model" else ("gpu", "mem_mb", "threads")
        assert {n: asked[n] for n in named} == {n: job.resources[n] for n in named}, job.name
    assert rules == {job.rule for job in planned.values() if not job.local} | {"fetch_model"}


def test_it_runs_before_anything_has(tmp_path):
    done = snakemake(tmp_path, "plan", "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout
    page = (tmp_path / "results/tiny/plan.md").read_text()
    assert page in done.stdout
    assert re.search(r"^\| young-pilot +\| young +\| +60 \|", page, re.MULTILINE)
    assert {path.name for path in (tmp_path / "results/tiny").iterdir()} == {
        "config.yaml", "logs", "plan.md", "plan.parquet",
    }  # fmt: skip
