"""Log files and progress: a bar on a terminal, a line every 30 s elsewhere."""

import contextlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import version

from tqdm import tqdm
from transformers import TrainerCallback

SECONDS_BETWEEN_LINES = 30


@contextlib.contextmanager
def log_to(path: str) -> Iterator[None]:
    """Send what is printed to the rule's log file, headed by the versions in use.

    An error is written to the log with its traceback and its message goes to the terminal too.
    """
    terminal = sys.stderr
    with (
        open(path, "w", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        versions = " ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft", "trl"))
        print(versions)
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            print(f"{type(error).__name__}: {error}", file=terminal)
            raise


def progress(
    items: Iterable | None, description: str, total: int | None = None, unit: str = "it"
) -> tqdm:
    """A tqdm bar: redrawn on a terminal, a line every 30 s in a file."""
    return tqdm(items, **bar_options(description, total, unit))


def bar_options(description: str, total: int | None, unit: str) -> dict:
    interactive = sys.stderr.isatty()
    return {
        "desc": description,
        "total": total,
        "unit": unit,
        "file": sys.stderr,
        "mininterval": 0.1 if interactive else SECONDS_BETWEEN_LINES,
        "ascii": not interactive,
        "dynamic_ncols": interactive,
    }


class ProgressCallback(TrainerCallback):
    """Training progress through the same bar as every other long step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(
            initial=state.global_step, **bar_options("training", state.max_steps, "step")
        )

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
