"""Where a result comes from: `python -m sqsd.ancestry FILE ...`, in the folder that a run lies in.

Prints a result, then below it, further in, each of its inputs with what that was made from, down to
what the user has given. An input that is no longer what the result was made from is marked.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqsd.errors import DataError, SqsdError
from sqsd.provenance import content_hash, provenance_of

INDENT = "  "


def ancestry(path: str) -> Iterator[str]:
    """The lines of a result's ancestry, of its folder's where the folder alone says what it is of.

    Raises DataError where there is no such result."""
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; name a result of a run, relative to its folder")
    folder = str(Path(path).parent)
    # A file that has no place for it, as one of rows in the user's own format.
    if provenance_of(path) is None and provenance_of(folder) is not None:
        path = folder
    yield from lines(path, None, 0, set())


def lines(path: str, expected: str | None, depth: int, shown: set[str]) -> Iterator[str]:
    """expected: the hash of what the result above was made from."""
    here = INDENT * depth
    if not Path(path).exists():
        yield f"{here}{path} (is no longer there)"
        return
    changed = expected is not None and content_hash(path) != expected
    mark = " (CHANGED since)" if changed else ""
    found = provenance_of(path) or {}
    if path in shown and found.get("inputs"):
        yield f"{here}{path}{mark} (as above)"
        return
    shown.add(path)
    yield f"{here}{path}{mark}"
    if "stage" not in found:
        yield f"{here}{INDENT}given, or made before results said of what"
        return
    yield f"{here}{INDENT}{made_by(found)}"
    for below, content in found["inputs"].items():
        yield from lines(below, content, depth + 2, shown)


def made_by(found: Mapping[str, Any]) -> str:
    """One line of a provenance, without its inputs."""
    known = [f"{found['stage']}, version {found['stage_version']}, of sqsd {found['version']}"]
    known += [f"{n} {found[n]}" for n in ("settings", "seed") if found.get(n) is not None]
    known += [found[name] for name in ("time", "device") if name in found]
    packages = ", ".join(f"{name} {v}" for name, v in found.get("packages", {}).items())
    return "; ".join([*known, packages] if packages else known)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sqsd.ancestry", description=__doc__)
    parser.add_argument("results", nargs="+", metavar="FILE", help="a table, an adapter's folder")
    try:
        for result in parser.parse_args(arguments).results:
            for line in ancestry(result):
                print(line)
    except SqsdError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
