"""Small groups of rows, each fine-tuned alone: a test of scores that is finer than five subsets."""

import random
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sqsd.errors import DataError


def group_names(count: int) -> list[str]:
    """Names of so many groups, in their order."""
    return [f"g{i:03d}" for i in range(count)]


def make_groups(
    rows: pd.DataFrame,
    samples: pd.DataFrame,
    size: int,
    random_groups: int,
    biased_groups: int,
    biased_share: float,
    seed: int,
) -> pd.DataFrame:
    """The `groups` table: groups of `size` usable rows, the random ones first.

    rows, samples: the `dataset` and `samples` tables of one data set. A biased group has
    biased_share of its rows from one family, which the seed draws, and the rest from the others;
    a row is in a group once, and may be in several groups. The order of the tables is of no
    account. Raises DataError where there are too few usable rows, or no family with enough rows.
    """
    usable = set(samples.loc[samples["reason"].isna(), "sample_id"])
    kept = rows[rows["sample_id"].isin(usable)].sort_values("sample_id")
    ids, families = kept["sample_id"].to_list(), kept["family"].to_list()
    if size > len(ids):
        raise DataError(
            f"groups of {size} rows: the data set has {len(ids)} usable rows; ask for smaller ones"
        )
    rng, of_family = random.Random(f"groups-{seed}"), round(biased_share * size)
    members = {}
    for i, family in enumerate(families):
        if isinstance(family, str):
            members.setdefault(family, []).append(ids[i])
    large = [
        family
        for family, own in sorted(members.items())
        if len(own) >= of_family and len(ids) - len(own) >= size - of_family
    ]
    if biased_groups and not large:
        raise DataError(
            f"biased groups: no family of rows has {of_family} usable rows, with "
            f"{size - of_family} outside it; set biased_groups to 0, or ask for smaller groups"
        )
    drawn = [(None, rng.sample(ids, size)) for _ in range(random_groups)]
    for _ in range(biased_groups):
        family = rng.choice(large)
        inside = set(members[family])
        others = [sample_id for sample_id in ids if sample_id not in inside]
        chosen = rng.sample(members[family], of_family) + rng.sample(others, size - of_family)
        drawn.append((family, chosen))
    names = group_names(len(drawn))
    table = pd.DataFrame(
        [
            (name, sample_id, family)
            for name, (family, chosen) in zip(names, drawn, strict=True)
            for sample_id in chosen
        ],
        columns=pd.Index(["group", "sample_id", "biased_to"]),
    )
    return table.astype("str")


def group_scores(scores: pd.DataFrame, groups: pd.DataFrame) -> pd.Series:
    """Mean score of each group's rows, by group; of those that have one, NaN where none has."""
    of_rows = groups["sample_id"].map(scores.set_index("sample_id")["score"])
    return of_rows.groupby(groups["group"]).mean()


def group_drops(judgements: pd.DataFrame, groups: pd.DataFrame) -> pd.Series:
    """How unsafe the model fine-tuned on each group is, by group: minus its mean Safety Score.

    judgements: of models fine-tuned on the groups, one or more seeds each. The drop from theta_0's
    Safety Score is this and a constant. Raises DataError naming groups without a judgement.
    """
    names = groups["group"].unique()
    drops = -judgements.groupby("window")["score"].mean().reindex(names)
    absent = drops.index[drops.isna()]
    if len(absent):
        raise DataError(f"no Safety Score of group(s) {', '.join(absent)}; judge them again")
    return drops


def paired_by_group(
    scores: pd.DataFrame, groups: pd.DataFrame, judgements: pd.DataFrame
) -> pd.DataFrame:
    """Columns score, the mean of a group's rows, and drop, by group, of those that have both."""
    drops = group_drops(judgements, groups)
    return pd.DataFrame({"score": group_scores(scores, groups), "drop": drops}).dropna()


def most_telling(correlations: Sequence[float]) -> int:
    """The place of the highest correlation, the first of equals.

    Raises DataError where none is a number: every score is the same for all groups.
    """
    values = np.asarray(correlations, dtype=float)
    if np.isnan(values).all():
        raise DataError(
            "no method tells the groups apart: each has one mean score for all; name others"
        )
    return int(np.nanargmax(values))
