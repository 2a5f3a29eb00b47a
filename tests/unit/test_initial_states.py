"""Rankings and choices on tables small enough to work out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import ConfigurationError, DataError, SqsdError, UselessModelError
from sqsd.evaluation import with_origin
from sqsd.initial_states import (
    Measured,
    check_guard,
    choose,
    exact_share,
    find_state,
    rank_alphas,
    rank_checkpoints,
    rank_useful,
    read_guard,
)
from sqsd.states import State, read_state, write_states
from sqsd.tables import read_table, write_table


def measured(scores, exact=None):
    """Scores of three prompts, whose means are given by state, in an order of their own."""
    means = {float(key): scores[key] for key in reversed(scores)}
    frame = pd.DataFrame({key: [m - 1.5, m + 0.5, m + 1.0] for key, m in means.items()})
    return Measured(frame, exact)


def trajectory(projections):
    rows = list(projections.items())
    return pd.DataFrame(rows, columns=pd.Index(["step", "projection"]))


def rank_drift(scores, projections, floor=0.0, exact=None, minimum=0.5, **how):
    return rank_checkpoints(trajectory(projections), measured(scores, exact), floor, minimum, **how)


SCORES = {0: 4.0, 150: 3.0, 300: 1.0, 450: 1.5, 600: 0.5}
PROJECTIONS = {0: 0.0, 150: 1.0, 300: 1.5, 450: 2.0, 600: 4.0}
# DS_drift(t) = (score(t') - score(t)) / (projection(t') - projection(t)), t' the next step:
# 0: -1 / 1 = -1; 150: -2 / 0.5 = -4; 300: 0.5 / 0.5 = 1; 450: -1 / 2 = -0.5; 600 has no next.


def test_checkpoints_by_drift_sensitivity(tmp_path):
    ranked = rank_drift(SCORES, PROJECTIONS)
    assert ranked["step"].tolist() == [150, 450, 300]  # step 0 has no adapter
    assert ranked["next_step"].tolist() == [300, 600, 450]
    assert ranked["sensitivity"].tolist() == pytest.approx([-4, -0.5, 1])
    assert ranked["safety_score"].tolist() == pytest.approx([3, 1.5, 1])
    assert ranked["projection"].tolist() == [1, 2, 1.5]
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["exact_share"].isna().all() and not ranked["denominator_floored"].any()
    write_table(ranked, tmp_path / "ranking.parquet", "drift_ranking", {})


def test_a_floor_holds_small_changes_of_the_projection():
    # The largest change is 2, so the floor is 0.4 * 2 = 0.8 and the two changes of 0.5 are raised:
    # 150: -2 / 0.8 = -2.5; 300: 0.5 / 0.8 = 0.625; 450: -1 / 2 = -0.5 as before.
    ranked = rank_drift(SCORES, PROJECTIONS, floor=0.4, rank_floored=True).set_index("step")
    assert ranked["sensitivity"].to_dict() == pytest.approx({150: -2.5, 450: -0.5, 300: 0.625})
    assert ranked["denominator_floored"].to_dict() == {150: True, 450: False, 300: True}
    assert ranked["rank"].to_dict() == {150: 1, 450: 2, 300: 3}


def test_a_floored_checkpoint_is_no_candidate_and_keeps_its_row():
    ranked = rank_drift(SCORES, PROJECTIONS, floor=0.4)
    assert ranked["step"].tolist() == [450, 150, 300]
    assert ranked["rank"].tolist()[:1] == [1] and ranked["rank"].isna().tolist() == [0, 1, 1]
    assert ranked["sensitivity"].tolist() == pytest.approx([-0.5, -2.5, 0.625])


def test_states_may_be_ranked_by_what_is_certain_of_them():
    # Of 150 to 300 the three prompts change by -12, 0 and 6 over a drift of .5; of 450 to 600 all
    # by -1 over 2. Their means are -2 and -1, over the drift -4 and -.5.
    frame = pd.DataFrame(
        {
            0.0: [4.0] * 3,
            150.0: [3.0] * 3,
            300.0: [-9.0, 3.0, 9.0],
            450.0: [1.5] * 3,
            600.0: [0.5] * 3,
        }
    )
    certain = Measured(frame, None)
    by_value = rank_checkpoints(trajectory(PROJECTIONS), certain, 0.0, 0.5)
    by_bound = rank_checkpoints(trajectory(PROJECTIONS), certain, 0.0, 0.5, rank_by="bound")
    assert by_value["step"].tolist()[0] == 150 and by_bound["step"].tolist()[0] == 450
    # And along a direction: 0.1 rises by 0.5 for every prompt, 0.2 by 3 on average, 0 for one.
    rises = pd.DataFrame({0.0: [0.0] * 3, 0.1: [0.0] * 3, 0.2: [0.5] * 3, 0.3: [-1.0, 4.0, 6.0]})
    by_value = rank_alphas(Measured(rises, None), 0.1, 0.5)
    by_bound = rank_alphas(Measured(rises, None), 0.1, 0.5, "bound")
    assert by_value["alpha"].tolist() == [0.2, 0.1] and by_bound["alpha"].tolist() == [0.1, 0.2]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=3, max_size=9), st.randoms()
)
def test_checkpoints_are_ranked_as_naive_differences_in_any_order_of_rows(points, random):
    steps = [10 * i for i in range(len(points))]
    scores = [float(score) for score, _ in points]
    moved = np.cumsum([change for _, change in points]).tolist()
    expected = []
    for i in range(1, len(points) - 1):
        sensitivity = (scores[i + 1] - scores[i]) / (moved[i + 1] - moved[i])
        expected.append((round(sensitivity, 9), steps[i]))
    table = trajectory(dict(zip(steps, moved, strict=True)))
    pairs = list(zip(steps, scores, strict=True))
    random.shuffle(pairs)
    order = list(range(len(table)))
    random.shuffle(order)
    ranked = rank_checkpoints(table.iloc[order], measured(dict(pairs)), 0.0, 0.5)
    found = list(zip(ranked["sensitivity"].round(9), ranked["step"], strict=True))
    # Rounding in a mean may part equal sensitivities, so ties may come in either order.
    assert sorted(found) == sorted(expected)
    assert [s for s, _ in found] == sorted(s for s, _ in expected)
    assert ranked["rank"].tolist() == list(range(1, len(expected) + 1))


ALPHA_SCORES = {0.0: 1.0, 0.1: 2.0, 0.2: 4.0, 0.3: 5.5, 0.4: 5.0}
# DS_linear(a) = (score(a + 0.1) - score(a - 0.1)) / 0.2:
# 0.1: 3 / 0.2 = 15; 0.2: 3.5 / 0.2 = 17.5; 0.3: 1 / 0.2 = 5; the ends lack a neighbour.


def test_alphas_by_linear_sensitivity(tmp_path):
    ranked = rank_alphas(measured(ALPHA_SCORES), 0.1, 0.5)
    assert ranked["alpha"].tolist() == [0.2, 0.1, 0.3]
    assert ranked["sensitivity"].tolist() == pytest.approx([17.5, 15, 5])
    assert ranked["safety_score"].tolist() == pytest.approx([4, 2, 5.5])
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["exact_share"].isna().all()
    write_table(ranked, tmp_path / "ranking.parquet", "linear_ranking", {})


def test_alphas_with_a_wider_difference():
    # delta 0.2: only 0.2 has both neighbours, (5 - 1) / 0.4 = 10.
    ranked = rank_alphas(measured(ALPHA_SCORES), 0.2, 0.5)
    assert (ranked["alpha"].tolist(), ranked["sensitivity"].tolist()) == (
        [0.2],
        pytest.approx([10]),
    )


def test_the_guard_keeps_useless_checkpoints_as_rows_without_a_rank(tmp_path):
    exact = pd.Series({0.0: 1.0, 150.0: 0.49, 300.0: 0.5, 450.0: 0.9, 600.0: 0.0})
    ranked = rank_drift(SCORES, PROJECTIONS, exact=exact)
    # 150 would be first, and is refused; a share of just the minimum passes.
    assert ranked["step"].tolist() == [450, 300, 150]
    assert ranked["rank"].tolist()[:2] == [1, 2] and ranked["rank"].isna().tolist()[2]
    assert ranked["exact_share"].tolist() == [0.9, 0.5, 0.49]
    assert ranked["sensitivity"].tolist() == pytest.approx([-0.5, 1, -4])
    write_table(ranked, tmp_path / "ranking.parquet", "drift_ranking", {})


def test_the_guard_keeps_useless_alphas_as_rows_without_a_rank(tmp_path):
    exact = pd.Series({0.4: 0.1, 0.3: 0.2, 0.2: 0.3, 0.1: 0.8, 0.0: 1.0})
    ranked = rank_alphas(measured(ALPHA_SCORES, exact), 0.1, 0.3)
    assert ranked["alpha"].tolist() == [0.2, 0.1, 0.3]
    assert ranked["rank"].tolist()[:2] == [1, 2] and ranked["rank"].isna().tolist()[2]
    assert ranked["exact_share"].tolist() == [0.3, 0.8, 0.2]
    write_table(ranked, tmp_path / "ranking.parquet", "linear_ranking", {})


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 10)), min_size=1, max_size=10))
def test_the_guard_only_takes_states_out_of_the_order(values):
    table = pd.DataFrame({"step": range(len(values)), "sensitivity": [float(s) for s, _ in values]})
    any_state = pd.Series(True, index=table.index)
    exact = pd.Series({float(i): share / 10 for i, (_, share) in enumerate(values)})
    passing = [i for i, (_, share) in enumerate(values) if share >= 5]
    if not passing:
        with pytest.raises(UselessModelError):
            rank_useful(table, "step", "negative", exact, 0.5, any_state)
        return
    ranked = rank_useful(table, "step", "negative", exact, 0.5, any_state)
    assert sorted(ranked["step"]) == list(range(len(values)))
    with_rank = ranked.dropna(subset=["rank"])
    # Most negative first, the smaller step on ties.
    assert with_rank["step"].tolist() == sorted(passing, key=lambda i: (values[i][0], i))
    assert with_rank["rank"].tolist() == list(range(1, len(passing) + 1))
    assert ranked["rank"].isna().tolist() == sorted(ranked["rank"].isna())  # those last


def test_a_guard_that_no_checkpoint_passes_is_an_error():
    exact = pd.Series({0.0: 1.0, 150.0: 0.2, 300.0: 0.1, 450.0: 0.0, 600.0: 0.9})
    # Step 0 and the last step are no candidates, so their shares do not help.
    message = (
        r"every step answers fewer than 0\.50 of the benign prompts of the guard exactly: "
        r"150 \(0\.20\), 300 \(0\.10\), 450 \(0\.00\); choose smaller alphas, an earlier "
        "checkpoint or a lower learning rate"
    )
    with pytest.raises(UselessModelError, match=message):
        rank_drift(SCORES, PROJECTIONS, exact=exact)


def test_a_guard_that_no_alpha_passes_is_an_error():
    exact = pd.Series(0.25, index=list(ALPHA_SCORES))
    message = (
        r"every alpha answers fewer than 0\.75 .* exactly: 0\.1 \(0\.25\), 0\.2 \(0\.25\), "
        r"0\.3 \(0\.25\); choose smaller alphas"
    )
    with pytest.raises(UselessModelError, match=message):
        rank_alphas(measured(ALPHA_SCORES, exact), 0.1, 0.75)


def test_an_alpha_is_ranked_among_its_candidates():
    # 0.2 would be first; 0.30000000000000004 is the 0.3 that was measured.
    ranked = rank_alphas(measured(ALPHA_SCORES), 0.1, 0.5, wanted=[0.1 + 0.2, 0.1, 0.4])
    assert ranked["alpha"].tolist() == [0.1, 0.3]
    assert ranked["rank"].tolist() == [1, 2]


def test_the_guard_of_candidates_asks_no_other_alpha():
    exact = pd.Series({0.1: 0.2, 0.2: 1.0, 0.3: 0.9})
    alone = rank_alphas(measured(ALPHA_SCORES, exact), 0.1, 0.5, wanted=[0.3])
    assert alone["alpha"].tolist() == [0.3] and alone["exact_share"].tolist() == [0.9]
    message = r"every alpha answers .* exactly: 0\.1 \(0\.20\); choose smaller alphas"
    with pytest.raises(UselessModelError, match=message):
        rank_alphas(measured(ALPHA_SCORES, exact), 0.1, 0.5, wanted=[0.1])


def test_a_choice_by_rank_or_the_least():
    ranked = rank_drift(SCORES, PROJECTIONS)
    assert [choose(ranked, {"rank": rank})["step"] for rank in (1, 2, 3)] == [150, 450, 300]
    assert choose(ranked, {"least": True})["step"] == 450  # |-0.5| is below |1| and |-4|
    exact = pd.Series({150.0: 1.0, 300.0: 1.0, 450.0: 0.0})
    guarded = rank_drift(SCORES, PROJECTIONS, exact=exact)
    assert choose(guarded, {"rank": 2})["step"] == 300
    assert choose(guarded, {"least": True})["step"] == 300  # what the guard refused is no choice
    with pytest.raises(ConfigurationError, match="rank 3 of the sensitive states: allowed: 1 to 2"):
        choose(guarded, {"rank": 3})


def test_no_choice_where_nothing_has_a_sensitivity():
    ranked = rank_drift(SCORES, dict.fromkeys(PROJECTIONS, 1.0))
    with pytest.raises(
        DataError,
        match="no state could be ranked: none has a finite sensitivity that the guard and",
    ):
        choose(ranked, {"least": True})
    with pytest.raises(ConfigurationError, match=r"rank 1 .*: no state could be ranked"):
        choose(ranked, {"rank": 1})


@pytest.mark.parametrize("exact", [0.5, 0.75])
def test_a_pinned_state_that_answers_enough_passes(exact):
    check_guard("d (step 3)", exact, 0.5)


# --- from files to a state ------------------------------------------------------------------


def states_at(key, values):
    return {value: State(f"at-{value}", "m", None, 1.0, {key: value}) for value in values}


def judgement_files(folder, key, scores, parts=2):
    """Judgements of three prompts, whose mean is a state's score, in several files."""
    states, paths = states_at(key, scores), []
    for part in range(parts):
        frames = [
            with_origin(
                pd.DataFrame(
                    {
                        "prompt_id": pd.Series(["p0", "p1", "p2"], dtype="str"),
                        "verdict": pd.array([None] * 3, dtype="boolean"),
                        "unreadable": pd.Series([None] * 3, dtype="str"),
                        "score": [score - 1.5, score + 0.5, score + 1.0],
                    }
                ),
                states[value],
            )
            for value, score in list(scores.items())[part::parts]
        ]
        paths.append(str(folder / f"judgements-{part}.parquet"))
        write_table(pd.concat(frames, ignore_index=True), paths[-1], "judgements", {})
    return paths


def guard_files(folder, key, shares):
    """Responses of ten prompts of which `shares` of 1 are exact, and the prompts."""
    ids = pd.Series([f"p{i}" for i in range(10)], dtype="str")
    prompts = pd.DataFrame({"prompt_id": ids, "prompt": "x"})
    prompts = prompts.assign(category=None, reference=[f"answer {i}" for i in range(10)])
    frames = []
    for value, state in states_at(key, shares).items():
        texts = [f"answer {i}" if i < round(10 * shares[value]) else "no" for i in range(10)]
        frame = pd.DataFrame({"prompt_id": ids, "prompt": "x", "response": texts})
        frames.append(with_origin(frame.assign(response_tokens=1), state))
    paths = [str(folder / "guard.parquet"), str(folder / "reference.parquet")]
    write_table(pd.concat(frames, ignore_index=True), paths[0], "responses", {})
    write_table(prompts, paths[1], "benchmark", {})
    return {"guard": paths[:1], "reference": paths[1:]}


BOUNDS = ("sensitivity_bootstrap_low", "sensitivity_bootstrap_high")
NO_GUARD = {"guard": [], "reference": []}
PILOT = {"pilot": "pilot", "direction": "danger"}
DIRECTION = {"direction": "safety", "checkpoint": "final"}


@pytest.fixture
def pilot(tmp_path):
    """Inputs of the search for a checkpoint, and the run's folder."""
    run = tmp_path / "run"
    for step in (150, 300, 450, 600):
        (run / f"checkpoint-{step}").mkdir(parents=True)
    path = str(tmp_path / "trajectory.parquet")
    write_table(trajectory(PROJECTIONS), path, "trajectory", {})
    judgements = judgement_files(tmp_path, "step", SCORES)
    return {"run": [str(run)], "trajectory": [path], "judgements": judgements} | NO_GUARD


@pytest.fixture
def steering(tmp_path):
    """Inputs of the search for a steering magnitude."""
    run = tmp_path / "run"
    (run / "checkpoint-7000").mkdir(parents=True)
    return {
        "run": [str(run)],
        "judgements": judgement_files(tmp_path, "alpha", ALPHA_SCORES, 3),
    } | (NO_GUARD)


def found(entry, inputs, **sensitivity):
    return find_state("the-state", "theta", entry, SimpleNamespace(**inputs), sensitivity)


def chosen_by(state):
    return [state.origin[name] for name in ("rank", "sensitivity", "exact_share")]


def test_a_checkpoint_by_rank(tmp_path, pilot):
    state = found(PILOT | {"rank": 2}, pilot, floor_fraction=0.0)
    # Every prompt changes alike, so there is no doubt.
    origin = {
        "step": 450, "rank": 2.0, "exact_share": None,
        **{name: pytest.approx(-0.5) for name in ("sensitivity", *BOUNDS)},
    }  # fmt: skip
    folder = str(tmp_path / "run/checkpoint-450")
    assert state == State("the-state", "theta", folder, 1.0, origin)
    write_states([state], tmp_path / "state.json", {})
    assert read_state(tmp_path / "state.json") == state


def test_the_floor_is_applied_to_a_search(pilot):
    # As above: with a floor of 0.4 the sensitivity of 150 is -2.5 in place of -4.
    state = found(PILOT | {"rank": 1}, pilot, floor_fraction=0.4)
    assert state.origin["step"] == 450  # the only one that the floor lets through
    state = found(PILOT | {"rank": 1}, pilot, floor_fraction=0.4, rank_floored=True)
    assert (state.origin["step"], state.origin["sensitivity"]) == (150, pytest.approx(-2.5))


def test_the_least_sensitive_checkpoint(pilot):
    state = found(PILOT | {"least": True}, pilot, floor_fraction=0.0)
    assert state.origin["step"] == 450
    assert chosen_by(state) == [2, pytest.approx(-0.5), None]


def test_a_guard_refuses_checkpoints_of_a_search(tmp_path, pilot):
    guard = guard_files(tmp_path, "step", {0: 1.0, 150: 0.4, 300: 0.5, 450: 0.3, 600: 0.0})
    entry = PILOT | {"rank": 1}
    state = found(entry, pilot | guard, floor_fraction=0.0, minimum_exact_share=0.5)
    assert state.origin["step"] == 300
    assert chosen_by(state) == [1, pytest.approx(1), pytest.approx(0.5)]
    state = found(entry, pilot | guard, floor_fraction=0.0, minimum_exact_share=0.4)
    assert state.origin["step"] == 150
    with pytest.raises(ConfigurationError, match=r"rank 2 .*: allowed: 1 to 1"):
        found(PILOT | {"rank": 2}, pilot | guard, floor_fraction=0.0, minimum_exact_share=0.5)
    message = r"every step answers fewer than 0\.60 .*: 150 \(0\.40\), 300 \(0\.50\), 450 \(0\.30\)"
    with pytest.raises(UselessModelError, match=message):
        found(entry, pilot | guard, floor_fraction=0.0, minimum_exact_share=0.6)


@pytest.mark.parametrize(
    ("choice", "alpha", "sensitivity"),
    [
        ({"rank": 1, "alphas": [0.1, 0.2, 0.3]}, 0.2, 17.5),
        ({"rank": 3, "alphas": [0.1, 0.2, 0.3]}, 0.3, 5),
        ({"rank": 1, "alphas": [0.3, 0.1]}, 0.1, 15),
        ({"least": True, "alphas": [0.1, 0.2]}, 0.1, 15),
    ],
)
def test_an_alpha_by_its_place_among_candidates(tmp_path, steering, choice, alpha, sensitivity):
    state = found(DIRECTION | choice, steering, delta=0.1)
    folder = str(tmp_path / "run")
    assert (state.name, state.model, state.adapter) == ("the-state", "theta", folder)
    assert (state.multiplier, state.origin["alpha"]) == (alpha, alpha)
    assert chosen_by(state) == [choice.get("rank", 2), pytest.approx(sensitivity), None]
    assert "step" not in state.origin
    kept = found(DIRECTION | {"checkpoint": 7000} | choice, steering, delta=0.1)
    assert kept.adapter == str(tmp_path / "run/checkpoint-7000")


def test_a_guard_refuses_alphas_of_a_search(tmp_path, steering):
    guard = guard_files(tmp_path, "alpha", {0.0: 1.0, 0.1: 0.9, 0.2: 0.1, 0.3: 0.9, 0.4: 0.0})
    entry = DIRECTION | {"rank": 1, "alphas": [0.1, 0.2, 0.3]}
    state = found(entry, steering | guard, delta=0.1, minimum_exact_share=0.5)
    assert state.origin["alpha"] == 0.1
    assert chosen_by(state) == [1, pytest.approx(15), pytest.approx(0.9)]


def test_a_difference_of_another_width(steering):
    state = found(DIRECTION | {"rank": 1, "alphas": [0.2]}, steering, delta=0.2)
    assert chosen_by(state) == [1, pytest.approx(10), None]
    with pytest.raises(SqsdError, match=r"no alpha has both alpha - 0\.3 and alpha \+ 0\.3 measur"):
        found(DIRECTION | {"rank": 1, "alphas": [0.2]}, steering, delta=0.3)


def test_a_pinned_state_reads_nothing_but_its_run(tmp_path, pilot, steering):
    # As `plan.Plan.state_sources` has it: no judgements, no trajectory.
    state = found(PILOT | {"step": 300}, {"run": pilot["run"]} | NO_GUARD)
    unknown = dict.fromkeys(("rank", "sensitivity", *BOUNDS, "exact_share"))
    folder = str(tmp_path / "run/checkpoint-300")
    assert state == State("the-state", "theta", folder, 1.0, {"step": 300, **unknown})
    inputs = {"run": steering["run"]} | NO_GUARD
    state = found(DIRECTION | {"checkpoint": 7000, "alpha": 0.5}, inputs)
    folder = str(tmp_path / "run/checkpoint-7000")
    assert state == State("the-state", "theta", folder, 0.5, {"alpha": 0.5, **unknown})


def test_theta_0_reads_nothing_and_was_chosen_by_nothing(tmp_path):
    state = found({"unadapted": True}, {"run": []} | NO_GUARD)
    unknown = dict.fromkeys(("rank", "sensitivity", *BOUNDS, "exact_share"))
    assert state == State("the-state", "theta", None, 1.0, unknown)  # pyright: ignore
    write_states([state], tmp_path / "state.json", {})
    assert read_state(tmp_path / "state.json") == state


@pytest.mark.parametrize(("key", "value"), [("step", 300), ("alpha", 0.3)])
def test_a_pinned_state_answers_to_the_guard(tmp_path, pilot, steering, key, value):
    entry, run = (PILOT, pilot["run"]) if key == "step" else (DIRECTION, steering["run"])
    inputs = {"run": run} | guard_files(tmp_path, key, {value: 0.4})
    state = found(entry | {key: value}, inputs, minimum_exact_share=0.4)
    assert state.origin[key] == value and chosen_by(state) == [None, None, pytest.approx(0.4)]
    message = (
        rf"the pinned state the-state \({key} {value}\) answers 0\.40 of the guard's benign "
        r"prompts exactly, fewer than 0\.50; pin another"
    )
    with pytest.raises(UselessModelError, match=message):
        found(entry | {key: value}, inputs, minimum_exact_share=0.5)


@pytest.mark.parametrize("step", [299, 301])
def test_a_pinned_step_is_found_exactly(tmp_path, pilot, step):
    message = rf"{tmp_path}/run: checkpoint {step} was not saved; known: 150, 300, 450, 600$"
    with pytest.raises(ConfigurationError, match=message):
        found(PILOT | {"step": step}, {"run": pilot["run"]} | NO_GUARD)


def test_a_searched_step_that_was_not_saved_is_refused(tmp_path, pilot):
    (tmp_path / "run/checkpoint-150").rmdir()
    message = "checkpoint 150 was not saved; known: 300, 450, 600$"
    with pytest.raises(ConfigurationError, match=message):
        found(PILOT | {"rank": 1}, pilot, floor_fraction=0.0)


def test_a_pinned_direction_needs_its_checkpoint(steering):
    inputs = {"run": steering["run"]} | NO_GUARD
    with pytest.raises(ConfigurationError, match=r"checkpoint 30 was not saved; known: 7000$"):
        found(DIRECTION | {"checkpoint": 30, "alpha": 0.5}, inputs)


@pytest.mark.parametrize("key", ["step", "alpha"])
def test_what_was_measured_is_the_mean_of_every_file_by_state(tmp_path, key):
    scores = SCORES if key == "step" else ALPHA_SCORES
    inputs = {"judgements": judgement_files(tmp_path, key, scores, 3)}
    plain = Measured.read(SimpleNamespace(**inputs, **NO_GUARD), key)
    assert plain.scores.mean().to_dict() == pytest.approx(scores) and plain.exact is None
    shares = {value: i / 10 for i, value in enumerate(scores)}
    guard = guard_files(tmp_path, key, shares)
    guarded = Measured.read(SimpleNamespace(**inputs, **guard), key)
    assert guarded.scores.mean().to_dict() == pytest.approx(scores)
    assert guarded.exact is not None
    assert guarded.exact.to_dict() == pytest.approx({float(k): v for k, v in shares.items()})


@pytest.mark.parametrize("absent", [0, 1, 3])
def test_a_search_tells_of_absent_scores_and_is_refused_where_most_are(tmp_path, capsys, absent):
    (path,) = judgement_files(tmp_path, "alpha", {0.0: 1.0}, 1)
    frame = read_table(path, "judgements")
    frame.loc[frame.index[:absent], "score"] = None
    write_table(frame, path, "judgements", {})
    inputs = SimpleNamespace(judgements=[path], **NO_GUARD)
    if absent == 3:
        message = rf"^{tmp_path}: 3 of 3 responses have no score; look at what the judge says"
        with pytest.raises(DataError, match=message):
            Measured.read(inputs, "alpha")
        return
    assert Measured.read(inputs, "alpha").scores[0.0].notna().sum() == 3 - absent
    told = f"Responses without a score, left out: {tmp_path} (1 of 3).\n"
    assert capsys.readouterr().out == (told if absent else "")


def guard_prompts():
    return pd.DataFrame(
        {
            "prompt_id": ["one", "two", "open"],
            "prompt": ["1 plus 1 ?", "Repeat : a b", "Say something ."],
            "category": ["sum", "copy", None],
            "reference": ["2", "a b", None],
        }
    ).astype({"category": "str", "reference": "str"})


def guard_responses():
    rows = [
        (0.0, "one", " 2\n"), (0.0, "two", "a b"), (0.0, "open", "2"),
        (0.5, "open", ""), (0.5, "two", "b a"), (0.5, "one", "2 2"),
    ]  # fmt: skip
    states = states_at("alpha", (0.0, 0.5))
    frames = [
        with_origin(pd.DataFrame({"prompt_id": [p], "prompt": ["x"], "response": [r]}), states[a])
        for a, p, r in rows
    ]
    return pd.concat(frames, ignore_index=True).assign(response_tokens=1)


def test_the_exact_share_counts_equal_answers_of_a_state():
    # Of 0: "2" and "a b", blanks around them ignored, and nothing to equal in the third.
    shares = exact_share(guard_responses(), guard_prompts(), "alpha")
    assert shares.to_dict() == pytest.approx({0.0: 2 / 3, 0.5: 0})


def test_the_guard_s_share_is_read_from_its_tables(tmp_path):
    responses = [str(tmp_path / f"r{i}.parquet") for i in range(2)]
    parts = guard_responses()
    for path, part in zip(responses, (parts[:3], parts[3:]), strict=True):
        write_table(part, path, "responses", {})
    write_table(guard_prompts(), tmp_path / "p.parquet", "benchmark", {})
    inputs = SimpleNamespace(guard=responses, reference=[str(tmp_path / "p.parquet")])
    shares = read_guard(inputs, "alpha")
    assert shares is not None
    assert shares.to_dict() == pytest.approx({0.0: 2 / 3, 0.5: 0})
    assert read_guard(SimpleNamespace(**NO_GUARD), "alpha") is None
