"""What is told of a run's steps, by Snakemake's records of them (LogEvent says which there are)."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from snakemake_logger_plugin_sqsd.config_files import told_of_config_files
from sqsd.logs import bar_file

# Said at every start, and of no use to who waits for it.
ALWAYS_SAID = (
    "Assuming unrestricted shared filesystem usage", "Building DAG of jobs", "Using shell:",
    "Conda environments: ignored", "Singularity containers: ignored", "Group jobs: inactive",
)  # fmt: skip
# What `Steps.end` says better.
END = ("Exiting because a job execution failed", "At least one job did not complete successfully")
# Of a failed job's output that an earlier one would have left to it, where there is none to keep.
NOTHING_TO_RESTORE = "Cannot restore "
# After it jobs end because they are ended.
STOPPED = "Terminating processes on user request"
# Of what Snakemake says without an event while steps run, what is told as it is.
TOLD = (STOPPED, "Will exit after finishing")
# How a script ended, in the last line of the error that Snakemake makes of it.
EXIT = re.compile(r"(?:non-zero exit status (\d+)|died with <Signals\.(\w+).*)\.$")
KILLED = {"137", "SIGKILL"}


@dataclass(frozen=True)
class Step:
    """A job that runs: what it is, its log files, and when it was started (seconds since 1970)."""

    name: str
    logs: Sequence[str]
    started: float


@dataclass
class Steps:
    """Counts steps by the records that are told; knows which run, and which have failed.

    ready: numbers, names and seconds of finished steps that are not told yet. exits: by thread, how
    the script ended whose error was the thread's last; the record that names the job is the
    thread's next.
    """

    total: int = 0
    done: int = 0
    begun: float = 0.0
    remote: bool = False
    running: dict[int, Step] = field(default_factory=dict)
    ready: list[tuple[int, str, float]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    exits: dict[int | None, str | None] = field(default_factory=dict)
    stopped: bool = False
    ended: bool = False

    def told(self, record: logging.LogRecord) -> Iterator[str]:
        """The lines that a record comes to, none for most."""
        told: dict[LogEvent | None, Callable[[logging.LogRecord], Iterator[str]]] = {
            LogEvent.RUN_INFO: self.begin,
            LogEvent.RESOURCES_INFO: self.look_where,
            LogEvent.JOB_INFO: self.start,
            LogEvent.JOB_FINISHED: self.finish,
            LogEvent.PROGRESS: self.count,
            LogEvent.JOB_ERROR: self.fail,
            LogEvent.GROUP_ERROR: self.fail_group,
            LogEvent.ERROR: self.err,
            None: self.say,
        }
        event = getattr(record, "event", None)
        return told[event](record) if event in told else iter(())

    def begin(self, record) -> Iterator[str]:
        self.total, self.begun = record.stats["total"], record.created
        yield f"{plural(self.total, 'step')} to do; the full log: {full_log()}"

    def look_where(self, record) -> Iterator[str]:
        self.remote = self.remote or hasattr(record, "nodes")
        yield from ()

    def start(self, record) -> Iterator[str]:
        name = name_of(record.rule_name, record.wildcards)
        self.running[record.jobid] = Step(name, record.log, record.created)
        yield from ()

    def finish(self, record) -> Iterator[str]:
        # With --quiet, Snakemake does not say which have started.
        if step := self.running.pop(record.job_id, None):
            self.ready.append((self.done + 1, step.name, record.created - step.started))
        self.done += 1
        yield from ()

    def count(self, record) -> Iterator[str]:
        """The lines of what has finished: it is here that Snakemake says how many there are now."""
        self.total = record.total
        for number, name, seconds in self.ready:
            yield f"{number:{len(str(self.total))}d}/{self.total} {name}: {seconds:.1f} s"
        self.ready.clear()

    def fail(self, record) -> Iterator[str]:
        """One line, and before it what the job has said where it could not say so here."""
        step = self.running.pop(record.jobid, None)
        name = step.name if step else record.rule_name
        why = [self.exits.pop(record.thread, None), record.rule_msg and record.rule_msg.strip()]
        if self.stopped:
            return
        self.failed[str(record.jobid)] = name
        if record.indent:  # one of a group, which has a line of its own
            return
        if self.remote:
            yield from said_last(record.log)
        yield failure(name, filter(None, why), record.log)

    def fail_group(self, record) -> Iterator[str]:
        logs = [*record.aux_logs, *(log for job in record.job_error_info for log in job["log"])]
        names = [
            step.name if (step := self.running.get(job["jobid"])) else job["rule_name"]
            for job in record.job_error_info
        ]
        yield from said_last(logs)
        yield failure(f"{plural(len(names), 'step')} sent together ({', '.join(names)})", (), logs)

    def err(self, record) -> Iterator[str]:
        text = record.getMessage().strip()
        if end := EXIT.search(text):
            self.exits[record.thread] = how(*end.groups())
        elif told := told_of_config_files(text, sys.argv[1:]):
            yield from told
        elif not any(said in text for said in END):
            yield without_traceback(text)

    def say(self, record) -> Iterator[str]:
        """What has no event: before the first step nearly all of it, later what matters."""
        text = record.getMessage()
        self.stopped = self.stopped or text.startswith(STOPPED)
        if again := re.fullmatch(r"Trying to restart job (\S+)\.", text):
            name = self.failed.pop(again[1], "what was sent together")
            yield f"{name} is tried again"
        elif text.startswith("Complete log"):
            yield from self.end(record)
        elif self.matters(text, record.levelno):
            yield text

    def matters(self, text: str, level: int) -> bool:
        if level >= logging.WARNING:
            return not text.startswith((*END, NOTHING_TO_RESTORE))
        return text.startswith(TOLD) if self.total else not text.startswith(ALWAYS_SAID)

    def end(self, record) -> Iterator[str]:
        self.ended = True
        if len(self.failed) > 1:
            yield f"{len(self.failed)} steps failed:"
            yield from (f"  {name}" for name in self.failed.values())
        took = tqdm.format_interval(record.created - self.begun)
        done = f"{self.done:,} of {plural(self.total, 'step')} done in {took}"
        if self.done < self.total:
            first = "mend what failed, then " if self.failed else ""
            done += f" and kept; to go on from there, {first}run the same command again"
        yield f"{done}. The full log: {full_log()}"

    def bars(self, now: float, folder: str) -> list[str]:
        """The bar of all steps, and those of jobs that show one.

        now: seconds since 1970; folder: where jobs leave their bars.
        """
        if not self.total or self.ended:
            return []
        elapsed = max(0.0, now - self.begun)
        meter = tqdm.format_meter(
            self.done, self.total, elapsed, ncols=79, prefix="all steps", unit="step", ascii=True
        )
        return [meter, *self.bars_of_jobs(folder)]

    def bars_of_jobs(self, folder: str) -> Iterator[str]:
        for step in self.running.values():
            for log in step.logs:
                try:
                    yield f"{bar_file(folder, log).read_text()} {step.name}"
                except OSError:  # of a job that shows none, or no more
                    continue


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def name_of(rule: str, wildcards: Mapping[str, str]) -> str:
    """A job as its user knows it: `collect_gradients (model sandbox, dataset mixed, shard 0)`."""
    words = ", ".join(f"{name} {value}" for name, value in wildcards.items())
    return f"{rule} ({words})" if words else rule


def how(status: str | None, signal: str | None) -> str | None:
    """What a status says beside the script's own words; those of status 1 are on the terminal."""
    if status == "1":
        return None
    said = f"ended by {signal}" if signal else f"exit status {status}"
    killed = (signal or status) in KILLED
    return f"{said}, as of a process killed for want of memory" if killed else said


def failure(name: str, why, logs: Sequence[str]) -> str:
    where = f"log: {', '.join(logs)}" if logs else "it has no log"
    return "; ".join([f"FAILED {name}", *why, where])


def said_last(logs: Sequence[str]) -> Iterator[str]:
    """The errors that end logs, without their tracebacks."""
    for log in logs:
        try:
            text = Path(log).read_text(errors="replace")
        except OSError:  # the job came to no log
            continue
        if "Traceback (most recent call last)" in text:
            yield message_after_traceback(text)


def without_traceback(text: str) -> str:
    if "Traceback (most recent call last)" not in text:
        return text
    log = full_log()
    where = f"its traceback is in {log}" if log else "--verbose shows its traceback"
    return f"{message_after_traceback(text)} ({where})"


def message_after_traceback(text: str) -> str:
    """What follows the frames, which are indented, of the last traceback in a text."""
    after = text.rpartition("Traceback (most recent call last):")[2].strip("\n")
    return re.sub(r"\A(?: .*\n|\n)*", "", after)


def full_log() -> str | None:
    """Snakemake's log file of this run, None before there is one."""
    handlers = logging.getLogger("snakemake.logging").handlers
    files = [h.baseFilename for h in handlers if isinstance(h, logging.FileHandler)]
    return files[-1] if files else None
