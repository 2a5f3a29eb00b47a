"""What a terminal shows of what is written to it: as much of one as bars need."""

import re

MOVE = re.compile(r"\033\[(\d*)([AJ])")


def shown(text: str) -> list[str]:
    """The lines on a terminal without an end, to the right and below, after this text."""
    lines: list[list[str]] = [[]]
    row = column = at = 0
    while at < len(text):
        if move := MOVE.match(text, at):
            if move[2] == "A":
                row -= int(move[1] or 1)
            else:  # clear what follows
                lines[row] = lines[row][:column]
                del lines[row + 1 :]
            at = move.end()
            continue
        if text[at] == "\r":
            column = 0
        elif text[at] == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        else:
            lines[row] += [" "] * (column - len(lines[row]))
            lines[row][column : column + 1] = text[at]
            column += 1
        at += 1
    found = ["".join(line) for line in lines]
    return found if found[-1] else found[:-1]
