"""GPUs of one machine: which there are, and each to one job at a time."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 1.0
# A file for each GPU that NVIDIA's driver has found.
FILES = Path("/proc/driver/nvidia/gpus")


def visible_gpus() -> list[str]:
    """The GPUs that a process here may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [str(i) for i in range(len(list(FILES.glob("*"))))]


@contextmanager
def own_gpus(count: int) -> Iterator[None]:
    """So many of the visible GPUs for this process alone; it sees no other inside the block.

    Waits until so many are free. Before anything is computed on a GPU: CUDA reads what it may see
    once. Jobs of a cluster have theirs from its scheduler, and where fewer than asked for are
    visible at all, whoever loads a model says so; nothing is done then.
    """
    there = visible_gpus()
    if not 0 < count <= len(there) or "SLURM_JOB_ID" in os.environ:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with ExitStack() as stack:
        mine = take(there, count, stack)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        print(f"GPUs of this job: {', '.join(mine)}")
        try:
            yield
        finally:
            del os.environ["CUDA_VISIBLE_DEVICES"]
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def take(there: list[str], count: int, held: ExitStack) -> list[str]:
    """So many of these GPUs, whose locks `held` lets go; all of them or none, until there are."""
    said = False
    while True:
        with ExitStack() as attempt:
            mine: list[str] = []
            for name in there:
                if len(mine) < count and locked(name, attempt):
                    mine.append(name)
            if len(mine) == count:
                held.push(attempt.pop_all())
                return mine
        if not said:
            print(f"waiting for {count} of {len(there)} GPUs, which other jobs have")
            said = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def locked(name: str, stack: ExitStack) -> bool:
    """Whether a GPU's lock is this process's now, until the stack closes or the process ends."""
    folder = Path(tempfile.gettempdir())
    safe = "".join(c if c.isalnum() else "-" for c in name)
    file = stack.enter_context((folder / f"sqsd-gpu-{os.getuid()}-{safe}.lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
