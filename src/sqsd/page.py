"""A run on one page: which rows are risky and why, tables and figures, what it was made from."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from sqsd.curation import rows_in_share
from sqsd.figures import BLUE, ORANGE
from sqsd.files import written_whole
from sqsd.parts import Part
from sqsd.provenance import provenance_of
from sqsd.token_view import (
    STRONGEST,
    TEMPLATES,
    grouped,
    ranked_rows,
    shortened,
    shown_rows,
    shown_score,
)

# Rows at either end, where none are shown by their tokens.
ENDS = 10
BINS = 60
# Without HTML of its own: what a table's Markdown holds of rows stays text.
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def write_page(
    run: str,
    entries: Mapping[str, str],
    ranked: Sequence[Part],
    tables: Sequence[Part],
    riskiest: int,
    safest: int,
    out: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the page of a run, which loads and runs nothing, to the file `out`.

    entries: what models and data are, by name. ranked: a part per data set, model and method,
    named by them and `curation`, with the share that this drops; files: `scores` and `rows`, and
    where its rows are explained `tokens`, `modules`, `nearest` and `repeats`. riskiest, safest: as
    in `token_view.page`. tables: named `table`, with their titles; files: `md`, `parquet`, and
    `svg` where there is a figure. provenance: of the page. Texts of rows stand for themselves.
    """
    made = [path for part in ranked for path in part.files["scores"]]
    made += [path for part in tables for path in part.files["parquet"]]
    text = TEMPLATES.get_template("run.html").render(
        about={"run": run, "entries": entries, "provenance": provenance},
        ranked=[shown_part(part, riskiest, safest) for part in ranked],
        tables=[shown_table(part) for part in tables],
        made=[{"path": path, **found} for path in made if (found := provenance_of(path))],
        strongest=STRONGEST,
    )
    with written_whole(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def shown_part(part: Part, riskiest: int, safest: int) -> dict[str, Any]:
    """What the page says of a data set's scores."""
    scores, rows = part.read("scores", "scores"), part.read("rows", "dataset")
    known, count = scores["score"].dropna(), ranked_rows(scores)
    dropped = rows_in_share(part.options["drop"], count)
    lowest, median, highest = (f"{known.quantile(q):.3f}" for q in (0, 0.5, 1))
    shown = {
        "title": "{dataset} by {method}, for the model {model}".format(**part.names),
        "curation": part.names["curation"],
        "count": count, "dropped": dropped,
        "lowest": lowest, "median": median, "highest": highest,
        "unscored": list(scores["reason"].value_counts().items()),
        "histogram": data_uri(histogram(known, dropped), "image/svg+xml"),
        "terms": [],
    }  # fmt: skip
    if "tokens" not in part.files:
        return shown | {"rows": ends(scores, rows)}
    tokens = part.read("tokens", "token_shares")
    explained = shown_rows(
        tokens, part.read("modules", "module_shares"), part.read("nearest", "nearest"),
        part.read("repeats", "repeats"), scores, rows,
    )  # fmt: skip
    return shown | {
        "terms": list(tokens["term"].unique()),
        "groups": grouped(explained, count, riskiest, safest),
    }


def ends(scores: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The texts of the rows at both ends of a ranking."""
    texts = {row["sample_id"]: row for row in rows.to_dict("records")}
    ranked = scores.dropna(subset="rank").sort_values("rank")
    shown = pd.concat([ranked[:ENDS], ranked[max(len(ranked) - ENDS, ENDS) :]])
    return [
        {**shown_score(row), "text": shortened(texts[row["sample_id"]])}
        for row in shown.to_dict("records")
    ]


def histogram(scores: pd.Series, dropped: int) -> bytes:
    """SVG of how many rows have which score, the riskiest that are dropped in another colour."""
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.subplots()
    kept = scores.sort_values(ascending=False).iloc[dropped:]
    lost = scores.sort_values(ascending=False).iloc[:dropped]
    labels = {"kept": (kept, BLUE), f"the riskiest {dropped}": (lost, ORANGE)}
    shown = {name: found for name, found in labels.items() if len(found[0])}
    axes.hist(
        [values for values, _ in shown.values()], bins=min(BINS, max(len(scores), 1)),
        color=[colour for _, colour in shown.values()], label=list(shown), stacked=True,
    )  # fmt: skip
    axes.set(xlabel="score (higher is riskier)", ylabel="rows")
    axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def shown_table(part: Part) -> dict[str, Any]:
    """A table's Markdown as HTML, and its figure."""
    (page,) = part.files["md"]
    svg = part.files.get("svg", ())
    return {
        "name": part.names["table"],
        "title": part.options["title"],
        "text": MARKDOWN.render(Path(page).read_text()),
        "figure": data_uri(Path(svg[0]).read_bytes(), "image/svg+xml") if svg else None,
    }


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
