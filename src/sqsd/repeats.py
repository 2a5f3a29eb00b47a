"""Rows that say the same as others, or nearly: by their texts, whatever a model makes of them."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

# A letter of a script without blanks between words stands for a word.
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
WORDS_PER_SHINGLE = 3


def find_repeats(rows: pd.DataFrame, similarity: float) -> pd.DataFrame:
    """The `repeats` table: rows of a `dataset` table that are like another one.

    Two rows are alike where their texts are the same but for case and blanks, or the Jaccard
    similarity of their sets of shingles (`WORDS_PER_SHINGLE` words in a row, Broder 1997) is at
    least `similarity`, above 0. Rows that are alike, directly or through others, are one group,
    named by its first row; `similarity` is a row's highest with another one, 1 for the same text.

    Exact, without a look at every pair: see `similar_pairs`.
    """
    texts = [normalised(p, r) for p, r in zip(rows["prompt"], rows["response"], strict=True)]
    same = pd.Series(range(len(texts))).groupby(texts, sort=False)
    first = same.transform("first").to_numpy()
    highest = np.where(same.transform("size") > 1, 1.0, 0.0)
    distinct = np.unique(first)
    pairs = similar_pairs([shingles(texts[i]) for i in distinct], similarity)
    group = np.arange(len(texts))
    for i, j, found in pairs:
        one, other = distinct[i], distinct[j]
        highest[one], highest[other] = max(highest[one], found), max(highest[other], found)
        a, b = root(group, one), root(group, other)
        group[max(a, b)] = min(a, b)
    groups = np.array([root(group, i) for i in first], dtype=int)
    ids = rows["sample_id"].to_numpy()
    table = pd.DataFrame({"sample_id": ids, "group": ids[groups], "similarity": highest})
    return table[highest > 0].reset_index(drop=True)


def normalised(prompt: str, response: str | None) -> str:
    """Prompt and response on a line each, in one case, with one blank between words."""
    texts = (prompt, "" if pd.isna(response) else str(response))
    return "\n".join(" ".join(text.casefold().split()) for text in texts)


def root(group: np.ndarray, row: int) -> int:
    """The first row of a row's group; on the way, rows are hung nearer to it."""
    while group[row] != row:
        group[row] = group[group[row]]
        row = group[row]
    return int(row)


def shingles(text: str) -> np.ndarray:
    """64-bit hashes of a text's different runs of words; of a shorter text of all its words."""
    words = WORD.findall(text)
    count = max(len(words) - WORDS_PER_SHINGLE + 1, 1)
    runs = {" ".join(words[i : i + WORDS_PER_SHINGLE]) for i in range(count)}
    digests = b"".join(hashlib.blake2b(run.encode(), digest_size=8).digest() for run in runs)
    return np.frombuffer(digests, np.uint64)


def similar_pairs(sets: Sequence[np.ndarray], least: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard similarity) of sets of numbers, none empty, that are `least` or more.

    By prefix filtering (Bayardo et al. 2007, AllPairs): with each set's members in one order, the
    rarest first, two sets of a similarity of t share one of the first n - ceil(t n) + 1 of n. So
    only these are looked up, and only sets that share one are compared. Takes memory in proportion
    to the members; time, beside that, to the pairs that share a rare member: few, unless many sets
    are alike in part, at worst all pairs.
    """
    if not sets:
        return []
    sizes = [len(one) for one in sets]
    _, place, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    by_rarity = np.empty_like(counts)
    by_rarity[counts.argsort(kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([0, *sizes])
    ordered = [np.sort(by_rarity[place[a:b]]) for a, b in pairwise(ends)]
    alone = int((counts == 1).sum())  # members below this one are of a single set
    sharing: dict[int, list[int]] = defaultdict(list)
    pairs = []
    for i in sorted(range(len(sets)), key=sizes.__getitem__):
        # Rounding may not make a prefix shorter than it has to be.
        prefix = ordered[i][: sizes[i] - math.ceil(least * sizes[i] - 1e-9) + 1]
        prefix = prefix[prefix >= alone].tolist()
        candidates = {j for member in prefix for j in sharing[member]}
        for j in candidates:
            if sizes[j] >= least * sizes[i] - 1e-9:
                common = len(np.intersect1d(ordered[i], ordered[j], assume_unique=True))
                found = common / (sizes[i] + sizes[j] - common)
                if found >= least:
                    pairs.append((min(i, j), max(i, j), found))
        for member in prefix:
            sharing[member].append(i)
    return sorted(pairs)
