"""A user's own file or folder is read again when it has changed, and no other is."""

import json
import os
import time
from pathlib import Path

import pytest
from conftest import job_counts, snakemake, write_config, write_model
from planner import make_empty

RUN = "results/sandbox"
PAIR = {"instruction": "q", "response": "a"}
ROW = {"q": "Hello", "a": "There", "b": "No"}
# An entry of each registry that reads a user's file; the file it reads, and the result.
ENTRIES = {
    "make_dataset": ({"datasets": {"mine": {"fields": PAIR}}}, f"{RUN}/data/mine.parquet"),
    "make_preferences": (
        {"preferences": {"mine": {"fields": {
            "instruction": "q", "chosen": "a", "rejected": "b"}}}},
        f"{RUN}/preferences/mine.parquet",
    ),
    "make_benchmark": (
        {"benchmarks": {"mine": {"fields": {"prompt": "q"}}}}, f"{RUN}/benchmarks/mine.parquet",
    ),
}  # fmt: skip


def later(path: Path) -> None:
    """As if written some time after everything else."""
    moment = time.time() + 5
    os.utime(path, (moment, moment))


@pytest.mark.parametrize("rule", ENTRIES)
def test_a_changed_file_is_read_again(tmp_path, rule):
    config, target = ENTRIES[rule]
    ((registry, entries),) = config.items()
    entry = entries["mine"] | {"source": "mine.jsonl"}
    other = entry | {"source": "other.jsonl"}
    file = write_config(tmp_path / "own.yaml", **{registry: {"mine": entry, "other": other}})
    for name in ("mine", "other"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(ROW) + "\n")
    targets = [target, target.replace("mine", "other"), "--cores", "1"]
    done = snakemake(tmp_path, *targets, configfiles=(file,))
    assert done.returncode == 0, done.stdout
    planned = snakemake(tmp_path, *targets, "-n", configfiles=(file,))
    assert "Nothing to be done" in planned.stdout

    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW | {"q": "Bye"}) + "\n")
    later(tmp_path / "mine.jsonl")
    planned = snakemake(tmp_path, *targets, "-n", configfiles=(file,))
    assert job_counts(planned.stdout) == {rule: 1, "total": 1}
    assert f"output: {target}" in planned.stdout


def test_a_changed_folder_of_a_model_is_read_again(tmp_path):
    write_model(tmp_path / "given")
    models = {"mine": {"source": "given", "seed": 1}}
    file = write_config(tmp_path / "own.yaml", models=models)
    target = [f"{RUN}/models/mine", "--cores", "1"]
    done = snakemake(tmp_path, *target, configfiles=(file,))
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in snakemake(tmp_path, *target, "-n", configfiles=(file,)).stdout
    settings = tmp_path / "given/config.json"
    settings.write_text(settings.read_text() + "\n")
    later(settings)
    planned = snakemake(tmp_path, *target, "-n", configfiles=(file,))
    assert job_counts(planned.stdout) == {"fetch_model": 1, "total": 1}


def test_a_second_data_set_on_the_same_model_costs_its_own_pass_alone(planner, tmp_path):
    """Read, passed over once for each term, scored, curated; no direction or pilot again."""
    for name, rows in (("first", 90), ("second", 70)):
        lines = (json.dumps({"prompt": f"{name} {i}?", "response": "So."}) for i in range(rows))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "asks.csv").write_text("prompt\n" + "".join(f"Why {i}?\n" for i in range(100)))
    own = {"recipe": "openings", "model": "hub:a/b", "requests": "asks.csv"}
    files = {"mine": "first.jsonl", "second": "second.jsonl"}

    def plan(data):
        file = write_config(tmp_path / "own.yaml", run="own", own=own | {"data": data})
        return planner.plan(tmp_path, file, targets=["curate"])

    make_empty(plan("first.jsonl"), tmp_path)
    assert not [job.name for job in plan("first.jsonl") if job.runs and job.makes]
    ran = [job for job in plan(files) if job.runs and job.makes]
    assert sorted(job.name for job in ran) == sorted((
        "make_dataset second", "collect_gradients mine second d-compliance compliance 00000",
        "collect_gradients mine second s-refusal refusal 00000",
        "score_samples mine second sqsd-compliance", "curate_rows safer mine second",
    ))  # fmt: skip
