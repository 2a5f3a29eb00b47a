"""Tables of the README that are copied from a measured file hold what the file says."""

import csv
import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
COPIED = re.findall(r"<!-- from (\S+) -->\n((?:\|.*\n)+)", README)


def rows_of(table):
    header, _, *lines = ([c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def cell(row, name):
    """A value with its interval as the README writes it."""
    values = [float(row[key]) for key in (name, f"{name}_t_low", f"{name}_t_high")]
    return "{:.2f} [{:.2f}, {:.2f}]".format(*values)


def test_a_table_is_copied():
    assert COPIED


@pytest.mark.parametrize(("path", "table"), COPIED, ids=[path for path, _ in COPIED])
def test_small_groups_are_as_measured(path, table):
    measured = list(csv.DictReader((ROOT / path).open()))
    pooled = {row["method"]: row for row in measured if row["experiment"].startswith("mean")}
    found = rows_of(table)
    assert [row["method"] for row in found] == list(pooled)
    for row in found:
        own = pooled[row["method"]]
        assert row["correlation"] == cell(own, "correlation")
        assert row["over sqsd-danger"] == (cell(own, "over") if own["over"] else "")
        each = [
            float(other["correlation"])
            for other in measured
            if other["method"] == row["method"] and other is not own
        ]
        assert [float(value) for value in row["each base seed"].split()] == pytest.approx(
            each, abs=0.005 + 1e-9
        )


def test_the_sentences_about_small_groups_are_as_measured():
    """Numbers of the text below table 11, each by what it is of."""
    text = README.split('<a id="small-groups"></a>')[1].split("\n## Real rows")[0]
    said = " ".join(text.split("What it says:")[1].split())
    folder = ROOT / "docs/measured/sandbox-study"
    whole, states = (
        {row["method"]: row for row in csv.DictReader((folder / name).open())
         if row["experiment"].startswith("mean")}
        for name in ("table11.csv", "table11-states.csv")
    )  # fmt: skip

    def short(value):
        return f"{float(value):.2f}".replace("0.", ".", 1)

    def interval(row):
        return "[{}, {}]".format(*(short(row[f"over_t_{end}"]) for end in ("low", "high")))

    for method, before in (
        ("sqsd-danger", "what a group does ({})"), ("length", "length {},"),
        ("random", "random order {},"), ("refusal-opening", "by phrases {})"),
        ("bi-anchor-grad", "Bi-Anchor(Grad) ({};"),
        ("sqsd-danger-danger-only", "as nothing ({})"),
        ("sqsd-danger-theta-0-danger-only", "theta_0 it is {}."),
        ("sqsd-danger-theta-0-safety-only", "higher, {} on average"),
    ):  # fmt: skip
        assert before.format(short(whole[method]["correlation"])) in said, method
    for method in (
        "bi-anchor-grad", "sqsd-danger-theta-0", "sqsd-danger-theta-0-safety-only",
    ):  # fmt: skip
        row = whole[method]
        assert f"{short(row['over'])} {interval(row)}" in said, method
    early = states["sqsd-danger-step-10-danger-only"]["correlation"]
    assert f"({short(early)} at step 10" in said
    for step in (60, 90, 120):
        assert float(states[f"sqsd-danger-step-{step}-danger-only"]["correlation"]) < 0
