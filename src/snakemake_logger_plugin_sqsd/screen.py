"""Lines that stay, and below them bars that are drawn over."""

import os
from collections.abc import Sequence
from typing import TextIO

from sqsd.logs import CLEAR


def show(stream: TextIO, lines: Sequence[str], bars: Sequence[str]) -> None:
    """Print lines, and draw bars below; those of the last call go.

    The cursor is left where the bars begin, so that what a job prints by itself takes their place
    and not their end. All is one write, which nothing of another process can come between.
    """
    text = "".join(f"{line}\n" for line in lines)
    if stream.isatty():
        columns, rows = size(stream)
        # A bar as wide as the terminal would go on in the next line.
        drawn = [bar[: columns - 1] for bar in bars[: rows - 1]]
        up = f"\033[{len(drawn) - 1}A" if len(drawn) > 1 else ""
        text = f"{CLEAR}{text}" + "\n".join(drawn) + f"{up}\r"
    stream.write(text)
    stream.flush()


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of a terminal; the usual ones where it does not know."""
    columns, rows = os.get_terminal_size(stream.fileno())
    return columns or 80, rows or 24
