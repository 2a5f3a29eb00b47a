"""What becomes of a data set's rows before a fine-tune: some dropped, weighted, or added."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sqsd.curation import KEPT, decide, rows_in_share
from sqsd.errors import ConfigurationError, DataError

# The options of each kind. A kind of `BY_RISK` goes by a method's scores; `mix` asks for none.
KINDS = {"drop": ("share",), "weights": ("seed",), "mix": ("data",)}
BY_RISK = ("drop", "weights")


def treated_rows(
    entry: Mapping[str, Any],
    rows: pd.DataFrame,
    scores: pd.DataFrame | None = None,
    added: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The `training_rows` of a treatment, in the order of `rows`, a `dataset` table.

    entry: a treatment's in the configuration. scores: the `scores` table of these rows, for a kind
    of `BY_RISK`, which leaves out rows without a score; added: the `dataset` table whose rows a mix
    adds behind all others. Raises DataError as `curation.decide` and `risk_copies`.
    """
    if added is not None:
        return pd.concat([rows, added], ignore_index=True)
    assert scores is not None
    if entry["kind"] == "drop":
        decided = decide(rows["sample_id"].tolist(), scores, entry["share"])
        copies = (decided["decision"] == KEPT).astype(int)
    else:
        copies = risk_copies(rows["sample_id"], scores, entry["seed"])
    return rows.loc[rows.index.repeat(copies.to_numpy())].reset_index(drop=True)


def row_count(entry: Mapping[str, Any], rows: int, added: int = 0) -> int:
    """How many rows a treatment makes of so many that all have a score; added: those of a mix."""
    return rows - rows_in_share(entry.get("share", 0), rows) + added


def risk_copies(ids: pd.Series, scores: pd.DataFrame, seed: int) -> pd.Series:
    """How often each row is drawn, 0 to 2 times; as many rows in all as have a score.

    The weight of rank r of n (1 is the riskiest) is (2 r - 1) / n: it rises linearly from about 0
    to about 2, and its mean is 1. Systematic sampling in the order of risk, with one u in [0, 1) by
    the seed, takes row r floor(r^2 / n + u) - floor((r - 1)^2 / n + u) times, r^2 / n being the
    sum of the first r weights: its weight rounded down or up, and the weight itself on average. So
    the sum of the drawn rows' losses is on average the sum of all rows' losses times their weights,
    with nothing new in the training. Raises DataError for scores of rows that are not there, and
    where none has a score.
    """
    ranked = scores.dropna(subset="rank").sort_values("rank")
    n = len(ranked)
    if lost := sorted({*ranked["sample_id"]} - {*ids}):
        raise DataError(
            f"{len(lost)} rows with a score, as {lost[0]}, are not among the rows; delete the "
            "scores and run again"
        )
    if not n:
        raise DataError("no row has a score to be weighted by; look at the reasons in the scores")
    u = np.random.default_rng(seed).random()
    ends = np.floor(np.arange(n + 1, dtype=float) ** 2 / n + u).astype(int)
    copies = pd.Series(np.diff(ends), ranked["sample_id"])
    return copies.reindex(ids, fill_value=0)


def check_rows_left(
    name: str, entry: Mapping[str, Any], rows: int, dataset: str, batch_size: int
) -> None:
    """Raises ConfigurationError where a drop leaves fewer rows than a batch of a fine-tune has.

    rows: of the data set, with a score or without.
    """
    if entry["kind"] != "drop":
        return
    left = row_count(entry, rows)
    if left < batch_size:
        raise ConfigurationError(
            f"treatments.{name}.share: {entry['share']} leaves {left} of the {rows} rows of "
            f"datasets.{dataset}, fewer than a batch of {batch_size} to fine-tune on; allowed: at "
            f"most {max(rows - batch_size, 0) / rows:.2g}; or give more rows, or smaller batches"
        )
