import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import ConfigurationError
from sqsd.states import checkpoints, direction_folder, direction_folders, list_states


def make_checkpoints(folder, steps):
    for step in steps:
        (Path(folder) / f"checkpoint-{step}").mkdir(parents=True)


@settings(deadline=None, max_examples=30)  # it makes folders
@given(st.sets(st.integers(0, 20000), max_size=8), st.randoms())
def test_checkpoints_are_sorted_by_number(steps, order: random.Random):
    shuffled = sorted(steps)
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(folder, shuffled)
        expected = [(step, Path(folder) / f"checkpoint-{step}") for step in sorted(steps)]
        assert checkpoints(folder) == expected


def test_other_entries_of_the_folder_are_no_checkpoints(tmp_path):
    make_checkpoints(tmp_path, [1000, 150])
    (tmp_path / "final").mkdir()
    (tmp_path / "adapter_model.safetensors").touch()
    assert [step for step, _ in checkpoints(tmp_path)] == [150, 1000]
    assert checkpoints(tmp_path / "absent") == []


def test_the_base_is_one_state_without_an_adapter():
    expected = [{"name": "base", "adapter": None, "multiplier": 1.0}]
    assert list_states("base", [], [], "final", []) == expected


def test_steering_is_the_direction_at_every_alpha():
    states = list_states("steering", ["d/safety"], [-0.5, 0.0, 0.3], "final", [])
    assert states == [
        {"name": "-0.5", "adapter": "d/safety", "multiplier": -0.5},
        {"name": "0.0", "adapter": None, "multiplier": 0.0},
        {"name": "0.3", "adapter": "d/safety", "multiplier": 0.3},
    ]


def test_steering_takes_the_checkpoint_that_is_used(tmp_path):
    make_checkpoints(tmp_path, [25, 50])
    (state,) = list_states("steering", [str(tmp_path)], [1.0], 25, [])
    assert state["adapter"] == str(tmp_path / "checkpoint-25")
    with pytest.raises(ConfigurationError, match="checkpoint 30 was not saved"):
        list_states("steering", [str(tmp_path)], [1.0], 30, [])


@given(st.lists(st.floats(-3, 3), unique=True))
def test_a_steered_state_s_name_reads_back_as_its_alpha(alphas):
    states = list_states("steering", ["d"], alphas, "final", [])
    assert [float(state["name"]) for state in states] == alphas
    assert [state["multiplier"] for state in states] == alphas
    # Only theta_0 itself has no adapter.
    assert [state["adapter"] is None for state in states] == [alpha == 0 for alpha in alphas]


def test_a_pilot_is_theta_0_and_every_checkpoint_by_step(tmp_path):
    make_checkpoints(tmp_path, [1000, 150, 300])
    states = list_states("pilot", [str(tmp_path)], [], "final", [])
    assert [state["name"] for state in states] == ["0", "150", "300", "1000"]
    folders = [None, *(str(tmp_path / f"checkpoint-{step}") for step in (150, 300, 1000))]
    assert [state["adapter"] for state in states] == folders
    assert [state["multiplier"] for state in states] == [1.0] * 4


def test_finetunes_are_every_seed_of_every_window():
    states = list_states("finetunes", ["f/x/s1", "f/x/s2"], [], "final", [3, 1])
    assert states == [
        {"name": "s1/3", "adapter": "f/x/s1/seed-3", "multiplier": 1.0},
        {"name": "s1/1", "adapter": "f/x/s1/seed-1", "multiplier": 1.0},
        {"name": "s2/3", "adapter": "f/x/s2/seed-3", "multiplier": 1.0},
        {"name": "s2/1", "adapter": "f/x/s2/seed-1", "multiplier": 1.0},
    ]


def test_the_folder_of_a_direction(tmp_path):
    make_checkpoints(tmp_path, [900, 9000])
    assert direction_folder(str(tmp_path), "final") == tmp_path
    assert direction_folder(str(tmp_path), 9000) == tmp_path / "checkpoint-9000"


def test_a_checkpoint_that_was_not_saved_is_refused_with_those_there_are(tmp_path):
    make_checkpoints(tmp_path, [9000, 900])
    message = f"{tmp_path}: checkpoint 8000 was not saved; known: final, 900, 9000$"
    with pytest.raises(ConfigurationError, match=message):
        direction_folder(tmp_path, 8000)


def test_a_direction_without_checkpoints_knows_only_its_last(tmp_path):
    with pytest.raises(ConfigurationError, match=r"checkpoint 5 was not saved; known: final$"):
        direction_folder(tmp_path, 5)


def test_folders_of_several_directions(tmp_path):
    make_checkpoints(tmp_path / "safety", [7000])
    folders = [str(tmp_path / "danger"), str(tmp_path / "safety")]
    used = direction_folders(["danger", "safety"], folders, ["final", 7000])
    assert used == {"danger": folders[0], "safety": str(tmp_path / "safety/checkpoint-7000")}
