"""The page of a run: what it says of rows and tables, and that it loads and runs nothing."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_token_view import HOSTILE, Read, tokens_of

from sqsd.page import ENDS, ends, write_page
from sqsd.parts import Part
from sqsd.tables import write_table
from sqsd.token_view import visible

PROVENANCE = {
    "version": "1", "stage": "s", "stage_version": 3, "settings": "abc", "seed": 7,
    "packages": {"torch": "2"}, "device": "a chip", "time": "noon", "inputs": {},
}  # fmt: skip
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def scores_of(values):
    """A `scores` table, its ranks by plain sorting; null values have a reason."""
    table = pd.DataFrame({"sample_id": [f"r{i}" for i in range(len(values))], "score": values})
    table["score"] = table["score"].astype("float64")
    table["rank"] = table["score"].rank(ascending=False, method="first").astype("Int64")
    reasons = [None if value is not None else "empty response" for value in values]
    table["reason"] = pd.Series(reasons, dtype="str")
    return table.assign(response_tokens=3).astype({"sample_id": "str", "response_tokens": "int64"})


@pytest.fixture
def made(tmp_path):
    """Makes a page of a few rows: their texts, and whether they are explained."""

    def make(text="say", explained=True, values=(1.0, 4.0, None, -2.0), **options):
        scores = scores_of(values)
        empty = pd.Series([None] * len(scores), dtype="str")
        rows = pd.DataFrame({"sample_id": scores["sample_id"], "prompt": "ask", "response": text})
        rows = rows.astype("str").assign(family=empty, problem=empty)
        files = {"scores": "scores", "rows": "dataset"}
        tables = {"scores": scores, "dataset": rows}
        if explained:
            tokens = tokens_of([text, text], {"danger": [0.5, 3.5]}, sample_id="r1")
            modules = [("r1", "danger", "layer", "0", 4.0), ("r1", "danger", "kind", "q", 4.0)]
            tables |= {
                "token_shares": tokens.astype({"position": "int64", "token": "str"}),
                "module_shares": pd.DataFrame(
                    modules, columns=["sample_id", "term", "part", "name", "share"]
                ),
                "nearest": pd.DataFrame(
                    {"sample_id": ["r1"], "neighbour": ["r0"], "similarity": [0.5]}
                ),
                "repeats": pd.DataFrame(
                    {"sample_id": [], "group": [], "similarity": np.array([], dtype=float)},
                ).astype({"sample_id": "str", "group": "str"}),
            }
            files |= {
                "tokens": "token_shares", "modules": "module_shares", "nearest": "nearest",
                "repeats": "repeats",
            }  # fmt: skip
        for name, table in tables.items():
            write_table(table, tmp_path / f"{name}.parquet", name, PROVENANCE)
        write_table(scores, tmp_path / "table.parquet", "scores", PROVENANCE)
        (tmp_path / "table.md").write_text("| a | b |\n|---|---|\n| 1 | <b>x</b> |\n\nA *note*.\n")
        (tmp_path / "table.svg").write_bytes(SVG)
        names = {"curation": "safer", "model": "m", "dataset": "d", "method": "k"}
        place = {role: [str(tmp_path / f"{name}.parquet")] for role, name in files.items()}
        shown = {end: [str(tmp_path / f"table.{end}")] for end in ("parquet", "md", "svg")}
        write_page(
            run="mine", entries={"model m": "source: hub:a/b"},
            ranked=[Part(names, {"drop": 0.34}, place)],
            tables=[Part({"table": "table1"}, {"title": "What it shows."}, shown)],
            riskiest=1, safest=1, out=str(tmp_path / "page.html"), provenance=PROVENANCE, **options,
        )  # fmt: skip
        return (tmp_path / "page.html").read_text()

    return make


def words(page):
    return re.sub(r"\s+", " ", "".join(Read(re.sub("<(br|hr|img)[^>]*>", "", page)).texts))


def test_rows_are_counted_and_explained(made):
    text = words(made())
    # Of three with a score, .34 is one.
    assert "d by k, for the model m" in text
    assert "3 rows with a score, from -2.000 to 4.000, median 1.000; " in text
    assert "the curation safer drops the riskiest 1. 1 without: empty response." in text
    assert "The riskiest rows" in text and "Rank 1 of 3: score +4.000 (r1)" in text
    assert "danger +4.000" in text and "0.500 1 +4.000" not in text


def test_rows_that_cannot_be_explained_are_shown_by_their_texts(made):
    rows = re.findall("<td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", made(explained=False))
    assert rows == [
        ("1", "+4.000", "ask → say"), ("2", "+1.000", "ask → say"), ("3", "-2.000", "ask → say"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, ENDS, 2 * ENDS, 2 * ENDS + 3])
def test_both_ends_of_a_ranking_and_no_row_twice(count):
    scores = scores_of([float(-i) for i in range(count)])
    rows = pd.DataFrame({"sample_id": scores["sample_id"], "prompt": "p", "response": "r"})
    ranks = [row["rank"] for row in ends(scores, rows)]
    every = [*range(1, count + 1)]
    assert ranks == (every if count <= 2 * ENDS else every[:ENDS] + every[-ENDS:])


def test_tables_stand_with_their_figures_and_notes(made):
    page = made()
    (image,) = re.findall(
        r'<img alt="What it shows\." src="data:image/svg\+xml;base64,(.*?)">', page
    )
    assert base64.b64decode(image) == SVG
    assert "<td>1</td>" in page and "&lt;b&gt;x&lt;/b&gt;" in page and "A <em>note</em>." in page
    text = words(page)
    assert "model msource: hub:a/b" in text.replace("\n", "")
    assert "s 3 abc7a chip noon" in text and "Made with SQSD 1 (torch 2)." in text


def test_the_same_run_has_the_same_page(made):
    assert made() == made()


def test_the_page_loads_and_runs_nothing(made):
    page = made()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"""https?:|url\(|@import|<script|<link|src="(?!data:)""", page)
    assert re.findall('href="(.)', page) == ["#"] * page.count("href=")


@pytest.mark.parametrize("explained", [True, False])
@given(text=st.one_of(st.just(HOSTILE), st.text(min_size=1).filter(str.strip)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_texts_of_rows_stay_texts(made, explained, text):
    tags = [tag for tag, _ in Read(re.sub("<(br|hr|img)[^>]*>", "", made("a", explained))).elements]
    try:
        page = made(text, explained)
    except UnicodeEncodeError:  # what no table can hold
        return
    read = Read(re.sub("<(br|hr|img)[^>]*>", "", page))
    assert [tag for tag, _ in read.elements] == tags
    if explained:
        assert [shown for shown, *_ in read.shares()[:2]] == [visible(text)] * 2
