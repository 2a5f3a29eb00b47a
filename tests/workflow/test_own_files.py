"""A user's own file or folder is read again when it has changed, and no other is."""

import json
import os
import time
from pathlib import Path

import pytest
from conftest import job_counts, snakemake, write_config, write_model

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
