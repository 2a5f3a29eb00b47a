"""SIGTERM, which a cluster sends some seconds before it kills: a job leaves, a training saves."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

# Of the 30 s that SLURM leaves between SIGTERM and SIGKILL where a site sets nothing (KillWait).
SECONDS_TO_SAVE = 25
SECONDS_BETWEEN_LOOKS = 0.5
# Of a process that SIGTERM has ended, as shells give it.
STATUS = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """SIGTERM has come. An exit, so that no handler of errors takes it for one."""

    def __init__(self) -> None:
        super().__init__(STATUS)


def leave(signum: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, so that what is half written is removed on the way."""
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def leaving_when_lost() -> Iterator[None]:
    """Inside, this process gets SIGTERM once the Snakemake that has started it is gone.

    Where that was killed its jobs would go on, beside those of whoever runs the workflow again.
    """
    main = main_process()
    if main is None:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=wait_for_loss, args=(main, done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def main_process() -> psutil.Process | None:
    """The nearest process above this one that is a Snakemake."""
    for parent in psutil.Process().parents():
        try:
            # `python .../snakemake`, or `python -m snakemake`.
            if any(Path(part).stem == "snakemake" for part in parent.cmdline()[:3]):
                return parent
        except psutil.Error:
            return None
    return None


def wait_for_loss(main: psutil.Process, done: threading.Event) -> None:
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        # Killed, it is a zombie until whoever has started it looks.
        if not main.is_running() or main.status() == psutil.STATUS_ZOMBIE:
            os.kill(os.getpid(), signal.SIGTERM)
            return


class Notice:
    """Inside, SIGTERM is noted as `given`, and raises `Terminated` only `SECONDS_TO_SAVE` later.

    For work that is worth a save, and looks now and then whether it has to.
    """

    given = False

    def __enter__(self) -> Self:
        self.before = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self.note),
            signal.SIGALRM: signal.signal(signal.SIGALRM, leave),
        }
        return self

    def note(self, signum: int, frame: FrameType | None) -> None:
        # A second signal, as where a launcher forwards what reached the job's processes anyway,
        # gives no more time.
        if not self.given:
            self.given = True
            signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_SAVE)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
