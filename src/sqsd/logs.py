"""Log files and progress: a bar on a terminal, a line every 30 s in a log file."""

import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TextIO

from tqdm import tqdm

from sqsd.errors import SqsdError, message_of_disk, remedy_for
from sqsd.termination import Terminated, leaving_on_sigterm, leaving_when_lost

SECONDS_BETWEEN_LINES = 30
PACKAGES = ("sqsd", "torch", "transformers", "peft", "trl")


@contextlib.contextmanager
def log_to(path: str) -> Iterator[None]:
    """Send what is printed to the rule's log file, headed by the versions in use.

    Bars stay on the terminal. An error is written to the log with its traceback, and ends the
    program with status 1; its message alone goes to the terminal, once. SIGTERM ends the program
    too, after what is half written has been removed.
    """
    # What the imports made lives to the job's end: left out of garbage collection, it costs no
    # walk over 400,000 objects at exit (a second per job with torch and transformers).
    gc.freeze()
    terminal = sys.stderr
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
        except Exception as error:
            print(message_of(error, path), file=terminal)
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


@contextlib.contextmanager
def progress(description: str, total: int, unit: str, done: int = 0) -> Iterator[Callable]:
    """Yields a function to call with the count of finished units; shows rate and time left.

    Lines go to what is printed (the log file inside `log_to`), and a bar to the terminal when
    there is one.
    """
    bars: list[tqdm] = [
        LineBar(
            desc=description, total=total, unit=unit, initial=done, file=sys.stderr, ascii=True,
            mininterval=SECONDS_BETWEEN_LINES, miniters=1, ncols=100,
        )
    ]  # fmt: skip
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        bars.append(
            tqdm(desc=description, total=total, unit=unit, initial=done, file=sys.__stderr__,
                 position=0, leave=False, dynamic_ncols=True)
        )  # fmt: skip
    try:
        yield lambda count=1: [bar.update(count) for bar in bars]
    finally:
        for bar in bars:
            bar.close()
