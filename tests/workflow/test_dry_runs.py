"""What snakemake would do, for every preset; the oracle counts jobs from the protocol."""

import re

import pytest
from conftest import ROOT, TINY, job_counts, snakemake, write_config

PRESETS = ROOT / "config/presets"
TARGETS = (
    "table1", "table3", "table4", "table5", "table6", "table7", "ranking", "figure2", "figure5",
)  # fmt: skip


def sandbox_jobs(experiments: int) -> dict[str, int]:
    """Jobs of the default's protocol for so many experiments, each with its own model.

    7 methods x 5 windows of fine-tunes; 2 shards (1,500 rows of 750) at 4 states; judged are both
    directions' steering curves, the pilot and 7 methods; the guard adds responses of the pilot
    and of the safety direction.
    """
    each = {
        "make_dataset": 3, "make_preferences": 1, "make_benchmark": 3, "pretrain_model": 1,
        "align_model": 1, "train_direction": 2, "train_pilot": 1, "measure_trajectory": 1,
        "generate_responses": 2 + 1 + 7 + 2, "judge_responses": 2 + 1 + 7, "rank_alphas": 1,
        "rank_checkpoints": 1, "choose_state": 4, "collect_gradients": 2 * 4, "score_samples": 1,
        "make_subsets": 7, "finetune_subset": 7 * 5,
    }  # fmt: skip
    jobs = {rule: count * experiments for rule, count in each.items()}
    jobs |= dict.fromkeys((*TARGETS, "all"), 1)
    return jobs | {"total": sum(jobs.values())}


def test_default(tmp_path):
    assert job_counts(snakemake(tmp_path, "-n").stdout) == sandbox_jobs(1)


def test_ten_base_seeds(tmp_path):
    done = snakemake(tmp_path, "-n", configfiles=(PRESETS / "sandbox-seeds.yaml",))
    assert job_counts(done.stdout) == sandbox_jobs(10)


def test_five_states(tmp_path):
    """Five experiments share model, directions, pilot and its answers; each ranks and scores."""
    done = snakemake(tmp_path, "-n", configfiles=(PRESETS / "sandbox-states.yaml",))
    jobs = {
        "all": 1, "make_dataset": 3, "make_preferences": 1, "make_benchmark": 2,
        "pretrain_model": 1, "align_model": 1, "train_direction": 2, "train_pilot": 1,
        "measure_trajectory": 5, "rank_alphas": 5, "rank_checkpoints": 5, "choose_state": 10,
        "collect_gradients": 2 * 2 * 5, "score_samples": 5, "make_subsets": 2 * 5,
        "finetune_subset": 5 * 2 * 5, "generate_responses": 2 + 2 + 2 * 5,
        "judge_responses": 2 + 2 * 5, "table3": 1, "ranking": 1,
    }  # fmt: skip
    assert job_counts(done.stdout) == jobs | {"total": sum(jobs.values())}


def test_smollm2(tmp_path):
    """Pinned states need no ranking; 320 rows in shards of 80 at 2 states; nothing fine-tuned."""
    done = snakemake(tmp_path, "-n", configfiles=(PRESETS / "smollm2-135m.yaml",))
    assert job_counts(done.stdout) == {
        "all": 1, "fetch_model": 1, "make_dataset": 3, "make_preferences": 1, "make_benchmark": 1,
        "train_direction": 2, "train_pilot": 1, "measure_trajectory": 1, "choose_state": 2,
        "generate_responses": 3, "judge_responses": 3, "collect_gradients": 8, "score_samples": 1,
        "ranking": 1, "table6": 1, "figure2": 1, "figure5": 1, "total": 32,
    }  # fmt: skip


def test_slurm_profile(tmp_path):
    profile = str(ROOT / "profiles/slurm")
    done = snakemake(tmp_path, "-n", "--workflow-profile", profile)
    assert done.returncode == 0, done.stdout
    assert job_counts(done.stdout) == sandbox_jobs(1)


def test_resources_come_from_the_configuration(tmp_path):
    resources = {"train": {"gpu": 2, "mem_mb": 64000, "runtime": 600, "threads": 8}}
    config = write_config(tmp_path / "gpu.yaml", resources=resources)
    done = snakemake(tmp_path, "-n", "--cores", "8", configfiles=(config,))
    training = r"^rule (?:train|pretrain|align|finetune)_\w+:\n(?:    .*\n)+"
    train = re.findall(training, done.stdout, re.MULTILINE)
    assert len(train) == 1 + 1 + 2 + 1 + 35
    for job in train:
        assert re.search(r"threads: 8\n", job)
        assert re.search(r"gpu=2\b", job) and re.search(r"mem_mb=64000\b", job)
        assert re.search(r"runtime=600\b", job)


def test_targets_are_listed_with_one_line_each(tmp_path):
    lines = snakemake(tmp_path, "--list-target-rules").stdout.splitlines()
    for target in TARGETS:
        described = [line for line in lines if re.match(rf"{target}\b", line.strip())]
        assert len(described) == 1 and len(described[0].split()) > 3, target


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_asked_for_alone(tmp_path, target):
    jobs = job_counts(snakemake(tmp_path, "-n", target).stdout)
    assert jobs[target] == 1
    assert not (set(TARGETS) - {target}) & jobs.keys()


def test_table4_trains_no_subset(tmp_path):
    jobs = job_counts(snakemake(tmp_path, "-n", "table4", configfiles=(TINY,)).stdout)
    assert "finetune_subset" not in jobs and "collect_gradients" not in jobs


def test_a_wrong_configuration_stops_before_any_job(tmp_path):
    config = write_config(
        tmp_path / "wrong.yaml",
        gradiens={"rows_per_shard": 5},
        lora={"r": "eight"},
    )
    done = snakemake(tmp_path, "--cores", "1", configfiles=(config,))
    assert done.returncode != 0
    assert "2 problem(s) in the configuration" in done.stdout
    assert "'gradiens' is not a key" in done.stdout
    assert "lora.r: 'eight' is not of type 'integer'" in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_missing_file_stops_before_any_job(tmp_path):
    datasets = {"mixed": {"source": "nowhere.jsonl", "fields": {"instruction": "q"}}}
    config = write_config(tmp_path / "wrong.yaml", datasets=datasets)
    done = snakemake(tmp_path, "--cores", "1", configfiles=(config,))
    assert done.returncode != 0
    assert "datasets.mixed.source: 'nowhere.jsonl' does not exist" in done.stdout
    assert not (tmp_path / "results").exists()
