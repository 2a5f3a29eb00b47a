"""The tree of what a result was made from, of files that are written here with provenance."""

import pandas as pd
import pytest

from sqsd.ancestry import ancestry, main
from sqsd.provenance import content_hash, write_provenance
from sqsd.tables import write_frame


def said(stage, inputs, **more):
    hashes = {name: content_hash(name) for name in inputs}
    return {"version": "0.1", "stage": stage, "stage_version": 2, "inputs": hashes} | more


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Rows of a file -> a data set; it and a model -> scores -> a table, which read both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("a\n1\n")
    frame = pd.DataFrame({"a": [1]})
    write_frame(frame, "data.parquet", said("make_dataset", ["mine.csv"], seed=0))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("w")
    more = {"settings": "ab12", "time": "2026-01-02T03:04:05+00:00", "device": "a GPU",
            "packages": {"torch": "2", "peft": "0.1"}}  # fmt: skip
    write_provenance("model", said("fetch_model", [], **more))
    write_frame(frame, "scores.parquet", said("score_samples", ["data.parquet", "model"]))
    write_frame(frame, "table.parquet", said("make_table", ["data.parquet", "scores.parquet"]))


TREE = """\
table.parquet
  make_table, version 2, of sqsd 0.1
    data.parquet
      make_dataset, version 2, of sqsd 0.1; seed 0
        mine.csv
          given, or made before results said of what
    scores.parquet
      score_samples, version 2, of sqsd 0.1
        data.parquet (as above)
        model
          fetch_model, version 2, of sqsd 0.1; settings ab12; 2026-01-02T03:04:05+00:00; a GPU; \
torch 2, peft 0.1
"""


def test_a_result_is_told_down_to_what_was_given(results, capsys):
    assert main(["table.parquet", "data.parquet"]) == 0
    below = [line[4:] for line in TREE.splitlines()[2:6]]
    assert capsys.readouterr().out.splitlines() == [*TREE.splitlines(), *below]


def test_what_is_no_longer_as_it_was_is_marked(results, tmp_path):
    (tmp_path / "mine.csv").write_text("a\n2\n")
    (tmp_path / "model/weights").unlink()
    (tmp_path / "model/provenance.json").unlink()
    (tmp_path / "model").rmdir()
    found = [line.strip() for line in ancestry("table.parquet")]
    assert [line for line in found if "CHANGED" in line] == ["mine.csv (CHANGED since)"]
    assert "model (is no longer there)" in found


@pytest.mark.parametrize("name", ["kept.csv", "manifest.json", "provenance.json"])
def test_a_file_that_cannot_say_it_is_told_of_by_its_folder(results, tmp_path, name):
    """Not so of an input: a direction that is given may be of another version of its stage."""
    (tmp_path / "curated").mkdir()
    for file in ("kept.csv", "manifest.json"):
        (tmp_path / "curated" / file).write_text("{}")
    write_provenance("curated", said("curate_rows", ["data.parquet"]))
    whole = list(ancestry("curated"))
    assert whole[:2] == ["curated", "  curate_rows, version 2, of sqsd 0.1"]
    assert list(ancestry(f"curated/{name}")) == whole
    write_frame(pd.DataFrame({"a": [1]}), "next.parquet", said("make_dataset", [f"curated/{name}"]))
    assert list(ancestry("next.parquet"))[-1].strip().startswith("given, or made before")


def test_a_result_that_is_not_there(results, capsys):
    assert main(["gone.parquet"]) == 1
    said = capsys.readouterr()
    message = "gone.parquet: no such file; name a result of a run, relative to its folder"
    assert (said.out, said.err) == ("", f"DataError: {message}\n")
