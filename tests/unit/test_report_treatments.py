"""The table of what dropping, weighting and adding rows costs and keeps, by hand."""

from math import isnan, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from test_report import clustered, files_of, made
from test_report_losses import figures  # noqa: F401
from test_treatments import rows_of

from sqsd.errors import DataError
from sqsd.evaluation import with_origin
from sqsd.figures import draw_treatments
from sqsd.parts import Part
from sqsd.report import exact_answers, heldout_losses
from sqsd.states import State

PROMPTS = ["p0", "p1", "p2", "p3"]


def judgements(*unsafe, scores=(1.0, 2.0, 3.0, 6.0)):
    """Of a model for each item, which answers its prompts so (1: unsafe), with scores by prompt."""
    frames = []
    for seed, verdicts in enumerate(unsafe):
        frame = pd.DataFrame({"prompt_id": PROMPTS, "verdict": [bool(v) for v in verdicts]})
        frame["unreadable"] = None
        frame["score"] = [score + seed for score in scores]
        state = State.finetuned("m", "f", "lora", "x", seed)
        frames.append(with_origin(frame, state))
    return pd.concat(frames, ignore_index=True).astype({"verdict": "boolean", "unreadable": "str"})


def row_losses(*by_model, ids=("h0", "h1", "h2")):
    frames = []
    for seed, losses in enumerate(by_model):
        frame = pd.DataFrame({"sample_id": ids, "loss": losses}).astype({"loss": "float64"})
        frame["reason"] = pd.Series([None if v == v else "cut" for v in frame["loss"]], dtype="str")
        frames.append(with_origin(frame, State.finetuned("m", "f", "lora", "x", seed)))
    return pd.concat(frames, ignore_index=True)


def responses(*by_model):
    frames = []
    for seed, texts in enumerate(by_model):
        frame = pd.DataFrame({"prompt_id": ["e0", "e1"], "prompt": "?", "response": texts})
        frame["response_tokens"] = 1
        frames.append(with_origin(frame, State.finetuned("m", "f", "lora", "x", seed)))
    return pd.concat(frames, ignore_index=True)


REFERENCE = pd.DataFrame(
    {"prompt_id": ["e0", "e1"], "prompt": "?", "category": None, "reference": ["7", "9"]}
).astype("str")


def part(folder, names, judged, losses, exact, trained, share=None, reference=REFERENCE):
    """trained: ids of the rows that the models were fine-tuned on, None for none."""
    folder = folder / "-".join(names.values())
    files = {
        "data": files_of(folder, rows_of("abcd"), "dataset"),
        "rows": [] if trained is None else files_of(folder, rows_of(trained), "training_rows"),
        "asr": files_of(folder, judged, "judgements", 2),
        "safety_score": files_of(folder / "s", judged, "judgements"),
    }
    if losses is not None:
        files["losses"] = files_of(folder, losses, "row_losses")
    if exact is not None:
        files["responses"] = files_of(folder, exact, "responses")
        files["reference"] = files_of(folder, reference, "benchmark")
    return Part({"experiment": "e", **names}, {} if share is None else {"share": share}, files)


def parts_of(folder, heldout=True, exact=True):
    def one(names, judged, losses, answers, trained, share=None):
        return part(
            folder, names, judged, losses if heldout else None, answers if exact else None,
            trained, share,
        )  # fmt: skip

    return [
        one({"treatment": "before fine-tuning"}, judgements((0, 0, 0, 0)), row_losses((3, 4, 5)),
            responses(["7", "9 "]), None),
        one({"treatment": "all rows"}, judgements((1, 1, 1, 0), (1, 0, 1, 0)),
            row_losses((1, 2, 3), (3, 2, 1)), responses(["7", "8"], ["7", "9"]), "abcd", 0.0),
        one({"treatment": "drop", "method": "sqsd"}, judgements((1, 0, 0, 0), (1, 0, 0, 0)),
            row_losses((2, 3, 4), (2, 5, 2)), responses(["1", "9"], ["1", "9"]), "bcd", 0.25),
        one({"treatment": "drop", "method": "random"}, judgements((1, 1, 1, 0), (0, 1, 1, 0)),
            row_losses((2, 2, 3), (3, 3, 2)), responses(["7", "9"], ["7", "9"]), "acd", 0.25),
        one({"treatment": "weights", "method": "sqsd"}, judgements((0, 0, 1, 0), (0, 0, 0, 0)),
            row_losses((2, 2, 2), (2, 2, 2)), responses(["7", "9"], ["7", "9"]), "ccdb"),
        one({"treatment": "mix"}, judgements((0, 0, 0, 0), (0, 0, 0, 0)),
            row_losses((1, 1, 1), (1, 1, 1)), responses(["7", "9"], ["7", "9"]), "abcdz"),
    ]  # fmt: skip


def bounds(row, name, kind):
    return row[f"{name}_{kind}_low"], row[f"{name}_{kind}_high"]


def student(values):
    """Mean and 95 % bounds by the textbook."""
    n, mean = len(values), sum(values) / len(values)
    half = t.ppf(0.975, n - 1) * sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return mean, mean - half, mean + half


def assert_interval(row, name, values):
    mean, low, high = student(values)
    assert row[name] == pytest.approx(mean)
    assert bounds(row, name, "t") == pytest.approx((low, high))


def test_every_number_of_a_row(tmp_path):
    table, text = made(tmp_path, "treatments", parts_of(tmp_path), drawn=True)
    assert table["treatment"].tolist() == [
        "before fine-tuning", "all rows", "drop", "drop", "weights", "mix",
    ]  # fmt: skip
    assert table["method"].tolist()[2:5] == ["sqsd", "random", "sqsd"]
    assert table["method"].isna().tolist() == [True, True, False, False, False, True]
    assert table["rows"].tolist()[1:] == [4, 3, 3, 4, 5] and pd.isna(table["rows"][0])
    assert table["share"].tolist()[1:4] == [0, 0.25, 0.25] and isnan(table["share"][4])
    assert table["models"].tolist() == [1, 2, 2, 2, 2, 2]
    # Of two models by four prompts: unsafe answers by prompt 2, 1, 2, 0; then 2, 0, 0, 0.
    assert table["asr"].tolist() == [0, 5 / 8, 2 / 8, 5 / 8, 1 / 8, 0]
    everything, dropped = table.iloc[1], table.iloc[2]
    assert bounds(everything, "asr", "clustered") == pytest.approx(clustered(2, 1, 2, 0), abs=1e-9)
    assert bounds(dropped, "asr", "clustered") == pytest.approx(clustered(2, 0, 0, 0), abs=1e-9)
    # Scores 1, 2, 3, 6, and of a second model one more.
    assert_interval(table.iloc[0], "safety_score", [1, 2, 3, 6])
    assert_interval(dropped, "safety_score", [1.5, 2.5, 3.5, 6.5])
    # By prompt: 1, 0, 0, 0 against 1, 1/2, 1, 0.
    assert_interval(dropped, "asr_over_all", [0, -0.5, -1, 0])
    # By row: 2, 4, 3 against 2, 2, 2.
    assert_interval(dropped, "heldout_loss", [2, 4, 3])
    assert_interval(dropped, "heldout_loss_over_all", [0, 2, 1])
    assert_interval(table.iloc[0], "heldout_loss_over_all", [1, 2, 3])
    assert set(table["heldout_rows"]) == {3}
    for name in ("asr", "heldout_loss"):
        assert isnan(everything[f"{name}_over_all"])
        assert np.isnan(bounds(everything, f"{name}_over_all", "t")).all()
    # A blank behind an answer is none of it. By prompt, exact answers are 2 and 1 of 2; 0 and 2.
    assert table["exact"].tolist() == [1, 3 / 4, 1 / 2, 1, 1, 1]
    assert bounds(dropped, "exact", "clustered") == pytest.approx(clustered(0, 2), abs=1e-9)
    assert "No interval holds what other seeds" in text


def test_without_held_out_rows_and_exact_answers_there_are_no_columns(tmp_path):
    parts = parts_of(tmp_path, heldout=False, exact=False)
    table, _ = made(tmp_path, "treatments", parts, drawn=True)
    assert not [c for c in table if str(c).startswith(("heldout", "exact"))]
    assert table["asr"].tolist() == [0, 5 / 8, 2 / 8, 5 / 8, 1 / 8, 0]


def test_all_rows_are_those_of_the_same_experiment(tmp_path):
    parts = parts_of(tmp_path)
    others = [
        part(tmp_path / "o", {"treatment": name}, judgements(verdicts), None, None, "abcd", share)
        for name, verdicts, share in (
            ("all rows", (0, 0, 0, 0), 0.0), ("drop", (1, 1, 0, 0), 0.25),
        )
    ]  # fmt: skip
    others = [Part({**p.names, "experiment": "other"}, p.options, p.files) for p in others]
    table, _ = made(tmp_path, "treatments", parts + others, drawn=True)
    assert table["experiment"].tolist() == ["e"] * 6 + ["other"] * 2
    assert_interval(table.iloc[7], "asr_over_all", [1, 1, 0, 0])
    assert_interval(table.iloc[2], "asr_over_all", [0, -0.5, -1, 0])


def losses_part(folder, losses):
    files = {
        "losses": files_of(folder, losses, "row_losses"),
        "data": files_of(folder, rows_of(["aa", "bb", "bb-2"]), "dataset"),
    }
    return Part({"experiment": "e", "treatment": "drop"}, {}, files)


def test_held_out_rows_that_are_in_the_data_set_or_have_no_loss_are_left_out(tmp_path):
    ids = ["aa", "bb-3", "cc", "cc-2", "dd"]
    losses = row_losses((1, 2, 3, 4, np.nan), (1, 2, 5, 4, np.nan), ids=ids)
    assert heldout_losses(losses_part(tmp_path, losses)).to_dict() == {"cc": 4, "cc-2": 4}


def test_held_out_rows_that_are_all_in_the_data_set_are_refused(tmp_path):
    losses = row_losses((1, 2), ids=["aa", "bb"])
    with pytest.raises(DataError, match="e drop: every held-out row is in the data set, or has no"):
        heldout_losses(losses_part(tmp_path, losses))


def test_a_benchmark_without_references_has_no_exact_answers(tmp_path):
    reference = REFERENCE.assign(reference=pd.Series(["7", None], dtype="str"))
    files = {
        "responses": files_of(tmp_path, responses(["7", "9"]), "responses"),
        "reference": files_of(tmp_path, reference, "benchmark"),
    }
    with pytest.raises(DataError, match="e drop: 1 of 2 prompts have no reference answer; name a"):
        exact_answers(Part({"experiment": "e", "treatment": "drop"}, {}, files))


def test_the_figure_has_a_line_per_method_from_all_rows_on_and_a_level_for_the_rest(
    tmp_path,
    figures,  # noqa: F811
):
    table, _ = made(tmp_path, "treatments", parts_of(tmp_path), drawn=False, **{})
    draw_treatments(table, {})
    figure = figures[-1]
    rates, losses = figure.axes
    for axes, name in ((rates, "asr"), (losses, "heldout_loss")):
        drawn = {
            bar.get_label(): np.array(bar.lines[0].get_xydata()).tolist() for bar in axes.containers
        }
        values = table[name].tolist()
        assert drawn == {
            "dropped by sqsd": [[0, values[1]], [25, pytest.approx(values[2])]],
            "dropped by random": [[0, values[1]], [25, pytest.approx(values[3])]],
        }
        levels = {
            line.get_label(): line.get_ydata()[0]
            for line in axes.get_lines()
            if not line.get_label().startswith("_")
        }
        assert levels == {
            "before fine-tuning": values[0], "weights by sqsd": values[4], "mix": values[5],
        }  # fmt: skip
    assert rates.get_ylabel() != losses.get_ylabel()
