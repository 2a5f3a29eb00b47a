"""Which GPUs there are, and that no two jobs have one."""

import os
import threading
from contextlib import ExitStack

import pytest

from sqsd import devices
from sqsd.devices import own_gpus, take, visible_gpus


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No GPUs but those of a test, whose locks are its own."""
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(devices, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(devices, "FILES", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.parametrize(
    ("chosen", "found"),
    [("", []), ("-1", []), ("2", ["2"]), ("0,3", ["0", "3"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])],
)
def test_the_gpus_that_are_chosen(monkeypatch, chosen, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == found


def test_the_gpus_that_the_driver_has_found(tmp_path, monkeypatch):
    assert visible_gpus() == []
    monkeypatch.setattr(devices, "FILES", tmp_path / "gpus")
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert visible_gpus() == ["0", "1"]


def test_two_jobs_have_different_gpus_and_a_third_waits(capsys):
    there, got = ["0", "1"], []
    with ExitStack() as first, ExitStack() as second:
        assert take(there, 1, first) == ["0"]
        assert take(there, 1, second) == ["1"]

        def third():
            with ExitStack() as held:
                got.extend(take(there, 1, held))

        waiting = threading.Thread(target=third)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and got == []
        second.close()
        waiting.join(10)
        assert got == ["1"]
    assert capsys.readouterr().out == "waiting for 1 of 2 GPUs, which other jobs have\n"


def test_who_waits_for_two_keeps_none(capsys):
    there, got = ["0", "1"], []
    with ExitStack() as first:
        take(there, 1, first)

        def both():
            with ExitStack() as held:
                got.extend(take(there, 2, held))

        waiting = threading.Thread(target=both)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        with ExitStack() as second:  # the other one is free for whoever needs one
            assert take(there, 1, second) == ["1"]
        first.close()
        waiting.join(10)
    assert got == there


def test_a_job_sees_its_own_gpus_alone(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    with ExitStack() as other:
        take(["4"], 1, other)
        with own_gpus(2):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,6"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    assert capsys.readouterr().out == "GPUs of this job: 5, 6\n"


def test_without_a_choice_there_is_none_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "FILES", tmp_path / "gpus")
    (tmp_path / "gpus/a").mkdir(parents=True)
    with own_gpus(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("count", "environment"),
    [
        (0, {"CUDA_VISIBLE_DEVICES": "0"}),
        (1, {}),
        (2, {"CUDA_VISIBLE_DEVICES": "0"}),  # whoever loads the model says that there is one
        (1, {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "7"}),
    ],
)
def test_nothing_is_done(monkeypatch, tmp_path, count, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with own_gpus(count):
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == environment.get("CUDA_VISIBLE_DEVICES")
    assert list(tmp_path.iterdir()) == []
