"""Why rows have the score that they have: by layer, module, token, and beside other rows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sqsd.errors import DataError
from sqsd.files import written_whole
from sqsd.readings import values_of_modules
from sqsd.scorers import SqsdScorer, unit
from sqsd.tables import read_table, write_table
from sqsd.token_view import page

LAYER = re.compile(r"\.(\d+)\.")


def chosen_rows(scores: pd.DataFrame, riskiest: int, middling: int, safest: int) -> pd.DataFrame:
    """The riskiest rows of a `scores` table, those in the middle of its ranking, the least risky.

    Fewer where there are fewer, the riskiest first; none twice. Raises DataError where no row has a
    score.
    """
    ranked = scores.dropna(subset="rank").sort_values("rank")
    if ranked.empty:
        raise DataError(
            f"none of the {len(scores)} rows has a score (the first: {scores['reason'].iloc[0]}), "
            "so there is nothing to explain; correct the data set"
        )
    start = max((len(ranked) - middling) // 2, riskiest)
    end = max(len(ranked) - safest, start + middling)
    return pd.concat([ranked[:riskiest], ranked[start : start + middling], ranked[end:]])


def explain_rows(
    scorer: SqsdScorer,
    modules: Mapping[str, Sequence[str]],
    tokens: pd.DataFrame,
    scores: pd.DataFrame,
    rows: pd.DataFrame,
    repeats: pd.DataFrame,
    riskiest: int,
    safest: int,
    nearest: int,
    about: Mapping[str, str],
    out: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Write the `module_shares` and `nearest` tables of the rows of a `token_shares` table, and a
    page of them (`token_view.page`).

    modules: as in `addends`; nearest: rows beside each. out: files by the names modules, nearest
    and page.
    """
    parts = addends(scorer, modules)
    ids = tokens["sample_id"].unique()
    of_modules, neighbours = module_shares(parts.loc[ids]), nearest_rows(parts, ids, nearest)
    write_table(of_modules, out["modules"], "module_shares", provenance)
    write_table(neighbours, out["nearest"], "nearest", provenance)
    text = page(tokens, of_modules, neighbours, repeats, scores, rows, riskiest, safest, about)
    with written_whole(out["page"]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{len(ids)} rows explained in {out['page']}, {len(text) / 1e6:.1f} MB")


def addends(scorer: SqsdScorer, modules: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """What each row's score is the sum of: rows by sample_id, columns (term, module).

    modules: by term, the files of its `gradient_modules` tables, shard by shard.
    """
    terms = {}
    for term, paths in modules.items():
        values = (values_of_modules(read_table(path, "gradient_modules")) for path in paths)
        wide = [v.pivot(index="sample_id", columns="module", values=scorer.column) for v in values]
        terms[term] = scorer.signs[term] * pd.concat(wide)
    # A row that one term could not read has no score.
    return pd.concat(terms, axis=1, join="inner")


def module_shares(parts: pd.DataFrame) -> pd.DataFrame:
    """The `module_shares` table of `addends`: their sums by layer, and by kind of module.

    A module outside every layer stands for itself.
    """
    frames = []
    for part, name_of in {"layer": layer_of, "kind": kind_of}.items():
        names = parts.columns.get_level_values(1).map(name_of)
        found = parts.T.groupby([parts.columns.get_level_values(0), names], sort=False).sum().T
        found.columns.names = ["term", "name"]
        shares: Any = found.stack(["term", "name"])
        long = shares.rename("share").reset_index()
        frames.append(long.assign(part=part))
    table = pd.concat(frames, ignore_index=True)
    return table[["sample_id", "term", "part", "name", "share"]]


def layer_of(module: str) -> str:
    found = LAYER.search(module)
    return found[1] if found else module


def kind_of(module: str) -> str:
    return module.rpartition(".")[2]


def nearest_rows(parts: pd.DataFrame, ids: np.ndarray, count: int) -> pd.DataFrame:
    """The `nearest` table: the rows of `addends` whose addends point most as those of each id do.

    similarity: the cosine of the two rows' vectors; the nearest first, of equals the smaller
    sample_id. Of n rows and k ids n x k cosines are computed.
    """
    parts = parts.sort_index()
    vectors, names = unit(parts.to_numpy()), parts.index.to_numpy()
    places = {name: place for place, name in enumerate(names)}
    frames = []
    for sample_id in ids:
        place = places[sample_id]
        cosines = vectors @ vectors[place]
        cosines[place] = -np.inf
        # Rounded, so that rows of one text are equals however they were batched.
        order = (-cosines.round(6)).argsort(kind="stable")[: min(count, len(names) - 1)]
        frames.append(
            pd.DataFrame(
                {"sample_id": sample_id, "neighbour": names[order], "similarity": cosines[order]}
            )
        )
    return pd.concat(frames, ignore_index=True)
