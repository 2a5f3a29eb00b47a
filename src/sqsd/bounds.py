"""Columns with bounds: how a value and its interval are named, and which bounds are shown."""

import math

import pandas as pd

# Kinds of bounds that a column may have, the one that is shown first.
BOUNDS = ("clustered", "wilson", "t", "fisher", "bootstrap")


def named_interval(name: str, kind: str, interval: tuple[float, float, float]) -> dict[str, float]:
    mean, low, high = interval
    return {name: mean, f"{name}_{kind}_low": low, f"{name}_{kind}_high": high}


def first_bounds(table: pd.DataFrame, name: str, end: str) -> pd.Series:
    """The bounds of a column that are shown: row by row the first of `BOUNDS` there is."""
    found = pd.Series(math.nan, table.index)
    for kind in BOUNDS:
        if f"{name}_{kind}_{end}" in table:
            found = found.fillna(table[f"{name}_{kind}_{end}"])
    return found
