"""What the terminal shows of records as Snakemake makes them, handed over as Snakemake does."""

import logging
import os
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.logging import LoggerManager, logger
from snakemake.settings.enums import Quietness
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase
from terminal import shown

from snakemake_logger_plugin_sqsd import LogHandler
from snakemake_logger_plugin_sqsd.steps import Steps
from sqsd.errors import ConfigurationError
from sqsd.logs import BARS, LOG, log_to, progress

NOW = 1_800_000_000.0  # seconds since 1970
ALL_DONE = "Complete log(s): /x.log"


def record(message: str | None = None, at: float = 0, level: int = logging.INFO, **extra):
    values = {"msg": message, "levelno": level, "levelname": logging.getLevelName(level)}
    return logging.makeLogRecord({**values, "created": NOW + at, **extra})


def run_info(total: int):
    return record("Job stats: ...", event=LogEvent.RUN_INFO, stats={"total": total})


def job_info(jobid: int, rule: str = "make", at: float = 0, log: Sequence[str] = (), **wildcards):
    """As jobs.Job.log_info makes it."""
    return record(
        f" Rule: {rule}, Jobid: {jobid}", at, event=LogEvent.JOB_INFO, jobid=jobid, rule_name=rule,
        rule_msg=None, wildcards=wildcards, log=list(log), local=False, input=[], output=["o"],
        benchmark=None, reason="", resources={}, priority=0, threads=1, indent=False,
        is_checkpoint=False,
    )  # fmt: skip


def finished(jobid: int, done: int, total: int, at: float = 0):
    """The two records of scheduling.job_scheduler._finish_jobs.

    What a checkpoint adds is in the total of the next job's.
    """
    text = f"Finished jobid: {jobid} (Rule: make)"
    return (
        record(text, at, event=LogEvent.JOB_FINISHED, job_id=jobid),
        record(None, at, event=LogEvent.PROGRESS, done=done, total=total),
    )


def job_error(jobid: int, rule: str = "make", log: Sequence[str] = (), thread: int = 1, **values):
    """As jobs.Job.log_error makes it; of a script that failed here, the second of two records."""
    known = {"rule_msg": None, "indent": False}
    return record(
        f"Error in rule {rule}, jobid: {jobid}", level=logging.ERROR, event=LogEvent.JOB_ERROR,
        jobid=jobid, rule_name=rule, log=list(log), input=[], output=[], conda_env=None, aux={},
        shellcmd=None, thread=thread, **known | values,
    )  # fmt: skip


def script_error(end: str, thread: int = 1):
    """The first of the two."""
    text = (
        'RuleException:\nCalledProcessError in file "/w/rules/data.smk", line 15:\n'
        f"Command 'set -euo pipefail;  python /w/make.py' {end}."
    )
    return error(text, "RuleException", thread=thread)


def error(text: str, kind: str = "WorkflowError", **values):
    return record(text, level=logging.ERROR, event=LogEvent.ERROR, exception=kind, **values)


@contextmanager
def managed(folder: Path | None = None, **settings) -> Iterator[LoggerManager]:
    """Snakemake's logging, with this logger by its name; folder: where its log file goes."""
    given = {"log_handler_settings": {"sqsd": LogHandlerSettingsBase()}, **settings}
    manager = LoggerManager(logger, OutputSettings(**given))
    if folder:
        manager.setup_logfile(folder)
    try:
        yield manager
    finally:
        manager.stop()


@pytest.fixture
def said(capsys):
    """The lines that the terminal, which is none, gets of some records."""

    def run(*records, folder=None, **settings):
        with managed(folder, **settings):
            for one in records:
                logger.handle(one)
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return run


def told(*records) -> list[str]:
    steps = Steps()
    return [line for one in records for line in steps.told(one)]


@given(st.permutations(range(1, 7)), st.lists(st.integers(0, 99_999), min_size=6, max_size=6))
def test_a_finished_step_is_a_line_with_its_number_name_and_seconds(order, tenths):
    starts = [job_info(i, "rule_of", at=i, shard=str(i)) for i in order]
    ends = [
        finished(i, number, 6, at=i + tenths[i - 1] / 10)
        for number, i in enumerate(reversed(order), 1)
    ]
    _, *lines = told(run_info(6), *starts, *chain.from_iterable(ends))
    assert lines == [
        f"{number}/6 rule_of (shard {i}): {tenths[i - 1] / 10:.1f} s"
        for number, i in enumerate(reversed(order), 1)
    ]


def test_a_whole_run_as_it_is_read(said, tmp_path):
    lines = said(
        record("Building DAG of jobs..."),
        record("Workflow has started!", event=LogEvent.WORKFLOW_STARTED),
        record("Provided cores: 2", event=LogEvent.RESOURCES_INFO, cores=2),
        run_info(10),
        record("Select jobs to execute..."),
        record("Execute 1 jobs...", event=LogEvent.JOB_STARTED, jobs=[4]),
        job_info(4, "make_dataset", dataset="mixed", source="a"),
        record(None, event=LogEvent.SHELLCMD, shellcmd=None),
        *finished(4, 1, 10, at=61.26),
        job_info(5, "all", at=70),
        *finished(5, 2, 10, at=70.04),
        record("Removing temporary output x."),
        record(ALL_DONE, at=75),
        record("Elapsed time: 0:01:15"),
        error("WorkflowError:\nAt least one job did not complete successfully."),
    )
    assert lines[0].startswith("10 steps to do; the full log: ")
    assert lines[1:3] == [
        " 1/10 make_dataset (dataset mixed, source a): 61.3 s", " 2/10 all: 0.0 s"
    ]  # fmt: skip
    assert lines[3].startswith(
        "2 of 10 steps done in 01:15 and kept; to go on from there, run the same command again. "
    )
    assert len(lines) == 4


def test_the_log_file_has_all_that_the_terminal_has_not(said, tmp_path):
    lines = said(
        run_info(1), job_info(3, "make", dataset="mixed"), script_error("died with <Signals.X: 9>"),
        job_error(3, log=["make.log"]), *finished(3, 1, 1), record(ALL_DONE, at=3), folder=tmp_path,
    )  # fmt: skip
    (path,) = (tmp_path / ".snakemake/log").iterdir()
    text = path.read_text()
    for part in (
        "Job stats: ...", "rule make:", "wildcards: dataset=mixed", "line 15:", "died with",
        "Error in rule make:", "log: make.log (check log file", "Finished jobid: 3",
    ):  # fmt: skip
        assert part in text, part
    assert lines[0] == f"1 step to do; the full log: {path}"
    assert lines[-1] == f"1 of 1 step done in 00:03. The full log: {path}"


def test_a_checkpoint_that_adds_steps_is_counted():
    records = [job_info(1), *finished(1, 1, 1), job_info(2), *finished(2, 2, 12)]
    assert told(run_info(1), *records)[1:] == ["1/1 make: 0.0 s", " 2/12 make: 0.0 s"]


def test_steps_of_a_group_are_told_together():
    first, _ = finished(1, 2, 3)
    records = [job_info(1, "sort"), job_info(2, "score"), first, *finished(2, 2, 3)]
    assert told(run_info(3), *records)[1:] == ["1/3 sort: 0.0 s", "2/3 score: 0.0 s"]


def test_a_failed_step_is_one_line_behind_what_its_script_has_said():
    start = [run_info(3), job_info(1, "make_dataset", dataset="mine", log=["a.log"])]
    failed = [script_error("returned non-zero exit status 1"), job_error(1, log=["a.log"])]
    _, *lines = told(*start, *failed, record(ALL_DONE, at=5))
    assert lines[0] == "FAILED make_dataset (dataset mine); log: a.log"
    assert lines[1].startswith(
        "0 of 3 steps done in 00:05 and kept; to go on from there, mend what failed, then run the "
        "same command again. The full log: "
    )
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("returned non-zero exit status 2", "exit status 2"),
        ("returned non-zero exit status 137",
         "exit status 137, as of a process killed for want of memory"),
        ("died with <Signals.SIGKILL: 9>",
         "ended by SIGKILL, as of a process killed for want of memory"),
        ("died with <Signals.SIGSEGV: 11>", "ended by SIGSEGV"),
    ],
)  # fmt: skip
def test_how_a_script_ended_that_could_not_say_why(end, why):
    _, line = told(run_info(1), job_info(1), script_error(end), job_error(1))
    assert line == f"FAILED make; {why}; it has no log"


def test_two_that_fail_at_once_are_not_taken_for_each_other():
    _, *lines = told(
        run_info(2), job_info(1, "one"), job_info(2, "two"),
        script_error("returned non-zero exit status 3", thread=1),
        script_error("returned non-zero exit status 4", thread=2),
        job_error(2, "two", thread=2), job_error(1, "one", thread=1),
    )  # fmt: skip
    assert lines == [
        "FAILED two; exit status 4; it has no log", "FAILED one; exit status 3; it has no log"
    ]  # fmt: skip


def test_of_a_job_on_a_cluster_its_log_says_why(tmp_path, capsys):
    log = str(tmp_path / "make.log")

    def fail():
        raise ConfigurationError("2 problems:\n  a: wrong\n  b: wrong")

    with pytest.raises(SystemExit), log_to(log):
        fail()
    capsys.readouterr()  # on the node
    remote = record("Provided remote nodes: 9", event=LogEvent.RESOURCES_INFO, nodes=9)
    slurm = "SLURM-job '7' failed, SLURM status is: 'FAILED'. "
    logs = [log, str(tmp_path / "none.log")]
    _, *lines = told(remote, run_info(1), job_info(1), job_error(1, log=logs, rule_msg=slurm))
    assert lines == [
        "sqsd.errors.ConfigurationError: 2 problems:\n  a: wrong\n  b: wrong",
        f"FAILED make; {slurm.strip()}; log: {', '.join(logs)}",
    ]
    # Here the job has said so itself.
    _, line = told(run_info(1), job_info(1), job_error(1, log=logs))
    assert line == f"FAILED make; log: {', '.join(logs)}"


def test_a_failed_group_is_one_line():
    jobs = [{"jobid": 1, "rule_name": "one", "log": ["1.log"]},
            {"jobid": 2, "rule_name": "two", "log": []}]  # fmt: skip
    group = record(
        "Error in group g", level=logging.ERROR, event=LogEvent.GROUP_ERROR, groupid="g",
        aux_logs=["slurm.log"], job_error_info=jobs,
    )  # fmt: skip
    errors = [job_error(1, "one", indent=True), job_error(2, "two", indent=True)]
    _, line = told(run_info(2), job_info(1, "one", shard="0"), group, *errors)
    assert line == "FAILED 2 steps sent together (one (shard 0), two); log: slurm.log, 1.log"


def test_a_job_that_is_tried_again_has_not_failed():
    failed = [job_info(1, "train", model="m"), job_error(1, "train", log=["l"])]
    again = record("Trying to restart job 1.")
    _, *lines = told(
        run_info(2), *failed, again, job_info(1, "train", at=10, model="m"),
        *finished(1, 1, 2, at=12),
        record(ALL_DONE, at=12),
    )  # fmt: skip
    assert lines[:3] == [
        "FAILED train (model m); log: l", "train (model m) is tried again",
        "1/2 train (model m): 2.0 s",  # of the second attempt
    ]  # fmt: skip
    assert lines[3].startswith(
        "1 of 2 steps done in 00:12 and kept; to go on from there, run the same command again. "
    )
    assert len(lines) == 4


def test_whatever_else_failed_is_said_together_at_the_end():
    jobs = [step for i in (1, 2, 3) for step in (job_info(i, f"rule_{i}"),)]
    _, *lines = told(
        run_info(3), *jobs, job_error(1, "rule_1"), *finished(2, 1, 3), job_error(3, "rule_3"),
        record("Exiting because a job execution failed. Look above for error messages",
               level=logging.ERROR),
        record(ALL_DONE, at=5),
    )  # fmt: skip
    assert lines[3:6] == ["2 steps failed:", "  rule_1", "  rule_3"]
    assert lines[6].startswith("1 of 3 steps done in 00:05 and kept;") and len(lines) == 7


def test_of_a_failed_update_of_what_was_not_there_nothing_is_said():
    lost = record("Cannot restore a.json: no backup found.", level=logging.WARNING)
    assert told(run_info(1), job_info(1), lost, job_error(1))[1:] == ["FAILED make; it has no log"]


def test_steps_that_ctrl_c_ends_have_not_failed():
    stop = "Terminating processes on user request, this might take some time."
    end = [script_error("died with <Signals.SIGINT: 2>"), job_error(1)]
    _, *lines = told(run_info(2), job_info(1), record(stop), *end, record(ALL_DONE, at=1))
    assert lines[0] == stop
    assert "kept; to go on from there, run the same command again." in lines[1]
    assert len(lines) == 2


def test_what_has_no_event_is_told_before_the_steps_and_later_where_it_matters(said):
    talk, warning = (
        record("Creating conda environment x..."),
        record("Beware", level=logging.WARNING),
    )
    nothing = record("Nothing to be done (all requested files are present and up to date).")
    usual = [
        record("Assuming unrestricted shared filesystem usage."),
        record("Using shell: /bin/x"),
    ]
    assert said(*usual, talk, warning, nothing) == [talk.msg, "Beware", nothing.msg]
    assert said(run_info(1), talk, warning)[1:] == ["Beware"]


TRACEBACK = (
    "Traceback (most recent call last):\n\n"
    '  File "/x/snakemake/cli.py", line 7, in main\n    api()\n    ^^^^^\n\n'
    '  File "/x/snakemake/api.py", line 9, in api\n    raise\n\n'
    "NotADirectoryError: [Errno 20] Not a directory: 'a'\n"
)


def test_an_error_of_snakemake_is_its_message_and_where_the_traceback_is(said, tmp_path):
    missing = "MissingRuleException:\nNo rule to produce nothing."
    assert said(error(missing, "MissingRuleException")) == missing.splitlines()
    broken = error(TRACEBACK, "NotADirectoryError")
    message = "NotADirectoryError: [Errno 20] Not a directory: 'a'"
    assert said(broken) == [f"{message} (--verbose shows its traceback)"]
    (line,) = said(broken, folder=tmp_path)
    (path,) = (tmp_path / ".snakemake/log").iterdir()
    assert line == f"{message} (its traceback is in {path})"
    assert 'File "/x/snakemake/api.py", line 9' in path.read_text()


@pytest.mark.parametrize("setting", ["dryrun", "verbose", "debug_dag"])
def test_dry_runs_and_whoever_asks_for_more_get_snakemakes_own_words(said, capsys, setting):
    start = record("Provided cores: 2", event=LogEvent.RESOURCES_INFO)
    assert said(start) == []
    assert said(start, run_info(2), **{setting: True}) == ["Provided cores: 2", "Job stats: ..."]


def test_quiet_is_quiet(said):
    quiet = frozenset({Quietness.PROGRESS, Quietness.RULES})
    lines = said(run_info(1), job_info(1), *finished(1, 1, 1), error("Broken"), quiet=quiet)
    assert lines == ["Broken"]


def test_an_error_in_the_logger_ends_no_later_line(said):
    bad = record("", event=LogEvent.JOB_FINISHED)  # without its job
    lines = said(run_info(2), bad, job_info(1), *finished(1, 1, 2))
    assert "AttributeError: 'LogRecord' object has no attribute 'job_id'" in lines
    assert lines[-1] == "1/2 make: 0.0 s"


# On a terminal.
@contextmanager
def terminal(monkeypatch) -> Iterator[Callable[[], str]]:
    """A terminal of 60 columns behind sys.stderr; yields what reads all that it got until now."""
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (10, 60))
    text, end = "", "\a"

    def read() -> str:
        # What is written arrives by and by: a mark says when all of it is there. What the
        # painting thread has written behind the mark is left for the next call.
        nonlocal text
        stream.write(end)
        stream.flush()
        while end not in text:
            text += os.read(reader, 100_000).decode()
        got, _, text = text.partition(end)
        return got

    with open(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield read
    os.close(reader)


def test_bars_are_below_the_lines_and_go_at_the_end(monkeypatch, tmp_path):
    log = str(tmp_path / "a.log")
    monkeypatch.setenv(LOG, "before")

    def score(handler):
        with log_to(log), progress("scoring", 8, "row", done=2):
            handler.show()
            texts.append(texts[-1] + read())
            raise ConfigurationError("a: wrong")

    with terminal(monkeypatch) as read:
        texts = [""]
        with managed() as manager:
            (handler,) = manager.plugin_handlers
            assert isinstance(handler, LogHandler)
            jobs = job_info(1, log=[log], shard="0"), job_info(2)
            for one in (run_info(4), *jobs, *finished(2, 1, 4)):
                logger.handle(one)
            while not handler.steps.done or handler.steps.ready:
                time.sleep(0.01)
            with pytest.raises(SystemExit):
                score(handler)
            handler.show()
            texts.append(texts[-1] + read())
        assert BARS not in os.environ
        texts.append(texts[-1] + read())
    _, during, failed, end = map(shown, texts)
    assert during[0].startswith("4 steps to do") and during[1] == "1/4 make: 0.0 s"
    assert during[2].startswith("all steps:  25%|")
    assert during[3].startswith("scoring:  25%|##5       | 2/8 [")
    assert len(during) == 4 and max(map(len, during[2:])) < 60
    # The job's message takes the place of the bars, and they go on below.
    assert failed[:3] == [*during[:2], "ConfigurationError: a: wrong"]
    assert failed[3].startswith("all steps:  25%|") and len(failed) == 4
    assert end == failed[:3]


def test_the_bar_of_all_steps_tells_the_time_left(tmp_path):
    steps = Steps()
    for one in (run_info(8), job_info(1), job_info(2), *finished(1, 1, 8), *finished(2, 2, 8)):
        list(steps.told(one))
    # 2 of 8 took a minute: 6 more take three.
    (bar,) = steps.bars(NOW + 60, str(tmp_path))
    assert "2/8 [01:00<03:00, 30.00s/step]" in bar
