"""Hours and memory of a run before it, by hand."""

import json
import math
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from sqsd import forecast as module
from sqsd.config import resolve
from sqsd.costs import Job, Work
from sqsd.errors import UnknownSizeError
from sqsd.forecast import (
    GPUS,
    Estimate,
    by_measured,
    by_rule,
    estimate,
    forecast,
    machine_of,
    memory_of,
    this_machine,
    too_large,
)
from sqsd.plan import Plan
from sqsd.tables import read_table

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def job(rule: str = "train_pilot", targets=("all",), done: bool = False, **given) -> Job:
    return Job(rule, {}, targets, done, **given)


def took(path: Path, seconds: float) -> str:
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:09\t500.0\n")
    return str(path)


def test_what_a_rule_took_corrects_the_rest_of_its_jobs_of_the_model(tmp_path):
    first = took(tmp_path / "a.tsv", 30.0)
    second = took(tmp_path / "b.tsv", 70.0)
    estimates = [
        Estimate(job(done=True, times=first), "m", 0, 10.0, 1.0, 2.0),
        Estimate(job(done=True, times=second), "m", 0, 40.0, 1.0, 2.0),
        Estimate(job(), "m", 0, 8.0, 1.0, 2.0),
        Estimate(job(), "other", 0, 8.0, 1.0, 2.0),
        Estimate(job("make_anchor"), "m", 0, 8.0, 1.0, 2.0),
        Estimate(job(), None, 0, None, None, None),
    ]
    found = by_measured(estimates)
    # (30 + 70) / (10 + 40) is 2.
    assert [e.seconds for e in found] == [20.0, 80.0, 16.0, 8.0, 8.0, None]
    assert [e.measured for e in found] == [True, True, True, False, False, False]


def test_times_of_a_job_that_is_to_be_done_again_are_not_its_own(tmp_path):
    left = took(tmp_path / "a.tsv", 30.0)
    (found,) = by_measured([Estimate(job(times=left), "m", 0, 10.0, 1.0, 2.0)])
    assert (found.seconds, found.measured) == (10.0, False)


def test_rules_add_up_by_target():
    estimates = [
        Estimate(job(targets=("all", "curate")), "m", 2, 3600.0, 100.0, 900.0),
        Estimate(job(targets=("all",)), "m", 2, 7200.0, 300.0, 900.0, True),
        Estimate(job(targets=("all",), done=True), "m", 2, 7200.0, 800.0, 2000.0),
        Estimate(job("make_anchor", ("all",)), "n", 0, None, None, None),
        Estimate(job("score_samples", ("all",)), None, 0, 0.0, None, None),
        Estimate(job("make_dataset", ("all",), done=True), None, 0, 0.0, None, None),
    ]
    table = {
        (row["target"], row["rule"]): list(row.values())[2:]
        for row in by_rule(estimates).to_dict("records")
    }
    assert table["all", "train_pilot"] == [1, 2, 3.0, 2.0, 6.0, 300.0, 900.0, 0.5]
    assert table["curate", "train_pilot"] == [0, 1, 1.0, 1.0, 2.0, 100.0, 900.0, 0.0]
    assert table["all", "other"][:3] == [1, 1, 0.0]
    assert table["all", "make_anchor"][1] == 1
    assert math.isnan(table["all", "make_anchor"][2])


@pytest.mark.parametrize(
    ("rule", "gpus", "said"),
    [
        ("collect_gradients", 0, "`gradients.max_tokens_per_batch`, or raise `resources: mem_mb`"),
        ("train_pilot", 2, "`training.micro_batch_size`, or raise `resources: gpu`"),
    ],
)
def test_what_does_not_fit_is_said_once_with_a_setting(rule, gpus, said):
    estimates = [
        Estimate(job(rule), "m", gpus, 1.0, needed, 1000.0) for needed in (1200.0, 1500.0, 900.0)
    ] + [Estimate(job(rule, done=True), "n", gpus, 1.0, 5000.0, 1000.0)]
    assert list(too_large(estimates)) == [f"{rule} of m needs 1,500 MB and has 1,000: lower {said}"]


def test_of_rows_that_nobody_has_seen_nothing_is_certain():
    made = Estimate(job(), "m", 0, 1.0, 1500.0, 1000.0, assumed=True)
    (said,) = too_large([made])
    assert said.startswith("train_pilot of m may need 1,500 MB and has 1,000: ")


def test_gpus_share_the_rows_of_a_sharded_training_and_not_the_layers_of_a_model():
    class Fixed:
        def __init__(self, sharded: bool):
            self.sharded = sharded

        def work(self, job):
            return Work("m", "train", learning=989e12 * 0.35 * 8, dtype="bfloat16",
                        sharded=self.sharded)  # fmt: skip

        def resources(self, rule, work):
            return {"gpu": 4, "gpu_model": "h100", "mem_mb": 7, "threads": 1}

    found = [estimate(Fixed(sharded), job()) for sharded in (True, False)]  # pyright: ignore
    assert [made and made.seconds for made in found] == pytest.approx([2.0, 8.0])


def test_memory_is_of_a_card_where_there_is_one():
    work = Work("m", "train", weights=8e9, activations=3e9)
    asked = {"gpu": 2, "gpu_model": "a40", "mem_mb": 7}
    assert memory_of(work, asked) == (600 + 4000 + 3000, 48_000)
    assert memory_of(work, asked | {"gpu": 0, "mem_mb": 7}) == (570 + 11_000, 7)
    assert memory_of(work, asked | {"gpu_model": ""})[1] == 80_000


def test_a_job_runs_on_the_card_that_its_resources_name(monkeypatch):
    asked = {"gpu": 1, "gpu_model": "a100", "threads": 1}
    half, single = machine_of(asked, "bfloat16"), machine_of(asked, "float32")
    assert (half.operations, single.operations) == GPUS["a100"][:2]
    assert machine_of(asked | {"gpu_model": ""}, "bfloat16").operations == GPUS["h100"][0]
    said = (
        "resources: nothing is known here of a GPU 'abacus', so neither hours nor what fits it can "
        "be told; known: a40, a100, h100, h200, l40s"
    )
    with pytest.raises(UnknownSizeError, match=f"^{said}$"):
        machine_of(asked | {"gpu_model": "abacus"}, "bfloat16")


def test_a_slower_machine_takes_longer_in_everything(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1})
    found = []
    for rate in (75e9, 25e9):
        monkeypatch.setattr(module, "measure_product", lambda rate=rate: rate)
        this_machine.cache_clear()
        found.append(this_machine(2))
    this_machine.cache_clear()
    fast, slow = found
    assert (fast.operations, slow.operations) == (150e9, 50e9)
    # At the rate that they were measured at, they are as measured; at a third of it, three times.
    assert fast.update == pytest.approx(module.CORE.update)
    assert slow.start["train"] == pytest.approx(3 * module.CORE.start["train"])


def test_threads_beyond_the_cores_make_nothing_faster(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(module, "measure_product", lambda: 50e9)
    this_machine.cache_clear()
    rates = [this_machine(threads).operations for threads in (1, 2, 8)]
    this_machine.cache_clear()
    assert rates == [50e9, 100e9, 100e9]


def test_rows_without_a_score_are_told_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"ask {i}", "response": "yes" if i else ""} for i in range(1200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, {}]))
    given = {"datasets": {"mixed": {"source": "rows.jsonl", "rows": 1201}}}
    w = {"model": "sandbox", "dataset": "mixed", "state": "s", "direction": "danger"}
    jobs = [Job("collect_gradients", w | {"shard": "00000"}, ("all",))]
    page = forecast(Plan(resolve(DEFAULT, given)), jobs, {})
    said = "- mixed: 2 rows are not scored or trained on (1 empty response, 1 missing field "
    assert f"{said}instruction; missing field response).\n" in page


def test_a_page_and_a_table_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "models": {"far": {"source": "hub:wood/oak", "seed": 1}},
        "resources": {"infer": {"mem_mb": 400}},
    }
    plan = Plan(resolve(DEFAULT, given))
    w = {"model": "sandbox", "dataset": "mixed", "state": "s", "direction": "danger"}
    jobs = [
        Job("collect_gradients", w | {"shard": "00000"}, ("all", "curate")),
        Job("collect_gradients", w | {"shard": "00001"}, ("all",), True),
        Job("train_pilot", {"model": "far", "pilot": "pilot"}, ("all",)),
        Job("score_samples", {}, ("curate",)),
    ]
    page = forecast(plan, jobs, {})
    assert (tmp_path / "results/sandbox/plan.md").read_text() == page
    table = read_table(plan.paths.planned["parquet"], "plan")
    assert set(zip(table["target"], table["rule"], strict=True)) == {
        ("all", "collect_gradients"), ("all", "train_pilot"), ("curate", "collect_gradients"),
        ("curate", "other"),
    }  # fmt: skip
    assert "## `snakemake all`: 2 jobs to do, 1 done; unknown\n" in page
    assert "collect_gradients of sandbox needs" in page
    assert "- Done is what is there, by whichever settings: " in page
    assert "models.far: nothing is known of the size of hub:wood/oak" in page
    assert "| mixed " in page
