import errno
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from sqsd import logs
from sqsd.errors import DataError
from sqsd.logs import BARS, CLEAR, LOG, LineBar, bar_file, log_to, progress

# Of a log's path.
ALPHABET = "ab/-.\u00e9"


def log_lines(path):
    return path.read_text().splitlines()


def test_the_log_begins_with_the_versions_and_holds_what_is_printed(tmp_path, capsys):
    path = tmp_path / "rule.log"
    with log_to(str(path)):
        print("to stdout")
        print("to stderr", file=sys.stderr)
    names = ("sqsd", "torch", "transformers", "peft", "trl")
    first, second, third, last = log_lines(path)
    assert first == " ".join(f"{name} {version(name)}" for name in names)
    assert (second, third) == ("to stdout", "to stderr")
    assert re.fullmatch(r"done in \d+\.\d s", last)
    assert capsys.readouterr() == ("", "")


def test_lines_reach_the_log_while_the_rule_runs(tmp_path):
    path = tmp_path / "rule.log"
    with log_to(str(path)):
        print("half way")
        assert log_lines(path)[1:] == ["half way"]


def test_an_error_goes_to_the_log_with_its_traceback_and_to_the_terminal(tmp_path, capsys):
    def fail():
        raise DataError("rows.csv: row 3 has no response")

    path = tmp_path / "rule.log"
    with pytest.raises(SystemExit) as left, log_to(str(path)):
        print("before")
        fail()
    assert left.value.code == 1  # an exit, so that Python shows no traceback on the terminal
    first, *rest = log_lines(path)
    assert first.startswith("sqsd ")
    assert rest[:2] == ["before", "Traceback (most recent call last):"]
    assert any(line.endswith("in fail") for line in rest)
    assert rest[-1] == "sqsd.errors.DataError: rows.csv: row 3 has no response"
    # The terminal gets the message alone.
    message = "DataError: rows.csv: row 3 has no response\n"
    assert capsys.readouterr() == ("", message)


def test_what_is_no_error_of_ours_is_told_in_short_with_the_place_of_the_rest(tmp_path, capsys):
    path = str(tmp_path / "rule.log")
    with pytest.raises(SystemExit) as left, log_to(path):
        raise KeyError("x")
    assert left.value.code == 1
    assert capsys.readouterr() == ("", f"KeyError: 'x' (its traceback is in {path})\n")


DISK = {
    errno.ENOSPC: "free room on the disk of results/ and run again",
    errno.EDQUOT: "free room in your quota on the disk of results/ and run again",
    errno.EROFS: "run where results/ can be written",
    errno.EACCES: "make the file or folder readable and writable for you, and run again",
}


@pytest.mark.parametrize("number", DISK)
@pytest.mark.parametrize("told", ["by number", "by text", "as its cause"])
def test_an_error_of_the_disk_is_told_with_its_remedy(tmp_path, capsys, number, told):
    error: Exception = OSError(number, os.strerror(number), "results/a.parquet")
    if told == "by text":  # as libraries of other languages do
        error = SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")
    with pytest.raises(SystemExit), log_to(str(tmp_path / "rule.log")):
        if told == "as its cause":
            raise RuntimeError("cannot save") from error
        raise error
    said = capsys.readouterr().err
    assert said.endswith(f"; {DISK[number]}\n") and said.count("\n") == 1
    shown = "cannot save" if told == "as its cause" else os.strerror(number)
    assert said.startswith(f"{type(error).__name__}: " if told != "as its cause" else "Runtime")
    assert shown in said


def test_a_log_on_a_full_disk_hides_no_error(monkeypatch, capsys):
    # /dev/full: every write to it fails as on a full disk.
    with pytest.raises(SystemExit) as left, log_to("/dev/full"):
        print("does not fit")
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said == f"OSError: [Errno 28] No space left on device; {DISK[errno.ENOSPC]}\n"


def test_printing_is_as_before_after_the_block(tmp_path, capsys):
    streams = sys.stdout, sys.stderr
    with log_to(str(tmp_path / "good.log")):
        assert sys.stdout is sys.stderr is not streams[0]
    assert (sys.stdout, sys.stderr) == streams
    with pytest.raises(SystemExit), log_to(str(tmp_path / "bad.log")):
        raise ValueError("wrong")
    assert (sys.stdout, sys.stderr) == streams
    print("after")
    assert capsys.readouterr().out == "after\n"


def lines_of_progress(batches, done=0, terminal=None):
    """What a progress over these batches writes to a file."""
    file = io.StringIO()
    total = done + sum(batches)
    with redirect_stderr(file), progress("scoring", total, "row", done=done) as advance:
        for batch in batches:
            advance(batch)
    return file.getvalue()


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 20))
def test_progress_in_a_file_is_lines_and_the_last_shows_all_done(batches, done):
    text = lines_of_progress(batches, done)
    assert "\r" not in text and text.endswith("\n")
    lines = [line for line in text.splitlines() if line]
    total = done + sum(batches)
    assert all(line.startswith("scoring:") for line in lines)
    assert f"{done}/{total} [" in lines[0]
    assert "100%" in lines[-1] and f" {total}/{total} [" in lines[-1]
    assert "row" in lines[-1]  # the rate has the unit


def test_progress_in_a_file_is_seldom():
    # 2,000 steps in far less than SECONDS_BETWEEN_LINES: only the first line and the last.
    lines = [line for line in lines_of_progress([1] * 2000).splitlines() if line]
    assert len(lines) == 2
    assert " 0/2000 [" in lines[0] and " 2000/2000 [" in lines[1]


def test_progress_writes_a_line_whenever_the_time_has_passed(monkeypatch):
    monkeypatch.setattr(logs, "SECONDS_BETWEEN_LINES", 0)
    lines = [line for line in lines_of_progress([1, 2]).splitlines() if line]
    counts = [re.findall(r"\b(\d+)/3\b", line) for line in lines]
    assert counts[:3] == [["0"], ["1"], ["3"]]


def test_progress_counts_one_unit_unless_told(monkeypatch):
    file = io.StringIO()
    with redirect_stderr(file), progress("scoring", 2, "row") as advance:
        advance()
        advance()
    assert " 2/2 [" in file.getvalue().rstrip().splitlines()[-1]


def test_progress_that_fails_shows_how_far_it_came():
    file = io.StringIO()
    broken = pytest.raises(ValueError, match="broken")
    with redirect_stderr(file), broken, progress("scoring", 5, "row") as advance:
        advance(2)
        raise ValueError("broken")
    assert " 2/5 [" in file.getvalue().rstrip().splitlines()[-1]


def test_a_job_leaves_its_bar_where_the_terminals_logger_looks(monkeypatch, tmp_path):
    monkeypatch.setenv(BARS, str(tmp_path))
    monkeypatch.setenv(LOG, "results/a/b.log")
    bar = bar_file(str(tmp_path), "results/a/b.log")
    with redirect_stderr(io.StringIO()) as file, progress("scoring", 4, "row", done=1):
        assert bar.read_text().startswith("scoring:  25%|##5       | 1/4 [")
        assert list(tmp_path.iterdir()) == [bar]
    assert not list(tmp_path.iterdir())
    assert "\r" not in file.getvalue() and " 1/4 [" in file.getvalue()  # the log has its lines


@given(st.lists(st.text(ALPHABET, min_size=1), min_size=2, max_size=2, unique=True))
def test_no_two_jobs_share_a_bar(logs):
    one, two = (bar_file("bars", log) for log in logs)
    assert one != two and one.parent == two.parent == Path("bars")


def test_a_bar_that_cannot_be_left_ends_no_job(monkeypatch, tmp_path):
    monkeypatch.setenv(BARS, str(tmp_path / "none"))  # as on the node of a cluster
    assert " 2/2 [" in lines_of_progress([1, 1])


def test_no_bar_where_nobody_draws_it(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv(BARS, raising=False)
    monkeypatch.chdir(tmp_path)
    lines_of_progress([1, 1])
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_a_job_names_its_log_to_the_processes_it_starts(monkeypatch, tmp_path):
    monkeypatch.setenv(LOG, "before")
    with log_to(str(tmp_path / "rule.log")):
        show = [sys.executable, "-c", f"import os; print(os.environ['{LOG}'])"]
        assert subprocess.check_output(show, text=True) == f"{tmp_path}/rule.log\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_an_error_takes_the_place_of_bars(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(SystemExit), log_to(str(tmp_path / "rule.log")):
        raise DataError("a.csv: empty")
    assert sys.stderr.getvalue() == f"{CLEAR}DataError: a.csv: empty\n"  # pyright: ignore


def test_ctrl_c_ends_a_job_without_a_traceback(tmp_path, capsys):
    path = tmp_path / "rule.log"
    with pytest.raises(SystemExit) as left, log_to(str(path)):
        raise KeyboardInterrupt
    assert left.value.code == 130
    assert re.fullmatch(r"ended by Ctrl-C after \d+\.\d s", log_lines(path)[-1])
    assert capsys.readouterr() == ("", "")


def test_progress_inside_log_to_goes_to_the_log(tmp_path, capsys):
    path = tmp_path / "rule.log"
    with log_to(str(path)), progress("judging", 3, "response") as advance:
        advance(3)
    text = path.read_text()
    assert "\r" not in text and re.search(r"^judging: 100%.* 3/3 \[", text, re.MULTILINE)
    assert capsys.readouterr() == ("", "")


def test_a_line_bar_writes_each_refresh_on_a_line_of_its_own():
    file = io.StringIO()
    bar = LineBar(total=2, file=file, mininterval=0, miniters=1, ascii=True)
    bar.update(1)
    bar.display("said by hand")
    assert [" 0/2 " in line for line in file.getvalue().splitlines()] == [True, False, False]
    assert " 1/2 " in file.getvalue().splitlines()[1]
    assert file.getvalue().splitlines()[2] == "said by hand"
    bar.close()
