"""Layers, kinds of modules and nearest rows by loops over plain numbers; which rows are shown."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.explanations import addends, chosen_rows, explain_rows, module_shares, nearest_rows
from sqsd.scorers import SqsdScorer
from sqsd.tables import read_table, write_table

MODULES = ("model.layers.0.mlp.up_proj", "model.layers.10.mlp.up_proj", "model.layers.10.q_proj")
TERM = {"direction": "d", "state": "s"}


def scores_of(count, unscored=0):
    """Rows r1 (the riskiest), r2, ..., in an order of their own, and some without a score."""
    names = [f"r{i + 1}" for i in range(count)] + [f"u{i}" for i in range(unscored)]
    values = [float(count - i) for i in range(count)] + [None] * unscored
    table = pd.DataFrame({"sample_id": pd.Series(names, dtype="str"), "score": values})
    table["score"] = table["score"].astype("float64")
    table["rank"] = pd.Series([*range(1, count + 1), *[None] * unscored], dtype="Int64")
    table["reason"] = pd.Series([None] * count + ["too long"] * unscored, dtype="str")
    return table.iloc[::-1].reset_index(drop=True)


@pytest.mark.parametrize(
    ("count", "riskiest", "middling", "safest", "expected"),
    [
        (9, 2, 3, 0, [1, 2, 4, 5, 6]),  # three around the fifth of nine
        (9, 2, 3, 2, [1, 2, 4, 5, 6, 8, 9]),
        (9, 2, 1, 4, [1, 2, 5, 6, 7, 8, 9]),
        (4, 2, 3, 2, [1, 2, 3, 4]),  # none twice
        (2, 5, 3, 1, [1, 2]),
        (9, 1, 0, 0, [1]),
        (9, 1, 0, 1, [1, 9]),
    ],
)
def test_rows_of_both_ends_and_of_the_middle(count, riskiest, middling, safest, expected):
    chosen = chosen_rows(scores_of(count, unscored=2), riskiest, middling, safest)
    assert chosen["sample_id"].tolist() == [f"r{rank}" for rank in expected]


def test_without_a_score_there_is_nothing_to_explain():
    with pytest.raises(DataError, match=r"none of the 2 rows has a score \(the first: too long\)"):
        chosen_rows(scores_of(0, unscored=2), 1, 1, 1)


def module_file(path, rows):
    """A `gradient_modules` table of rows by name: of each module (inner product, two norms)."""
    table = pd.DataFrame(
        [(name, module, *numbers) for name, found in rows.items() for module, numbers in found],
        columns=["sample_id", "module", "inner_product", "update_norm", "direction_norm"],
    )
    order = ["sample_id", "module", "update_norm", "inner_product", "direction_norm"]
    write_table(table[order], path, "gradient_modules", {})
    return str(path)


@pytest.mark.parametrize("normalised", [True, False])
def test_addends_are_signed_and_of_rows_that_both_terms_have(tmp_path, normalised):
    a, b, c = MODULES
    danger = [
        module_file(tmp_path / "d0.parquet", {"x": [(a, (6.0, 2.0, 3.0)), (b, (5.0, 0.0, 1.0))]}),
        module_file(tmp_path / "d1.parquet", {"y": [(a, (1.0, 1.0, 3.0)), (b, (2.0, 4.0, 0.0))]}),
    ]
    safety = [module_file(tmp_path / "s.parquet", {"x": [(c, (8.0, 4.0, 2.0))]})]
    scorer = SqsdScorer(TERM, TERM, normalised)
    found = addends(scorer, {"danger": danger, "safety": safety})
    # 6 / 3 and 8 / 2 along the direction, over 2 and 4 of the update where that is normalised, and
    # where it has no length 0; y has no safety term.
    row = [1.0, 0.0, -1.0] if normalised else [2.0, 5.0, -4.0]
    assert found.index.tolist() == ["x"]
    assert list(found.loc["x"]) == row
    assert found.columns.tolist() == [("danger", a), ("danger", b), ("safety", c)]


def table_of(vectors, modules=MODULES):
    columns = pd.MultiIndex.from_product([["danger", "safety"], modules])
    names = pd.Index([f"r{i}" for i in range(len(vectors))], name="sample_id")
    return pd.DataFrame(np.array(vectors, dtype=float), names, columns)


def test_shares_of_layers_and_of_kinds():
    found = module_shares(table_of([[1, 2, 4, 10, 20, 40]]))
    values = {(r.term, r.part, r.name): r.share for r in found.itertuples(index=False)}
    assert values == {
        ("danger", "layer", "0"): 1, ("danger", "layer", "10"): 6,
        ("safety", "layer", "0"): 10, ("safety", "layer", "10"): 60,
        ("danger", "kind", "up_proj"): 3, ("danger", "kind", "q_proj"): 4,
        ("safety", "kind", "up_proj"): 30, ("safety", "kind", "q_proj"): 40,
    }  # fmt: skip


def test_a_module_outside_every_layer_stands_for_itself():
    found = module_shares(table_of([[3, 5]], ["connector.proj"]))
    assert set(found.loc[found["part"] == "layer", "name"]) == {"connector.proj"}


numbers = st.integers(-3, 3)


@given(
    vectors=st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=9),
    count=st.integers(1, 4),
)
def test_nearest_rows_are_those_of_a_comparison_with_every_other(vectors, count):
    parts = table_of(vectors)
    found = nearest_rows(parts.iloc[::-1], np.array(["r0"], dtype=object), count)

    def cosine(i):
        length = math.hypot(*vectors[0]) * math.hypot(*vectors[i])
        return sum(a * b for a, b in zip(vectors[0], vectors[i], strict=True)) / (length or 1.0)

    others = sorted(range(1, len(vectors)), key=lambda i: (-round(cosine(i), 6), f"r{i}"))[:count]
    assert found["neighbour"].tolist() == [f"r{i}" for i in others]
    np.testing.assert_allclose(found["similarity"], [cosine(i) for i in others], atol=1e-12)


def test_the_files_of_an_explanation(tmp_path):
    """Of two rows of three, in the order of their tokens; the shares add up to the score."""
    a, b, _ = MODULES
    values = {"r1": (2.0, 1.0), "r2": (1.5, 0.5), "r3": (-1.0, 2.0)}
    rows = {n: [(a, (x, 1.0, 1.0)), (b, (y, 1.0, 1.0))] for n, (x, y) in values.items()}
    file = module_file(tmp_path / "m.parquet", rows)
    tokens = pd.DataFrame(
        {
            "sample_id": ["r1", "r1", "r2", "r2"], "term": "danger", "position": [1, 2, 1, 2],
            "token": ["ask", "say", "ask", "do"], "is_response": [False, True] * 2,
            "share": [1.0, 2.0, 1.5, 0.5],
        }
    )  # fmt: skip
    texts = pd.DataFrame({"sample_id": list(values), "prompt": "ask", "response": "say"})
    alike = pd.DataFrame({"sample_id": ["r1", "r3"], "group": "r1", "similarity": 1.0})
    names = ("modules.parquet", "nearest.parquet", "page.html")
    out = {name.partition(".")[0]: str(tmp_path / name) for name in names}
    about = {"dataset": "mine", "method": "danger-only", "model": "m"}
    explain_rows(
        SqsdScorer(danger=TERM, normalised=False), {"danger": [file]}, tokens, scores_of(3), texts,
        alike, 1, 0, 1, about, out, {},
    )  # fmt: skip
    shares = read_table(out["modules"], "module_shares")
    by_layer = shares[shares["part"] == "layer"].groupby("sample_id")["share"].sum()
    assert by_layer.to_dict() == {"r1": 3.0, "r2": 2.0}
    nearest = read_table(out["nearest"], "nearest")
    # cos (2, 1) (1.5, .5) = 3.5 / (sqrt 5 sqrt 2.5), and r1 is r2's nearest too.
    assert nearest["neighbour"].tolist() == ["r2", "r1"]
    assert nearest["similarity"].tolist() == pytest.approx([3.5 / 12.5**0.5] * 2)
    page = (tmp_path / "page.html").read_text()
    assert "mine, by the method danger-only, for the model" in page
    assert page.index("The riskiest rows") < page.index("(r1)") < page.index("In the middle")
    assert page.index("In the middle") < page.index("(r2)")
    assert "2 rows say the same, or nearly: ranks 1, 3." in page
