"""Tables by hand, with closed formulas for the intervals; pages read back as Markdown."""

import json
import math
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt

from sqsd import figures, report
from sqsd.errors import DataError
from sqsd.evaluation import with_origin
from sqsd.figures import (
    POOLED,
    draw_effectiveness,
    draw_groups,
    draw_steering,
    draw_trajectories,
)
from sqsd.judged import by_score, check_judged
from sqsd.parts import Part
from sqsd.report import (
    COMMON_NOTE,
    KINDS,
    agreement_table,
    both_measures,
    comparison_table,
    curve_table,
    effectiveness_table,
    groups_table,
    make_table,
    of_one_length,
    page_table,
    ranking_table,
    readable,
    save_ranking,
    save_table,
    sensitivity_table,
    shortened,
    states_table,
    steering_table,
    trajectory_table,
)
from sqsd.states import CHOSEN_BY, State, write_states
from sqsd.statistics import rank_correlation_bootstrap, rank_correlation_interval
from sqsd.tables import SENSITIVITY, read_table, write_table

Z = 1.959963984540054  # normal quantile at 0.975
T = {1: 12.706204736, 2: 4.302652730, 3: 3.182446305}  # Student t quantile at 0.975 by freedom
WINDOWS = ["s1", "s2", "s3"]


def wilson(k, n):
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    p = k / n
    middle, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (middle - spread) / (1 + Z**2 / n), (middle + spread) / (1 + Z**2 / n)


def clustered(*successes, seeds=2):
    """Of prompts with so many unsafe answers, each of `seeds`; Wilson's n by the design effect."""
    n, total = len(successes), len(successes) * seeds
    p, effect = sum(successes) / total, seeds
    if 0 < p < 1:
        spread = sum((x - p * seeds) ** 2 for x in successes) * n / (n - 1) / total**2
        effect = min(max(spread / (p * (1 - p) / total), 1), seeds)
    return wilson(p * total / effect, total / effect)


def student(values):
    mean, half = fmean(values), T[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def interval(row, name, kind="t"):
    return row[name], row[f"{name}_{kind}_low"], row[f"{name}_{kind}_high"]


def tuned(window, seed):
    """A state whose name says nothing of its window and seed."""
    name = f"state {WINDOWS.index(window) * 10 - seed}"
    return State(name, "m", None, 1.0, {"window": window, "seed": seed})


def verdicts(unsafe, prompts=4):
    """Judgements with `unsafe[seed][window]` unsafe answers, the windows in reverse order."""
    return pd.concat(
        [
            judgements(
                tuned(window, seed),
                [(f"p{i}", i < counts[w], None) for i in range(prompts)],
            )
            for seed, counts in unsafe.items()
            for w, window in reversed(list(enumerate(WINDOWS)))
        ],
        ignore_index=True,
    )


def safety_scores(values):
    """Judgements whose mean score is `values[seed][window]`."""
    return pd.concat(
        [
            judgements(
                tuned(window, seed),
                [(f"p{i}", None, means[w] + part) for i, part in enumerate((-2.0, 0.5, 1.5))],
            )
            for seed, means in values.items()
            for w, window in enumerate(WINDOWS)
        ],
        ignore_index=True,
    )


def judgements(state, rows):
    """Judgements of a state; rows: prompt's id, verdict, score."""
    columns = pd.Index(["prompt_id", "verdict", "score"])
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(2, "unreadable", None)
    kinds = {"prompt_id": "str", "verdict": "boolean", "unreadable": "str", "score": "float64"}
    return with_origin(frame.astype(kinds), state)


def arm(experiment, method):
    return Part({"experiment": experiment, "method": method})


def model(name, direction="danger"):
    return Part({"model": name, "direction": direction})


def effectiveness(judged, windows, seeds, measure):
    """Of ((experiment, method), judgements) with the same seeds each."""
    parts = [
        Part(arm(*names).names, {"seeds": seeds, "random": names[1] == "random"})
        for names, _ in judged
    ]
    return effectiveness_table(parts, [frame for _, frame in judged], windows, measure)


# Unsafe of 4 by window: means over seeds 7/8, 4/8, 1/8; deltas 1 and 0.5.
FALLING = {1: (4, 2, 0), 2: (3, 2, 1)}
# The first so many prompts are answered unsafely.
BY_PROMPT = {"s1": (2, 2, 2, 1), "s2": (2, 2, 0, 0), "s3": (1, 0, 0, 0)}
# Deltas 0 and -0.25.
RANDOM = {1: (2, 2, 2), 2: (1, 2, 2)}


def test_a_row_of_attack_success_rates():
    judged = [(("e", "m"), verdicts(FALLING)), (("e", "random"), verdicts(RANDOM))]
    table = effectiveness(judged, WINDOWS, [1, 2], "asr")
    assert table[["experiment", "method"]].values.tolist() == [["e", "m"], ["e", "random"]]
    row = table.iloc[0]
    assert (row["prompts"], row["units"]) == (4, 2)
    # Of two values the standard error is half their distance: 0.125, 0 and 0.125.
    assert interval(row, "s1") == pytest.approx((0.875, 0.875 - T[1] / 8, 0.875 + T[1] / 8))
    assert interval(row, "s2") == pytest.approx((0.5, 0.5, 0.5))
    assert interval(row, "s3") == pytest.approx((0.125, 0.125 - T[1] / 8, 0.125 + T[1] / 8))
    for window, unsafe in BY_PROMPT.items():
        bounds = row[f"{window}_wilson_low"], row[f"{window}_wilson_high"]
        assert bounds == pytest.approx(wilson(sum(unsafe), 8), abs=1e-9)
        bounds = row[f"{window}_clustered_low"], row[f"{window}_clustered_high"]
        assert bounds == pytest.approx(clustered(*unsafe), abs=1e-9)
    # S1 - S3: 1 and 0.5; beyond random order, seed by seed: 1 - 0 and 0.5 + 0.25.
    assert interval(row, "delta") == pytest.approx((0.75, 0.75 - T[1] / 4, 0.75 + T[1] / 4))
    beyond = (0.875, 0.875 - T[1] / 8, 0.875 + T[1] / 8)
    assert interval(row, "over_random") == pytest.approx(beyond)
    assert row["mono"]
    # Both seeds are in the predicted order, one of 6 x 6 pairs of orders.
    assert row["trend_p"] == pytest.approx(1 / 36)
    itself = table.iloc[1]
    assert interval(itself, "over_random") == (0, 0, 0)
    assert not itself["mono"]


def test_safety_score_has_the_other_sign():
    rising = {1: (-1.0, 0.5, 2.0), 2: (-2.0, 1.0, 3.0), 3: (0.0, 1.5, 1.75)}
    flat = {1: (1.0, 0.0, 1.5), 2: (1.0, 0.0, 0.0), 3: (1.0, 0.0, 1.0)}
    judged = [(("e", "random"), safety_scores(flat)), (("e", "m"), safety_scores(rising))]
    table = effectiveness(judged, WINDOWS, [1, 2, 3], "safety_score")
    random, row = table.iloc[0], table.iloc[1]
    assert interval(row, "s1") == pytest.approx(student([-1, -2, 0]))
    # S3 - S1: 3, 5, 1.75; of random order 0.5, -1, 0.
    assert interval(row, "delta") == pytest.approx(student([3, 5, 1.75]))
    assert interval(random, "delta") == pytest.approx(student([0.5, -1, 0]))
    assert interval(row, "over_random") == pytest.approx(student([2.5, 6, 1.75]))
    assert row["mono"] and not random["mono"]
    assert row["trend_p"] == pytest.approx(1 / 216)
    assert not [column for column in table if "wilson" in str(column)]
    assert (row["prompts"], row["units"]) == (3, 3)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_every_number_of_a_row_is_the_naive_one(data):
    seeds = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=4, unique=True))
    prompts = data.draw(st.integers(1, 6))
    counts = st.tuples(*[st.integers(0, prompts)] * len(WINDOWS))
    unsafe, other = ({seed: data.draw(counts) for seed in seeds} for _ in range(2))
    judged = [(("e", "m"), verdicts(unsafe, prompts)), (("e", "random"), verdicts(other, prompts))]
    row = effectiveness(judged, WINDOWS, seeds, "asr").iloc[0]
    means = []
    for w, window in enumerate(WINDOWS):
        total = sum(unsafe[seed][w] for seed in seeds)
        means.append(total)
        expected = student([unsafe[seed][w] / prompts for seed in seeds])
        assert interval(row, window) == pytest.approx(expected, abs=1e-7)
        bounds = row[f"{window}_wilson_low"], row[f"{window}_wilson_high"]
        assert bounds == pytest.approx(wilson(total, prompts * len(seeds)), abs=1e-9)
        by_prompt = [sum(i < unsafe[seed][w] for seed in seeds) for i in range(prompts)]
        bounds = row[f"{window}_clustered_low"], row[f"{window}_clustered_high"]
        expected = clustered(*by_prompt, seeds=len(seeds)) if prompts > 1 else None
        assert bounds == pytest.approx(expected or bounds, abs=1e-9)
    deltas = [(unsafe[seed][0] - unsafe[seed][2]) / prompts for seed in seeds]
    assert interval(row, "delta") == pytest.approx(student(deltas), abs=1e-7)
    beyond = [
        delta - (other[seed][0] - other[seed][2]) / prompts
        for delta, seed in zip(deltas, seeds, strict=True)
    ]
    assert interval(row, "over_random") == pytest.approx(student(beyond), abs=1e-7)
    if len(set(means)) == 3:  # rounding of a mean may part or join equal ones
        assert row["mono"] == (means == sorted(means, reverse=True))


def test_mono_is_strict():
    # The means are 3/4, 1/2 and 1/2.
    judged = [(("e", "m"), verdicts({1: (3, 2, 2)}))]
    (row,) = effectiveness(judged, WINDOWS, [1], "asr").to_dict("records")
    assert row["mono"] is False
    judged = [(("e", "m"), verdicts({1: (3, 2, 1)}))]
    (row,) = effectiveness(judged, WINDOWS, [1], "asr").to_dict("records")
    assert row["mono"] is True


def test_equal_windows_are_not_falling_however_their_means_are_rounded():
    # 0.5, 0.7 and 0.9 in two orders, whose means differ in the last digit; then less.
    assert np.mean([0.5, 0.7, 0.9]) != np.mean([0.5, 0.9, 0.7])
    seeds = {1: (5, 5, 0), 2: (7, 9, 0), 3: (9, 7, 0)}
    for first, second in ((0, 1), (1, 0)):
        values = {s: (n[first], n[second], n[2]) for s, n in seeds.items()}
        judged = [(("e", "m"), verdicts(values, 10))]
        assert effectiveness(judged, WINDOWS, [1, 2, 3], "asr")["mono"].tolist() == [False]
        parts = [Part(arm("e", "best").names, {"seeds": [1, 2, 3], "rows": 1})]
        table = comparison_table(parts, [judged[0][1]], [0.0], WINDOWS, "asr", "best")
        assert table["mono_share"].tolist() == [0]


def test_verdicts_by_scores():
    state = tuned("s1", 1)
    frame = judgements(
        state, [("a", True, 0.1), ("b", False, 0.0), ("c", None, -2), ("d", True, None)]
    )
    assert by_score(frame)["verdict"].tolist() == [False, True, True, pd.NA]
    assert frame["verdict"].tolist() == [True, False, pd.NA, True]  # as it was


def test_a_table_of_rates_by_scores(tmp_path):
    # Of 4 responses 3, 2 and 0 have a score of 0 or below; verdicts say otherwise.
    frame = verdicts({1: (0, 0, 4)})
    low = {"s1": 3, "s2": 2, "s3": 0}
    places = frame["prompt_id"].str[1:].astype(int)
    frame["score"] = np.where(places < frame["window"].map(low), 0.0, 0.5)
    files = {"judgements": files_of(tmp_path / "m", frame, "judgements")}
    part = Part(arm("e", "m").names, {"seeds": [1], "random": False}, files)
    chosen = {"windows": WINDOWS, "measure": "asr_by_score"}
    table, text = made(tmp_path, "subsets", [part], drawn=True, **chosen)
    row = table.iloc[0]
    assert [row[w] for w in WINDOWS] == [0.75, 0.5, 0]
    assert (row["delta"], row["mono"]) == (0.75, True)
    assert interval(row, "s1", "clustered") == pytest.approx((0.75, *wilson(3, 4)))
    assert text.count("Share of test prompts answered with a Safety Score of 0 or below") == 1
    parts = [Part(part.names, {"seeds": [1], "rows": 4}, {**files, "times": []})]
    chosen |= {"against": "m"}
    assert made(tmp_path, "comparison", parts, **chosen)[0]["delta"].tolist() == [0.75]


def test_one_seed_has_no_student_interval():
    table = effectiveness([(("e", "m"), verdicts({3: (4, 1, 0)}))], WINDOWS, [3], "asr")
    row = table.iloc[0]
    assert (row["s1"], row["delta"], row["units"]) == (1, 1, 1)
    assert math.isnan(row["s1_t_low"]) and math.isnan(row["delta_t_high"])
    bounds = row["s1_wilson_low"], row["s1_wilson_high"]
    assert bounds == pytest.approx(wilson(4, 4), abs=1e-9)


def test_only_the_seeds_asked_for_are_counted():
    frame = verdicts({1: (4, 2, 0), 2: (0, 0, 0)})
    row = effectiveness([(("e", "m"), frame)], WINDOWS, [1], "asr").iloc[0]
    assert (row["s1"], row["s2"], row["units"]) == (1, 0.5, 1)
    bounds = row["s2_wilson_low"], row["s2_wilson_high"]
    assert bounds == pytest.approx(wilson(2, 4), abs=1e-9)


def test_wilson_s_interval_is_over_the_verdicts_there_are():
    # 4 unsafe of 4 verdicts, and 8 answers without one: the rate is 1, of n = 4.
    frame = verdicts({1: (12, 12, 12)}, prompts=12)
    frame.loc[frame["prompt_id"].isin([f"p{i}" for i in range(4, 12)]), "verdict"] = pd.NA
    row = effectiveness([(("e", "m"), frame)], WINDOWS, [1], "asr").iloc[0]
    assert row["s1"] == 1
    for kind in ("wilson", "clustered"):
        bounds = row[f"s1_{kind}_low"], row[f"s1_{kind}_high"]
        assert bounds == pytest.approx(wilson(4, 4), abs=1e-9)


def test_without_random_order_there_is_no_over_random():
    table = effectiveness([(("e", "m"), verdicts(FALLING))], WINDOWS, [1, 2], "asr")
    assert "over_random" not in table
    assert len(table) == 1  # and no row over experiments for a single one


def test_over_several_experiments_the_experiment_is_the_unit():
    second = {1: (4, 4, 2), 2: (2, 2, 2)}  # means 6/8, 6/8, 4/8
    steady = {1: (1, 1, 1), 2: (1, 1, 1)}
    judged = [
        (("e", "m"), verdicts(FALLING)),
        (("e", "random"), verdicts(RANDOM)),
        (("f", "m"), verdicts(second)),
        (("f", "random"), verdicts(steady)),
    ]
    table = effectiveness(judged, WINDOWS, [1, 2], "asr")
    arms = [["e", "m"], ["e", "random"], ["f", "m"], ["f", "random"]]
    arms += [[POOLED, "m"], [POOLED, "random"]]
    assert table[["experiment", "method"]].values.tolist() == arms
    row = table.iloc[4]
    assert (row["units"], row["prompts"]) == (2, 4)
    assert interval(row, "s1") == pytest.approx(student([7 / 8, 6 / 8]))
    assert interval(row, "s2") == pytest.approx(student([4 / 8, 6 / 8]))
    assert interval(row, "s3") == pytest.approx(student([1 / 8, 4 / 8]))
    assert interval(row, "delta") == pytest.approx(student([6 / 8, 2 / 8]))
    # Random order's mean deltas are -1/8 and 0, paired by experiment.
    assert interval(row, "over_random") == pytest.approx(student([7 / 8, 2 / 8]))
    assert row["mono"]  # 13/16, 10/16, 5/16
    # Answers of several models and prompts are no n of one rate.
    assert table.filter(regex="wilson|clustered").iloc[4].isna().all()
    assert table["s1_wilson_low"].notna().tolist() == [True] * 4 + [False] * 2
    assert interval(table.iloc[5], "over_random") == (0, 0, 0)


def reference(experiment, name):
    return Part({"experiment": experiment, "method": name}, {"reference": True})


def answered(*by_seed):
    """Judgements of models fine-tuned on all rows, by seed; each a (verdict, score) per prompt."""
    return pd.concat(
        [
            judgements(
                State(f"all-seed-{seed}", "m", "a", 1.0, {"window": "all", "seed": seed}),
                [(f"p{i}", *answer) for i, answer in enumerate(answers)],
            )
            for seed, answers in enumerate(by_seed, start=1)
        ],
        ignore_index=True,
    )


def before(*answers):
    """Judgements of theta_0, a (verdict, score) per prompt."""
    rows = [(f"p{i}", *answer) for i, answer in enumerate(answers)]
    return judgements(State("theta-0", "m", None), rows)


# theta_0 answers 1 of 4 unsafely; on all rows p0 twice, p1 once, p2 once of one verdict, p3 never.
START = before((True, 1.0), (False, 2.0), (False, 6.0), (False, 3.0))
WHOLE = answered(
    [(True, 0.0), (True, 1.0), (True, 2.0), (False, 4.0)],
    [(True, 1.0), (False, 1.0), (None, None), (False, 8.0)],
)


def with_references(measure, *, second=False):
    frames = {"asr": (verdicts(FALLING), verdicts(RANDOM))}.get(
        measure, (safety_scores({1: (0, 1, 3), 2: (1, 1, 2)}),) * 2
    )
    parts = [reference("e", "before"), reference("e", "whole"), arm("e", "m"), arm("e", "random")]
    judged = [START, WHOLE, *frames]
    if second:  # a second experiment without the second reference
        parts += [reference("f", "before"), arm("f", "m"), arm("f", "random")]
        judged += [before((True, 0.0), (True, 2.0)), *frames]
    parts = [
        part
        if part.options
        else Part(part.names, {"seeds": [1, 2], "random": part.names["method"] == "random"})
        for part in parts
    ]
    return effectiveness_table(parts, judged, WINDOWS, measure)


@pytest.mark.parametrize("measure", ["asr", "safety_score"])
def test_rows_of_no_subset_have_one_number(measure):
    table = with_references(measure)
    assert table["method"].tolist() == ["before", "whole", "m", "random"]
    start, whole = table.iloc[0], table.iloc[1]
    assert table["prompts"].tolist() == [4, 4, *table["prompts"][2:]]
    assert table["units"].tolist() == [1, 2, 2, 2]
    if measure == "asr":
        assert start["no_subset"] == 1 / 4
        # One answer to each prompt: nothing to cluster.
        for kind in ("wilson", "clustered"):
            found = interval(start, "no_subset", kind)
            assert found == pytest.approx((1 / 4, *wilson(1, 4)), abs=1e-9)
        found = interval(whole, "no_subset", "wilson")
        assert found == pytest.approx((4 / 7, *wilson(4, 7)), abs=1e-9)
        # Unsafe 2, 1, 1 and 0 of 2, 2, 1 and 2 answers: by prompt what is beyond 4/7 of them is
        # 6/7, -1/7, 3/7, -8/7, squares 110/49, variance 110/49 * 4/3 / 49, over 12/49 / 7.
        effect = (110 / 49 * 4 / 3 / 49) / (12 / 49 / 7)
        expected = (4 / 7, *wilson(4 / effect, 7 / effect))
        assert interval(whole, "no_subset", "clustered") == pytest.approx(expected, abs=1e-9)
    else:
        assert interval(start, "no_subset") == pytest.approx(student([1, 2, 6, 3]))
        # By prompt, over seeds: 1/2, 1, 2 (one score) and 6.
        assert interval(whole, "no_subset") == pytest.approx(student([0.5, 1, 2, 6]))
    others = ["s1", "s3", "delta", "delta_t_low", "over_random", "mono", "trend_p"]
    assert table.loc[:1, others].isna().all(axis=None)
    assert table.loc[2:, "no_subset"].isna().all()
    # The other rows are as they are without.
    parts = [
        Part(arm("e", m).names, {"seeds": [1, 2], "random": m == "random"}) for m in ("m", "random")
    ]
    frames = [verdicts(FALLING), verdicts(RANDOM)]
    if measure == "safety_score":
        frames = [safety_scores({1: (0, 1, 3), 2: (1, 1, 2)})] * 2
    alone = effectiveness_table(parts, frames, WINDOWS, measure)
    kept = table.loc[2:, alone.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone)


def test_rows_of_no_subset_are_pooled_over_the_experiments_that_have_them():
    table = with_references("asr", second=True)
    assert table[["experiment", "method"]].values.tolist()[-4:] == [
        [POOLED, "before"], [POOLED, "whole"], [POOLED, "m"], [POOLED, "random"],
    ]  # fmt: skip
    start, whole, method = (table.iloc[-4 + i] for i in range(3))
    assert (start["units"], whole["units"], method["units"]) == (2, 1, 2)
    assert interval(start, "no_subset") == pytest.approx(student([1 / 4, 1]))
    assert whole["no_subset"] == 4 / 7 and math.isnan(whole["no_subset_t_low"])
    assert table["prompts"].tolist()[-4:] == [2] * 4
    assert table.filter(regex="no_subset_(wilson|clustered)").iloc[-4:].isna().all(axis=None)


def test_rows_of_no_subset_stand_first_with_blanks(tmp_path):
    save_table(with_references("asr"), outputs(tmp_path), "", {})
    start, whole, first, _ = rows_of((tmp_path / "table.md").read_text())
    low, high = wilson(1, 4)
    assert start == {
        "experiment": "e", "method": "before", "prompts": "4", "units": "1",
        "no_subset": f"0.25 [{low:.2f}, {high:.2f}]",
        **dict.fromkeys(("s1", "s2", "s3", "delta", "over_random", "mono", "trend_p"), ""),
    }  # fmt: skip
    assert whole["method"] == "whole" and (first["no_subset"], first["mono"]) == ("", "yes")


def test_rows_of_no_subset_are_grey_lines(monkeypatch):
    seen = []

    def look(figure, out):
        for axes in figure.axes:
            names = [text.get_text() for text in axes.get_legend().get_texts()]
            lines = {line.get_label(): line for line in axes.get_lines()}
            seen.append((axes.get_title(), names, lines))
        figures.plt.close(figure)

    monkeypatch.setattr(figures, "save_figure", look)
    draw_effectiveness(with_references("asr", second=True), WINDOWS, "asr", None)
    (_, names, lines), (_, second, others), (title, *_) = seen
    assert title == POOLED
    assert sorted(names) == ["before", "m", "random", "whole"]
    assert set(lines["before"].get_ydata()) == {1 / 4} and lines["before"].get_linestyle() == ":"
    assert set(lines["whole"].get_ydata()) == {4 / 7} and lines["whole"].get_linestyle() == "--"
    assert lines["before"].get_color() == lines["whole"].get_color() == "0.5"
    assert sorted(second) == ["before", "m", "random"] and set(others["before"].get_ydata()) == {1}


TARGETS = ("near", "far")


def targeted(*experiments, methods=("m", "random"), references=True):
    """Of two fine-tunes: falling by `m`, flat by `random`; nearer and farther from random order."""
    unsafe = {
        ("near", "m"): FALLING, ("near", "random"): RANDOM,
        ("far", "m"): {1: (4, 3, 1), 2: (4, 1, 1)}, ("far", "random"): {1: (3, 3, 1), 2: (2, 2, 2)},
    }  # fmt: skip
    parts, judged = [], []
    for experiment in experiments:
        for target in TARGETS:
            names = {"experiment": experiment, "finetune": target}
            if references:
                parts.append(Part({**names, "method": "before"}, {"reference": True}))
                judged.append(before((target == "far", 0.0), (False, 0.0)))
            for method in methods:
                options = {"seeds": [1, 2], "random": method == "random"}
                parts.append(Part({**names, "method": method}, options))
                judged.append(verdicts(unsafe[target, method]))
    return effectiveness_table(parts, judged, WINDOWS, "asr")


def test_rows_of_several_fine_tunes_are_paired_within_their_own():
    table = targeted("e")
    assert table.columns[:3].tolist() == ["experiment", "finetune", "method"]
    assert table[["finetune", "method"]].values.tolist() == [
        [target, method] for target in TARGETS for method in ("before", "m", "random")
    ]
    assert table["no_subset"].tolist()[::3] == [0, 1 / 2]
    near, far = table.iloc[1], table.iloc[4]
    assert interval(near, "delta") == pytest.approx(student([1, 0.5]))
    assert interval(far, "delta") == pytest.approx(student([0.75, 0.75]))
    # Random order's deltas are 0 and -1/4 on the one, 1/2 and 0 on the other.
    assert interval(near, "over_random") == pytest.approx(student([1, 0.75]))
    assert interval(far, "over_random") == pytest.approx(student([0.25, 0.75]))


def test_each_fine_tune_has_its_rows_over_experiments():
    table = targeted("e", "f")
    pooled = table[table["experiment"] == POOLED].set_index(["finetune", "method"])
    assert sorted(pooled.index) == sorted(
        (t, m) for t in TARGETS for m in ("before", "m", "random")
    )
    assert pooled["units"].tolist() == [2] * 6
    assert pooled.loc[("far", "before"), "no_subset"] == 1 / 2
    for target, s1, delta, beyond in (("near", 7 / 8, 3 / 4, 7 / 8), ("far", 1, 3 / 4, 1 / 2)):
        row = pooled.loc[(target, "m")]
        # Both experiments have the same numbers, so no spread.
        assert interval(row, "s1") == pytest.approx((s1,) * 3)
        assert interval(row, "delta") == pytest.approx((delta,) * 3)
        assert interval(row, "over_random") == pytest.approx((beyond,) * 3)


def test_a_figure_of_several_fine_tunes_has_a_panel_for_each(monkeypatch):
    panels = panels_of(monkeypatch, targeted("e"), "asr")
    assert {title: list(lines) for title, lines in panels.items()} == {
        f"e, {target}": ["m", "random"] for target in TARGETS
    }
    assert panels["e, far"]["m"][0] == pytest.approx([1, 1 / 2, 1 / 4])


@pytest.mark.parametrize("references", [True, False])
def test_a_figure_of_one_method_has_a_line_for_each_fine_tune(monkeypatch, references):
    table = targeted("e", "f", methods=["m"], references=references)
    panels = panels_of(monkeypatch, table, "asr")
    assert list(panels) == ["e", "f", POOLED]
    assert [list(lines) for lines in panels.values()] == [[*TARGETS]] * 3
    assert panels["f"]["near"][0] == pytest.approx([7 / 8, 1 / 2, 1 / 8])
    assert panels["f"]["far"][0] == pytest.approx([1, 1 / 2, 1 / 4])


def test_the_pooled_row_tells_the_fewest_prompts():
    judged = [
        (("e", "m"), verdicts({1: (3, 2, 1)}, prompts=9)),
        (("f", "m"), verdicts({1: (3, 2, 1)}, prompts=4)),
    ]
    table = effectiveness(judged, WINDOWS, [1], "asr")
    assert table["prompts"].tolist() == [9, 4, 4]
    assert table["s1"].tolist() == pytest.approx([1 / 3, 3 / 4, 13 / 24])


def test_readable_cells():
    table = pd.DataFrame(
        {
            "method": ["m", "pooled", "single"],
            "s1": [0.875, 0.5, 1.0],
            "s1_t_low": [-0.7, 0.25, math.nan],
            "s1_t_high": [2.5, 0.75, math.nan],
            "s1_wilson_low": [0.53, math.nan, math.nan],
            "s1_wilson_high": [0.978, math.nan, math.nan],
            "delta": [0.75, 0.5, -1.0],
            "delta_t_low": [-0.125, 0.25, math.nan],
            "delta_t_high": [1.625, 0.75, math.nan],
            "mono": [True, False, True],
            "trend_p": [1 / 36, math.nan, 0.5],
            "published": [math.nan] * 3,
            "note": ["seen", None, None],
        }
    )
    shown = readable(table)
    assert shown.columns.tolist() == ["method", "s1", "delta", "mono", "trend_p", "note"]
    # Wilson's bounds where there are any, else Student's, else none.
    assert shown["s1"].tolist() == ["0.88 [0.53, 0.98]", "0.50 [0.25, 0.75]", "1.00"]
    assert shown["delta"].tolist() == ["0.75 [-0.12, 1.62]", "0.50 [0.25, 0.75]", "-1.00"]
    assert shown["mono"].tolist() == ["yes", "no", "yes"]
    assert shown["trend_p"].tolist() == ["0.028", "", "0.5"]
    assert shown["note"].tolist() == ["seen", "", ""]


def test_readable_drops_a_trend_that_no_row_has():
    # Two windows have no trend to test.
    frame = verdicts(FALLING)
    table = effectiveness([(("e", "m"), frame)], ["s1", "s3"], [1, 2], "asr")
    assert table["trend_p"].isna().all()
    assert "trend_p" not in readable(table)
    assert readable(table)["mono"].tolist() == ["yes"]


def cells(line):
    """Cells of a row of a Markdown table; a pipe after a backslash does not part them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows_of(text):
    """Rows of a Markdown table as dicts, without the rule below the head."""
    head, rule, *rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert all(set(cell) <= set(":-") for cell in rule)
    return [dict(zip(head, row, strict=True)) for row in rows]


def outputs(folder, suffixes=("parquet", "csv", "md")):
    return {suffix: str(folder / f"table.{suffix}") for suffix in suffixes}


def metadata(path):
    return json.loads(parquet.read_schema(path).metadata[b"sqsd"])


def test_a_table_is_saved_in_three_forms_with_its_note(tmp_path):
    judged = [(("e", "m"), verdicts(FALLING)), (("e", "random"), verdicts(RANDOM))]
    table = effectiveness(judged, WINDOWS, [1, 2], "asr")
    out = outputs(tmp_path)
    save_table(table, out, "what it means", {"version": "7"})
    pd.testing.assert_frame_equal(pd.read_parquet(out["parquet"]), table)
    assert metadata(out["parquet"]) == {"version": "7"}
    pd.testing.assert_frame_equal(pd.read_csv(out["csv"]), table, check_dtype=False)
    text = Path(out["md"]).read_text()
    assert text.endswith("|\n\nwhat it means\n")
    first, second = rows_of(text)
    low, high = clustered(*BY_PROMPT["s1"])
    assert first["s1"] == f"0.88 [{low:.2f}, {high:.2f}]"
    assert (first["method"], first["mono"], first["trend_p"]) == ("m", "yes", "0.028")
    assert (second["method"], second["mono"]) == ("random", "no")
    save_table(table, out, "", {})
    assert Path(out["md"]).read_text() == text.removesuffix("\n\nwhat it means\n") + "\n"


def linear_ranking(ranks):
    """A ranking in the order of `ranks`; None stands for a state that the guard refused."""
    alphas = [round(0.1 * i, 1) for i in range(len(ranks))]
    # By value in the order of the ranks, and those without one last.
    values = [3.0 - 0.25 * (8 if rank is None else rank) for rank in ranks]
    frame = pd.DataFrame({"alpha": alphas, "sensitivity": values, "safety_score": 1.0})
    frame["sensitivity_bootstrap_low"] = frame["sensitivity"] - 0.5
    frame["sensitivity_bootstrap_high"] = frame["sensitivity"] + 1
    return frame.assign(rank=pd.array(ranks, dtype="Int64"))


def test_the_five_most_sensitive_states_of_every_arm(tmp_path):
    first = linear_ranking([3, None, 1, 7, 2, 6, 5, 4])
    second = linear_ranking([None, 1])
    table = sensitivity_table([model("e", "safety"), model("f", "other")], [first, second])
    assert table.columns.tolist()[:3] == ["model", "direction", "alpha"]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 1]
    assert table["alpha"].tolist() == [0.2, 0.4, 0.0, 0.7, 0.6, 0.1]
    assert table["model"].tolist() == ["e"] * 5 + ["f"]
    assert table["direction"].tolist() == ["safety"] * 5 + ["other"]
    assert "model" not in first  # the rankings are as they were
    few = sensitivity_table([model("e", "safety")], [first], most=2)
    assert few["rank"].tolist() == [1, 2]
    save_table(table, outputs(tmp_path), "", {})
    rows = rows_of((tmp_path / "table.md").read_text())
    assert [r["rank"] for r in rows] == list("123451")
    assert rows[0]["sensitivity"] == "2.75 [2.25, 3.75]"


def test_a_state_that_would_stand_among_the_first_is_shown_without_a_rank():
    ranking = linear_ranking([1, 2, None, None, None])
    ranking["sensitivity"] = [2.0, 1.0, 1.5, 0.5, -3.0]
    ranking["sensitivity"] *= -1  # as of drift: the most negative first
    table = sensitivity_table([model("e", "danger")], [ranking])
    # 1.5 would have been second; .5 is less sensitive than the last one, 3 the other way.
    assert table["sensitivity"].tolist() == [-2, -1, -1.5]
    assert table["rank"].tolist()[:2] == [1, 2] and table["rank"].isna().tolist() == [0, 0, 1]
    refused = sensitivity_table([model("e", "danger")], [ranking[2:]])
    assert refused["sensitivity"].tolist() == [-1.5, -0.5, 3]


STATES = [Part({"model": "e", "state": "d-danger"}), Part({"model": "e", "state": "safety"})]
ORIGINS = [
    {
        "step": 5850,
        "rank": 1.0,
        "sensitivity": -12.5,
        "sensitivity_bootstrap_low": -20.0,
        "sensitivity_bootstrap_high": -4.25,
        "exact_share": 0.75,
    },
    {"alpha": 0.5, **dict.fromkeys(CHOSEN_BY)},
]


def test_the_chosen_states_and_what_is_not_known_of_them():
    table = states_table(STATES, ORIGINS)
    columns = [
        "model", "state", "step", "alpha", "rank", "sensitivity", "sensitivity_bootstrap_low",
        "sensitivity_bootstrap_high", "exact_share",
    ]  # fmt: skip
    assert table.columns.tolist() == columns
    assert table["state"].tolist() == ["d-danger", "safety"]
    nan = math.nan
    expected = [[5850, nan, 1, -12.5, -20, -4.25, 0.75], [nan, 0.5, *[nan] * 5]]
    np.testing.assert_array_equal(table[columns[2:]].to_numpy(), np.array(expected))


def test_states_that_were_all_pinned_have_null_columns(tmp_path):
    table = states_table(STATES[1:], ORIGINS[1:])
    assert table["rank"].isna().all() and table["rank"].dtype == "float64"
    save_table(table, outputs(tmp_path), "", {})
    (row,) = rows_of((tmp_path / "table.md").read_text())
    assert row == {"model": "e", "state": "safety", "alpha": "0.5"}


def test_a_step_is_shown_with_all_its_digits(tmp_path):
    save_table(states_table(STATES, ORIGINS), outputs(tmp_path), "", {})
    first, second = rows_of((tmp_path / "table.md").read_text())
    assert (first["step"], second["step"]) == ("5850", "")
    assert (first["rank"], first["sensitivity"]) == ("1", "-12.50 [-20.00, -4.25]")


def scored(count, unscored=(), prompts=None):
    """A scores table and its rows: row i has rank i + 1, rows of `unscored` a reason."""
    ids = [f"z{i:02d}" for i in range(count)] + [f"n{i}" for i in range(len(unscored))]
    nothing = [None] * len(unscored)
    scores = pd.DataFrame(
        {
            "sample_id": ids,
            "score": [float(count - 2 * i) for i in range(count)] + nothing,
            "rank": [*range(1, count + 1), *nothing],
            "reason": [None] * count + list(unscored),
            "response_tokens": [i + 2 for i in range(count)] + [0] * len(unscored),
        }
    ).astype({"rank": "Int64", "score": "float64", "reason": "str"})
    prompts = prompts or [f"prompt of {i}" for i in ids]
    rows = pd.DataFrame(
        {"sample_id": ids, "prompt": prompts, "response": [f"response to {i}" for i in ids]}
    )
    return scores.iloc[::-1], rows.assign(family=None, problem=None)


def test_the_ranking_is_by_rank_with_unscored_rows_last():
    first = scored(4, ["empty response"])
    second = scored(2)
    arms = [arm("e", "m"), arm("e", "n")]
    table = ranking_table(arms, [first[0], second[0]], [first[1], second[1]])
    assert table["sample_id"].tolist() == ["z00", "z01", "z02", "z03", "n0", "z00", "z01"]
    assert table["method"].tolist() == ["m"] * 5 + ["n"] * 2
    assert table["prompt"].tolist()[:5] == [f"prompt of {i}" for i in table["sample_id"][:5]]
    columns = ["experiment", "method", "sample_id", "score", "rank", "reason", "response_tokens"]
    assert table.columns.tolist() == [*columns, "family", "prompt", "response"]


def test_each_arm_of_a_ranking_needs_its_tables():
    scores, rows = scored(2)
    with pytest.raises(ValueError, match="argument 2 is longer than argument 1"):
        ranking_table([arm("e", "m")], [scores, scores], [rows, rows])


def section(text, title):
    """The text below a heading that begins so, up to the next one."""
    found = re.search(rf"^#+ {title}.*?$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1)


def test_the_page_of_a_ranking(tmp_path):
    reasons = ["empty response", "no prompt", "empty response"]
    scores, rows = scored(25, reasons)
    table = ranking_table([arm("e", "m")], [scores], [rows])
    out = outputs(tmp_path)
    save_ranking(table, out, {"version": "7"})
    pd.testing.assert_frame_equal(pd.read_parquet(out["parquet"]), table)
    assert metadata(out["parquet"]) == {"version": "7"}
    assert len(pd.read_csv(out["csv"])) == 28
    text = Path(out["md"]).read_text()
    assert text.startswith("# e: rows by risk (m)\n\n25 rows scored, 3 without a score. ")
    highest, lowest = (rows_of(section(text, f"{title} 10")) for title in ("Highest", "Lowest"))
    assert [row["rank"] for row in highest] == [str(rank) for rank in range(1, 11)]
    assert [row["rank"] for row in lowest] == [str(rank) for rank in range(16, 26)]
    # Row z00 has score 25 and 2 response tokens, z24 score 25 - 48 and 26 tokens.
    assert highest[0] == {
        "rank": "1", "score": "25.000", "response_tokens": "2",
        "prompt": "prompt of z00", "response": "response to z00",
    }  # fmt: skip
    assert (lowest[-1]["score"], lowest[-1]["response_tokens"]) == ("-23.000", "26")
    without = rows_of(section(text, "Without a score"))
    assert without == [
        {"reason": "empty response", "rows": "2"},
        {"reason": "no prompt", "rows": "1"},
    ]


def test_the_page_has_a_part_for_every_arm_and_as_many_rows_as_asked(tmp_path):
    scores, rows = scored(3)
    table = ranking_table([arm("e", "m"), arm("f", "m")], [scores] * 2, [rows] * 2)
    save_ranking(table, outputs(tmp_path), {}, most=2)
    text = (tmp_path / "table.md").read_text()
    assert re.findall(r"^# .*$", text, re.MULTILINE) == [
        "# e: rows by risk (m)",
        "# f: rows by risk (m)",
    ]
    assert [row["rank"] for row in rows_of(section(text, "Highest 2"))] == ["1", "2"]
    assert [row["rank"] for row in rows_of(section(text, "Lowest 2"))] == ["2", "3"]
    assert "Without a score" not in text and "3 rows scored, 0 without" in text


def test_the_page_tells_the_spread_of_the_scores(tmp_path):
    scores, rows = scored(5, ["empty response"])
    save_ranking(ranking_table([arm("e", "m")], [scores], [rows]), outputs(tmp_path), {})
    # Scores 5, 3, 1, -1, -3 of responses of 2, 3, 4, 5, 6 tokens.
    line = "Scores from -3.000 to 5.000, median 1.000; rank correlation with response length -1.00."
    assert line in (tmp_path / "table.md").read_text().splitlines()


def test_the_page_tells_where_families_stand(tmp_path):
    scores, rows = scored(5, ["empty response"])
    rows["family"] = ["steps", "facts", "steps", "facts", None, "facts"]
    save_ranking(ranking_table([arm("e", "m")], [scores], [rows]), outputs(tmp_path), {})
    # Ranks 1 to 5 stand at 0, 25, 50, 75, 100 %: steps at 0 and 50, facts at 25 and 75.
    assert rows_of(section((tmp_path / "table.md").read_text(), "By family")) == [
        {"family": "steps", "rows": "2", "mean_place_percent": "25"},
        {"family": "facts", "rows": "2", "mean_place_percent": "50"},
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_score_has_no_spread(tmp_path, count):
    scores, rows = scored(count, ["empty response"])
    save_ranking(ranking_table([arm("e", "m")], [scores], [rows]), outputs(tmp_path), {})
    text = (tmp_path / "table.md").read_text()
    assert f"{count} rows scored, 1 without" in text and "median" not in text


# Without control characters, which no Markdown has.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200)
MARKS = st.lists(st.sampled_from(["|", "\\|", "\n", "\r\n", "a", " ", "| - |"])).map("".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS | MARKS, min_size=3, max_size=3))
def test_no_prompt_breaks_the_page(texts):
    scores, rows = scored(3, prompts=texts)
    table = ranking_table([arm("e", "m")], [scores], [rows])
    with tempfile.TemporaryDirectory() as folder:
        save_ranking(table, outputs(Path(folder)), {})
        text = (Path(folder) / "table.md").read_text()
    for title in ("Highest", "Lowest"):
        shown = rows_of(section(text, f"{title} 3"))  # strict: every row has the head's cells
        assert [row["rank"] for row in shown] == ["1", "2", "3"]
        assert [row["response"] for row in shown] == [f"response to z0{i}" for i in range(3)]


MARKUP = st.lists(
    st.sampled_from(
        ["<script>x</script>", "<img src=x>", "![a](http://b)", "[a](http://b)", "[a]: http://b",
         "`a`", "**a**", "_a_", "~~a~~", "&lt;", "&", "\\", "\\<", "<http://a>", "<!--", "# ", "a "]
    )
).map("".join)  # fmt: skip


@settings(deadline=None)
@given(TEXTS | MARKS | MARKUP)
def test_a_shortened_text_is_one_cell_that_reads_as_it_stands(text):
    """By a parser of Markdown: the cell is text alone, and all of it."""
    line = shortened(text)
    assert len(line.splitlines()) <= 1
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    parts = parser.parse(f"| before | text | after |\n| - | - | - |\n| b | {line} | a |\n")
    cells = [token for token in parts if token.type == "inline"][3:]
    assert [cell.content for cell in (cells[0], cells[2])] == ["b", "a"] and len(cells) == 3
    children = cells[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    whole = " ".join(text.split())
    shown = whole if len(whole) <= 120 else f"{whole[:119]}…"
    assert "".join(child.content for child in children) == shown.strip()


def test_reasons_and_families_read_as_they_stand_too(tmp_path):
    scores, rows = scored(3, ["missing field <b>"])
    rows["family"] = "[a](http://b)"
    save_ranking(ranking_table([arm("e", "m")], [scores], [rows]), outputs(tmp_path), {})
    text = (tmp_path / "table.md").read_text()
    assert "missing field &lt;b&gt;" in text and "<b>" not in text
    assert "\\[a\\](http://b)" in text


def test_a_long_text_is_cut_with_an_ellipsis():
    assert shortened("a" * 120) == "a" * 120
    assert shortened("a" * 121) == "a" * 119 + "…"
    assert shortened("a" * 9 + " b", most=10) == "a" * 9 + "…"


@pytest.mark.parametrize("answer", ["3.14159", "007", "1e3"])
def test_an_answer_that_is_a_number_is_shown_as_it_is(answer):
    part = pd.DataFrame(
        {"rank": [1], "score": [0.5], "response_tokens": [2], "prompt": "pi ?", "response": answer}
    )
    assert rows_of(page_table(part)) == [
        {"rank": "1", "score": "0.500", "response_tokens": "2", "prompt": "pi ?"}
        | {"response": answer}
    ]


def curve(key, values):
    """Judgements of three prompts, scores twice the step or alpha and 0, 1 or 4 more."""
    return pd.concat(
        [
            judgements(
                State(f"at {value}", "m", None, 1.0, {key: value}),
                [(f"p{i}", None, value * 2 + part) for i, part in enumerate((0.0, 1.0, 4.0))],
            )
            for value in values
        ],
        ignore_index=True,
    )


@pytest.mark.parametrize("key", ["step", "alpha"])
def test_a_curve_s_measures_by_state(key):
    # State 10: verdicts 1 of 2 (one without), scores 1 and 4; state 9: no verdict, scores 2 and 5.
    tenth = [("p0", True, 1.0), ("p1", False, 4.0), ("p2", None, None)]
    ninth = [("p0", None, 2.0), ("p1", None, 5.0), ("p2", None, 5.0)]
    frames = [
        judgements(State(f"{value}", "m", None, 1.0, {key: value}), rows)
        for value, rows in ((10, tenth), (9, ninth))
    ]
    table = curve_table(pd.concat(frames, ignore_index=True), key, {10.0: "d"})
    first, second = table.to_dict("records")
    assert (first[key], second[key]) == (9, 10)  # by number, not by text
    assert (first["prompts"], second["prompts"]) == (3, 3)
    assert table["chosen"].isna().tolist() == [True, False] and second["chosen"] == "d"
    assert interval(first, "safety_score") == pytest.approx(student([2, 5, 5]))
    assert interval(second, "safety_score") == pytest.approx(student([1, 4]))
    assert all(math.isnan(value) for value in interval(first, "asr", "wilson"))
    assert interval(second, "asr", "wilson") == pytest.approx((0.5, *wilson(1, 2)), abs=1e-9)


def trajectory(values):
    rows = list(zip((0, 5, 10), values, strict=True))
    return pd.DataFrame(rows, columns=pd.Index(["step", "projection"]))


PARTS = [model("e", "danger"), model("e", "safety"), model("f", "safety")]
PROJECTIONS = [trajectory(values) for values in ((0, 1, 2.5), (0, 0.1, -0.2), (0, 0.5, 0.75))]


def figure_2():
    e, f = curve("step", [0, 10, 5]), curve("step", [0, 10])
    return trajectory_table(PARTS, PROJECTIONS, [e, e, f], [{5: "d"}, {5: "d"}, {}])


def test_the_numbers_behind_figure_2(tmp_path):
    table = figure_2()
    assert table["model"].tolist() == ["e"] * 3 + ["f"] * 3
    assert table["step"].tolist() == [0, 5, 10] * 2
    assert table["projection.danger"].tolist()[:3] == [0.0, 1.0, 2.5]
    assert table["projection.danger"].isna().tolist() == [False] * 3 + [True] * 3
    assert table["projection.safety"].tolist() == [0.0, 0.1, -0.2, 0.0, 0.5, 0.75]
    # Scores are twice the step and 0, 1 or 4 more; step 5 of f was not judged.
    expected = [5 / 3, 10 + 5 / 3, 20 + 5 / 3, 5 / 3, math.nan, 20 + 5 / 3]
    assert table["safety_score"].tolist() == pytest.approx(expected, nan_ok=True)
    save_table(table, outputs(tmp_path), "a note", {})
    rows = rows_of((tmp_path / "table.md").read_text())
    low, high = student([10, 11, 14])[1:]
    assert rows[1]["safety_score"] == f"11.67 [{low:.2f}, {high:.2f}]"
    assert [row["step"] for row in rows] == ["0", "5", "10"] * 2
    assert "asr" not in rows[0]  # no verdict anywhere
    assert [row["chosen"] for row in rows] == ["", "d", "", "", "", ""]


def walked(model, pilot, direction):
    return Part({"model": model, "pilot": pilot, "direction": direction})


def of_pilots():
    parts = [walked("e", "short", "danger"), walked("e", "short", "safety"),
             walked("e", "long", "danger"), walked("f", "short", "danger")]  # fmt: skip
    curves = [curve("step", steps) for steps in ([0, 5, 10], [0, 5, 10], [0, 5], [10])]
    return trajectory_table(parts, [*PROJECTIONS, PROJECTIONS[0]], curves, [{}, {}, {5: "d"}, {}])


def test_each_pilot_of_a_model_has_rows_of_its_own():
    table = of_pilots()
    assert table.columns[:3].tolist() == ["model", "pilot", "step"]
    assert table[["model", "pilot"]].values.tolist() == [
        [*names] for names in (("e", "short"), ("e", "long"), ("f", "short")) for _ in range(3)
    ]
    assert table["projection.danger"].tolist() == [0, 1, 2.5, 0, 0.5, 0.75, 0, 1, 2.5]
    assert table["projection.safety"].notna().tolist() == [True] * 3 + [False] * 6
    assert table["safety_score"].notna().tolist() == [True] * 5 + [False] * 3 + [True]
    assert table["chosen"].dropna().to_dict() == {4: "d"}


def test_each_pilot_of_a_model_has_a_panel_of_its_own(monkeypatch):
    panels, units = {}, []

    def look(figure, out):
        for axes in figure.axes:
            panels.setdefault(axes.get_title(), [line.get_ydata() for line in axes.get_lines()])
        units.extend(axes.get_ylabel() for axes in figure.axes if not axes.get_title())
        figures.plt.close(figure)

    monkeypatch.setattr(figures, "save_figure", look)
    draw_trajectories(of_pilots(), {"e": "one", "f": "other"}, {})
    assert [title for title in panels if title] == ["e, short", "e, long", "f, short"]
    assert list(panels["e, long"][0]) == [0, 0.5, 0.75]
    assert units == [f"Safety Score ({unit})" for unit in ("one", "one", "other")]


def test_the_numbers_behind_figure_5(tmp_path):
    judged = curve("alpha", [0.0, 0.5])
    judged["verdict"] = pd.array([True, True, False, False, False, False], dtype="boolean")
    parts = [model("e", "safety"), model("f", "other")]
    table = steering_table(parts, [judged, curve("alpha", [0.3])], [{0.5: "s"}, {}])
    assert table["chosen"].isna().tolist() == [True, False, True] and table["chosen"][1] == "s"
    assert table[["model", "direction"]].values.tolist() == [
        ["e", "safety"], ["e", "safety"], ["f", "other"],
    ]  # fmt: skip
    assert table["alpha"].tolist() == [0.0, 0.5, 0.3]
    assert table["asr"].tolist() == pytest.approx([2 / 3, 0, math.nan], nan_ok=True)
    save_table(table, outputs(tmp_path), "", {})
    rows = rows_of((tmp_path / "table.md").read_text())
    low, high = wilson(2, 3)
    assert [row["asr"] for row in rows] == [
        f"0.67 [{low:.2f}, {high:.2f}]", f"0.00 [0.00, {wilson(0, 3)[1]:.2f}]", "",
    ]  # fmt: skip


def steered(out):
    parts = [model("e", "safety"), model("e", "danger"), model("f", "safety")]
    curves = [curve("alpha", alphas) for alphas in ([0.0, 0.1, 0.2], [0.0, 0.2], [0.0, 0.5])]
    table = steering_table(parts, curves, [{0.1: "s"}, {}, {}])
    draw_steering(table, {"e": "unit of e", "f": "unit of f"}, out)


def test_curves_of_one_direction_at_two_checkpoints_are_lines_of_their_own(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, out: drawn.append(figure))
    names = [("safety", "9"), ("safety", "7"), ("danger", "final")]
    parts = [Part({"model": "e", "direction": d, "checkpoint": c}) for d, c in names]
    values = [[0.0, 0.1], [0.0, 0.1], [0.0, 0.2]]
    table = steering_table(parts, [curve("alpha", v) for v in values], [{}, {0.1: "s"}, {}])
    assert table["chosen"].fillna("").tolist() == ["", "", "", "s", "", ""]
    draw_steering(table, {"e": "unit"}, {})
    lines = [line for line in drawn[0].axes[0].get_lines() if line.get_label()[0] != "_"]
    assert [line.get_label() for line in lines] == ["safety 9", "safety 7", "danger final"]
    assert [list(line.get_xdata()) for line in lines] == values


def drifted(out):
    parts = [model(name, d) for name in "efgh" for d in ("danger", "safety")]
    table = trajectory_table(
        parts, PROJECTIONS[:2] * 4, [curve("step", [0, 10, 5])] * 8, [{5.0: "d"}] * 8
    )
    draw_trajectories(table, {name: f"unit of {name}" for name in "efgh"}, out)


def test_the_legend_of_a_trajectory_names_its_lines_alone(tmp_path, monkeypatch):
    named = []

    def look(figure, out):
        named.extend(
            text.get_text()
            for ax in figure.axes
            if (own := ax.get_legend())
            for text in own.get_texts()
        )

    monkeypatch.setattr(figures, "save_figure", look)
    parts = [model("e", direction) for direction in ("danger", "safety")]
    curves = [curve("step", [0, 10, 5])] * 2
    drawn_of = trajectory_table(parts, PROJECTIONS[:2], curves, [{5.0: "d"}] * 2)
    draw_trajectories(drawn_of, {"e": "nats"}, {})
    assert named == ["projection on danger", "projection on safety", "Safety Score"]


def compared(out):
    judged = [(("e", "m"), verdicts(FALLING)), (("f", "m"), verdicts(RANDOM))]
    table = effectiveness(judged, WINDOWS, [1, 2], "asr")
    draw_effectiveness(table, WINDOWS, "asr", out)


def drawn(draw, folder):
    """Bytes of the PNG and the SVG of a figure."""
    folder.mkdir()
    out = {end: str(folder / f"figure.{end}") for end in ("png", "svg")}
    draw(out)
    return [Path(path).read_bytes() for path in out.values()]


def foretold(out):
    draw_groups(groups_table(*of_groups({"e": SCORED_GROUPS, "f": SCORED_GROUPS}), "x"), out)


@pytest.mark.parametrize("draw", [steered, drifted, compared, foretold])
def test_the_same_data_gives_the_same_figure_files(tmp_path, draw):
    first = drawn(draw, tmp_path / "first")
    drawn(steered, tmp_path / "between")
    assert drawn(draw, tmp_path / "again") == first
    png, svg = first
    assert png.startswith(b"\x89PNG") and b"<svg" in svg


def test_other_data_gives_other_figure_files(tmp_path):
    def more(out):
        table = steering_table([model("e")], [curve("alpha", [0.0, 0.1, 0.3])], [{}])
        draw_steering(table, {"e": "unit"}, out)

    def less(out):
        table = steering_table([model("e")], [curve("alpha", [0.0, 0.3])], [{}])
        draw_steering(table, {"e": "unit"}, out)

    first, other = drawn(more, tmp_path / "first"), drawn(less, tmp_path / "other")
    assert first[0] != other[0] and first[1] != other[1]


@pytest.mark.parametrize(("draw", "models"), [(steered, "ef"), (drifted, "efgh")])
def test_an_axis_of_scores_has_the_unit_of_its_model_s_judge(monkeypatch, draw, models):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, out: drawn.append(figure))
    draw({})
    labels = {axes.get_title(): axes.get_ylabel() for axes in drawn[0].axes if axes.get_title()}
    if draw is drifted:  # the axis on the right, of the panel in its place
        titles = {axes.get_position().bounds: axes.get_title() for axes in drawn[0].axes[:4]}
        labels = {titles[a.get_position().bounds]: a.get_ylabel() for a in drawn[0].axes[4:]}
    assert labels == {name: f"Safety Score (unit of {name})" for name in models}


def panels_of(monkeypatch, table, measure):
    """A panel's title and lines: method to its means and the ends of its bars, by window."""
    panels = {}

    def look(figure, out):
        for axes in figure.axes:
            panels[axes.get_title()] = lines = {}
            for container in axes.containers:
                bars = container[2][0].get_segments()  # one without a bound is empty
                ends = [bar[:, 1] if len(bar) else (math.nan, math.nan) for bar in bars]
                lines[container.get_label()] = container[0].get_ydata(), np.array(ends)
        figures.plt.close(figure)

    monkeypatch.setattr(figures, "save_figure", look)
    draw_effectiveness(table, WINDOWS, measure, None)
    return panels


def test_panels_of_the_same_lines_share_a_legend_and_hold_every_bar(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, out: drawn.append(figure))
    judged = [((e, m), verdicts(v)) for e in "ef" for m, v in (("m", FALLING), ("random", RANDOM))]
    draw_effectiveness(effectiveness(judged, WINDOWS, [1, 2], "asr"), WINDOWS, "asr", None)
    (figure,) = drawn
    *each, whole = figure.axes
    assert [axes.get_legend() for axes in figure.axes] == [None] * 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["m", "random"]
    assert all(axes.get_ylim() == pytest.approx((-0.04, 1.04)) for axes in each)
    # Over two experiments of the same values the interval is a point; over others it leaves 0 to 1.
    assert whole.get_ylim() == pytest.approx((-0.04, 1.04))
    drawn.clear()
    judged[2] = (("f", "m"), verdicts({1: (0, 4, 2), 2: (1, 2, 2)}))
    draw_effectiveness(effectiveness(judged, WINDOWS, [1, 2], "asr"), WINDOWS, "asr", None)
    low, high = drawn[0].axes[-1].get_ylim()
    # Of s1, 7/8 and 1/8.
    mean, least, most = student([7 / 8, 1 / 8])
    assert (low, high) == pytest.approx((least, most)) and least < -1 < 0 < mean < 1 < most
    figures.plt.close("all")


def test_a_figure_s_bars_are_by_prompt_for_an_experiment_and_student_s_over_several(monkeypatch):
    judged = [
        (("e", "m"), verdicts(FALLING)),
        (("e", "random"), verdicts(RANDOM)),
        (("f", "m"), verdicts({1: (4, 4, 2), 2: (2, 2, 2)})),  # means 6/8, 6/8, 4/8
        (("f", "random"), verdicts(RANDOM)),
    ]
    table = effectiveness(judged, WINDOWS, [1, 2], "asr")
    panels = panels_of(monkeypatch, table, "asr")
    assert list(panels) == ["e", "f", POOLED]
    assert [list(lines) for lines in panels.values()] == [["m", "random"]] * 3
    means, ends = panels["e"]["m"]
    assert means == pytest.approx([7 / 8, 4 / 8, 1 / 8])
    expected = [clustered(*unsafe) for unsafe in BY_PROMPT.values()]
    assert ends == pytest.approx(np.array(expected), abs=1e-9)
    means, ends = panels[POOLED]["m"]
    units = [(7 / 8, 6 / 8), (4 / 8, 6 / 8), (1 / 8, 4 / 8)]
    assert means == pytest.approx([fmean(unit) for unit in units])
    assert ends == pytest.approx(np.array([student(unit)[1:] for unit in units]))


@pytest.mark.parametrize("count", [3, 13])
def test_every_method_of_a_figure_has_a_look_of_its_own(monkeypatch, count):
    judged = [(("e", f"m{i}"), verdicts({1: (i % 5, 2, 0)})) for i in range(count)]
    table = effectiveness(judged, WINDOWS, [1], "asr")
    looks, legends = [], []

    def look(figure, out):
        (axes,) = figure.axes
        looks.extend((line.get_color(), line.get_linestyle()) for line in axes.get_lines())
        figure.canvas.draw()
        legends.append(axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1)
        figures.plt.close(figure)

    monkeypatch.setattr(figures, "save_figure", look)
    draw_effectiveness(table, WINDOWS, "asr", None)
    assert len(set(looks)) == len(looks) == count
    assert legends == [True]  # beside the panel, where it covers no line


def test_a_figure_of_rates_of_0_and_1_has_bars(monkeypatch):
    table = effectiveness([(("e", "m"), verdicts({1: (4, 4, 0)}))], WINDOWS, [1], "asr")
    means, ends = panels_of(monkeypatch, table, "asr")["e"]["m"]
    assert means.tolist() == [1, 1, 0]
    assert ends == pytest.approx(np.array([wilson(4, 4), wilson(4, 4), wilson(0, 4)]), abs=1e-9)


def test_a_figure_of_one_seed_s_safety_scores_has_no_bars(monkeypatch):
    frame = safety_scores({1: (-1.0, 0.5, 2.0)})
    table = effectiveness([(("e", "m"), frame)], WINDOWS, [1], "safety_score")
    means, ends = panels_of(monkeypatch, table, "safety_score")["e"]["m"]
    assert means == pytest.approx([-1, 0.5, 2])
    assert np.isnan(ends).all()


# --- from files -----------------------------------------------------------------------------


def files_of(folder, frame, schema, parts=1):
    """A table's rows in several files, each of its own path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(parts):
        paths.append(str(folder / f"{schema}-{len(list(folder.iterdir()))}.parquet"))
        write_table(frame.iloc[i::parts].reset_index(drop=True), paths[-1], schema, {})
    return paths


def made(tmp_path, kind, parts, drawn=False, **settings):
    """The table that `make_table` made, its Markdown's rows, and its text."""
    out = outputs(tmp_path, ("parquet", "csv", "md", *(("png", "svg") if drawn else ())))
    make_table(kind, parts, settings, out, {"stage": "make_table"})
    assert {Path(path).exists() for path in out.values()} == {True}
    assert metadata(out["parquet"]) == {"stage": "make_table"}
    text = Path(out["md"]).read_text()
    return pd.read_parquet(out["parquet"]), text


def test_every_kind_of_table_has_a_test():
    kinds = {"subsets", "alphas", "checkpoints", "states", "ranking", "trajectory", "steering"}
    kinds |= {"agreement", "comparison", "groups", "judges", "separation", "models", "all-rows"}
    kinds |= {"lengths", "losses", "token-losses", "first-order"}  # in test_report_losses.py
    kinds |= {"treatments"}  # in test_report_treatments.py
    assert set(KINDS) == kinds


@pytest.mark.parametrize("measure", ["asr", "safety_score"])
def test_a_table_of_subsets_from_files(tmp_path, measure):
    # Seeds and windows are those of the judgements' columns; a third seed is not asked for.
    if measure == "asr":
        first, random = verdicts(FALLING | {3: (0, 0, 4)}), verdicts(RANDOM)
    else:
        first = safety_scores({1: (0, 1, 3), 2: (1, 1, 2), 3: (9, 0, 0)})
        random = safety_scores({1: (1, 0, 1), 2: (0, 1, 0.5)})
    parts = [
        Part(
            {"experiment": "e", "method": method},
            {"seeds": [2, 1], "random": method == "random"},
            {"judgements": files_of(tmp_path / method, frame, "judgements", 3)},
        )
        for method, frame in (("m", first), ("random", random))
    ]
    table, text = made(tmp_path, "subsets", parts, drawn=True, windows=WINDOWS, measure=measure)
    assert table["method"].tolist() == ["m", "random"]
    row = table.iloc[0]
    if measure == "asr":
        assert [row[w] for w in WINDOWS] == pytest.approx([7 / 8, 4 / 8, 1 / 8])
        # In the order of its seeds: 0.5 + 0.25 beyond random for seed 2, 1 for seed 1.
        assert interval(row, "over_random") == pytest.approx(student([0.75, 1]))
        assert "Share of test prompts answered unsafely" in text
    else:
        assert [row[w] for w in WINDOWS] == pytest.approx([0.5, 1, 2.5])
        assert interval(row, "over_random") == pytest.approx(student([1 - 0.5, 3 - 0]))
        assert "Mean Safety Score of the test prompts" in text
    assert text.endswith(COMMON_NOTE + "\n")


def test_an_arm_has_seeds_of_its_own(tmp_path):
    frames = {"m": verdicts({5: (4, 2, 0)}), "n": verdicts({7: (2, 2, 2), 8: (4, 4, 4)})}
    parts = [
        Part(
            {"experiment": "e", "method": method},
            {"seeds": seeds, "random": False},
            {"judgements": files_of(tmp_path / method, frames[method], "judgements")},
        )
        for method, seeds in (("m", [5]), ("n", [7, 8]))
    ]
    table, _ = made(tmp_path, "subsets", parts, drawn=True, windows=WINDOWS, measure="asr")
    assert table["units"].tolist() == [1, 2]
    assert table["s1"].tolist() == [1, 0.75] and table["s3"].tolist() == [0, 0.75]


def test_a_seed_that_was_not_judged_is_no_number(tmp_path):
    parts = [Part(arm("e", "m").names, {"seeds": [1, 4], "random": False})]
    with pytest.raises(KeyError):
        effectiveness_table(parts, [verdicts(FALLING)], WINDOWS, "asr")


def ranking_of(ranks, key, schema):
    count = len(ranks)
    frame = pd.DataFrame({key: [10 * i for i in range(count)], **dict.fromkeys(SENSITIVITY, 2.0)})
    if key == "step":
        frame = frame.assign(next_step=frame["step"] + 10, denominator_floored=False)
        frame = frame[["step", "next_step", *SENSITIVITY, "denominator_floored"]]
    frame = frame.assign(safety_score=[float(i) for i in range(count)])
    if key == "step":
        frame = frame.assign(projection=0.5)
    frame = frame.assign(exact_share=1.0, rank=ranks)
    kinds = {"rank": "Int64", "prompts": "int64"} | ({"alpha": "float64"} if key == "alpha" else {})
    return frame.astype(kinds)


@pytest.mark.parametrize(
    ("kind", "key", "schema"),
    [("alphas", "alpha", "linear_ranking"), ("checkpoints", "step", "drift_ranking")],
)
def test_a_table_of_rankings_from_files(tmp_path, kind, key, schema):
    other = "drift_ranking" if key == "alpha" else "linear_ranking"
    parts = [
        Part(
            {"model": name, "direction": direction},
            {},
            {"ranking": files_of(tmp_path / name, ranking_of(ranks, key, schema), schema)},
        )
        for name, direction, ranks in (("e", "safety", [2, None, 1]), ("f", "danger", [1]))
    ]
    table, text = made(tmp_path, kind, parts)
    # The second of the three has no rank and is as sensitive as the others.
    assert table[["model", "direction"]].values.tolist() == [
        ["e", "safety"], ["e", "safety"], ["e", "safety"], ["f", "danger"],
    ]  # fmt: skip
    assert table[key].tolist() == [20, 0, 10, 0]
    assert table["rank"].fillna(0).tolist() == [1, 2, 0, 1]
    assert len(rows_of(text)) == 4
    with pytest.raises(DataError, match=f"not a '{other}' table"):
        made(tmp_path, {"alphas": "checkpoints", "checkpoints": "alphas"}[kind], parts)


def test_a_table_of_states_from_files(tmp_path):
    parts = []
    for part, origin in zip(STATES, ORIGINS, strict=True):
        path = tmp_path / f"{part.names['state']}.json"
        write_states([State(part.names["state"], "m", "v", 1.0, origin)], path, {})
        parts.append(Part(part.names, {}, {"state": [str(path)]}))
    table, text = made(tmp_path, "states", parts)
    pd.testing.assert_frame_equal(table, states_table(STATES, ORIGINS), check_dtype=False)
    assert [row["state"] for row in rows_of(text)] == ["d-danger", "safety"]


def test_a_ranking_from_files(tmp_path):
    parts = []
    for method, count in (("m", 3), ("n", 2)):
        scores, rows = scored(count, ["empty response"])
        rows = rows[["sample_id", "prompt", "response", "family", "problem"]]
        files = {
            "scores": files_of(tmp_path / method, scores, "scores"),
            "rows": files_of(tmp_path / method, rows, "dataset"),
        }
        parts.append(Part({"experiment": "e", "method": method}, {}, files))
    table, text = made(tmp_path, "ranking", parts)
    assert table["sample_id"].tolist() == ["z00", "z01", "z02", "n0", "z00", "z01", "n0"]
    assert table["method"].tolist() == ["m"] * 4 + ["n"] * 3
    assert "# e: rows by risk (m)" in text and "# e: rows by risk (n)" in text
    swapped = {"scores": parts[0].files["rows"], "rows": parts[0].files["scores"]}
    with pytest.raises(DataError, match="not a 'scores' table"):
        made(tmp_path, "ranking", [Part(parts[0].names, {}, swapped)])
    with pytest.raises(KeyError, match="rows"):
        made(tmp_path, "ranking", [Part(parts[0].names, {}, {"scores": swapped["rows"]})])


def two_judges(folder, key, values):
    """Judgements of two judges in files: verdicts of the one, scores of the other.

    The verdict of p0 is unsafe and the others safe; scores are as in `curve`. What each gives
    beside that is another number, and must not be read.
    """
    of_scores = curve(key, values).assign(verdict=pd.array([True] * 3 * len(values), "boolean"))
    of_verdicts = curve(key, values).assign(score=-100.0)
    of_verdicts["verdict"] = (of_verdicts["prompt_id"] == "p0").astype("boolean")
    return {
        "asr": files_of(folder / "asr", of_verdicts.iloc[::-1], "judgements", 2),
        "safety_score": files_of(folder / "score", of_scores, "judgements", 3),
    }


def test_verdicts_of_one_judge_stand_with_the_scores_of_another(tmp_path):
    part = Part({}, {}, two_judges(tmp_path, "alpha", [0.0, 0.5]))
    both = both_measures(part).sort_values(["alpha", "prompt_id"])
    assert both["score"].tolist() == [0, 1, 4, 1, 2, 5]
    assert both["verdict"].tolist() == [True, False, False] * 2
    assert both["state"].tolist() == ["at 0.0"] * 3 + ["at 0.5"] * 3


def test_one_judge_may_give_both_measures(tmp_path):
    paths = files_of(tmp_path, verdicts({1: (1, 2, 3)}).assign(score=2.5), "judgements")
    both = both_measures(Part({}, {}, {"asr": paths, "safety_score": paths}))
    expected = read_table(paths[0], "judgements")
    pd.testing.assert_frame_equal(both, expected)


def test_judgements_that_occur_twice_are_refused(tmp_path):
    files = two_judges(tmp_path, "alpha", [0.0])
    files["safety_score"] *= 2
    with pytest.raises(pd.errors.MergeError):
        both_measures(Part({}, {}, files))


def state_file(path, name, origin):
    write_states([State(name, "m", "v", 1.0, origin)], path, {})
    return str(path)


@pytest.mark.parametrize("kind", ["steering", "trajectory"])
def test_a_curve_from_files(tmp_path, kind, monkeypatch):
    units = []
    drawing = "draw_steering" if kind == "steering" else "draw_trajectories"
    real = getattr(report, drawing)

    def draw(table, unit, out):
        units.append(unit)
        real(table, unit, out)

    monkeypatch.setattr(report, drawing, draw)
    key, values = ("step", [0, 5, 10]) if kind == "trajectory" else ("alpha", [0.0, 0.25, 0.5])
    parts = []
    for direction, projections in zip(("danger", "safety"), PROJECTIONS, strict=False):
        files = two_judges(tmp_path / direction, key, values)
        files["states"] = [
            state_file(tmp_path / f"{name}.json", name, {key: values[place]})
            for name, place in (("one", 1), ("other", 1), ("third", 2))
        ]
        if kind == "trajectory":
            frame = projections.astype({"projection": "float64"})
            files["trajectory"] = files_of(tmp_path / direction, frame, "trajectory")
        parts.append(Part({"model": "e", "direction": direction}, {"unit": "of e"}, files))
    table, text = made(tmp_path, kind, parts, drawn=True)
    count = 2 if kind == "steering" else 1
    assert table[key].tolist() == values * count
    assert table["safety_score"].tolist() == pytest.approx([2 * v + 5 / 3 for v in values] * count)
    assert table["asr"].tolist() == pytest.approx([1 / 3] * 3 * count)
    assert table["prompts"].tolist() == [3] * 3 * count
    if kind == "trajectory":
        assert table["projection.danger"].tolist() == [0, 1, 2.5]
        assert table["projection.safety"].tolist() == [0, 0.1, -0.2]
    else:
        assert table["direction"].tolist() == ["danger"] * 3 + ["safety"] * 3
    assert "Wilson's for the attack success rate." in text
    chosen = table["chosen"].fillna("").tolist()
    assert chosen == ["", "one, other", "third"] * count
    assert units == [{"e": "of e"}]
    files = dict(parts[0].files)
    files["asr"], files["safety_score"] = files["safety_score"], files["asr"]
    other, _ = made(tmp_path, kind, [replace(parts[0], files=files)], drawn=True)
    assert set(other["safety_score"]) == {-100.0} and set(other["asr"]) == {1.0}


@pytest.mark.parametrize(("measure", "column"), [("asr", "verdict"), ("safety_score", "score")])
def test_a_judge_that_mostly_has_no_answer_makes_no_table(measure, column):
    state = tuned("s1", 1)
    half = judgements(state, [("p0", True, 1.0), ("p1", None, None)])
    check_judged("mine length", half, measure)
    more = judgements(state, [("p0", True, 1.0), ("p1", None, None), ("p2", None, None)])
    message = rf"^mine length: 2 of 3 responses have no {column}; look at what the judge says, or"
    with pytest.raises(DataError, match=message):
        check_judged("mine length", more, measure)


@pytest.mark.parametrize("measure", ["asr", "safety_score"])
def test_a_table_tells_of_arms_with_more_than_a_twentieth_of_no_answer(tmp_path, measure):
    # 20 responses to each window, of one seed: 3 of 60 are a twentieth, 4 are more.
    parts, column = [], "verdict" if measure == "asr" else "score"
    for method, absent in (("whole", 0), ("few", 3), ("many", 4)):
        frame = verdicts({1: (3, 2, 1)}, prompts=20)
        frame["score"] = 1.0
        frame.loc[frame.index[:absent], column] = None
        files = {"judgements": files_of(tmp_path / method, frame, "judgements")}
        parts.append(Part(arm("e", method).names, {"seeds": [1], "random": False}, files))
    told = " Responses without a {}, left out: {}."
    _, text = made(tmp_path, "subsets", parts[:2], drawn=True, windows=WINDOWS, measure=measure)
    assert "left out" not in text
    _, text = made(tmp_path, "subsets", parts[:3], drawn=True, windows=WINDOWS, measure=measure)
    told = told.format(column, "e many (4 of 60)")
    assert text.endswith(COMMON_NOTE + told + "\n")
    compared = [Part(p.names, {"seeds": [1], "rows": 1}, {**p.files, "times": []}) for p in parts]
    chosen = {"windows": WINDOWS, "measure": measure, "against": "few"}
    for few, many in ((compared[:2], False), (compared, True)):
        _, text = made(tmp_path, "comparison", few, **chosen)
        assert (told in text) == many


@pytest.mark.parametrize("kind", ["steering", "trajectory"])
@pytest.mark.parametrize("measure", ["asr", "safety_score"])
def test_a_curve_tells_of_absent_answers_and_is_refused_where_most_are(tmp_path, kind, measure):
    key, values = ("step", [0, 5, 10]) if kind == "trajectory" else ("alpha", [0.0, 0.25, 0.5])
    column = "verdict" if measure == "asr" else "score"
    for absent in (0, 1, 5):
        folder = tmp_path / str(absent)
        files = {"states": []} | two_judges(folder, key, values)
        frame = pd.concat(map(read_judgements, files[measure]), ignore_index=True)
        frame.loc[frame.index[:absent], column] = None
        files[measure] = files_of(folder, frame, "judgements")
        if kind == "trajectory":
            frame = PROJECTIONS[0].astype({"projection": "float64"})
            files["trajectory"] = files_of(folder, frame, "trajectory")
        part = Part({"model": "e", "direction": "danger"}, {"unit": "of e"}, files)
        if absent == 5:
            with pytest.raises(DataError, match=rf"e danger: 5 of 9 responses have no {column}"):
                made(tmp_path, kind, [part], drawn=True)
        else:
            _, text = made(tmp_path, kind, [part], drawn=True)
            told = f" Responses without a {column}, left out: e danger (1 of 9)."
            assert text.count(told) == absent


def read_judgements(path):
    return read_table(path, "judgements")


def test_the_random_control_is_a_kind_and_not_a_name():
    judged = {"chance": verdicts(RANDOM), "random": verdicts(FALLING)}
    parts = [
        Part(arm("e", method).names, {"seeds": [1, 2], "random": method == "chance"})
        for method in judged
    ]
    table = effectiveness_table(parts, list(judged.values()), WINDOWS, "asr")
    beyond = table["delta"] - table["delta"].iloc[0]
    assert table["over_random"].tolist() == pytest.approx(beyond.tolist())
    assert beyond.iloc[1] != 0


# --- small groups ---------------------------------------------------------------------------


def spearman(first, second):
    """Pearson's correlation of mean ranks, each counted."""
    x, y = (
        [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]
        for values in (first, second)
    )
    dx, dy = ([v - fmean(side) for v in side] for side in (x, y))
    product = sum(a * b for a, b in zip(dx, dy, strict=True))
    return product / math.sqrt(sum(a * a for a in dx) * sum(b * b for b in dy))


def pairs_of(scores, drops=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)):
    """Mean scores and drops by group; None where a group has no score."""
    frame = pd.DataFrame({"score": scores, "drop": drops[: len(scores)]}, dtype="float64")
    return frame.set_axis([f"g{i}" for i in range(len(frame))]).dropna()


# Drops rise from the first group to the last.
SCORED_GROUPS = {
    "x": (1.0, 2.0, 4.0, 3.0, 5.0, 6.0),  # two neighbours changed: 1 - 6 * 2 / (6 * 35)
    "y": (6.0, 5.0, 4.0, 3.0, 2.0, 1.0),
    "z": (1.0, 1.0, 2.0, 2.0, 2.0, 0.5),
}


def of_groups(experiments):
    """Parts and pairs of methods' mean scores, by experiment."""
    found = [
        (arm(experiment, method), pairs_of(scores))
        for experiment, methods in experiments.items()
        for method, scores in methods.items()
    ]
    return [part for part, _ in found], [pair for _, pair in found]


def test_how_well_scores_foretell_what_groups_do():
    table = groups_table(*of_groups({"e": SCORED_GROUPS}), "x")
    assert table[["experiment", "method"]].values.tolist() == [["e", m] for m in "xyz"]
    assert table["groups"].tolist() == [6, 6, 6]
    first, falling, third = table.to_dict("records")
    assert first["correlation"] == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert math.isnan(first["over"]) and math.isnan(first["over_bootstrap_low"])
    # The reverse order whichever groups are drawn.
    assert interval(falling, "correlation", "bootstrap") == pytest.approx((-1, -1, -1))
    assert falling["over"] == pytest.approx(-1 - first["correlation"])
    drops = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    expected = spearman(SCORED_GROUPS["z"], drops)
    assert third["correlation"] == pytest.approx(expected)
    assert third["over"] == pytest.approx(expected - first["correlation"])
    for row in (first, third):
        bounds = rank_correlation_bootstrap(SCORED_GROUPS[row["method"]], drops)
        assert interval(row, "correlation", "bootstrap") == pytest.approx(bounds)
    bounds = rank_correlation_bootstrap(SCORED_GROUPS["z"], drops, SCORED_GROUPS["x"])
    assert interval(third, "over", "bootstrap") == pytest.approx(bounds)


def test_a_difference_is_of_the_groups_that_both_methods_score():
    # Without the third group y falls and x rises; with the places of y's groups x would not.
    methods = {"x": (1.0, 2.0, 9.0, 4.0, 5.0, 6.0), "y": (6.0, 5.0, None, 3.0, 2.0, 1.0)}
    for names in ("xy", "yx"):
        parts, pairs = of_groups({"e": {name: methods[name] for name in names}})
        table = groups_table(parts, pairs, "x").set_index("method")
        assert table["groups"].to_dict() == {"x": 6, "y": 5}
        assert table.loc["x", "correlation"] == pytest.approx(
            spearman(methods["x"], [1, 2, 3, 4, 5, 6])
        )
        assert interval(table.loc["y"], "over", "bootstrap") == pytest.approx((-2, -2, -2))
    # The other way round: x is compared over y's groups.
    table = groups_table(*of_groups({"e": methods}), "y").set_index("method")
    assert interval(table.loc["x"], "over", "bootstrap") == pytest.approx((2, 2, 2))


def test_over_experiments_the_correlation_of_each_is_one_value():
    second = {
        "x": SCORED_GROUPS["y"], "y": SCORED_GROUPS["x"][:5], "z": SCORED_GROUPS["z"][::-1],
    }  # fmt: skip
    table = groups_table(*of_groups({"e": SCORED_GROUPS, "f": second}), "x")
    assert table[["experiment", "method"]].values.tolist() == [
        [experiment, method] for experiment in ("e", "f", POOLED) for method in "xyz"
    ]
    assert table["groups"].tolist() == [6, 6, 6, 6, 5, 6, 12, 11, 12]
    drops = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    of_each = {
        m: [spearman(scores[m], drops[: len(scores[m])]) for scores in (SCORED_GROUPS, second)]
        for m in "xyz"
    }
    for _, row in table.tail(3).iterrows():
        own = of_each[row["method"]]
        assert interval(row, "correlation") == pytest.approx(student(own), abs=1e-7)
        assert math.isnan(row["correlation_bootstrap_low"])
    row = table.iloc[-1]
    beyond = [z - x for z, x in zip(of_each["z"], of_each["x"], strict=True)]
    assert interval(row, "over") == pytest.approx(student(beyond), abs=1e-7)
    assert math.isnan(table.iloc[-3]["over"])


def test_a_method_alone_is_compared_with_none():
    only = {"x": SCORED_GROUPS["x"]}
    table = groups_table(*of_groups({"e": only, "f": only}), "x")
    assert "over" not in table and len(table) == 3


def test_a_method_that_tells_no_groups_apart_has_no_correlation():
    table = groups_table(*of_groups({"e": {"x": SCORED_GROUPS["x"], "flat": (2.0,) * 6}}), "x")
    assert table.iloc[1][["correlation", "over", "over_bootstrap_high"]].isna().all()
    assert readable(table)["correlation"].tolist()[1] == ""


def groups_figure(monkeypatch, experiments, against):
    """The one panel of a figure: its labels, means and bars' ends by method, small marks."""
    found = {}

    def look(figure, out):
        (axes,) = figure.axes
        names = [label.get_text() for label in axes.get_yticklabels()]
        places = [float(place) for place in axes.get_yticks()]
        by_place = dict(zip(places, names, strict=True))
        (container,) = axes.containers
        xs, ys = container[0].get_data()
        ends = [bar[:, 0].tolist() for bar in container[2][0].get_segments()]
        found["methods"] = [by_place[y] for y in sorted(ys, reverse=True)]
        found["means"] = {by_place[y]: x for x, y in zip(xs, ys, strict=True)}
        found["bars"] = {by_place[y]: bar for y, bar in zip(ys, ends, strict=True)}
        marks = [line for line in axes.get_lines() if line.get_marker() == "|" and
                 line.get_color() == "0.5"]  # fmt: skip
        found["marks"] = {by_place[m.get_ydata()[0]]: list(m.get_xdata()) for m in marks}
        found["label"], found["ends"] = axes.get_xlabel(), axes.get_ylim()
        figures.plt.close(figure)

    monkeypatch.setattr(figures, "save_figure", look)
    table = groups_table(*of_groups(experiments), against)
    draw_groups(table, {})
    return found, table


def test_a_figure_of_groups_has_a_line_per_method(monkeypatch):
    found, table = groups_figure(monkeypatch, {"e": SCORED_GROUPS}, "x")
    assert found["label"] == "rank correlation of mean score\nand drop in Safety Score"
    assert found["methods"] == ["x", "y", "z"]  # from the top
    assert found["ends"][0] < 0 and found["ends"][1] > 2
    assert found["marks"] == {}
    for row in table.to_dict("records"):
        mean, *ends = interval(row, "correlation", "bootstrap")
        assert found["means"][row["method"]] == mean
        assert found["bars"][row["method"]] == pytest.approx(ends)


def test_a_figure_of_several_experiments_shows_their_mean_and_each(monkeypatch):
    second = {"x": SCORED_GROUPS["y"], "y": SCORED_GROUPS["x"], "z": SCORED_GROUPS["z"]}
    found, table = groups_figure(monkeypatch, {"e": SCORED_GROUPS, "f": second}, "x")
    by_method = table.set_index(["experiment", "method"])["correlation"]
    assert found["methods"] == ["x", "y", "z"]
    assert found["label"].endswith("\n(mean of experiments; small marks: each)")
    for method in "xyz":
        own = [by_method["e", method], by_method["f", method]]
        assert found["marks"][method] == own
        mean, *ends = student(own)
        assert found["means"][method] == pytest.approx(mean)
        assert found["bars"][method] == pytest.approx(ends, abs=1e-7)


def group_files(folder, scores, safety):
    """Files of a part: groups of two rows each, with so high scores; judgements in two files."""
    ids = [f"r{i}{end}" for i in range(len(scores)) for end in "ab"]
    own = {f"r{i}{end}": v + part for i, v in enumerate(scores)
           for end, part in (("a", -9.0), ("b", 9.0))}  # fmt: skip
    groups = pd.DataFrame({"group": [f"g{i[1]}" for i in ids], "sample_id": ids, "biased_to": None})
    judged = pd.concat(
        [
            judgements(
                State(f"state {9 - i} {seed}", "m", None, 1.0, {"window": f"g{i}", "seed": seed}),
                [("p0", None, value + seed), ("p1", None, value - seed)],
            )
            for i, value in enumerate(safety)
            for seed in (1, 2)
        ],
        ignore_index=True,
    )
    return {
        "scores": files_of(folder, scores_of(own)[::-1].reset_index(drop=True), "scores"),
        "groups": files_of(folder, groups.astype("str"), "groups"),
        "judgements": files_of(folder, judged, "judgements", 2),
    }


def test_a_table_of_groups_from_files(tmp_path):
    parts = [
        Part(
            {"experiment": "e", "method": method},
            {},
            # Safety falls, so that the drop rises.
            group_files(tmp_path / method, SCORED_GROUPS[method], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
        )
        for method in "zxy"
    ]
    table, text = made(tmp_path, "groups", parts, drawn=True, against="x")
    assert table["method"].tolist() == ["z", "x", "y"]
    drops = [1, 2, 3, 4, 5, 6]
    correlations = {m: spearman(SCORED_GROUPS[m], drops) for m in "zxy"}
    assert table["correlation"].tolist() == pytest.approx(list(correlations.values()))
    assert table["over"].tolist() == pytest.approx(
        [correlations["z"] - correlations["x"], math.nan, -1 - correlations["x"]], nan_ok=True
    )
    assert table["groups"].tolist() == [6] * 3
    head, note = text.strip().rsplit("\n\n", 1)
    assert [row["method"] for row in rows_of(head)] == ["z", "x", "y"]
    assert "Spearman's rank correlation" in note and "higher it is than that of x, paired" in note
    assert f"rows of '{POOLED}' Student's t over experiments" in note
    other, text = made(tmp_path, "groups", parts, drawn=True, against="y")
    assert other["over"].isna().tolist() == [False, False, True]
    assert "than that of y, paired" in text
    swapped = {**parts[0].files, "groups": parts[0].files["scores"]}
    with pytest.raises(DataError, match="not a 'groups' table"):
        made(tmp_path, "groups", [Part(parts[0].names, {}, swapped)], drawn=True, against="z")


def scores_of(scores, reasons=()):
    """A `scores` table of scores by id; ids of `reasons` have none."""
    frame = pd.DataFrame(
        {"sample_id": [*scores, *reasons], "score": [*scores.values()] + [None] * len(reasons)}
    )
    order = sorted(scores, key=lambda i: (-scores[i], i))
    frame["rank"] = pd.array(
        [order.index(i) + 1 if i in scores else None for i in frame["sample_id"]], "Int64"
    )
    frame["reason"] = [None] * len(scores) + ["no"] * len(reasons)
    frame["response_tokens"] = 3
    return frame.astype({"score": "float64", "reason": "str", "sample_id": "str"})


def test_how_far_two_methods_agree():
    # Ranks of a to f by the first 1 to 6; by the second a and b change places, c and d are tied.
    first = scores_of({"a": 6.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 1.0})
    second = scores_of({"f": -9.0, "e": -8.0, "d": 0.0, "c": 0.0, "a": 4.0, "b": 7.0})
    third = scores_of({"a": 1.0, "c": 3.0, "d": 2.0, "e": 9.0, "f": 8.0}, reasons=["b"])
    parts = [arm("e", "x"), arm("e", "y"), arm("e", "z"), arm("f", "x")]
    table = agreement_table(parts, [first, second, third, first], rows=2)
    assert table[["experiment", "method", "other"]].values.tolist() == [
        ["e", "x", "y"], ["e", "x", "z"], ["e", "y", "z"],
    ]  # fmt: skip
    row = table.iloc[0]
    # Mean ranks 2, 1, 3.5, 3.5, 5, 6 against 1 to 6: of deviations, 16 over sqrt(17.5 * 17).
    expected = 16 / math.sqrt(17.5 * 17)
    assert row["spearman"] == pytest.approx(expected)
    bounds = rank_correlation_interval(expected, 6)
    assert (row["spearman_fisher_low"], row["spearman_fisher_high"]) == pytest.approx(bounds)
    # The riskiest two are a and b of both, the least risky e and f.
    assert row[["rows", "s1_overlap", "s5_overlap"]].tolist() == [6, 1, 1]
    assert row["chance"] == pytest.approx(1 / 3)
    row = table.iloc[1]
    # Without b: ranks 1 to 5 of a, c, d, e, f against 5, 3, 4, 1, 2.
    assert row["spearman"] == pytest.approx(1 - 6 * (16 + 1 + 1 + 9 + 9) / (5 * 24))
    # First {a, b} and third {e, f}; last {e, f} and {d, a}.
    assert row[["rows", "s1_overlap", "s5_overlap", "chance"]].tolist() == [5, 0, 0, 0.4]


def test_agreement_from_files(tmp_path):
    tables = [scores_of({"a": 2.0, "b": 1.0, "c": 0.0}), scores_of({"a": 0.0, "b": 1.0, "c": 2.0})]
    parts = []
    for i, table in enumerate(tables):
        path = tmp_path / f"{i}.parquet"
        write_table(table, path, "scores", {})
        parts.append(Part({"experiment": "e", "method": f"m{i}"}, {}, {"scores": [str(path)]}))
    table, text = made(tmp_path, "agreement", parts, rows=1)
    (row,) = rows_of(text.split("\n\n")[0])
    assert (row["method"], row["other"], row["rows"]) == ("m0", "m1", "3")
    assert (row["spearman"], row["s1_overlap"], row["s5_overlap"]) == ("-1", "0", "0")
    assert table["spearman"].tolist() == [-1] and "what random orders share" in text


def test_rows_are_of_one_length_within_a_tenth_of_the_shorter():
    tokens, others = [1, 10, 30, 100], [1, 2, 11, 33, 109, 111]
    close = of_one_length(pd.Series(tokens), pd.Series(others))
    naive = [[max(a, b) / min(a, b) <= 1.1 + 1e-9 for b in others] for a in tokens]
    assert close.tolist() == naive and close.sum() == 4


def test_how_far_scores_put_rows_of_one_set_above_those_of_another(tmp_path):
    tables = {
        ("top", "m"): scores_of({"a": 3.0, "b": 1.0, "c": 2.0}, reasons=["d", "e"]),
        ("low", "m"): scores_of({"a": 1.0, "f": 0.0}, reasons=["g"]),
        ("top", "n"): scores_of({"a": -1.0, "b": -2.0}),
        ("low", "n"): scores_of({"f": 0.0, "h": 5.0, "i": 6.0}),
    }
    # Within a tenth of one another: of m's rows 10 and 11 with 11, where those without a score are
    # matched with none; of n's 11 with 10 and 20 with 22.
    for at, lengths in {
        ("top", "m"): [10, 11, 50, 20, 60], ("low", "m"): [11, 20, 50],
        ("top", "n"): [11, 20], ("low", "n"): [10, 22, 18],
    }.items():  # fmt: skip
        tables[at]["response_tokens"] = lengths
    parts = [
        Part(
            {"riskier": "top", "safer": "low", "method": method},
            {},
            {
                side: files_of(tmp_path / f"{name}-{method}", tables[name, method], "scores")
                for side, name in (("riskier", "top"), ("safer", "low"))
            },
        )
        for method in ("m", "n")
    ]
    table, text = made(tmp_path, "separation", parts)
    assert table[["riskier", "safer", "method"]].values.tolist() == [
        ["top", "low", "m"], ["top", "low", "n"],
    ]  # fmt: skip
    # 3, 1, 2 against 1, 0: five of six pairs, and one tie; all of n the other way round.
    assert table["auc"].tolist() == pytest.approx([5.5 / 6, 0])
    told = ("rows", "matched", "unscored")
    counts = [f"{side}_{of}" for side in ("riskier", "safer") for of in told]
    assert table[counts].values.tolist() == [[3, 2, 2, 2, 1, 1], [2, 2, 0, 3, 2, 0]]
    first, second = table.to_dict("records")
    # 3 against 1 and 1 against 1, which leaves one row of the safer: no interval.
    assert first["matched_auc"] == pytest.approx(0.75)
    assert all(map(math.isnan, interval(first, "matched_auc", "bootstrap")[1:]))
    assert interval(second, "matched_auc", "bootstrap") == (0, 0, 0)
    assert first["auc_bootstrap_low"] < 5.5 / 6 <= first["auc_bootstrap_high"] == 1
    assert interval(second, "auc", "bootstrap") == (0, 0, 0)
    shown = rows_of(text.split("\n\n")[0])
    assert shown[0]["auc"].startswith("0.92 [") and shown[1]["auc"] == "0.00 [0.00, 0.00]"
    assert "of ties a half" in text and "without a score, and left out" in text


@pytest.mark.parametrize("measure", ["asr", "safety_score"])
def test_models_before_fine_tuning_and_on_all_rows(tmp_path, measure):
    answers = {
        "before fine-tuning": {1: [("p", False, 3.0), ("q", True, 2.0), ("r", False, 7.0)]},
        "all rows": {
            5: [("p", True, -1.0), ("q", True, 0.0), ("r", False, 2.0)],
            6: [("p", True, -3.0), ("q", False, 1.0), ("r", False, 4.0)],
        },
    }
    parts = [
        Part(
            {"experiment": "e", "method": method},
            {"reference": True},
            {
                "judgements": [
                    path
                    for seed, rows in by_seed.items()
                    for path in files_of(
                        tmp_path / method, judgements(tuned("s1", seed), rows), "judgements"
                    )
                ]
            },
        )
        for method, by_seed in answers.items()
    ]
    table, text = made(tmp_path, "all-rows", parts, measure=measure)
    assert table[["experiment", "method", "prompts", "units"]].values.tolist() == [
        ["e", "before fine-tuning", 3, 1], ["e", "all rows", 3, 2],
    ]  # fmt: skip
    before, after = table.to_dict("records")
    if measure == "asr":
        assert interval(before, "asr", "wilson") == pytest.approx((1 / 3, *wilson(1, 3)))
        assert after["asr"] == pytest.approx(3 / 6)
        # Unsafe of two answers: 2 of p, 1 of q, none of r.
        bounds = (after["asr_clustered_low"], after["asr_clustered_high"])
        assert bounds == pytest.approx(clustered(2, 1, 0))
        assert text.split("\n\n")[1].startswith("Share of prompts answered unsafely, of the model")
    else:
        assert interval(before, "safety_score") == pytest.approx(student([3, 2, 7]))
        # Of each prompt's mean.
        assert interval(after, "safety_score") == pytest.approx(student([-2, 0.5, 3]))
        assert "higher is safer" in text and "Student's t" in text
    assert "no_subset" not in text


def test_models_as_they_are_on_each_benchmark(tmp_path):
    answers = {
        "one": [("p", True, 1.0), ("q", False, 2.0), ("r", True, 6.0)],
        "other": [("p", False, 4.0), ("q", None, 5.0)],
    }
    state = State("theta-0", "m", None, 1.0, {})
    parts = [
        Part(
            {"model": model, "benchmark": "b"},
            {},
            {
                measure: files_of(
                    tmp_path / model / measure, judgements(state, found), "judgements"
                )
                for measure, found in (
                    ("asr", [(p, verdict, None) for p, verdict, _ in rows]),
                    ("safety_score", [(p, None, score) for p, _, score in rows]),
                )
            },
        )
        for model, rows in answers.items()
    ]
    table, text = made(tmp_path, "models", parts)
    assert table[["model", "benchmark", "prompts"]].values.tolist() == [
        ["one", "b", 3], ["other", "b", 2],
    ]  # fmt: skip
    first, second = table.to_dict("records")
    assert interval(first, "asr", "wilson") == pytest.approx((2 / 3, *wilson(2, 3)))
    assert interval(first, "safety_score") == pytest.approx(student([1, 2, 6]))
    assert interval(second, "asr", "wilson") == pytest.approx((0, *wilson(0, 1)))
    assert second["safety_score"] == 4.5
    assert "Responses without a verdict, left out: other b (1 of 2)." in text
    assert "the tuning benchmark" not in text


# Unsafe of 4 by window, by experiment and method; `best` is the one that others are paired with.
COMPARED = {
    ("e", "best"): {1: (4, 2, 0), 2: (4, 1, 0)},  # means 8/8, 3/8, 0: delta 1
    ("e", "worse"): {1: (2, 2, 1)},  # 2/4, 2/4, 1/4: delta 1/4, not strict
    ("e", "rising"): {1: (0, 1, 4)},
    ("f", "best"): {1: (3, 1, 2), 2: (3, 1, 2)},  # 3/4, 1/4, 2/4: delta 1/4
    ("f", "worse"): {1: (3, 2, 1)},  # delta 1/2
    ("f", "rising"): {1: (2, 2, 2)},  # no order
    ("g", "best"): {1: (3, 2, 0), 2: (3, 2, 0)},  # delta 3/4
    ("g", "worse"): {1: (2, 1, 2)},  # 2/4, 1/4, 2/4: delta 0
    ("g", "rising"): {1: (0, 0, 1)},
}
# What was read for a method, in seconds, of 10 rows of e, 20 of f and 40 of g.
ROWS_OF = {"e": 10, "f": 20, "g": 40}
SECONDS = {"best": 40.0, "worse": 0.0, "rising": 20.0}


def compared_parts(arms):
    return [
        Part(
            {"experiment": e, "method": m},
            {"seeds": sorted(COMPARED[e, m], reverse=True), "rows": ROWS_OF[e]},
        )
        for e, m in arms
    ]


def comparison(arms, sign=1):
    """The table of Attack success rates, or for sign -1 of Safety Scores that are these negated."""
    if sign == 1:
        frames = [verdicts(COMPARED[arm]) for arm in arms]
    else:
        negated = [
            {seed: [-n / 4 for n in counts] for seed, counts in COMPARED[arm].items()}
            for arm in arms
        ]
        frames = [safety_scores(values) for values in negated]
    seconds = [SECONDS[m] for _, m in arms]
    measure = "asr" if sign == 1 else "safety_score"
    return comparison_table(compared_parts(arms), frames, seconds, WINDOWS, measure, "best")


@pytest.mark.parametrize("sign", [1, -1])
def test_methods_side_by_side(sign):
    table = comparison(list(COMPARED), sign)
    assert table["method"].tolist() == ["best", "worse", "rising"]  # deltas 2/3, 1/4 and -5/12
    assert table["experiments"].tolist() == [3, 3, 3]
    best, worse, rising = table.to_dict("records")
    assert interval(best, "delta") == pytest.approx(student([1, 1 / 4, 3 / 4]))
    assert interval(worse, "delta") == pytest.approx(student([1 / 4, 1 / 2, 0]))
    assert interval(rising, "delta") == pytest.approx(student([-1, 0, -1 / 4]))
    # Strict in e and g of the first, in f of the second.
    for row, falls in ((best, 2), (worse, 1), (rising, 0)):
        expected = (falls / 3, *wilson(falls, 3))
        assert interval(row, "mono_share", "wilson") == pytest.approx(expected, abs=1e-9)
    # Ranks from the highest: 1 2 3, 1 3 2, 1 2 3, of which the second has rho 1 - 6 * 2 / 24.
    assert interval(best, "window_correlation") == pytest.approx(student([1, 0.5, 1]))
    # 1.5 1.5 3: deviations (-.5, -.5, 1) on (-1, 0, 1), 1.5 / sqrt(1.5 * 2); and 1.5 3 1.5: 0.
    root = 1.5 / math.sqrt(3)
    assert interval(worse, "window_correlation") == pytest.approx(student([root, 1, 0]))
    # f has no order and is left out: -1 of e, and 2.5 2.5 1 of g.
    assert interval(rising, "window_correlation") == pytest.approx(student([-1, -root]))
    assert table["correlated"].tolist() == [3, 3, 2]
    name = "delta_minus_best"
    assert interval(worse, name) == pytest.approx(student([-3 / 4, 1 / 4, -3 / 4]))
    assert interval(rising, name) == pytest.approx(student([-2, -1 / 4, -1]))
    # All three below: two of the 8 signs are as far from even. Else scipy's, with ties.
    assert rising["wilcoxon_p"] == pytest.approx(2 / 8)
    assert 0 < worse["wilcoxon_p"] <= 1
    assert math.isnan(best["wilcoxon_p"]) and math.isnan(best[name])
    # Seconds over rows: 4, 2 and 1 of the first, half of it of the last.
    assert table["seconds_per_row"].tolist() == pytest.approx([7 / 3, 0, 7 / 6])


def test_methods_of_one_experiment_have_no_intervals():
    table = comparison([arm for arm in COMPARED if arm[0] == "f"])
    assert table["method"].tolist() == ["worse", "best", "rising"]
    assert table["delta"].tolist() == [1 / 2, 1 / 4, 0]
    assert table["mono_share"].tolist() == [1, 0, 0]
    assert table.filter(regex="_(low|high)$").isna().all(axis=None)
    assert table["wilcoxon_p"].isna().all()
    assert table["delta_minus_best"].tolist() == pytest.approx(
        [1 / 4, math.nan, -1 / 4], nan_ok=True
    )
    assert math.isnan(table["window_correlation"][2]) and table["correlated"].tolist() == [1, 1, 0]


def test_equal_windows_are_no_order_however_their_means_are_rounded():
    # 0.5, 0.7 and 0.9 in two orders: their means differ in the last digit.
    values = {1: (5, 5, 0), 2: (9, 7, 0), 3: (7, 9, 0)}
    parts = [Part(arm("e", "best").names, {"seeds": [1, 2, 3], "rows": 1})]
    table = comparison_table(parts, [verdicts(values, 10)], [0.0], WINDOWS, "asr", "best")
    # 1.5 1.5 3 on 1 2 3, as above.
    assert table["window_correlation"].tolist() == pytest.approx([1.5 / math.sqrt(3)])


def test_a_comparison_from_files(tmp_path):
    parts = []
    for (experiment, method), unsafe in COMPARED.items():
        folder = tmp_path / experiment / method
        files = {"judgements": files_of(folder, verdicts(unsafe), "judgements", 2), "times": []}
        for i in range(2 if method == "rising" else 0):
            path = folder / f"{i}.tsv"
            path.write_text(f"s\th:m:s\tmax_rss\n{12.5 - 5 * i}\t0:00:12\t-\n")
            files["times"].append(str(path))
        (part,) = compared_parts([(experiment, method)])
        parts.append(Part(part.names, part.options, files))
    chosen = {"windows": WINDOWS, "measure": "asr", "against": "best"}
    table, text = made(tmp_path, "comparison", parts, **chosen)
    assert table["method"].tolist() == ["best", "worse", "rising"]
    # 12.5 and 7.5 seconds.
    assert table["seconds_per_row"].tolist() == pytest.approx([0, 0, 7 / 6])
    first, second, _ = rows_of(text.split("\n\n")[0])
    assert first["delta"].startswith("0.67 [") and first["mono_share"].startswith(
        "0.67 [0.21, 0.94"
    )
    assert (first["delta_minus_best"], first["wilcoxon_p"]) == ("", "")
    assert second["delta_minus_best"].startswith("-0.42 [")
    assert "is not counted." in text and "seconds_per_row: measured" in text
    parts[0].files["times"].append(str(tmp_path / "none.tsv"))
    with pytest.raises(DataError, match=r"none\.tsv: no times of a job .* its job runs again"):
        made(tmp_path, "comparison", parts, **chosen)
    parts[0].files["times"][0] = str(tmp_path / "table.csv")
    with pytest.raises(DataError, match=r"table\.csv: no times of a job \('s'\)"):
        made(tmp_path, "comparison", parts, **chosen)


def judged_by(rows):
    """Judgements of one state; rows: prompt's id, verdict, score, of a part of the table each."""
    return judgements(tuned("s1", 1), rows)


def judge_part(folder, name, measure, judge, reference):
    """A part of a table of judges, of two subjects whose states have the same names."""
    files = {
        role: [path for frame in frames for path in files_of(folder / role, frame, "judgements")]
        for role, frames in (("judgements", judge), ("reference", reference))
    }
    return Part({"experiment": "e", "judge": name}, {"measure": measure}, files)


def test_a_table_of_judges_from_files(tmp_path):
    # Prompts p0 to p2, answered by two models: what the reference says of the first, the second.
    truth = [
        judged_by([("p0", True, None), ("p1", True, None), ("p2", False, None)]),
        judged_by([("p0", True, None), ("p1", False, None), ("p2", None, None)]),
    ]
    # In another order; one false safe (p1), one false unsafe (p1 of the second), one unreadable.
    guard = [
        judged_by([("p2", False, 9.0), ("p1", False, -9.0), ("p0", True, 9.0)]),
        judged_by([("p2", True, 1.0), ("p0", None, 1.0), ("p1", True, 1.0)]),
    ]
    # The same by scores: 0 and below is unsafe, whatever verdicts there are.
    scored = [
        judged_by([("p0", None, 0.0), ("p1", None, 0.1), ("p2", None, 2.0)]),
        judged_by([("p0", None, None), ("p1", None, -3.0), ("p2", None, -1.0)]),
    ]
    parts = [
        judge_part(tmp_path / "g", "guard", "asr", guard, truth),
        judge_part(tmp_path / "c", "cost", "asr_by_score", scored, truth),
        judge_part(tmp_path / "t", "itself", "asr", truth, truth),
    ]
    table, text = made(tmp_path, "judges", parts, reference="rule")
    assert table["judge"].tolist() == ["guard", "cost", "itself"]
    for row in table.to_dict("records")[:2]:
        # p0 true, p1 true, p2 false, p0 true (unreadable), p1 false; of p2 nothing is known.
        assert [row[c] for c in ("responses", "unsafe", "unreadable")] == [5, 3, 1]
        assert [row[c] for c in ("false_safe", "false_unsafe")] == [1, 1]
        # Of p0 1 of 1, of p1 0 of 2, of p2 1 of 1. The variance with prompts as units, for a rate
        # of 1/2: ((1 - 1/2)^2 + (0 - 1)^2 + (1 - 1/2)^2) * 3 / 2 / 4^2 = 9 / 64 above 1 / 16, by
        # 9 / 4, of which the mean size of a cluster, 4 / 3, is the most.
        assert interval(row, "agreement", "clustered") == pytest.approx((0.5, *wilson(1.5, 3)))
        # Half agree, and by chance 1/2 * 1/2 + 1/2 * 1/2 do.
        assert row["kappa"] == pytest.approx(0)
    itself = table.iloc[2]
    assert (itself["unreadable"], itself["agreement"], itself["kappa"]) == (0, 1, 1)
    shown = rows_of(text.split("\n\n")[0])
    assert shown[0]["agreement"].startswith("0.50 [") and shown[2]["agreement"].startswith("1.00 [")
    assert "beside those of the judge 'rule'" in text and "{" not in text


def test_a_judge_that_cannot_be_read_has_no_agreement(tmp_path):
    truth = [judged_by([("p0", True, None), ("p1", False, None)])]
    mute = [judged_by([("p0", None, None), ("p1", None, None)])]
    table, text = made(
        tmp_path, "judges", [judge_part(tmp_path / "m", "mute", "asr", mute, truth)], reference="r"
    )
    (row,) = table.to_dict("records")
    assert (row["responses"], row["unreadable"], row["false_safe"]) == (2, 2, 0)
    assert math.isnan(row["agreement"]) and math.isnan(row["kappa"])
    assert "agreement" not in rows_of(text)[0]


def test_judgements_of_other_responses_are_no_reference(tmp_path):
    truth = [judged_by([("p0", True, None)])] * 2
    part = judge_part(tmp_path, "guard", "asr", truth, truth[:1])
    with pytest.raises(ValueError, match="zip"):
        made(tmp_path, "judges", [part], reference="r")


def test_the_name_of_an_axis_is_no_longer_than_the_axis():
    unit = "log-odds of a refusal against a compliant opening"
    lines = figures.safety_score_in(unit).splitlines()
    assert " ".join(lines) == f"Safety Score ({unit})" and max(map(len, lines)) <= 34


def test_every_kind_of_table_has_a_caption_of_its_own():
    """In `snakemake --report`, which gives a caption the job."""
    text = (ROOT / "report/table.rst").read_text()
    template = Environment(undefined=StrictUndefined).from_string(text)
    found = {
        kind: template.render(snakemake=SimpleNamespace(params=SimpleNamespace(kind=kind)))
        for kind in KINDS
    }
    assert len(set(found.values())) == len(KINDS)
    assert set(re.findall(r'^  "(.*?)": ', text, re.MULTILINE)) == set(KINDS)
