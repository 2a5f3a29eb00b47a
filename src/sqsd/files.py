"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqsd.errors import DataError


def export_source(root: Path) -> None:
    """Tell where the package's folder is to envs/sqsd.yaml, of which pip reads the variable."""
    os.environ["SQSD_SOURCE"] = str(root)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` for a file or a folder to be written to, which then takes its place.

    Where the block or the move raises, nothing is left beside `path`; where the block does, what
    was at `path` is as it was. A folder takes the place of another with all that is in it.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise DataError(
            f"{path.parent}: no such folder, or a link to none; make it, or delete the link, and "
            "run again"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        # A file is replaced in one move; a folder only where there is none.
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
