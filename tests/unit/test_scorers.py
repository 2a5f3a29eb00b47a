"""Scores from tables of readings made by hand; the whole path from rows is in another file."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import DataError
from sqsd.readings import (
    Gradient,
    HiddenState,
    Judged,
    Outcomes,
    ScoreFile,
    Scores,
    Texts,
    Tokens,
    Update,
    read_readings,
    sums_over_modules,
)
from sqsd.scorers import (
    make_scorer,
    merged_samples,
    score_method,
    score_table,
)
from sqsd.tables import SCHEMAS, read_table, write_table

DANGER = {"direction": "danger", "state": "d"}
SAFETY = {"direction": "safety", "state": "s"}
WHOLE = {"kind": "sqsd", "danger": DANGER, "safety": SAFETY}
MODULES = ["m.0", "m.1"]


def samples_of(reasons, kind="gradient_samples", tokens=None):
    """A table of samples by id; `reasons`: None where the row can be scored."""
    frame = pd.DataFrame(
        {
            "sample_id": list(reasons),
            "loss": [None if reason else 1.0 for reason in reasons.values()],
            "prompt_tokens": 3,
            "response_tokens": tokens or [4] * len(reasons),
            "reason": list(reasons.values()),
        }
    ).astype({"loss": "float64", "reason": "str", "sample_id": "str"})
    return frame if kind == "gradient_samples" else frame.drop(columns="loss")


def modules_of(values):
    """A table of modules: by id, for each module (update's norm, inner product, V's norm)."""
    rows = [
        (sample, module, *numbers)
        for sample, per_module in values.items()
        for module, numbers in zip(MODULES, per_module, strict=True)
    ]
    columns = ["sample_id", "module", "update_norm", "inner_product", "direction_norm"]
    frame = pd.DataFrame(rows, columns=pd.Index(columns))
    kinds = {"sample_id": "str", "module": "str"}
    return frame.astype({name: kinds.get(name, "float64") for name in columns})


def reading(values, reasons=None):
    """Of rows with values, and of those with a reason after them."""
    return {
        "samples": samples_of(dict.fromkeys(values) | (reasons or {})),
        "modules": sums_over_modules(modules_of(values)),
    }


def read_update(samples, modules):
    return read_readings(Update("d", "danger"), {"samples": samples, "modules": modules})


def scores(method, readings, seed=0):
    return score_method(method, readings, seed).set_index("sample_id")


# |dW|, <dW, V>, |V| of each module.
AT_DANGER = {"a": [(2.0, 3.0, 3.0), (4.0, -5.0, 5.0)], "b": [(1.0, 1.5, 3.0), (1.0, 0.5, 5.0)]}
AT_SAFETY = {"a": [(4.0, 2.0, 2.0), (2.0, 1.0, 1.0)], "b": [(1.0, -1.0, 2.0), (5.0, 3.0, 1.0)]}
# Sums of <dW, V> / |dW| |V| and of <dW, V> / |V|:
# danger, a: 3/6 - 5/20 = 1/4 and 1 - 1 = 0; b: 1.5/3 + 0.5/5 = 0.6 and 0.5 + 0.1 = 0.6
# safety, a: 2/8 + 1/2 = 3/4 and 1 + 1 = 2; b: -1/2 + 3/5 = 0.1 and -0.5 + 3 = 2.5
READ = {"danger": reading(AT_DANGER), "safety": reading(AT_SAFETY)}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (WHOLE, {"a": 1 / 4 - 3 / 4, "b": 0.6 - 0.1}),
        (WHOLE | {"normalised": True}, {"a": 1 / 4 - 3 / 4, "b": 0.6 - 0.1}),
        (WHOLE | {"normalised": False}, {"a": 0 - 2, "b": 0.6 - 2.5}),
        ({"kind": "sqsd", "danger": DANGER}, {"a": 1 / 4, "b": 0.6}),
        ({"kind": "sqsd", "safety": SAFETY}, {"a": -3 / 4, "b": -0.1}),
        ({"kind": "sqsd", "safety": SAFETY, "normalised": False}, {"a": -2.0, "b": -2.5}),
    ],
)
def test_terms_and_signs_by_hand(method, expected):
    readings = {name: READ[name] for name in make_scorer(method).needs()}
    found = scores(method, readings)
    assert found["score"].to_dict() == pytest.approx(expected)
    best = max(expected, key=lambda sample: expected[sample])
    assert found["rank"].to_dict() == {sample: 1 if sample == best else 2 for sample in expected}


NUMBERS = st.tuples(st.floats(0.1, 9), st.floats(-9, 9), st.floats(0.1, 9))
ROWS = st.lists(NUMBERS, min_size=2, max_size=2)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=5), st.booleans())
def test_swapping_danger_and_safety_flips_the_sign(rows, normalised):
    at_danger = {f"z{i}": row[0] for i, row in enumerate(rows)}
    at_safety = {f"z{i}": row[1] for i, row in enumerate(rows)}
    readings = {"danger": reading(at_danger), "safety": reading(at_safety)}
    swapped = {"danger": readings["safety"], "safety": readings["danger"]}
    method = WHOLE | {"normalised": normalised}
    found, other = scores(method, readings)["score"], scores(method, swapped)["score"]
    assert found.to_dict() == pytest.approx((-other).to_dict(), abs=1e-12)
    expected = {}
    for sample in at_danger:
        terms = [
            sum(dot / v / (norm if normalised else 1) for norm, dot, v in values[sample])
            for values in (at_danger, at_safety)
        ]
        expected[sample] = terms[0] - terms[1]
    assert found.to_dict() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_module_that_points_nowhere_adds_nothing(normalised):
    method = {"kind": "sqsd", "danger": DANGER, "normalised": normalised}
    # An update of norm 0, and a direction of norm 0: neither is 0 / 0.
    values = {"a": [(0.0, 0.0, 2.0), (2.0, 3.0, 3.0)], "b": [(5.0, 0.0, 0.0), (2.0, 3.0, 3.0)]}
    found = scores(method, {"danger": reading(values)})["score"]
    assert found.tolist() == pytest.approx([0.5 if normalised else 1.0] * 2)


def test_the_readings_that_a_method_needs():
    needs = make_scorer(WHOLE).needs()
    assert needs == {"danger": Update("d", "danger"), "safety": Update("s", "safety")}
    only = make_scorer({"kind": "sqsd", "safety": SAFETY}).needs()
    assert only == {"safety": Update("s", "safety")}
    # The same readings whatever becomes of them.
    assert make_scorer(WHOLE | {"normalised": False}).needs() == needs
    for kind in ("random", "length"):
        assert make_scorer({"kind": kind}).needs() == {"tokens": Tokens()}


# --- rows without a score -------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations("abcde"), st.permutations("abcde"))
def test_reasons_are_merged_by_sample_id(first_order, second_order):
    first = dict.fromkeys("abcde") | {"a": "one", "b": "both: first"}
    second = dict.fromkeys("abcde") | {"b": "both: second", "c": "two"}
    merged = merged_samples(
        [samples_of({i: first[i] for i in first_order}),
         samples_of({i: second[i] for i in second_order})]
    )  # fmt: skip
    assert merged["sample_id"].tolist() == list(first_order)
    reasons = {
        sample: None if pd.isna(reason) else reason
        for sample, reason in merged.set_index("sample_id")["reason"].items()
    }
    assert reasons == {"a": "one", "b": "both: first", "c": "two", "d": None, "e": None}


def test_merging_leaves_the_tables_as_they_were():
    first, second = samples_of({"a": None}), samples_of({"a": "no"})
    merged_samples([first, second])
    assert first["reason"].isna().all()


def write_reading(folder, values, reasons, rows_per_shard=2, order=None):
    """Files of one reading in shards: of samples, and of modules."""
    order = order or [*values, *reasons]
    files = ([], [])
    for shard, start in enumerate(range(0, len(order), rows_per_shard)):
        part = order[start : start + rows_per_shard]
        samples = samples_of({sample: reasons.get(sample) for sample in part})
        modules = modules_of({sample: values[sample] for sample in part if sample in values})
        tables = {"samples": samples, "modules": modules}
        for (kind, table), paths in zip(tables.items(), files, strict=True):
            paths.append(str(folder / f"{shard}-{kind}.parquet"))
            write_table(table, paths[-1], f"gradient_{kind}", {})
    return files


@pytest.mark.parametrize("state", ["danger", "safety"])
def test_a_row_without_a_gradient_at_one_state_only_has_no_score(tmp_path, state):
    at_danger = AT_DANGER | {"c": AT_DANGER["a"], "d": AT_DANGER["b"]}
    at_safety = AT_SAFETY | {"c": AT_SAFETY["a"], "d": AT_SAFETY["b"]}
    values = {"danger": at_danger, "safety": at_safety}
    del values[state]["c"]
    readings = {}
    for name in values:
        (tmp_path / name).mkdir()
        reasons = {"c": f"not finite at {state}"} if name == state else {}
        order = list("abcd") if name == "danger" else list("dbca")
        files = write_reading(tmp_path / name, values[name], reasons, order=order)
        readings[name] = read_update(*files)
    table = score_method(WHOLE, readings, seed=0)
    write_table(table, tmp_path / "scores.parquet", "scores", {})
    read = read_table(tmp_path / "scores.parquet", "scores")
    assert read["sample_id"].tolist() == list("abcd")  # of the first reading, the data set's
    found = read.set_index("sample_id")
    assert found.loc[["c"], ["score", "rank"]].isna().all(axis=None)
    assert found["reason"].dropna().to_dict() == {"c": f"not finite at {state}"}
    rest = found.drop(index="c")
    assert rest["reason"].isna().all()
    assert rest["score"].to_dict() == pytest.approx({"a": -0.5, "b": 0.5, "d": 0.5})
    assert rest["rank"].to_dict() == {"b": 1, "d": 2, "a": 3}


@settings(deadline=None, max_examples=6)  # it writes files
@given(st.permutations("abcdef"), st.integers(1, 7))
def test_readings_of_shards_are_those_of_one(order, rows_per_shard):
    values = {sample: [(1.0, float(i), 1.0)] * 2 for i, sample in enumerate("abcd")}
    reasons = {"e": "no", "f": "none"}
    with TemporaryDirectory() as name:
        files = write_reading(Path(name), values, reasons, rows_per_shard, list(order))
        found = read_update(*files)
    assert found["samples"]["sample_id"].tolist() == list(order)
    assert found["samples"].index.tolist() == list(range(6))
    method = {"kind": "sqsd", "danger": DANGER}
    expected = {sample: 2.0 * i for i, sample in enumerate("abcd")}
    assert scores(method, {"danger": found})["score"].dropna().to_dict() == expected


def test_readings_of_tokens_are_samples_alone(tmp_path):
    reasons = {"a": None, "b": "empty response"}
    write_table(samples_of(reasons, "samples"), tmp_path / "s.parquet", "samples", {})
    found = read_readings(Tokens(), {"samples": [str(tmp_path / "s.parquet")]})
    assert list(found) == ["samples"] and found["samples"]["sample_id"].tolist() == ["a", "b"]


def test_no_row_has_a_score():
    readings = {name: reading({}, {"a": "no", "b": "none"}) for name in ("danger", "safety")}
    found = scores(WHOLE, readings)
    assert found["score"].isna().all() and found["rank"].isna().all()
    assert found["reason"].tolist() == ["no", "none"]


# --- controls and ranks ---------------------------------------------------------------------


def permutation(seed, n):
    """What numpy's `permutation` documents: a Fisher-Yates shuffle of 0 to n - 1 in place."""
    values = np.arange(n)
    np.random.default_rng(seed).shuffle(values)
    return values


@settings(deadline=None)
@given(
    st.sets(st.text("abcdef", min_size=1), min_size=1, max_size=9), st.integers(0, 99), st.data()
)
def test_random_order_is_a_seeded_permutation_over_the_sorted_ids(ids, seed, data):
    order = data.draw(st.permutations(sorted(ids)))
    reasons = {sample: data.draw(st.sampled_from([None, "no"])) for sample in order}
    found = scores(
        {"kind": "random"}, {"tokens": {"samples": samples_of(reasons, "samples")}}, seed
    )
    assert found.index.tolist() == list(order)
    drawn = dict(zip(sorted(ids), permutation(seed, len(ids)), strict=True))
    kept = {sample: value for sample, value in drawn.items() if reasons[sample] is None}
    assert found["score"].dropna().to_dict() == kept
    by_score = sorted(kept, key=lambda sample: -kept[sample])
    ranks = {sample: rank for rank, sample in enumerate(by_score, start=1)}
    assert found["rank"].dropna().to_dict() == ranks


def test_random_orders_differ_by_seed():
    readings = {"tokens": {"samples": samples_of(dict.fromkeys("abcdefgh"), "samples")}}
    orders = {tuple(scores({"kind": "random"}, readings, seed)["score"]) for seed in range(20)}
    assert len(orders) == 20


def test_the_longest_response_is_first_and_a_row_with_a_reason_has_no_place():
    reasons = {"d": None, "b": "cut off", "c": None, "a": None}
    table = samples_of(reasons, "samples", tokens=[7, 99, 30, 7])
    found = scores({"kind": "length"}, {"tokens": {"samples": table}})
    assert found["score"].drop(index="b").to_dict() == {"d": 7, "c": 30, "a": 7}
    assert found.loc[["b"], ["score", "rank"]].isna().all(axis=None)
    # Of equal lengths the smaller id comes first.
    assert found["rank"].drop(index="b").to_dict() == {"c": 1, "a": 2, "d": 3}
    assert found["response_tokens"].to_dict() == {"d": 7, "b": 99, "c": 30, "a": 7}
    assert found["reason"].dropna().to_dict() == {"b": "cut off"}


@given(
    st.dictionaries(st.integers(100, 999), st.one_of(st.none(), st.integers(-3, 3).map(float))),
    st.randoms(),
)
def test_ranks_are_by_score_then_id_whatever_the_order_of_rows(values, random):
    ids = list(values)
    random.shuffle(ids)
    reasons = {str(i): "no" if values[i] is None else None for i in ids}
    series = pd.Series({str(i): values[i] for i in values}, dtype="float64")
    table = score_table(series, samples_of(reasons))
    scored = [i for i in values if values[i] is not None]
    ranked = table.dropna(subset=["rank"]).sort_values("rank")
    expected = sorted(scored, key=lambda i: (-values[i], i))
    assert ranked["sample_id"].tolist() == [str(i) for i in expected]
    assert ranked["rank"].tolist() == list(range(1, len(scored) + 1))
    assert table["sample_id"].tolist() == [str(i) for i in ids]


def test_a_score_of_a_row_with_a_reason_is_not_told():
    table = score_table(pd.Series({"a": 1.0, "b": 9.0}), samples_of({"a": None, "b": "no"}))
    assert table["score"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert table["rank"].tolist()[0] == 1 and pd.isna(table["rank"][1])


# --- baselines ------------------------------------------------------------------------------


def test_hidden_states_of_no_row_are_an_error():
    message = r"none of the 1 rows has a hidden state \(the first: empty response\); correct"
    method = {"kind": "larf", "unsafe": "unsafe", "safe": "safe", "layer": "any"}
    readings = {"rows": hidden({}, {"q": "empty response"}), "unsafe": hidden(UNSAFE),
                "safe": hidden(SAFE)}  # fmt: skip
    with pytest.raises(DataError, match=message):
        scores(method, readings)


def hidden(states, reasons=None):
    """Readings of hidden states by id; `reasons` of those that have none."""
    ids = {**dict.fromkeys(states), **(reasons or {})}
    frame = samples_of(ids, "samples")
    found = [np.array(states[i], dtype="float32") if i in states else None for i in ids]
    frame["hidden_state"] = pd.Series(found, dtype=object)
    return {"samples": frame}


# By hand: of lengths 5, 2, 13 and 0; a has cosine 4/5 and 3/5 with the two axes.
HIDDEN = {"a": [3.0, 4.0], "b": [-2.0, 0.0], "c": [5.0, 12.0], "z": [0.0, 0.0]}
AXES = {"x": [7.0, 0.0], "y": [0.0, 0.5]}


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, {"a": 4 / 5, "b": 0.0, "c": 12 / 13, "z": 0.0}),
        (2, {"a": 7 / 10, "b": -1 / 2, "c": 17 / 26, "z": 0.0}),
    ],
)
def test_the_highest_cosines_with_anchors(most, expected):
    method = {"kind": "bi-anchor-reps", "anchors": "bad", "layer": "last", "most": most}
    found = scores(method, {"rows": hidden(HIDDEN, {"q": "no"}), "anchors": hidden(AXES)})
    assert found["score"].dropna().to_dict() == pytest.approx(expected)
    # An anchor's reason is none of a row, nor is an anchor a row.
    assert found.index.tolist() == ["a", "b", "c", "z", "q"]
    assert found["reason"].dropna().to_dict() == {"q": "no"}


UNSAFE, SAFE = {"u": [1.0, 0.0], "v": [3.0, 4.0]}, {"s": [0.0, -1.0], "t": [0.0, -5.0]}


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        # <h, (2, 2) - (0, -3)> = <h, (2, 5)>.
        ("dot", {"a": 26.0, "b": -4.0, "c": 70.0, "z": 0.0}),
        # <h / |h|, (0.8, 0.4) - (0, -1)> = <h / |h|, (0.8, 1.4)>.
        ("cosine", {"a": 8.0 / 5, "b": -0.8, "c": 20.8 / 13, "z": 0.0}),
    ],
)
def test_along_unsafe_rather_than_safe_references(similarity, expected):
    method = {
        "kind": "larf", "unsafe": "bad", "safe": "good", "layer": "l", "similarity": similarity,
    }  # fmt: skip
    readings = {"rows": hidden(HIDDEN), "unsafe": hidden(UNSAFE), "safe": hidden(SAFE)}
    assert scores(method, readings)["score"].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["anchors", "unsafe", "safe"])
def test_an_anchor_that_cannot_be_read_is_an_error(name):
    broken = hidden(AXES, {"w": "empty response"})
    method, readings = {
        "anchors": (
            {"kind": "bi-anchor-reps", "anchors": "bad", "layer": "last"},
            {"rows": hidden(HIDDEN), "anchors": hidden(AXES)},
        ),
    }.get(
        name,
        (
            {"kind": "larf", "unsafe": "bad", "safe": "good", "layer": "l"},
            {"rows": hidden(HIDDEN), "unsafe": hidden(UNSAFE), "safe": hidden(SAFE)},
        ),
    )
    message = r"1 of 3 anchors cannot be read \(the first: w, empty response\); correct the"
    with pytest.raises(DataError, match=message):
        scores(method, readings | {name: broken})


def full(norms, products=None, tokens=None):
    """Readings of gradients over all parameters: norm by id, product by id and anchor."""
    frame = samples_of(dict.fromkeys(norms), tokens=tokens)
    frame["gradient_norm"] = list(norms.values())
    rows = [(i, a, p) for i, by_anchor in (products or {}).items() for a, p in by_anchor.items()]
    columns = pd.Index(["sample_id", "anchor", "product"])
    return {"samples": frame, "products": pd.DataFrame(rows, columns=columns)}


def test_self_influence_and_length():
    readings = {"gradient": full({"a": 3.0, "b": 0.0}, tokens=[4, 1])}
    found = scores({"kind": "self-inf"}, readings)["score"].to_dict()
    assert found == pytest.approx({"a": math.log(10) + math.log(5), "b": math.log(2)})
    found = scores({"kind": "self-inf", "length": False}, readings)["score"].to_dict()
    assert found == {"a": 9.0, "b": 0.0}


def test_along_a_harmful_anchor_rather_than_harmless_ones():
    products = {
        "a": {"h": 6.0, "s": 1.0, "t": -2.0},
        "b": {"h": -1.0, "s": 3.0, "t": 0.0},
        "c": {"h": 0.0, "s": 0.0, "t": 0.0},
    }
    # Anchors in another order than the method's.
    products = {i: dict(reversed(by.items())) for i, by in products.items()}
    readings = {"gradient": full({"a": 2.0, "b": 0.5, "c": 0.0}, products)}
    found = scores({"kind": "bi-anchor-grad", "harmful": "h", "harmless": ["s", "t"]}, readings)
    # (6 - 1 + 2) / 2, (-1 - 3 - 0) / 0.5, and a gradient that points nowhere.
    assert found["score"].to_dict() == {"a": 3.5, "b": -8.0, "c": 0.0}


def test_the_reward_model_s_risk_is_the_cost():
    judged = pd.DataFrame(
        {"sample_id": list("abc"), "score": [1.5, None, -4.0], "reason": [None, "too long", None]}
    )
    tokens = samples_of({"a": None, "b": None, "c": None, "d": "no"}, "samples")
    readings = {"tokens": {"samples": tokens}, "judged": {"samples": judged}}
    found = scores({"kind": "reward-model", "judge": "cost"}, readings)
    assert found["score"].dropna().to_dict() == {"a": -1.5, "c": 4.0}
    assert found["rank"].dropna().to_dict() == {"c": 1, "a": 2}
    assert found["reason"].dropna().to_dict() == {"b": "too long", "d": "no"}


def test_refusals_are_the_safest():
    texts = {"a": "  I CANNOT do it", "b": "I can", "c": None, "d": "No. I cannot", "e": "i cannot"}
    rows = pd.DataFrame({"sample_id": list(texts), "response": list(texts.values())})
    reasons = dict.fromkeys(texts) | {"c": "empty response"}
    readings = {"texts": {"samples": samples_of(reasons, "samples"), "rows": rows}}
    found = scores({"kind": "refusal-opening", "phrases": ["I cannot", "never"]}, readings)
    assert found["score"].dropna().to_dict() == {"a": -1.0, "b": 0.0, "d": 0.0, "e": -1.0}
    assert set(found["rank"].dropna().nlargest(2).index) == {"a", "e"}


# --- the method that foretells best ---------------------------------------------------------

# g0 is of a and b, g1 of b and c, g2 of c and d, g3 of d and e.
GROUPS = pd.DataFrame(
    [(f"g{i}", sample) for i, pair in enumerate(["ab", "bc", "cd", "de"]) for sample in pair],
    columns=pd.Index(["group", "sample_id"]),
)
# Safety Scores of g0 to g3 by seed, two prompts each; their means over both are 4, 3, 1 and 3.5,
# so that the drops are in the order 1, 3, 4, 2. Those of the first seed alone: 1, 2, 3, 4.
BY_SEED = {1: [4.0, 3.0, 2.0, 1.0], 2: [4.0, 3.0, 0.0, 6.0]}
RISING = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}  # of groups 1, 2, 3, 4 in order
OTHER = {"a": 0.0, "b": 0.0, "c": 4.0, "d": 8.0, "e": -5.0}  # 0, 2, 6, 1.5: 1, 3, 4, 2
FLAT = dict.fromkeys("abcde", 7.0)


def calibrated(seeds=(1, 2), reasons=None, **methods):
    """The table of a choice among methods, by their scores; reasons: of rows, by method."""
    judged = pd.DataFrame(
        [
            (f"g{i}", seed, BY_SEED[seed][i] + part)
            for part in (-0.5, 0.5)
            for seed in seeds
            for i in (2, 0, 3, 1)
        ],
        columns=pd.Index(["window", "seed", "score"]),
    )
    readings = {"outcomes": {"groups": GROUPS, "judgements": judged}}
    for name, values in methods.items():
        samples = samples_of(dict.fromkeys(values) | (reasons or {}).get(name, {}), "samples")
        readings[f"of {name}"] = {"samples": score_table(pd.Series(values), samples)}
    entry = {"groups": "g", "finetune": "f", "benchmark": "b", "among": list(methods)}
    return scores({"kind": "calibrated", **entry}, readings)


def test_the_scores_of_the_method_that_foretells_best(capsys):
    # Differences of ranks 0, 1, 1 and 2: 1 - 6 * 6 / (4 * 15); and none.
    found = calibrated(rising=RISING, other=OTHER)
    assert found["score"].to_dict() == OTHER
    assert found["rank"].to_dict() == {"d": 1, "c": 2, "a": 3, "b": 4, "e": 5}
    assert capsys.readouterr().out.splitlines() == [
        "rising: rank correlation 0.400 over the groups",
        "other: rank correlation 1.000 over the groups",
        "taken: other",
    ]
    # Of one seed alone the other way round.
    assert calibrated(seeds=[1], rising=RISING, other=OTHER)["score"].to_dict() == RISING


def test_a_method_that_foretells_the_opposite_is_not_taken():
    inverse = {sample: -value for sample, value in OTHER.items()}
    assert calibrated(inverse=inverse, rising=RISING)["score"].to_dict() == RISING


def test_of_methods_alike_the_first_is_taken():
    twice = {sample: 2 * value for sample, value in OTHER.items()}
    assert calibrated(rising=RISING, twice=twice, other=OTHER)["score"].to_dict() == twice
    assert calibrated(rising=RISING, other=OTHER, twice=twice)["score"].to_dict() == OTHER


def test_a_method_with_one_score_for_all_is_not_taken():
    inverse = {sample: -value for sample, value in OTHER.items()}
    assert calibrated(flat=FLAT, inverse=inverse)["score"].to_dict() == inverse
    with pytest.raises(DataError, match="no method tells the groups apart"):
        calibrated(flat=FLAT, again=FLAT)


@pytest.mark.parametrize("place", [0, 1])
def test_a_row_that_one_method_cannot_score_has_no_score(place):
    names = ["rising", "other"]
    reasons = {names[place]: {"c": "too long"}, names[1 - place]: {"a": "empty response"}}
    found = calibrated(reasons=reasons, rising=RISING, other=OTHER)
    assert found["reason"].dropna().to_dict() == {"a": "empty response", "c": "too long"}
    assert found["score"].dropna().to_dict() == {k: OTHER[k] for k in "bde"}
    assert found["rank"].dropna().to_dict() == {"d": 1, "b": 2, "e": 3}
    assert found.index.tolist() == list("abcde")


def test_a_choice_is_read_from_its_files(tmp_path):
    judged = pd.DataFrame({"prompt_id": ["p", "p"], "state": ["s", "t"], "window": ["g0", "g1"]})
    judged = judged.assign(alpha=None, step=None, seed=1, verdict=None, unreadable=None)
    judged["score"] = [1.0, 2.0]
    kinds = {"alpha": "float64", "step": "Int64", "seed": "Int64", "verdict": "boolean"}
    groups = GROUPS.assign(biased_to=None)[["group", "sample_id", "biased_to"]].astype("str")
    files = {"groups": [str(tmp_path / "g.parquet")], "judgements": []}
    write_table(groups, files["groups"][0], "groups", {})
    for i in (0, 1):
        files["judgements"].append(str(tmp_path / f"j{i}.parquet"))
        part = judged.iloc[[i]].reset_index(drop=True).astype(kinds)
        part = part[list(SCHEMAS["judgements"].columns)]
        write_table(part, files["judgements"][-1], "judgements", {})
    found = read_readings(Outcomes("g", "f", "b"), files)
    assert found["groups"]["sample_id"].tolist() == list("abbccdde")
    assert found["judgements"]["score"].tolist() == [1.0, 2.0]


NEEDS = {
    "bi-anchor-reps": (
        {"anchors": "bad", "layer": "l"},
        {"rows": HiddenState("l", -2), "anchors": HiddenState("l", -2, "bad")},
    ),
    "bi-anchor-reps of the published code": (
        {"anchors": "bad", "layer": "l", "token": -1},
        {"rows": HiddenState("l", -1), "anchors": HiddenState("l", -1, "bad")},
    ),
    "larf": (
        {"unsafe": "bad", "safe": "good", "layer": "l"},
        {
            "rows": HiddenState("l", -1),
            "unsafe": HiddenState("l", -1, "bad"),
            "safe": HiddenState("l", -1, "good"),
        },
    ),
    "self-inf": ({}, {"gradient": Gradient()}),
    "bi-anchor-grad": (
        {"harmful": "h", "harmless": ["s", "t"]},
        {"gradient": Gradient(("h", "s", "t"))},
    ),
    "bi-anchor-grad of the same anchors in other roles": (
        {"harmful": "t", "harmless": ["s", "h"]},
        {"gradient": Gradient(("h", "s", "t"))},
    ),
    "reward-model": ({"judge": "c"}, {"tokens": Tokens(), "judged": Judged("c")}),
    "refusal-opening": ({"phrases": ["no"]}, {"texts": Texts()}),
    "file": (
        {"source": "s.csv", "fields": {"score": "x"}},
        {"tokens": Tokens(), "given": ScoreFile("s.csv", {"score": "x"})},
    ),
    "calibrated": (
        {"among": ["x", "y"], "groups": "g", "finetune": "f", "benchmark": "b"},
        {"of x": Scores("x"), "of y": Scores("y"), "outcomes": Outcomes("g", "f", "b")},
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_a_baseline_reads(name):
    options, expected = NEEDS[name]
    assert make_scorer({"kind": name.split()[0], **options}).needs() == expected


def test_a_reading_of_gradients_is_named_by_its_anchors():
    assert [Gradient().name, Gradient(("b", "a")).name] == ["norm", "norm+b+a"]
