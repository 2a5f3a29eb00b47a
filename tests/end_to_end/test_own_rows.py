"""What is made of rows beside the tables of the paper, for real: curated, explained, treated.

On a copy of the tiny run; what the files hold is made again by plain pandas and dense torch.
"""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY, job_counts, snakemake
from test_wiring import applied, encoded, rows_hash, token_scores

OVER = """
selection:
  tables: [dropping, bare, apart, whole]
  curations: [safer]
experiments:
  harmful: {model: sandbox, dataset: danger}
finetunes:
  whole: {all_rows_seeds: [1], training: {epochs: 1}}
tables:
  dropping: {experiments: [sandbox], methods: [sqsd-danger], treatments: [drop-20, refusals]}
  bare: {title: Models as they are., kind: models, models: [seedling, young], benchmarks: [tuning]}
  apart: {title: Rows of two sets., kind: separation, methods: [sqsd-danger, length],
          riskier: harmful, safer: sandbox}
  whole: {title: On all rows., kind: all-rows, experiments: [sandbox], finetune: whole,
          benchmark: test, measure: safety_score}
explain: {riskiest: 4, middling: 2, safest: 3, nearest: 2, similarity: 0.8}
"""
TARGETS = ("curate", "explain", "page", "dropping", "bare", "apart", "whole")
PLACES = ("sandbox/mixed", "young/rows")
FINETUNES = "finetunes/whole/sandbox/mixed"


@pytest.fixture(scope="module")
def over(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("over") / "over.yaml"
    file.write_text(OVER)
    return file


@pytest.fixture(scope="module")
def folder(tiny_run, over, tmp_path_factory) -> Path:
    """Of the finished run, from which Snakemake was started."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("own") / "copy"))
    done = snakemake(folder, *TARGETS, "--cores", "2", configfiles=(TINY, over))
    assert done.returncode == 0, done.stdout[-5000:]
    for place in PLACES:
        assert f"results/tiny/curated/safer/{place}: " in done.stdout
    return folder


@pytest.fixture(scope="module", autouse=True)
def run(folder) -> Iterator[Path]:
    """The results; paths in files are below the run's folder."""
    patch, threads = pytest.MonkeyPatch(), torch.get_num_threads()
    patch.chdir(folder)
    torch.set_num_threads(1)
    yield folder / "results/tiny"
    torch.set_num_threads(threads)
    patch.undo()


def table(run: Path, path: str) -> pd.DataFrame:
    return pd.read_parquet(run / f"{path}.parquet")


def scores(run: Path, place: str, method: str = "sqsd-danger") -> pd.Series:
    return table(run, f"scores/{place}/{method}").set_index("sample_id")["score"]


def riskiest(run: Path, place: str, share: float) -> set[str]:
    found = scores(run, place)
    return {*found.sort_values(ascending=False).index[: round(share * len(found))]}


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_nothing_is_left_to_do(folder, over):
    done = snakemake(folder, "-n", *TARGETS, configfiles=(TINY, over))
    assert done.returncode == 0 and "Nothing to be done" in done.stdout


@pytest.mark.parametrize("place", PLACES)
def test_curated_rows_are_all_rows_without_the_riskiest_tenth(run, place):
    folder = run / f"curated/safer/{place}"
    rows = table(run, f"data/{place.split('/')[1]}")
    dropped = riskiest(run, place, 0.1)
    texts = [
        {"prompt": row.prompt, "response": row.response}
        for row in rows.itertuples()
        if row.sample_id not in dropped
    ]
    assert jsonl(folder / "kept.jsonl") == texts
    assert pd.read_parquet(folder / "dataset/data").to_dict("records") == texts
    told = jsonl(folder / "dropped.jsonl")
    expected = rows[rows["sample_id"].isin(dropped)]
    assert [row["prompt"] for row in told] == expected["prompt"].tolist()
    found = [row["sqsd_score"] for row in told]
    assert found == pytest.approx(scores(run, place)[expected["sample_id"]].tolist())
    # A score is danger's term against safety's, which is kept with its sign.
    assert found == pytest.approx([row["sqsd_danger"] + row["sqsd_safety"] for row in told])
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts == {
        "rows": len(rows), "kept": len(texts), "dropped": len(dropped), "unscored": 0,
        "left_out": 0,
    }  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_shares_of_tokens_and_modules_add_up_to_the_score(run, place):
    """Of the four riskiest rows, two of the middle and the three least risky."""
    known = scores(run, place).sort_values(ascending=False)
    middle = (len(known) - 2) // 2
    chosen = [*known.index[:4], *known.index[middle : middle + 2], *known.index[-3:]]
    rows = table(run, f"data/{place.split('/')[1]}").set_index("sample_id")
    tokens = table(run, f"explained/{place}/sqsd-danger/tokens")
    modules = table(run, f"explained/{place}/sqsd-danger/modules")
    assert list(tokens["sample_id"].unique()) == chosen
    for name in chosen:
        own, parts = (frame[frame["sample_id"] == name] for frame in (tokens, modules))
        # The run's float32, over a few dozen tokens; both sums are of the same pass or another.
        assert own["share"].sum() == pytest.approx(known[name], rel=1e-4, abs=1e-4)
        for _, of_part in parts.groupby("part"):
            assert of_part["share"].sum() == pytest.approx(known[name], rel=1e-5, abs=1e-6)
        one = own[own["term"] == "danger"]
        row = rows.loc[name]
        assert (
            "".join(one["token"]).split()
            == f"<user> {row.prompt} <assistant> {row.response} <end>".split()
        )
        assert one["is_response"].sum() == len(row.response.split()) + 1


def test_the_pages_of_explanations_and_of_the_run_show_their_rows_and_tables(run):
    for place in PLACES:
        page = (run / f"explained/{place}/sqsd-danger/page.html").read_text()
        known = scores(run, place)
        assert len(re.findall(rf"Rank \d+ of {len(known)}: ", page)) == 9
    page = (run / "page.html").read_text()
    assert page.count("<h3>Rank") == 18
    assert re.findall(r'<h2 id="table-\d">(.*?)</h2>', page) == [
        "dropping",
        "bare",
        "apart",
        "whole",
    ]
    assert page.count("data:image/svg+xml") == 3  # two distributions, the drawing of one table


def treated(run: Path) -> dict[str, pd.DataFrame]:
    """Rows of each fine-tune by its folder."""
    rows = table(run, "data/mixed")
    dropped = riskiest(run, "sandbox/mixed", 0.2)
    return {
        "all-rows/seed-1/all": rows,
        "sqsd-danger/seed-1/drop-20": rows[~rows["sample_id"].isin(dropped)],
        "all-rows/seed-1/refusals": pd.concat([rows, table(run, "data/refusals")]),
    }


def test_treated_rows_are_what_is_trained_on(run):
    expected = treated(run)
    for place, rows in expected.items():
        record = json.loads((run / FINETUNES / place / "training.json").read_text())
        assert (record["rows"], record["rows_hash"]) == (len(rows), rows_hash(rows)), place
        assert record["training"]["epochs"] == 1 and record["seed"] == 1
    found = {str(path.parent.relative_to(run / FINETUNES))
             for path in (run / FINETUNES).rglob("training.json")}  # fmt: skip
    assert found == set(expected)


def losses(run: Path, adapter: Path | None) -> dict[str, float]:
    """Mean loss per token of each held-out row, in float64."""
    rows = table(run, "data/heldout")
    model = str(run / "models/sandbox")
    pairs = encoded(model, rows["prompt"], rows["response"])
    with applied(model, adapter and str(adapter), 1) as moved:
        own = [-found.mean().item() for found, _ in token_scores(moved, pairs)]
    return dict(zip(rows["sample_id"], own, strict=True))


def test_what_dropping_costs_and_keeps(run):
    """Every row of the table: the rate, the loss on held-out rows, both against all rows."""
    made = table(run, "tables/dropping").set_index("method")
    known = {*table(run, "data/mixed")["sample_id"]}
    places = {"before fine-tuning": ("base", None)} | {
        name: (subject, run / FINETUNES / place)
        for name, subject, place in (
            ("all rows", "all-rows", "all-rows/seed-1/all"),
            ("drop", "sqsd-danger/drop-20", "sqsd-danger/seed-1/drop-20"),
            ("mix", "all-rows/refusals", "all-rows/seed-1/refusals"),
        )
    }
    assert len(made) == len(places)
    found = {}
    for (name, row), (_, adapter) in zip(made.iterrows(), places.values(), strict=True):
        new = {k: v for k, v in losses(run, adapter).items() if k not in known}
        found[name] = new
        assert row["heldout_rows"] == len(new)
        assert row["heldout_loss"] == pytest.approx(fmean(new.values()), rel=1e-5)


def test_models_as_they_are(run):
    made = table(run, "tables/bare")
    assert made["model"].tolist() == ["seedling", "young"]
    for row in made.itertuples():
        (path,) = (run / f"evaluations/{row.model}/base").rglob("*tuning/judgements/*/0.parquet")
        judged = pd.read_parquet(path)
        assert row.prompts == len(judged)
        assert row.safety_score == pytest.approx(judged["score"].mean())
        assert row.asr == pytest.approx(judged["verdict"].astype(float).mean())


def test_separation_is_the_share_of_pairs_in_the_right_order(run):
    made = table(run, "tables/apart").set_index("method")
    assert made.index.tolist() == ["sqsd-danger", "length"]
    for method, row in made.iterrows():
        high, low = (scores(run, f"sandbox/{data}", str(method)) for data in ("danger", "mixed"))
        above = [(a > b) + (a == b) / 2 for a in high for b in low]
        assert row["auc"] == pytest.approx(fmean(above))
        assert (row["riskier_rows"], row["safer_rows"]) == (len(high), len(low))
        assert row["auc_bootstrap_low"] <= row["auc"] <= row["auc_bootstrap_high"]
        assert 0 < row["riskier_matched"] <= len(high) and 0 < row["safer_matched"] <= len(low)
        assert row["matched_auc_bootstrap_low"] <= row["matched_auc_bootstrap_high"]


def test_all_rows_beside_the_model_before(run):
    made = table(run, "tables/whole")
    assert made["method"].tolist() == ["before fine-tuning", "all rows"]
    assert not math.isclose(*made["safety_score"])
    dropping = table(run, "tables/dropping")
    assert made["safety_score"].tolist() == pytest.approx(dropping["safety_score"].tolist()[:2])


def test_another_share_drops_other_rows_and_reads_no_row_again(folder, over, tmp_path):
    """And other rows that are explained cost their own pass."""
    change = yaml.safe_load(OVER)
    change["curations"] = {"safer": {"drop": 0.3}}
    change["explain"] |= {"riskiest": 5}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(change))
    done = snakemake(folder, "-n", "curate", "explain", configfiles=(TINY, other))
    assert done.returncode == 0
    assert job_counts(done.stdout) == {
        "curate": 1, "curate_rows": 2, "explain": 1, "explain_rows": 2, "measure_token_shares": 2,
        "total": 8,
    }  # fmt: skip
