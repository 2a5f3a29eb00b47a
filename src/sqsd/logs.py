"""Log files and progress: a bar on a terminal, a line every 30 s in a log file."""

import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30
PACKAGES = ("sqsd", "torch", "transformers", "peft", "trl")


@contextlib.contextmanager
def log_to(path: str) -> Iterator[None]:
    """Send what is printed to the rule's log file, headed by the versions in use.

    Bars stay on the terminal. An error is written to the log with its traceback and its message
    goes to the terminal too.
    """
    # What the imports made lives to the job's end: left out of garbage collection, it costs no
    # walk over 400,000 objects at exit (a second per job with torch and transformers).
    gc.freeze()
    terminal = sys.stderr
    with (
        open(path, "w", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        print(" ".join(f"{package} {version(package)}" for package in PACKAGES))
        started = time.monotonic()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            print(f"{type(error).__name__}: {error}", file=terminal)
            raise
        print(f"done in {time.monotonic() - started:.1f} s")


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
