"""Scores in a file of anyone's, matched to the rows of a data set by their texts."""

import math
from collections.abc import Mapping

import pandas as pd

from sqsd.errors import DataError
from sqsd.sources import load_scores
from sqsd.tables import read_table

SHOWN_CHARACTERS = 60


def match_scores(dataset: str, path: str, fields: Mapping[str, str]) -> pd.DataFrame:
    """Columns sample_id, score and reason: of each row of a data set, its score in a file.

    dataset: path of a `dataset` table. path, fields: as in `sources.load_scores`. A row of the file
    is one of the data set where prompt and response are the same, however their whitespace. Of a
    text that stands in the file with different scores none is taken. Raises DataError where no row
    of the data set is in the file, and as `load_scores`.
    """
    rows, given = read_table(dataset, "dataset"), load_scores(path, fields)
    found = matched(rows, given, dataset, path)
    reasons = [why_unscored(scores) for scores in found]
    print(f"{reasons.count(None)} of {len(rows)} rows have a score in {path}")
    return pd.DataFrame(
        {
            "sample_id": rows["sample_id"],
            "score": [max(s) if s and len(s) == 1 else math.nan for s in found],
            "reason": pd.Series(reasons, dtype="str"),
        }
    )


def matched(
    rows: pd.DataFrame, given: pd.DataFrame, dataset: str, path: str
) -> list[set[float] | None]:
    """Of each row of a data set the different scores of its text, None where none is given.

    dataset, path: where rows and scores are from. Raises DataError where no row has its text there.
    """
    known: dict[tuple[str, str], set[float]] = {}
    for text, score in zip(texts(given), given["score"], strict=True):
        known.setdefault(text, set()).update([] if math.isnan(score) else [score])
    found = [known.get(text) for text in texts(rows)]
    if not any(scores is not None for scores in found):
        raise DataError(
            f"{path}: none of its {len(given)} rows is one of the {len(rows)} rows of {dataset}, "
            f"by prompt and response; its first row: {shown(given)}; the first row there: "
            f"{shown(rows)}; correct `fields`, or score the data set that the file is of"
        )
    return found


def why_unscored(scores: set[float] | None) -> str | None:
    """Why a row has no score, by the different ones of its text in the file; None where it has."""
    if scores is None:
        return "not in the score file"
    if len(scores) > 1:
        return "different scores in the score file"
    return None if scores else "no score in the score file"


def texts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Prompt and response of each row, any run of whitespace as one blank."""
    columns = (rows[name].fillna("") for name in ("prompt", "response"))
    return [(" ".join(p.split()), " ".join(r.split())) for p, r in zip(*columns, strict=True)]


def shown(rows: pd.DataFrame) -> str:
    """How the first row's prompt and response begin."""
    prompt, response = (text[:SHOWN_CHARACTERS] for text in texts(rows.head(1))[0])
    return f"{prompt!r}, {response!r}"
