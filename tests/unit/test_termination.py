"""What SIGTERM does to a job: it leaves, or is told and has some seconds."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from sqsd import termination
from sqsd.termination import Notice, Terminated, leaving_on_sigterm, leaving_when_lost

SIGNALS = (signal.SIGTERM, signal.SIGALRM)


def handlers():
    return [signal.getsignal(signum) for signum in SIGNALS]


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_leaves_the_block_where_the_program_is():
    before, undone = handlers(), []
    with pytest.raises(Terminated) as left, leaving_on_sigterm():
        try:
            terminate()
            pytest.fail("went on")
        except Exception:  # an error's handler is not for it
            pytest.fail("taken for an error")
        finally:
            undone.append(True)
    assert left.value.code == 143 and undone == [True]
    assert handlers() == before


def test_a_notice_lets_the_program_go_on_and_look():
    before = handlers()
    with Notice() as notice:
        assert not notice.given
        terminate()
        assert notice.given
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left <= termination.SECONDS_TO_SAVE < 30
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_notice_is_up_after_its_time(monkeypatch):
    monkeypatch.setattr(termination, "SECONDS_TO_SAVE", 0.05)
    with pytest.raises(Terminated), Notice():
        terminate()
        time.sleep(60)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_second_sigterm_gives_no_more_time():
    with Notice():
        terminate()
        first, _ = signal.getitimer(signal.ITIMER_REAL)
        time.sleep(0.01)
        terminate()
        second, _ = signal.getitimer(signal.ITIMER_REAL)
    assert second < first


JOB = """
import os, signal
from sqsd.files import written_whole
from sqsd.logs import log_to
with log_to("job.log"), written_whole("result.txt") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)
    temporary.write_text("whole")
"""


def test_a_job_that_sigterm_ends_leaves_no_half_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", JOB], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["job.log"]
    assert "ended by SIGTERM after 0." in (tmp_path / "job.log").read_text()


SCRIPT = """
import sys, time
from sqsd.logs import log_to
with log_to("job.log"):
    print("begun")
    time.sleep(60)
"""
MAIN = """
import subprocess, sys
subprocess.run(["bash", "-c", "true; " + sys.executable + " script.py; true"])
"""


def test_a_job_leaves_when_the_snakemake_that_started_it_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "snakemake.py").write_text(MAIN)  # what counts is its name
    log = tmp_path / "job.log"
    main = subprocess.Popen([sys.executable, "snakemake.py"], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and "begun" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        jobs = psutil.Process(main.pid).children(recursive=True)
        main.kill()  # and not waited for, so that it stays a zombie
        gone, left = psutil.wait_procs(jobs, timeout=20)
        assert gone and not left
    finally:
        main.kill()
        main.wait()
    assert "ended by SIGTERM" in log.read_text()


def test_a_program_without_a_snakemake_above_it_has_no_watch(monkeypatch):
    monkeypatch.setattr(psutil.Process, "parents", lambda self: [])
    before = threading.active_count()
    with leaving_when_lost():
        assert threading.active_count() == before
