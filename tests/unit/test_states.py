import json
import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.errors import ConfigurationError, DataError
from sqsd.provenance import provenance_of
from sqsd.states import (
    State,
    checkpoint_folder,
    checkpoints,
    direction_folder,
    list_states,
    read_state,
    read_states,
    write_states,
)


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


def test_a_steered_state():
    state = State.steered("m", "d/safety", 0.3)
    assert state == State("alpha-0.3", "m", "d/safety", 0.3, {"alpha": 0.3})


def test_a_state_steered_by_nothing_is_the_weights_alone():
    assert State.steered("m", "d/safety", 0.0) == State("alpha-0.0", "m", None, 0.0, {"alpha": 0.0})


def test_a_checkpoint_s_state():
    expected = State("step-150", "m", "p/checkpoint-150", 1.0, {"step": 150})
    assert State.checkpoint("m", "p/checkpoint-150", 150) == expected
    assert State.checkpoint("m", None, 0) == State("step-0", "m", None, 1.0, {"step": 0})


def test_a_fine_tuned_adapter_is_on_the_model():
    state = State.finetuned("m", "f/s1", "lora", "s1", 3)
    assert state == State("s1-seed-3", "m", "f/s1", 1.0, {"window": "s1", "seed": 3})


def test_a_model_that_was_tuned_whole_is_a_model_without_an_adapter():
    state = State.finetuned("m", "f/s1", "full", "s1", 3)
    assert state == State("s1-seed-3", "f/s1", None, 1.0, {"window": "s1", "seed": 3})


def test_steering_is_the_direction_at_every_alpha():
    listing = {"alphas": [-0.5, 0.0, 0.3], "folder": "d/safety", "checkpoint": "final"}
    assert list_states("m", listing) == [
        State("alpha--0.5", "m", "d/safety", -0.5, {"alpha": -0.5}),
        State("alpha-0.0", "m", None, 0.0, {"alpha": 0.0}),
        State("alpha-0.3", "m", "d/safety", 0.3, {"alpha": 0.3}),
    ]


def test_steering_takes_the_checkpoint_that_is_used(tmp_path):
    make_checkpoints(tmp_path, [25, 50])
    listing = {"alphas": [1.0], "folder": str(tmp_path), "checkpoint": 25}
    (state,) = list_states("m", listing)
    assert state.adapter == str(tmp_path / "checkpoint-25")
    with pytest.raises(ConfigurationError, match=r"checkpoint 30 was not saved; known: 25, 50$"):
        list_states("m", listing | {"checkpoint": 30})


@given(st.lists(st.floats(-3, 3), unique=True))
def test_only_theta_0_among_steered_states_has_no_adapter(alphas):
    found = list_states("m", {"alphas": alphas, "folder": "d", "checkpoint": "final"})
    assert [state.multiplier for state in found] == alphas
    assert [state.origin for state in found] == [{"alpha": alpha} for alpha in alphas]
    assert [state.adapter is None for state in found] == [alpha == 0 for alpha in alphas]
    assert {state.model for state in found} <= {"m"}


def test_the_model_as_it_is():
    assert list_states("m", {"theta_0": True}) == [State("theta-0", "m", None, 1.0, {})]


def test_a_pilot_is_theta_0_and_every_checkpoint_by_step(tmp_path):
    make_checkpoints(tmp_path, [1000, 150, 300])
    found = list_states("m", {"pilot": str(tmp_path), "part": [0, 4]})
    folders = [None, *(str(tmp_path / f"checkpoint-{step}") for step in (150, 300, 1000))]
    pairs = zip((0, 150, 300, 1000), folders, strict=True)
    assert found == [
        State(f"step-{step}", "m", folder, 1.0, {"step": step}) for step, folder in pairs
    ]


@pytest.mark.parametrize(
    ("part", "steps"),
    [([0, 2], [0, 150]), ([2, 4], [300, 1000]), ([3, 9], [1000]), ([4, 6], []), ([7, 9], [])],
)
def test_a_part_of_a_pilot_may_end_beyond_its_last_checkpoint(tmp_path, part, steps):
    make_checkpoints(tmp_path, [1000, 150, 300])
    found = list_states("m", {"pilot": str(tmp_path), "part": part})
    assert [state.origin["step"] for state in found] == steps


@settings(deadline=None, max_examples=20)  # it makes folders
@given(st.sets(st.integers(1, 999), max_size=6), st.integers(1, 4))
def test_the_parts_of_a_pilot_are_its_states_in_order(steps, size):
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(folder, steps)
        parts = [
            list_states("m", {"pilot": folder, "part": [start, start + size]})
            for start in range(0, 9, size)
        ]
    assert [state.origin["step"] for part in parts for state in part] == [0, *sorted(steps)]


def test_some_checkpoints_of_a_pilot(tmp_path):
    make_checkpoints(tmp_path, [1000, 150, 300])
    found = list_states("m", {"pilot": str(tmp_path), "steps": [1000, 150]})
    assert found == [
        State.checkpoint("m", str(tmp_path / f"checkpoint-{step}"), step) for step in (1000, 150)
    ]
    with pytest.raises(ConfigurationError, match="checkpoint 2 was not saved; known: 150, 300, 1"):
        list_states("m", {"pilot": str(tmp_path), "steps": [150, 2]})


def test_fine_tunes_are_the_runs_that_are_listed():
    runs = [
        {"folder": "f/seed-3/s1", "tuning": "lora", "window": "s1", "seed": 3},
        {"folder": "f/seed-1/s2", "tuning": "full", "window": "s2", "seed": 1},
    ]
    assert list_states("m", {"runs": runs}) == [
        State("s1-seed-3", "m", "f/seed-3/s1", 1.0, {"window": "s1", "seed": 3}),
        State("s2-seed-1", "f/seed-1/s2", None, 1.0, {"window": "s2", "seed": 1}),
    ]


def test_the_folder_of_a_direction(tmp_path):
    make_checkpoints(tmp_path, [900, 9000])
    assert direction_folder(str(tmp_path), "final") == tmp_path
    assert direction_folder(str(tmp_path), 9000) == tmp_path / "checkpoint-9000"
    assert checkpoint_folder(str(tmp_path), 900) == tmp_path / "checkpoint-900"


def test_a_checkpoint_that_was_not_saved_is_refused_with_those_there_are(tmp_path):
    make_checkpoints(tmp_path, [9000, 900])
    message = f"{tmp_path}: checkpoint 8000 was not saved; known: 900, 9000$"
    with pytest.raises(ConfigurationError, match=message):
        direction_folder(tmp_path, 8000)


def test_a_direction_without_checkpoints_knows_none(tmp_path):
    with pytest.raises(ConfigurationError, match=r"checkpoint 5 was not saved; known: none$"):
        direction_folder(tmp_path, 5)


STATES = [
    State("base", "m", None),
    State("alpha-0.3", "m", "d", 0.3, {"alpha": 0.3, "rank": None}),
    State("tuned", "f/s1", None, 1.0, {"window": "s1", "seed": 3}),
]
names = st.text(min_size=1)
origins = st.dictionaries(st.text(), st.none() | st.integers() | st.floats(-9, 9) | st.text())


@settings(deadline=None)
@given(
    st.lists(
        st.builds(State, names, names, st.none() | names, st.floats(-5, 5), origins),
        unique_by=lambda state: state.name,
    )
)
def test_states_read_back_as_they_were_written(found):
    with tempfile.TemporaryDirectory() as folder:
        write_states(found, Path(folder) / "states.json", {})
        assert read_states(Path(folder) / "states.json") == found
        assert os.listdir(folder) == ["states.json"]


def test_a_file_of_one_state(tmp_path):
    path = tmp_path / "state.json"
    write_states(STATES[1:2], path, {"stage": "choose_state"})
    assert read_state(path) == STATES[1]
    assert provenance_of(path) == {"stage": "choose_state"}


@pytest.mark.parametrize("count", [0, 2, 3])
def test_another_count_than_one_is_refused(tmp_path, count):
    path = tmp_path / "state.json"
    write_states(STATES[:count], path, {})
    message = rf"state\.json: holds {count} states, expected one; delete it and run again"
    with pytest.raises(DataError, match=message):
        read_state(path)


GOOD = {"name": "a", "model": "m", "adapter": "d", "multiplier": 1.0, "origin": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, r"\$\[1\]\.name: '' should be non-empty"),
        ({"name": 3}, r"\$\[1\]\.name: 3 is not of type 'string'"),
        ({"model": None}, r"\$\[1\]\.model: None is not of type 'string'"),
        ({"model": ""}, r"\$\[1\]\.model: '' should be non-empty"),
        ({"adapter": ""}, r"\$\[1\]\.adapter: '' should be non-empty"),
        ({"adapter": 2}, r"\$\[1\]\.adapter: 2 is not of type 'string', 'null'"),
        ({"multiplier": "1"}, r"\$\[1\]\.multiplier: '1' is not of type 'number'"),
        ({"multiplier": True}, r"\$\[1\]\.multiplier: True is not of type 'number'"),
        ({"origin": []}, r"\$\[1\]\.origin: \[\] is not of type 'object'"),
        ({"alpha": 1}, r"\$\[1\]: Additional properties are not allowed \('alpha' was unexpected"),
        ({"name": "b"}, "state 'b' occurs twice"),
    ],
)
def test_a_wrong_state_is_told_with_its_place(tmp_path, change, message):
    path = tmp_path / "states.json"
    path.write_text(json.dumps({"states": [GOOD | {"name": "b"}, GOOD | change]}))
    for read in (read_states, read_state):
        with pytest.raises(DataError, match=rf"states\.json: not a file of states: {message}"):
            read(path)


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_value_is_told_with_its_place(tmp_path, key):
    path = tmp_path / "states.json"
    path.write_text(json.dumps({"states": [{k: v for k, v in GOOD.items() if k != key}]}))
    message = rf"not a file of states: \$\[0\]: '{key}' is a required property"
    with pytest.raises(DataError, match=message):
        read_states(path)


def test_everything_wrong_is_told_at_once(tmp_path):
    path = tmp_path / "states.json"
    path.write_text(json.dumps({"states": [GOOD | {"model": 1}, GOOD | {"multiplier": None}]}))
    with pytest.raises(DataError, match=r"\$\[0\]\.model: 1 is .*; \$\[1\]\.multiplier: None is"):
        read_states(path)


@pytest.mark.parametrize("content", ['{"name": "a"}', "3", '"a"', "null"])
def test_a_file_must_hold_a_list(tmp_path, content):
    path = tmp_path / "states.json"
    path.write_text(f'{{"states": {content}}}')
    with pytest.raises(DataError, match=r"not a file of states: \$: .* is not of type 'array'"):
        read_states(path)


# The last one is the form of earlier versions.
@pytest.mark.parametrize("content", ['{"name": "a"}', "3", '"a"', "null", "[]"])
def test_a_file_must_hold_states(tmp_path, content):
    path = tmp_path / "states.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not a file of states: it has no 'states'; delete it"):
        read_states(path)


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe\xff"])
def test_a_torn_file_is_refused(tmp_path, content):
    path = tmp_path / "states.json"
    path.write_bytes(content)
    message = r"states\.json: not JSON \(.*\); delete it and run again"
    with pytest.raises(DataError, match=message):
        read_states(path)


def test_a_missing_file_is_told(tmp_path):
    message = r"gone\.json: no such file; ask snakemake for it to make it"
    with pytest.raises(DataError, match=message):
        read_states(tmp_path / "gone.json")


def test_what_cannot_be_read_is_not_written(tmp_path):
    path = tmp_path / "states.json"
    write_states(STATES, path, {})
    before = path.read_bytes()
    message = r"states\.json: not a file of states: state 'tuned' occurs twice$"
    with pytest.raises(DataError, match=message):
        write_states([*STATES, replace(STATES[2], model="other")], path, {})
    with pytest.raises(DataError, match=r"\$\[0\]\.multiplier: 'x' is not of type 'number'"):
        write_states([replace(STATES[0], multiplier="x")], path, {})  # pyright: ignore
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "states.json"
    write_states(STATES[:1], path, {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_states(STATES, path, {})
    assert read_states(path) == STATES[:1]
    assert list(tmp_path.iterdir()) == [path]
