"""What the terminal shows of a real run, and what is left to the log."""

import json
import os
import pty
import re
import termios
from pathlib import Path

import pytest
from conftest import full_log, snakemake, snakemake_command, write_config
from terminal import shown

RUN = "results/sandbox"
MIXED, TEST = f"{RUN}/data/mixed.parquet", f"{RUN}/benchmarks/test.parquet"
SECONDS = r"\d+\.\d s"
END = r"2 of 2 steps done in \d\d:\d\d\. The full log: (/.*\.snakemake\.log)"


def mine(folder, *texts: str):
    """A configuration with a data set of rows of these answers."""
    rows = [{"q": "Hello", "a": text} for text in texts]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"instruction": "q", "response": "a"}
    return write_config(
        folder / "own.yaml", datasets={"mine": {"source": "mine.jsonl", "fields": fields}}
    )


def check_lines(lines: list[str], folder) -> None:
    """Of a run that made both files: the profile, a line before and after, and one for each."""
    profile, start, *steps, end = lines
    assert profile.startswith("Using workflow specific profile ")
    path = re.fullmatch(END, end)
    assert path and start == f"2 steps to do; the full log: {path[1]}"
    names = [re.fullmatch(rf"{number}/2 (.*): {SECONDS}", line) for number, line in
             enumerate(steps, 1)]  # fmt: skip
    assert {name and name[1] for name in names} == {
        "make_dataset (dataset mixed)", "make_benchmark (benchmark test)"
    }  # fmt: skip
    log = full_log(folder)
    assert log == Path(path[1]).read_text()
    for part in ("Job stats:", "rule make_dataset:", f"    output: {MIXED}", "2 of 2 steps (100%)"):
        assert part in log


def test_a_line_a_step_and_all_else_in_the_log(tmp_path):
    done = snakemake(tmp_path, MIXED, TEST, "--cores", "2")
    assert done.returncode == 0
    check_lines(done.stdout.splitlines(), tmp_path)
    again = snakemake(tmp_path, MIXED, TEST, "--cores", "2").stdout.splitlines()
    assert again[1:] == ["Nothing to be done (all requested files are present and up to date)."]


def test_on_a_terminal_the_same_lines_and_a_bar_that_goes(tmp_path):
    command = snakemake_command(tmp_path, MIXED, TEST, "--cores", "2")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    termios.tcsetwinsize(terminal, (30, 300))
    text = b""
    try:
        while more := os.read(terminal, 10_000):
            text += more
    except OSError:  # the child has closed it
        pass
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert re.search(rb"all steps: +0%\|.* 0/2 \[", text)
    check_lines(shown(text.decode()), tmp_path)


@pytest.mark.parametrize("arguments", [(), ("--keep-going",), ("--verbose",)])
def test_a_line_that_cannot_be_read_is_one_message(tmp_path, arguments):
    config = mine(tmp_path, "There", "Then \ud83d")
    wanted = [f"{RUN}/data/mine.parquet", "--cores", "1", *arguments]
    done = snakemake(tmp_path, *wanted, configfiles=(config,))
    assert done.returncode == 1
    message = "mine.jsonl:2: text that is not Unicode (surrogates not allowed); repair it"
    assert done.stdout.count(message) == 1
    if "--verbose" in arguments:  # Snakemake's own words
        assert "Error in rule make_dataset:" in done.stdout
        return
    log = f"{RUN}/logs/make_dataset/mine.log"
    _, _, *said, end = done.stdout.splitlines()
    assert said == [f"DataError: {message}", f"FAILED make_dataset (dataset mine); log: {log}"]
    assert re.match(
        r"0 of 1 step done in \d\d:\d\d and kept; to go on from there, mend what failed, then run "
        r"the same command again\. The full log: /.*\.snakemake\.log$", end,
    )  # fmt: skip
    assert "Traceback (most recent call last)" in (tmp_path / log).read_text()
    assert "Error in rule make_dataset:" in full_log(tmp_path)

    mine(tmp_path, "There", "Then")
    again = snakemake(tmp_path, *wanted, configfiles=(config,))
    assert again.returncode == 0 and "1/1 make_dataset (dataset mine): " in again.stdout


def test_a_job_on_another_machine_has_no_logger(tmp_path):
    """A job of a cluster is a Snakemake of its own, in the mode `remote`: it takes no profile."""
    done = snakemake(
        tmp_path, MIXED, "--cores", "1", "--mode", "remote", "--target-jobs",
        "make_dataset:dataset=mixed", "--nolock",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "rule make_dataset:" in done.stdout and "steps to do" not in done.stdout
