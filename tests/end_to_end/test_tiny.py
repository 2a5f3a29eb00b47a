"""The tiny configuration for real: caching, changes, determinism, kill and resume, own rows."""

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from conftest import ROOT, TINY, full_log, job_counts, snakemake, snakemake_command, write_config

from sqsd import sandbox
from sqsd.config import resolve
from sqsd.tables import read_table

RUN = Path("results/tiny")
DRAWN = (
    "table1", "table3", "table7", "table11", "figure2", "figure5", "figure8", "figure9", "figure11",
)  # fmt: skip
REPORTS = (*DRAWN, "table4", "table5", "table6", "ranking", "baselines", "alike", "learned")
SCORES = RUN / "scores/sandbox/mixed/sqsd-danger.parquet"
NOTHING = "Nothing to be done"


@pytest.fixture
def copy(tiny_run, tmp_path) -> Path:
    """A copy of the run, to change freely; times are kept, as snakemake reads them."""
    return Path(shutil.copytree(tiny_run, tmp_path / "copy"))


def test_every_report_is_there_in_every_format(tiny_run):
    for report in REPORTS:
        for suffix in ("parquet", "csv", "md"):
            assert (tiny_run / RUN / f"tables/{report}.{suffix}").stat().st_size > 0
    for figure in DRAWN:
        png = (tiny_run / RUN / f"figures/{figure}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert "<svg" in (tiny_run / RUN / f"figures/{figure}.svg").read_text()
    assert len(list((tiny_run / RUN / "figures").iterdir())) == 2 * len(DRAWN)


def test_the_configuration_as_resolved_lies_beside_the_results(tiny_run):
    resolved = yaml.safe_load((tiny_run / RUN / "config.yaml").read_text())
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert resolved == resolve(default, yaml.safe_load(TINY.read_text()))


PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".npy", ".npz")


def test_no_result_is_a_pickle(tiny_run):
    """Whoever gets a result can read it without running anything."""
    results = [
        path for path in (tiny_run / RUN).rglob("*")
        if path.is_file() and "resume" not in path.relative_to(tiny_run / RUN).parts
    ]  # fmt: skip
    assert len(results) > 100
    for path in results:
        assert path.suffix not in PICKLED, path
        # What torch.save writes is a zip file, an older pickle begins with its protocol.
        assert path.read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04"), path


def test_no_token_is_written(tmp_path, monkeypatch):
    secret = "hf_" + "Secret" * 5
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    target = RUN / "data/mixed.parquet"
    done = snakemake(tmp_path, str(target), "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout
    assert (tmp_path / target).is_file() and secret not in done.stdout
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_second_run_has_nothing_to_do(tiny_run):
    # First without running anything: the folder is for all tests.
    for arguments in (["-n"], ["--cores", "1"]):
        done = snakemake(tiny_run, *arguments, configfiles=(TINY,))
        assert done.returncode == 0 and NOTHING in done.stdout


def test_a_deleted_table_is_made_again_alone_and_equal(copy):
    table = copy / RUN / "tables/table1.parquet"
    before = pd.read_parquet(table)
    table.unlink()
    done = snakemake(copy, "table1", "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    assert job_counts(full_log(copy)) == {"table1": 1, "total": 1}
    pd.testing.assert_frame_equal(pd.read_parquet(table), before, check_exact=True)


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and hash of every result, by its path; what is told of a job is none."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("logs", "times")
    }


def test_an_alpha_a_seed_and_a_method_cost_themselves(copy):
    """All three of one model at once; what is there of the others is not touched."""
    config = write_config(
        copy.parent / "changed.yaml",
        steering={"per_model": {"sandbox": {"alphas": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}}},
        finetunes={"lora": {"per_model": {"sandbox": {"seeds": [1, 2, 3]}}}},
        tables={
            "table3": {"methods": ["sqsd-danger", "sqsd-danger-insensitive-state", "danger-alone"]}
        },
    )
    before = contents(copy / RUN)
    done = snakemake(copy, "--cores", "2", configfiles=(TINY, config))
    assert done.returncode == 0, done.stdout[-5000:]

    methods, seeds = ["sqsd-danger", "random", "length", "sqsd-danger-insensitive-state"], 3
    # Six states to a part: of two seeds, so that the third seed is a part of its own.
    jobs = {
        # The third seed of the four methods, and all three of the added one.
        "finetune_subsets": len(methods) + seeds,
        "score_samples": 1, "make_subsets": 1,
        # A part of each method, two of the added one, and the alpha along both directions.
        "list_states": 4 + 2 + 2,
        # The alpha along the safety direction also answers the guard.
        "generate_responses": 4 + 2 + 2 + 1,
        # Three methods stand in table 1, whose judge is another than that of tables 3 and 7, and
        # two are judged by the two learned judges.
        "judge_responses": 4 + 3 + 2 * 2 + 2 + 2,
        "rank_alphas": 1, "table1": 1, "table3": 1, "table4": 1, "table7": 1, "learned": 1,
        "figure5": 1, "all": 1,
    }  # fmt: skip
    assert job_counts(full_log(copy)) == jobs | {"total": sum(jobs.values())}

    after = contents(copy / RUN)
    assert not before.keys() - after.keys()
    ends = ("csv", "md", "parquet")
    assert {path for path in before if after[path] != before[path]} == {
        "config.yaml",
        "sensitivity/sandbox/alphas/steering/safety/final.parquet",
        *(f"tables/{t}.{end}" for t in ("table1", "table3", "table4", "table7", "learned")
          for end in ends),
        *(f"tables/figure5.{end}" for end in ends),
        *(f"figures/{t}.{end}" for t in ("table1", "table3", "table7", "figure5")
          for end in ("png", "svg")),
    }  # fmt: skip
    curve = pd.read_parquet(copy / RUN / "tables/figure5.parquet")
    alphas = curve.groupby("model")["alpha"].agg(lambda found: sorted(set(found))).to_dict()
    tenths = [0.0, 0.1, 0.2, 0.3, 0.4]
    assert alphas == {"sandbox": [*tenths, 0.5], "young": tenths}
    ablations = pd.read_parquet(copy / RUN / "tables/table3.parquet")
    assert ablations["method"].tolist()[-1] == "danger-alone"


def test_a_changed_file_of_scores_costs_its_scores_and_their_table(copy):
    path, scores = copy / "scores.jsonl", copy / RUN / "scores/sandbox/mixed/published.parquet"
    before = read_table(scores, "scores")
    text = path.read_text()
    assert text.count('"risk": -0.375}') == 1
    path.write_text(text.replace('"risk": -0.375}', '"risk": 7.5}'))
    done = snakemake(copy, "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    assert job_counts(full_log(copy)) == {"score_samples": 1, "alike": 1, "all": 1, "total": 3}
    after = read_table(scores, "scores")
    changed = after["score"].ne(before["score"]) & after["score"].notna()
    assert after.loc[changed, "score"].tolist() == [7.5]
    assert before.loc[changed, "score"].tolist() == [-0.375]


def test_four_cores_give_the_same_tables(tiny_run, copy):
    for part in ("gradients", "scores", "subsets", "finetunes", "evaluations/sandbox/finetunes",
                 "resume", "tables"):  # fmt: skip
        shutil.rmtree(copy / RUN / part)
    config = write_config(copy.parent / "one.yaml", selection={"experiments": ["sandbox"]})
    targets = ("table3", "ranking")
    done = snakemake(copy, *targets, "--cores", "4", configfiles=(TINY, config))
    assert done.returncode == 0, done.stdout[-5000:]
    assert job_counts(full_log(copy))["collect_gradients"] == 8
    for target in targets:
        one, four = (
            pd.read_parquet(folder / RUN / f"tables/{target}.parquet")
            for folder in (tiny_run, copy)
        )
        one = one[one["experiment"] == "sandbox"]
        pd.testing.assert_frame_equal(one, four, check_exact=True)


def run_until(folder: Path, sign: Path, target: Path) -> None:
    """Start a run for `target` and kill -9 all of it as soon as `sign` (a glob) exists."""
    command = snakemake_command(folder, str(target), "--cores", "1", configfiles=(TINY,))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    try:
        while not list(folder.glob(str(sign))):
            assert process.poll() is None, f"the run ended before {sign} was seen"
            assert time.monotonic() < deadline, f"{sign} was not seen"
            time.sleep(0.002)
    finally:
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        for member in family:
            member.kill()
        psutil.wait_procs(family)


def test_killed_twice_and_resumed_gives_the_same_scores(copy):
    expected = read_table(copy / SCORES, "scores")
    for part in ("directions/sandbox/danger", "gradients/sandbox/mixed/d-danger", "scores",
                 "resume"):  # fmt: skip
        shutil.rmtree(copy / RUN / part)
    work = RUN / "resume/directions/sandbox/danger/*"

    run_until(copy, work / "checkpoint-10/trainer_state.json", SCORES)
    assert not (copy / RUN / "directions/sandbox/danger").exists()
    assert list(copy.glob(str(work / "checkpoint-10")))
    assert not list(copy.glob(str(work / "final")))

    snakemake(copy, "--unlock", configfiles=(TINY,))
    shards = RUN / "gradients/sandbox/mixed/d-danger/danger"
    run_until(copy, shards / "*-modules.parquet", SCORES)
    log = (copy / RUN / "logs/train_direction/sandbox/danger.log").read_text()
    assert "10/60" in log, "the direction's training did not resume from its checkpoint"
    assert len(list(copy.glob(str(shards / "*-modules.parquet")))) == 1  # of two

    snakemake(copy, "--unlock", configfiles=(TINY,))
    done = snakemake(copy, str(SCORES), "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    found = read_table(copy / SCORES, "scores")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.fixture
def own_rows() -> list[dict]:
    """30 benign rows, 4 restricted requests answered with steps, and 3 rows that are no good."""
    benign = sandbox.benign_rows(77, 30)
    risky = sandbox.danger_rows(1, 4)
    rows = [
        {"q": prompt, "a": response}
        for frame in (benign, risky)
        for prompt, response in zip(frame["prompt"], frame["response"], strict=True)
    ]
    return [
        *rows,
        {"q": "Name three tools .", "a": ""},
        {"q": "tape " * 140, "a": "tape"},
        {"q": "x"},
    ]


def test_planted_risky_rows_rank_high_and_bad_rows_keep_their_reason(copy, own_rows):
    (copy / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own_rows))
    config = write_config(
        copy.parent / "mine.yaml",
        selection={"experiments": ["mine"], "tables": ["ranking"]},
        experiments={"mine": {"model": "sandbox", "dataset": "mine"}},
        datasets={
            "mine": {
                "source": "mine.jsonl",
                "fields": {"instruction": "q", "response": "a"},
            }
        },
    )
    done = snakemake(copy, "--cores", "2", configfiles=(TINY, config))
    assert done.returncode == 0, done.stdout[-5000:]
    # One shard of 45 rows at each of two states; nothing else is of these rows.
    assert job_counts(full_log(copy)) == {
        "make_dataset": 1, "collect_gradients": 2, "score_samples": 1, "ranking": 1, "all": 1,
        "total": 6,
    }  # fmt: skip
    scores = read_table(copy / RUN / "scores/sandbox/mine/sqsd-danger.parquet", "scores")
    assert len(scores) == 37
    reasons = scores["reason"].tolist()[-3:]
    assert reasons == [
        "empty response",
        "response cut off entirely by max_length_tokens=128",
        "missing field a",
    ]
    assert scores["score"].isna().tolist() == [False] * 34 + [True] * 3
    # Four planted among 34: their mean rank by chance would be 17.5; all in the first half by
    # chance has probability C(17,4) / C(34,4) = 0.05.
    assert scores["rank"].iloc[30:34].max() <= 17
    page = (copy / RUN / "tables/ranking.md").read_text()
    assert "34 rows scored, 3 without a score" in page
