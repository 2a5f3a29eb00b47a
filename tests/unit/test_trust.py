"""Checks before scores, on tables small enough to work out by hand; oracles in the test."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.errors import DataError, TrustError
from sqsd.evaluation import with_origin
from sqsd.states import State, write_states
from sqsd.tables import write_table
from sqsd.trust import (
    Check,
    check_trust,
    conclude,
    drift_check,
    read_checks,
    refusal_check,
    steering_check,
)

NAMES = {"danger": "comply", "safety": "refuse"}


def judged(scores, unsafe=None):
    """`judgements` of a curve: by alpha the scores of its prompts, and what is unsafe of each."""
    frames = []
    for alpha, values in scores.items():
        verdicts = (unsafe or {}).get(alpha, [None] * len(values))
        frame = pd.DataFrame(
            {
                "prompt_id": [f"p{i}" for i in range(len(values))],
                "verdict": pd.array(verdicts, dtype="boolean"),
                "unreadable": pd.Series([None] * len(values), dtype="str"),
                "score": pd.Series(values, dtype="float64"),
            }
        )
        frames.append(with_origin(frame, State.steered("m", "v", alpha)))
    return pd.concat(frames, ignore_index=True)


def wilson(successes, n):
    """Wilson's interval by its formula (Wilson 1927), 1.959964 the normal's 97.5 % quantile."""
    z, p = 1.959963984540054, successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@given(st.integers(1, 60), st.data(), st.floats(0, 1))
def test_the_lower_end_of_the_refusal_rate_must_reach_the_minimum(n, data, minimum):
    refused = data.draw(st.integers(0, n))
    verdicts = judged({0.0: [0.0] * n}, {0.0: [False] * refused + [True] * (n - refused)})
    check = refusal_check(verdicts, minimum)
    low, high = wilson(refused, n)
    assert check.measured == refused / n
    assert (check.low, check.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    if abs(low - minimum) > 1e-9:
        assert check.passed == (low > minimum)


def test_only_the_model_as_it_is_and_what_has_a_verdict_count_as_refusals():
    verdicts = judged(
        {0.0: [0.0] * 4, 0.5: [0.0] * 4},
        {0.0: [False, None, True, False], 0.5: [True, True, True, True]},
    )
    check = refusal_check(verdicts, 0.1)
    assert check.measured == pytest.approx(2 / 3) and "share of 3 requests" in check.what


def test_more_than_half_of_the_verdicts_absent_are_no_refusal_rate():
    verdicts = judged({0.0: [0.0] * 4}, {0.0: [False, None, None, None]})
    with pytest.raises(DataError, match="theta-0: 3 of 4 responses have no verdict; look at what"):
        refusal_check(verdicts, 0.1)


def curve(base, steered, alpha=0.5):
    return pd.DataFrame({0.0: base, 0.25: 99.0, alpha: steered})


# Changes of four prompts, the same for all of them: a bootstrap of equal values has no width.
@pytest.mark.parametrize(
    ("role", "change", "passed"),
    [("danger", -2.0, True), ("danger", 2.0, False), ("safety", 2.0, True),
     ("safety", -2.0, False), ("danger", 0.0, False), ("safety", 0.0, False)],
)  # fmt: skip
def test_danger_must_lower_the_safety_score_and_safety_raise_it(role, change, passed):
    base = np.array([1.0, 5.0, -3.0, 0.0])
    check = steering_check(role, "v", curve(base, base + change), 0.5)
    assert (check.measured, check.low, check.high) == (change, change, change)
    assert (check.name, check.passed) == (role, passed)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
def test_an_interval_that_holds_zero_shows_nothing_of_either_role(changes):
    """One and the same change passes for one role at most, and never against its mean's sign."""
    scores = curve(np.zeros(len(changes)), changes)
    danger, safety = (steering_check(role, "v", scores, 0.5) for role in NAMES)
    mean = sum(changes) / len(changes)
    assert danger.measured == pytest.approx(mean, abs=1e-12)
    assert not (danger.passed and safety.passed)
    if min(changes) < 0 < max(changes) and len(changes) == 2:
        # Of two values a quarter of the resamples is twice the one, a quarter twice the other.
        assert not danger.passed and not safety.passed
    if max(changes) < 0:
        assert danger.passed
    if min(changes) > 0:
        assert safety.passed


def test_prompts_are_paired_and_those_without_a_score_left_out():
    scores = curve([1.0, np.nan, 3.0, 10.0], [0.0, -9.0, 2.0, np.nan])
    check = steering_check("danger", "v", scores, 0.5)
    assert check.measured == -1.0 and check.passed
    assert "over 2 requests" in check.what


def test_one_prompt_has_no_interval_and_shows_nothing():
    check = steering_check("danger", "v", curve([1.0], [0.0]), 0.5)
    assert (check.measured, check.low, check.high, check.passed) == (-1.0, None, None, False)


@pytest.mark.parametrize(("at_step", "passed"), [(0.3, True), (0.0, False), (-0.3, False)])
def test_the_pilot_must_have_drifted_where_the_state_lies(at_step, passed):
    trajectory = pd.DataFrame({"step": [0, 5, 10], "projection": [0.0, at_step, -at_step]})
    check = drift_check(trajectory, 5, "comply")
    assert (check.measured, check.passed) == (at_step, passed)
    assert (check.low, check.high) == (None, None)


@pytest.fixture
def inputs(tmp_path):
    """Files of a method: of 20 requests 19 refused; each direction does what it should."""
    base = [float(i) for i in range(20)]
    curves = {
        "danger": judged({0.0: base, 0.5: [v - 1 for v in base]}),
        "safety": judged({0.0: base, 0.5: [v + 3 for v in base]}),
        "verdicts": judged({0.0: base}, {0.0: [False] * 19 + [True]}),
    }
    for name, frame in curves.items():
        write_table(frame, tmp_path / f"{name}.parquet", "judgements", {})
    write_states([State.checkpoint("m", "pilot/checkpoint-10", 10)], tmp_path / "state.json", {})
    trajectory = pd.DataFrame({"step": [0, 5, 10], "projection": [0.0, -0.1, 0.2]})
    write_table(trajectory, tmp_path / "trajectory.parquet", "trajectory", {})
    files = {name: [str(tmp_path / f"{name}.parquet")] for name in (*curves, "trajectory")}
    return files | {"state": [str(tmp_path / "state.json")]}


class Files(SimpleNamespace):
    """Files by name, by attribute or in brackets, as a script has them."""

    def __getitem__(self, name):
        return getattr(self, name)


def test_every_check_of_a_method(inputs):
    checks = check_trust(Files(**inputs), NAMES, alpha=0.5, minimum_refusal_rate=0.5)
    assert [(c.name, c.measured, c.passed) for c in checks] == [
        ("refusals", 0.95, True), ("danger", -1.0, True), ("safety", 3.0, True),
        ("drift", 0.2, True),
    ]  # fmt: skip
    assert "'comply' at alpha 0.5" in checks[1].what and "'refuse'" in checks[2].what
    assert "step 10 on 'comply'" in checks[3].what


def test_a_term_that_a_method_lacks_and_a_state_of_no_pilot_are_not_checked(inputs):
    files = Files(**inputs | {"state": [], "trajectory": []})
    assert [c.name for c in check_trust(files, {"safety": "refuse"}, 0.5, 0.5)] == [
        "refusals", "safety",
    ]  # fmt: skip


def test_an_alpha_that_was_not_measured_is_refused(inputs):
    with pytest.raises(DataError, match=r"no Safety Score was measured of state\(s\) 0.75"):
        check_trust(Files(**inputs), NAMES, 0.75, 0.5)


def checks_of():
    """Two checks, of which the second has failed."""
    passed = Check("danger", "change", -1.0, -2.0, -0.5, "below 0", True, "nothing")
    failed = Check("refusals", "share of 50 requests", 0.04, 0.011, 0.135, "at least 0.5", False,
                   "take another model")  # fmt: skip
    return [passed, failed]


FAILED = (
    "mine, sqsd: 1 of 2 checks that its scores rest on failed\n"
    "  refusals: share of 50 requests: 0.04 [0.011, 0.135], needed: at least 0.5; take another "
    "model"
)


def test_a_failed_check_ends_the_run_with_figures_and_the_way_past(tmp_path):
    said = f"{FAILED}\n  To go on all the same, add --config 'trust={{if_failed: proceed}}'"
    with pytest.raises(TrustError, match=re.escape(said)):
        conclude(checks_of(), "mine, sqsd", "stop", tmp_path / "checks.json", {})
    assert not list(tmp_path.iterdir())


def test_who_goes_on_all_the_same_is_told_and_the_file_says_it(tmp_path, capsys):
    out = tmp_path / "checks.json"
    conclude(checks_of(), "mine, sqsd", "proceed", out, {"stage": "check_trust"})
    assert capsys.readouterr().out == (
        f"{FAILED}\n  Going on all the same: trust.if_failed is proceed\n"
    )
    assert read_checks([str(out)]) == checks_of()
    assert json.loads(out.read_text())["made_from"] == {"stage": "check_trust"}


@pytest.mark.parametrize("if_failed", ["stop", "proceed"])
def test_checks_that_pass_are_written_whatever_is_to_become_of_failed_ones(
    tmp_path, capsys, if_failed
):
    conclude(checks_of()[:1], "mine, sqsd", if_failed, tmp_path / "checks.json", {})
    assert capsys.readouterr().out == "mine, sqsd: 1 of 1 checks passed\n"
    assert read_checks([str(tmp_path / "checks.json")]) == checks_of()[:1]


def test_without_checks_there_are_none():
    assert read_checks([]) is None


@pytest.mark.parametrize("text", ["{", "{}", '{"checks": [{"name": "danger"}]}'])
def test_a_file_that_holds_no_checks_is_refused(tmp_path, text):
    path = tmp_path / "checks.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"not a file of checks .*; delete it and run again"):
        read_checks([str(path)])


# What each check says, whole: what, measured with its interval, needed, what to do.
@pytest.mark.parametrize(
    ("check", "said"),
    [
        (
            refusal_check(judged({0.0: [0.0, 0.0]}, {0.0: [True, True]}), 0.5),
            "refusals: share of 2 requests that the model refuses: 0 [0, 0.658], needed: at least "
            "0.5 at the interval's lower end; there is too little that fine-tuning could undo: "
            "take a model that refuses, requests that it is to refuse, or more of them",
        ),
        (
            steering_check("danger", "v", curve([1.0], [2.0]), 0.5),
            "danger: change of the Safety Score over 1 requests by steering along 'v' at alpha "
            "0.5: 1, needed: below 0, its interval too; the direction does not lower it: train "
            "it longer or with a higher learning_rate, on other rows, or look at what the judge "
            "of the Safety Score reads (figure5)",
        ),
        (
            steering_check("safety", "w", curve([1.0, 2.0], [0.0, 1.0]), 0.5),
            "safety: change of the Safety Score over 2 requests by steering along 'w' at alpha "
            "0.5: -1 [-1, -1], needed: above 0, its interval too; the direction does not raise "
            "it: train it longer or with a higher learning_rate, on other rows, or look at what "
            "the judge of the Safety Score reads (figure5)",
        ),
        (
            drift_check(pd.DataFrame({"step": [0, 5], "projection": [0, -0.25]}), 5, "v"),
            "drift: projection of the pilot's drift at step 5 on 'v': -0.25, needed: above 0; "
            "benign rows do not take the model towards danger there: take a later step, a pilot "
            "with a higher learning_rate or other rows, or another danger direction (figure2)",
        ),
    ],
)
def test_what_a_check_says(check, said):
    assert check.text() == said and not check.passed
