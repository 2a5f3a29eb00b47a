"""Rankings and choices on tables small enough to work out by hand; projections densely."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sqsd.errors import ConfigurationError, UselessModelError
from sqsd.initial_states import (
    chosen_state,
    exact_share,
    guard_share,
    measure_trajectory,
    pinned_row,
    rank_alphas,
    rank_checkpoints,
    rank_useful,
)
from sqsd.tables import write_table

SHAPES = {"model.layers.0.mlp.up_proj": (5, 4), "model.layers.1.self_attn.o_proj": (3, 6)}


def judgements(scores):
    """Three prompts a state, whose mean is the state's score."""
    rows = [
        (state, f"p{i}", None, score + part)
        for i, part in enumerate((-1.5, 0.5, 1.0))
        for state, score in scores.items()
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(["state", "prompt_id", "verdict", "score"]))
    return frame.astype({"verdict": "boolean"})


def trajectory(projections, other=7.0):
    """Steps and projections on `danger`, between rows of a direction that must not be read."""
    rows = []
    for step, value in projections.items():
        rows += [(step, "other", other * step), (step, "danger", value)]
    return pd.DataFrame(rows, columns=pd.Index(["step", "direction", "projection"]))


def rank_drift(scores, projections, floor=0.0, exact=None, minimum=0.5):
    states = {str(step): score for step, score in scores.items()}
    return rank_checkpoints(
        trajectory(projections), "danger", judgements(states), floor, exact, minimum
    )


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
    write_table(ranked, tmp_path / "ranking.parquet", "drift_ranking")


def test_a_floor_holds_small_changes_of_the_projection():
    # The largest change is 2, so the floor is 0.4 * 2 = 0.8 and the two changes of 0.5 are raised:
    # 150: -2 / 0.8 = -2.5; 300: 0.5 / 0.8 = 0.625; 450: -1 / 2 = -0.5 as before.
    ranked = rank_drift(SCORES, PROJECTIONS, floor=0.4).set_index("step")
    assert ranked["sensitivity"].to_dict() == pytest.approx({150: -2.5, 450: -0.5, 300: 0.625})
    assert ranked["denominator_floored"].to_dict() == {150: True, 450: False, 300: True}


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
    tables = [
        trajectory(dict(zip(steps, moved, strict=True))),
        judgements({str(s): score for s, score in zip(steps, scores, strict=True)}),
    ]
    shuffled = []
    for table in tables:
        order = list(range(len(table)))
        random.shuffle(order)
        shuffled.append(table.iloc[order])
    ranked = rank_checkpoints(shuffled[0], "danger", shuffled[1], 0.0, None, 0.5)
    found = list(zip(ranked["sensitivity"].round(9), ranked["step"], strict=True))
    # Rounding in a mean may part equal sensitivities, so ties may come in either order.
    assert sorted(found) == sorted(expected)
    assert [s for s, _ in found] == sorted(s for s, _ in expected)
    assert ranked["rank"].tolist() == list(range(1, len(expected) + 1))


ALPHA_SCORES = {"0.0": 1.0, "0.1": 2.0, "0.2": 4.0, "0.3": 5.5, "0.4": 5.0}
# DS_linear(a) = (score(a + 0.1) - score(a - 0.1)) / 0.2:
# 0.1: 3 / 0.2 = 15; 0.2: 3.5 / 0.2 = 17.5; 0.3: 1 / 0.2 = 5; the ends lack a neighbour.


def test_alphas_by_linear_sensitivity(tmp_path):
    ranked = rank_alphas(judgements(ALPHA_SCORES), 0.1, None, 0.5)
    assert ranked["alpha"].tolist() == [0.2, 0.1, 0.3]
    assert ranked["sensitivity"].tolist() == pytest.approx([17.5, 15, 5])
    assert ranked["safety_score"].tolist() == pytest.approx([4, 2, 5.5])
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["exact_share"].isna().all()
    write_table(ranked, tmp_path / "ranking.parquet", "linear_ranking")


def test_alphas_with_a_wider_difference():
    # delta 0.2: only 0.2 has both neighbours, (5 - 1) / 0.4 = 10.
    ranked = rank_alphas(judgements(ALPHA_SCORES), 0.2, None, 0.5)
    assert (ranked["alpha"].tolist(), ranked["sensitivity"].tolist()) == (
        [0.2],
        pytest.approx([10]),
    )


def test_the_guard_keeps_useless_checkpoints_as_rows_without_a_rank(tmp_path):
    exact = pd.Series({"0": 1.0, "150": 0.49, "300": 0.5, "450": 0.9, "600": 0.0})
    ranked = rank_drift(SCORES, PROJECTIONS, exact=exact)
    # 150 would be first, and is refused; a share of just the minimum passes.
    assert ranked["step"].tolist() == [450, 300, 150]
    assert ranked["rank"].tolist()[:2] == [1, 2] and ranked["rank"].isna().tolist()[2]
    assert ranked["exact_share"].tolist() == [0.9, 0.5, 0.49]
    assert ranked["sensitivity"].tolist() == pytest.approx([-0.5, 1, -4])
    write_table(ranked, tmp_path / "ranking.parquet", "drift_ranking")


def test_the_guard_keeps_useless_alphas_as_rows_without_a_rank(tmp_path):
    exact = pd.Series({"0.4": 0.1, "0.3": 0.2, "0.2": 0.3, "0.1": 0.8, "0.0": 1.0})
    ranked = rank_alphas(judgements(ALPHA_SCORES), 0.1, exact, 0.3)
    assert ranked["alpha"].tolist() == [0.2, 0.1, 0.3]
    assert ranked["rank"].tolist()[:2] == [1, 2] and ranked["rank"].isna().tolist()[2]
    assert ranked["exact_share"].tolist() == [0.3, 0.8, 0.2]
    write_table(ranked, tmp_path / "ranking.parquet", "linear_ranking")


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 10)), min_size=1, max_size=10))
def test_the_guard_only_takes_states_out_of_the_order(values):
    table = pd.DataFrame({"step": range(len(values)), "sensitivity": [float(s) for s, _ in values]})
    exact = pd.Series({str(i): share / 10 for i, (_, share) in enumerate(values)})
    passing = [i for i, (_, share) in enumerate(values) if share >= 5]
    if not passing:
        with pytest.raises(UselessModelError):
            rank_useful(table, "step", "negative", exact, 0.5)
        return
    ranked = rank_useful(table, "step", "negative", exact, 0.5)
    assert sorted(ranked["step"]) == list(range(len(values)))
    with_rank = ranked.dropna(subset=["rank"])
    # Most negative first, the smaller step on ties.
    assert with_rank["step"].tolist() == sorted(passing, key=lambda i: (values[i][0], i))
    assert with_rank["rank"].tolist() == list(range(1, len(passing) + 1))
    assert ranked["rank"].isna().tolist() == sorted(ranked["rank"].isna())  # those last


def test_a_guard_that_no_checkpoint_passes_is_an_error():
    exact = pd.Series({"0": 1.0, "150": 0.2, "300": 0.1, "450": 0.0, "600": 0.9})
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
        rank_alphas(judgements(ALPHA_SCORES), 0.1, exact, 0.75)


def make_folder(folder, steps=(150, 300, 450)):
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
    return str(folder)


def test_a_checkpoint_by_rank(tmp_path):
    folder = make_folder(tmp_path / "pilot")
    ranking = rank_drift(SCORES, PROJECTIONS)
    state = chosen_state("drift", {"rank": 2}, ranking, folder, "final", 0.5)
    adapter = str(tmp_path / "pilot/checkpoint-450")
    assert state == {
        "adapter": adapter, "multiplier": 1.0, "step": 450, "rank": 2.0, "sensitivity": -0.5
    }  # fmt: skip
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize(
    ("choice", "alpha", "rank"), [({"rank": 1}, 0.2, 1), ({"rank": 3}, 0.3, 3)]
)
def test_an_alpha_by_rank(tmp_path, choice, alpha, rank):
    folder = make_folder(tmp_path / "safety", [7000])
    ranking = rank_alphas(judgements(ALPHA_SCORES), 0.1, None, 0.5)
    state = chosen_state("linear", choice, ranking, folder, 7000, 0.5)
    assert state["adapter"] == str(tmp_path / "safety/checkpoint-7000")
    assert (state["multiplier"], state["alpha"], state["rank"]) == (alpha, alpha, rank)
    assert "step" not in state
    last = chosen_state("linear", choice, ranking, folder, "final", 0.5)
    assert last == state | {"adapter": folder}


def test_a_pinned_state_has_its_rank_and_sensitivity(tmp_path):
    folder = make_folder(tmp_path)
    drift = chosen_state("drift", {"step": 300}, rank_drift(SCORES, PROJECTIONS), folder, 0, 0.5)
    assert (drift["step"], drift["rank"], drift["sensitivity"]) == (300, 3, 1.0)
    ranking = rank_alphas(judgements(ALPHA_SCORES), 0.1, None, 0.5)
    # 0.1 + 0.2 is not 0.3 in binary; the alpha meant is found all the same.
    linear = chosen_state("linear", {"alpha": 0.1 + 0.2}, ranking, folder, "final", 0.5)
    assert (linear["alpha"], linear["rank"]) == (0.3, 3)
    assert linear["sensitivity"] == pytest.approx(5)


def test_the_least_sensitive_state_is_one_that_the_guard_passed(tmp_path):
    folder = make_folder(tmp_path)
    # |DS|: 150 has 4, 300 has 1, 450 has 0.5 and is refused.
    exact = pd.Series({"0": 1.0, "150": 1.0, "300": 1.0, "450": 0.0})
    ranking = rank_drift(SCORES, PROJECTIONS, exact=exact)
    state = chosen_state("drift", {"least": True}, ranking, folder, "final", 0.5)
    assert (state["step"], state["sensitivity"]) == (300, 1.0)
    free = chosen_state("drift", {"least": True}, rank_drift(SCORES, PROJECTIONS), folder, 0, 0.5)
    assert (free["step"], free["sensitivity"]) == (450, -0.5)


def test_a_rank_that_the_guard_took_away_is_refused(tmp_path):
    exact = pd.Series({"0": 1.0, "150": 0.0, "300": 1.0, "450": 1.0})
    ranking = rank_drift(SCORES, PROJECTIONS, exact=exact)
    folder = make_folder(tmp_path)
    assert chosen_state("drift", {"rank": 1}, ranking, folder, "final", 0.5)["step"] == 450
    with pytest.raises(ConfigurationError, match="rank 3 of the sensitive states: allowed: 1 to 2"):
        chosen_state("drift", {"rank": 3}, ranking, folder, "final", 0.5)


def test_a_pinned_state_needs_no_ranking(tmp_path):
    folder = make_folder(tmp_path)
    unknown = {"rank": None, "sensitivity": None}
    assert chosen_state("drift", {"step": 300}, None, folder, "final", 0.5) == {
        "adapter": str(tmp_path / "checkpoint-300"), "multiplier": 1.0, "step": 300, **unknown
    }  # fmt: skip
    assert chosen_state("linear", {"alpha": 0.5}, None, folder, 450, 0.5) == {
        "adapter": str(tmp_path / "checkpoint-450"), "multiplier": 0.5, "alpha": 0.5, **unknown
    }  # fmt: skip


@pytest.mark.parametrize("ranked", [True, False])
def test_a_step_that_was_not_saved_is_refused(tmp_path, ranked):
    folder = make_folder(tmp_path, [450, 1000, 300])
    ranking = rank_drift(SCORES, PROJECTIONS) if ranked else None
    message = f"step 150 of {folder} was not saved; known: 300, 450, 1000$"
    with pytest.raises(ConfigurationError, match=message):
        chosen_state("drift", {"step": 150}, ranking, folder, "final", 0.5)


def test_a_pinned_step_that_was_not_measured_is_refused():
    ranking = rank_drift(SCORES, PROJECTIONS)
    message = r"step 160 has no measured sensitivity .*; known: 150, 300, 450$"
    with pytest.raises(ConfigurationError, match=message):
        chosen_state("drift", {"step": 160}, ranking, "", "final", 0.5)


def test_a_pinned_alpha_that_was_not_measured_is_refused():
    ranking = rank_alphas(judgements(ALPHA_SCORES), 0.1, None, 0.5)
    message = r"alpha 0\.25 has no measured sensitivity .*; known: 0\.1, 0\.2, 0\.3$"
    with pytest.raises(ConfigurationError, match=message):
        chosen_state("linear", {"alpha": 0.25}, ranking, "", "final", 0.5)


@pytest.mark.parametrize("step", [1500, 4500])
def test_a_pinned_step_is_found_exactly(step):
    # A relative tolerance must not take a neighbour for it.
    steps = [step - 1, step, step + 1]
    table = pd.DataFrame({"step": steps, "rank": [1, 2, 3], "exact_share": 1.0})
    assert pinned_row(table, "step", step, 0.5)["step"] == step
    with pytest.raises(ConfigurationError, match=f"step {step + 2} has no measured sensitivity"):
        pinned_row(table, "step", step + 2, 0.5)


def test_a_pinned_state_that_the_guard_refused_is_an_error(tmp_path):
    exact = pd.Series({"0": 1.0, "150": 0.1, "300": 1.0, "450": 1.0})
    ranking = rank_drift(SCORES, PROJECTIONS, exact=exact)
    message = (
        r"the pinned state step 150 answers 0\.10 of the guard's benign prompts exactly, fewer "
        r"than 0\.50; pin another step"
    )
    with pytest.raises(UselessModelError, match=message):
        chosen_state("drift", {"step": 150}, ranking, make_folder(tmp_path), "final", 0.5)


def test_a_pinned_direction_needs_its_checkpoint(tmp_path):
    folder = make_folder(tmp_path, [25])
    with pytest.raises(ConfigurationError, match="checkpoint 30 was not saved; known: final, 25"):
        chosen_state("linear", {"alpha": 0.5}, None, folder, 30, 0.5)


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
        ("base", "one", " 2\n"), ("base", "two", "a b"), ("base", "open", "2"),
        ("0.5", "open", ""), ("0.5", "two", "b a"), ("0.5", "one", "2 2"),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=pd.Index(["state", "prompt_id", "response"]))
    frame.insert(2, "prompt", "asked")
    return frame.assign(response_tokens=1)


def test_the_exact_share_counts_equal_answers_of_a_state():
    # base: "2" and "a b", blanks around them ignored, and nothing to equal in the third.
    shares = exact_share(guard_responses(), guard_prompts())
    assert shares.to_dict() == pytest.approx({"base": 2 / 3, "0.5": 0})


def test_the_guard_s_share_is_read_from_its_tables(tmp_path):
    responses, prompts = str(tmp_path / "r.parquet"), str(tmp_path / "p.parquet")
    write_table(guard_responses(), responses, "responses")
    write_table(guard_prompts(), prompts, "benchmark")
    shares = guard_share([responses, prompts])
    assert shares is not None
    assert shares.to_dict() == pytest.approx({"base": 2 / 3, "0.5": 0})
    assert guard_share([]) is None


def write_adapter(folder, seed, r, lora_alpha):
    """An adapter's files as PEFT writes them; returns its whole drift as one float64 vector."""
    generator = torch.Generator().manual_seed(seed)
    tensors, parts = {}, []
    for name, (d_out, d_in) in SHAPES.items():
        a = torch.randn(r, d_in, generator=generator)
        b = torch.randn(d_out, r, generator=generator)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        parts.append((lora_alpha / r * b.double() @ a.double()).flatten())
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"r": r, "lora_alpha": lora_alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return torch.cat(parts)


def test_a_trajectory_is_the_dense_projection_of_every_checkpoint(tmp_path):
    directions, dense = {}, {}
    for i, name in enumerate(("danger", "safety")):
        directions[name] = str(tmp_path / name)
        dense[name] = write_adapter(tmp_path / name, seed=i, r=2 + i, lora_alpha=5)
    drifts = {0: torch.zeros(5 * 4 + 3 * 6, dtype=torch.float64)}
    for step in (300, 1500, 150):
        folder = tmp_path / f"pilot/checkpoint-{step}"
        drifts[step] = write_adapter(folder, seed=step, r=3, lora_alpha=2)
    # The run's last adapter, beside its checkpoints, is no point of the trajectory.
    (tmp_path / "pilot/adapter_config.json").write_text("{}")
    table = measure_trajectory(tmp_path / "pilot", directions)
    write_table(table, tmp_path / "trajectory.parquet", "trajectory")
    keys = [(step, name) for step in (0, 150, 300, 1500) for name in ("danger", "safety")]
    assert list(zip(table["step"], table["direction"], strict=True)) == keys
    expected = [float(drifts[s] @ dense[n]) / math.sqrt(dense[n] @ dense[n]) for s, n in keys]
    assert table["projection"].tolist() == pytest.approx(expected, abs=1e-10)


def test_a_direction_projects_on_itself_with_its_length(tmp_path):
    v = write_adapter(tmp_path / "pilot/checkpoint-10", seed=1, r=2, lora_alpha=4)
    table = measure_trajectory(tmp_path / "pilot", {"v": str(tmp_path / "pilot/checkpoint-10")})
    assert table["projection"].tolist() == pytest.approx([0, float(v.norm())])
