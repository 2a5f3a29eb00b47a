"""The tiny configuration for real: caching, determinism, kill and resume, a user's own file."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import TINY, job_counts, snakemake, snakemake_command, write_config

from sqsd import sandbox
from sqsd.tables import read_table

RUN = Path("results/tiny")
FIGURES = ("figure2", "figure5")
REPORTS = ("table1", "table3", "table4", "table5", "table6", "table7", "ranking", *FIGURES)
SCORES = RUN / "scores/sandbox/sqsd-danger.parquet"
NOTHING = "Nothing to be done"


def copied(run: Path, to: Path) -> Path:
    """A copy of a run with its cache, to change freely; times are kept, as snakemake reads them."""
    shutil.copytree(run, to, dirs_exist_ok=True)
    return to


def test_every_report_is_there_in_every_format(tiny_run):
    for report in REPORTS:
        for suffix in ("parquet", "csv", "md"):
            assert (tiny_run / RUN / f"tables/{report}.{suffix}").stat().st_size > 0
    for figure in FIGURES:
        png = (tiny_run / RUN / f"figures/{figure}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert "<svg" in (tiny_run / RUN / f"figures/{figure}.svg").read_text()


def test_a_second_run_has_nothing_to_do(tiny_run):
    done = snakemake(tiny_run, "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0 and NOTHING in done.stdout


def test_a_deleted_table_is_made_again_alone_and_equal(tiny_run, tmp_path):
    folder = copied(tiny_run, tmp_path)
    table = folder / RUN / "tables/table1.parquet"
    before = table.read_bytes()
    table.unlink()
    jobs = job_counts(snakemake(folder, "-n", "table1", configfiles=(TINY,)).stdout)
    assert jobs == {"table1": 1, "total": 1}
    assert snakemake(folder, "table1", "--cores", "1", configfiles=(TINY,)).returncode == 0
    assert table.read_bytes() == before


def test_a_changed_value_reruns_what_it_touches_and_no_more(tiny_run, tmp_path):
    config = write_config(tmp_path / "changed.yaml", subsets={"rows": 20})
    done = snakemake(tiny_run, "-n", configfiles=(TINY, config))
    # 2 methods: subsets, 3 windows each, responses and judgements; the tables made of them.
    assert job_counts(done.stdout) == {
        "make_subsets": 2, "finetune_subset": 6, "generate_responses": 2, "judge_responses": 2,
        "table1": 1, "table3": 1, "table7": 1, "all": 1, "total": 16,
    }  # fmt: skip


def test_four_cores_give_the_same_tables(tiny_run, tmp_path):
    done = snakemake(tmp_path, "--cores", "4", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    for report in REPORTS:
        one, four = (
            pd.read_parquet(folder / RUN / f"tables/{report}.parquet")
            for folder in (tiny_run, tmp_path)
        )
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


def test_killed_twice_and_resumed_gives_the_same_scores(tiny_run, tmp_path):
    folder = copied(tiny_run, tmp_path)
    expected = (folder / SCORES).read_bytes()
    for part in ("directions", "states", "gradients", "scores", "resume"):
        shutil.rmtree(folder / RUN / part, ignore_errors=True)
    work = RUN / "resume/directions/sandbox/danger/*"

    run_until(folder, work / "checkpoint-10/trainer_state.json", SCORES)
    assert not (folder / RUN / "directions/sandbox/danger").exists()
    assert list(folder.glob(str(work / "checkpoint-10")))
    assert not list(folder.glob(str(work / "final")))

    snakemake(folder, "--unlock", configfiles=(TINY,))
    run_until(folder, RUN / "gradients/sandbox/*/*-modules.parquet", SCORES)
    log = (folder / RUN / "logs/train_direction/sandbox/danger.log").read_text()
    assert "10/60" in log, "the direction's training did not resume from its checkpoint"
    assert len(list((folder / RUN / "gradients").rglob("*-modules.parquet"))) < 2 * 2

    snakemake(folder, "--unlock", configfiles=(TINY,))
    done = snakemake(folder, str(SCORES), "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    assert (folder / SCORES).read_bytes() == expected


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


def test_planted_risky_rows_rank_high_and_bad_rows_keep_their_reason(tiny_run, tmp_path, own_rows):
    folder = copied(tiny_run, tmp_path)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own_rows))
    config = write_config(
        tmp_path / "mine.yaml",
        selection={"methods": ["sqsd-danger"], "reports": ["ranking"]},
        experiments={"sandbox": {"scored": "mine"}},
        datasets={
            "mine": {
                "source": "mine.jsonl",
                "fields": {"instruction": "q", "response": "a"},
                "rows": len(own_rows),
                "seed": 1,
            }
        },
    )
    done = snakemake(folder, "--cores", "1", configfiles=(TINY, config))
    assert done.returncode == 0, done.stdout[-5000:]
    scores = read_table(folder / SCORES, "scores")
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
    page = (folder / RUN / "tables/ranking.md").read_text()
    assert "34 rows scored, 3 without a score" in page
