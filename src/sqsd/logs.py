"""Log files and progress: a bar on a terminal, a line every 30 s in a log file."""

import contextlib
import gc
import hashlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from sqsd.errors import SqsdError, message_of_disk, remedy_for
from sqsd.termination import Terminated, leaving_on_sigterm, leaving_when_lost

SECONDS_BETWEEN_LINES = 30
PACKAGES = ("sqsd", "torch", "transformers", "peft", "trl")
# Environment variables: the folder where bars are left for who draws them on the terminal
# (`snakemake_logger_plugin_sqsd`), and the log of the job whose bar it is.
BARS, LOG = "SQSD_BARS", "SQSD_LOG"
# Of a process that Ctrl-C has ended, as shells give it.
INTERRUPTED = 130
# To a terminal: go to the line's beginning and clear it and all below, where bars are.
CLEAR = "\r\033[J"


@contextlib.contextmanager
def log_to(path: str) -> Iterator[None]:
    """Send what is printed to the rule's log file, headed by the versions in use.

    Bars stay on the terminal. An error is written to the log with its traceback, and ends the
    program with status 1; its message alone goes to the terminal, once. SIGTERM and Ctrl-C end the
    program too, after what is half written has been removed.
    """
    # What the imports made lives to the job's end: left out of garbage collection, it costs no
    # walk over 400,000 objects at exit (a second per job with torch and transformers).
    gc.freeze()
    terminal = sys.stderr
    os.environ[LOG] = path  # for processes that the job starts, too
    with (
        log_file(path) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
        leaving_on_sigterm(),
        leaving_when_lost(),
    ):
        started = time.monotonic()
        try:
            print(" ".join(f"{package} {version(package)}" for package in PACKAGES))
            yield
        except Terminated:
            print(f"ended by SIGTERM after {time.monotonic() - started:.1f} s")
            raise
        except KeyboardInterrupt:
            print(f"ended by Ctrl-C after {time.monotonic() - started:.1f} s")
            sys.exit(INTERRUPTED)
        except Exception as error:
            begin = CLEAR if terminal.isatty() else ""
            print(f"{begin}{message_of(error, path)}", file=terminal)
            with contextlib.suppress(OSError):  # of a full disk
                traceback.print_exc()
            sys.exit(1)
        print(f"done in {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def log_file(path: str) -> Iterator[TextIO]:
    """A file that shows each line at once. What a full disk has kept from it is no second error."""
    try:
        log = open(path, "w", buffering=1)  # noqa: SIM115, whose closing may fail
    except OSError as error:
        sys.exit(message_of_disk(error, f"{path}: no log can be written"))
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            log.close()


def message_of(error: Exception, log: str) -> str:
    """What the terminal shows of an error: our own are made for it, of others where to read on."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SqsdError):
        return said
    remedy = remedy_for(error)
    return f"{said}; {remedy}" if remedy else f"{said} (its traceback is in {log})"


class LineBar(tqdm):
    """A bar for a file: each refresh is a line of its own."""

    def display(self, msg=None, pos=None):
        self.fp.write(f"{msg or self}\n")


class SharedBar(tqdm):
    """A bar for another process to draw: each refresh is the whole content of a file."""

    def __init__(self, path: Path, **options) -> None:
        self.path = path
        # tqdm ends the line of a bar in its file.
        super().__init__(file=io.StringIO(), leave=False, ascii=True, **options)

    def display(self, msg=None, pos=None):
        half = self.path.with_suffix(".half")
        with contextlib.suppress(OSError):  # no bar is worth a job
            half.write_text(str(self))
            half.replace(self.path)

    def close(self):
        super().close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def bar_file(folder: str, log: str) -> Path:
    """Where the job with this log, as its rule names it, leaves its bar."""
    return Path(folder, hashlib.sha256(log.encode()).hexdigest())


@contextlib.contextmanager
def progress(description: str, total: int, unit: str, done: int = 0) -> Iterator[Callable]:
    """Yields a function to call with the count of finished units; shows rate and time left.

    Lines go to what is printed (the log file inside `log_to`), and a bar to the terminal where the
    run's logger draws one.
    """
    options = {"desc": description, "total": total, "unit": unit, "initial": done}
    bars: list[tqdm] = [
        LineBar(
            **options, file=sys.stderr, ascii=True, mininterval=SECONDS_BETWEEN_LINES, miniters=1,
            ncols=100,
        )
    ]  # fmt: skip
    if folder := os.environ.get(BARS):
        bars.append(SharedBar(bar_file(folder, os.environ[LOG]), **options))
    try:
        yield lambda count=1: [bar.update(count) for bar in bars]
    finally:
        for bar in bars:
            bar.close()
