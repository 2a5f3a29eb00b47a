"""What is kept, dropped and without a score of a data set, and the folder that holds it."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow.parquet as parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sqsd.curation import curate, decide, name_of_model, rows_of, what_came_of
from sqsd.errors import DataError
from sqsd.provenance import provenance_of
from sqsd.sources import load_dataset
from sqsd.trust import Check

FIELDS = {"instruction": "q", "response": "a"}
MADE = {"version": "9.9"}
ABOUT = {
    "source": "mine.jsonl", "dataset": "mine", "model": "m", "model_source": {"source": "hub:a/b"},
    "method": "sqsd", "drop": 0.4,
}  # fmt: skip


def scores_of(values):
    """A `scores` table: by sample_id a score, or the reason why there is none."""
    table = pd.DataFrame({"sample_id": pd.Series(list(values), dtype="str")})
    table["score"] = [v if isinstance(v, float) else None for v in values.values()]
    table["score"] = table["score"].astype("float64")
    table["rank"] = table["score"].rank(ascending=False, method="first").astype("Int64")
    table["reason"] = pd.Series(
        [v if isinstance(v, str) else None for v in values.values()], dtype="str"
    )
    return table


def test_the_riskiest_share_is_dropped_whatever_the_order():
    scores = scores_of({"a": 0.1, "b": 3.0, "c": "too long", "d": -2.0, "e": 5.0, "f": 1.0})
    # Of five rows with a score .4 are two: e and b. The source has its own order, and one row more.
    table = decide(["f", "e", None, "d", "c", "b", "a"], scores, 0.4)
    assert table["decision"].tolist() == [
        "kept", "dropped", "left_out", "kept", "unscored", "dropped", "kept",
    ]  # fmt: skip
    assert table["rank"].tolist()[:2] == [3, 1]
    assert table["reason"].tolist()[4] == "too long"


@pytest.mark.parametrize("drop", [0.2, 0.9])
def test_a_share_of_no_row_or_of_all_is_refused(drop):
    scores = scores_of({"a": 1.0, "b": 2.0})
    dropped = round(drop * 2)
    with pytest.raises(
        DataError,
        match=rf"of the rows with a score, {drop} of 2 rows drops {dropped} and leaves "
        rf"{2 - dropped}; give a share that drops one row at least, and leaves 1$",
    ):
        decide(["a", "b"], scores, drop)


def test_a_share_that_leaves_too_few_rows_is_refused():
    scores = scores_of({"a": 1.0, "b": 2.0, "c": 3.0})
    assert len(decide(["a", "b", "c"], scores, 0.4, fewest=2)) == 3
    with pytest.raises(DataError, match=r"drops 1 and leaves 2; .* at least, and leaves 3$"):
        decide(["a", "b", "c"], scores, 0.4, fewest=3)


def test_a_curation_that_leaves_too_few_rows_writes_nothing(tmp_path, source):
    with pytest.raises(DataError, match=r"of the rows with a score, .* and leaves 9$"):
        curated(tmp_path, source, fewest=9)
    assert not (tmp_path / "out").exists()


def test_scores_of_rows_that_are_not_there_are_refused():
    scores = scores_of({"a": 1.0, "b": 2.0, "c": 3.0})
    with pytest.raises(DataError, match="1 rows with a score, as c, are not in the source: it has"):
        decide(["a", "b"], scores, 0.5)


VALUES = st.one_of(st.floats(-9, 9), st.just("cut off"))


@given(st.lists(VALUES, min_size=2, max_size=9), st.floats(0.01, 0.99), st.randoms())
def test_each_row_has_one_decision_and_the_counts_add_up(values, drop, random):
    ids = [f"id-{i}" for i in range(len(values))]
    scores = scores_of(dict(zip(ids, values, strict=True)))
    order: list[str | None] = [*ids, None]
    random.shuffle(order)
    ranked = sum(isinstance(v, float) for v in values)
    dropped = round(drop * ranked)
    if not 0 < dropped < ranked:
        with pytest.raises(DataError):
            decide(order, scores, drop)
        return
    table = decide(order, scores, drop)
    counts = Counter(table["decision"])
    assert counts == {
        "kept": ranked - dropped, "dropped": dropped, "left_out": 1,
        **({"unscored": len(values) - ranked} if ranked < len(values) else {}),
    }  # fmt: skip
    kept = table.loc[table["decision"] == "kept", "score"]
    gone = table.loc[table["decision"] == "dropped", "score"]
    assert gone.min() >= kept.max()


ROWS = [{"q": f"Ask {i}?", "a": f"Say {i} é" if i != 2 else None, "id": i * i} for i in range(6)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    spec = {"source": str(path), "fields": FIELDS}
    samples = load_dataset(spec)
    values = [0.5, 4.0, "missing field a", 3.0, -1.0, 2.0]
    scores = scores_of(dict(zip(samples["sample_id"], values, strict=True)))
    return spec, scores


def curated(tmp_path, source, terms=None, checks=None, fewest=1):
    spec, scores = source
    terms = pd.DataFrame() if terms is None else terms
    out = tmp_path / "out"
    return out, curate(spec, scores, terms, ABOUT, fewest, out, checks, MADE)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_curated_folder(tmp_path, source):
    scores = source[1].set_index("sample_id")["score"]
    terms = pd.DataFrame({"danger": scores * 2, "safety": -scores})
    out, counts = curated(tmp_path, source, terms)
    assert counts == {"rows": 6, "kept": 3, "dropped": 2, "unscored": 1, "left_out": 0}
    raw = (tmp_path / "mine.jsonl").read_text().splitlines(keepends=True)
    assert (out / "kept.jsonl").read_text() == raw[0] + raw[4] + raw[5]
    why = "among the 2 riskiest of 5 rows with a score"
    assert lines(out / "dropped.jsonl") == [
        ROWS[1] | {"sqsd_score": 4.0, "sqsd_rank": 1, "sqsd_danger": 8.0, "sqsd_safety": -4.0,
                   "sqsd_reason": why},
        ROWS[3] | {"sqsd_score": 3.0, "sqsd_rank": 2, "sqsd_danger": 6.0, "sqsd_safety": -3.0,
                   "sqsd_reason": why},
    ]  # fmt: skip
    assert lines(out / "unscored.jsonl") == [ROWS[2] | {"sqsd_reason": "missing field a"}]
    manifest = json.loads((out / "manifest.json").read_text())
    read = {"columns_read": FIELDS, "checks": None}
    assert manifest == {**ABOUT, **read, "counts": counts, "provenance": MADE}


PASSED = Check("danger", "change", -1.0, -2.0, -0.5, "below 0", True, "nothing")
FAILED = Check("refusals", "share", 0.04, 0.01, 0.13, "at least 0.5", False, "take another")


def test_card_and_manifest_say_that_checks_failed(tmp_path, source):
    out, _ = curated(tmp_path, source, checks=[PASSED, FAILED])
    card = (out / "dataset/README.md").read_text()
    assert card.endswith(
        "**These scores are not to be trusted.** Of what they rest on, this was found not to be "
        f"so, and gone\npast:\n\n- {FAILED.text()}\n"
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(c["name"], c["passed"]) for c in manifest["checks"]] == [
        ("danger", True), ("refusals", False),
    ]  # fmt: skip
    assert manifest["checks"][1]["measured"] == 0.04


@pytest.mark.parametrize("checks", [None, [], [PASSED]])
def test_a_card_has_no_doubt_where_no_check_failed(tmp_path, source, checks):
    out, _ = curated(tmp_path, source, checks=checks)
    assert "not to be trusted" not in (out / "dataset/README.md").read_text()


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"source": "hub:a/b"}, "a/b"),
        ({"source": "hub:a/b", "revision": "v1"}, "a/b, revision v1"),
        ({"source": "tuned", "base": "other"}, "m"),
        ({"source": "here/weights"}, "weights"),
    ],
)
def test_a_card_names_the_model_as_others_know_it(tmp_path, monkeypatch, entry, name):
    (tmp_path / "here/weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert name_of_model("m", entry) == name


def test_a_curated_folder_says_what_it_was_made_from(tmp_path, source):
    out, _ = curated(tmp_path, source)
    assert provenance_of(out) == MADE


def test_what_came_of_a_curation_in_a_line(tmp_path, source):
    out, _ = curated(tmp_path, source)
    assert what_came_of(out) == f"{out}: 3 rows kept, 2 dropped, 1 without a score"
    out, _ = curated(tmp_path, source, checks=[PASSED, FAILED])
    assert what_came_of(out).endswith("1 without a score; 1 of 2 checks of trust passed")


def test_the_manifest_says_which_columns_were_known_by_their_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("Question,answer,more\nHello,There,1\nBye,Then,2\n")
    spec = {"source": str(path)}
    scores = scores_of(dict(zip(load_dataset(spec)["sample_id"], [1.0, 2.0], strict=True)))
    out, _ = curated(tmp_path, (spec, scores))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["columns_read"] == {"instruction": "Question", "response": "answer"}


def test_a_curated_data_set_is_one_of_the_hub(tmp_path, source):
    out, _ = curated(tmp_path, source)
    card = (out / "dataset/README.md").read_text()
    assert card.startswith("---\n") and "3 of 6 rows of `mine.jsonl`" in card
    assert "for the model `a/b`" in card and "`dropped.jsonl`" in card
    (config,) = yaml.safe_load(card.split("---\n")[1])["configs"]
    (files,) = config["data_files"]
    found = parquet.read_table(out / "dataset" / files["path"]).to_pylist()
    assert found == [ROWS[i] for i in (0, 4, 5)]


def test_a_curated_folder_can_be_scored_again(tmp_path, source):
    out, _ = curated(tmp_path, source)
    kept = load_dataset({"source": str(out / "kept.jsonl"), "fields": FIELDS})
    whole = load_dataset(source[0])
    assert set(kept["sample_id"]) < set(whole["sample_id"])


def test_a_column_of_our_own_name_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("q,a,sqsd_score\nHello,There,1\nBye,Then,2\n")
    spec = {"source": str(path), "fields": FIELDS}
    scores = scores_of(dict(zip(load_dataset(spec)["sample_id"], [1.0, 2.0], strict=True)))
    with pytest.raises(DataError, match="column sqsd_score is one of SQSD's own; rename it"):
        curated(tmp_path, (spec, scores))
    assert not (tmp_path / "out").exists()


def test_rows_of_the_sandbox_are_jsonl():
    with TemporaryDirectory() as folder:
        original, ids = rows_of({"source": "sandbox:benign", "rows": 5, "seed": 1})
        original.write(Path(folder) / "rows.jsonl", [1, 3], {})
        assert len(ids) == len(original) == 5
        assert all(set(row) == {"prompt", "response"} for row in lines(Path(folder) / "rows.jsonl"))
