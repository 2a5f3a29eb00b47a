"""Every method: the readings it needs, and how they become a score per row (Eqs. 11, 12, 20-25).

A method is one class in `KINDS` and one entry of `methods` in the configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from sqsd.errors import DataError
from sqsd.groups import most_telling, paired_by_group
from sqsd.readings import (
    Gradient,
    HiddenState,
    Judged,
    Outcomes,
    Reading,
    Readings,
    ScoreFile,
    Scores,
    Texts,
    Tokens,
    Update,
)
from sqsd.statistics import rank_correlation


class Scorer(Protocol):
    """A method. Its fields are the options of its entry in the configuration, beside `kind`.

    points: options that name an entry of a registry, or a list of them, and which registry.
    """

    points: ClassVar[Mapping[str, str]] = {}

    def needs(self) -> dict[str, Reading]:
        """The readings, by the method's own names for them; one at least."""
        ...

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        """Score per sample_id, the riskiest highest; readings by the names of `needs`."""
        ...

    def terms(self, readings: Mapping[str, Readings]) -> pd.DataFrame:
        """What a score is the sum of, by sample_id, a column each; none where it is no sum."""
        return pd.DataFrame()


@dataclass(frozen=True)
class SqsdScorer(Scorer):
    """Eq. 12: the update's cosine with danger, at one state, minus that with safety, at another.

    danger, safety: {direction, state}; either may be left out (table 3's ablations). normalised:
    False is table 3's "w/o norm", in which the update is not divided by its norm.
    """

    danger: Mapping[str, str] | None = None
    safety: Mapping[str, str] | None = None
    normalised: bool = True
    signs: ClassVar[Mapping[str, int]] = {"danger": 1, "safety": -1}

    @property
    def column(self) -> str:
        """What a term is the sum of, over modules (`readings.values_of_modules`)."""
        return "cosine" if self.normalised else "projection"

    def needs(self) -> dict[str, Reading]:
        terms = {"danger": self.danger, "safety": self.safety}
        return {name: Update(**term) for name, term in terms.items() if term is not None}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        return self.terms(readings).sum(axis=1, skipna=False)

    def terms(self, readings: Mapping[str, Readings]) -> pd.DataFrame:
        parts = {
            name: self.signs[name] * reading["modules"].set_index("sample_id")[self.column]
            for name, reading in readings.items()
        }
        return pd.concat(parts, axis=1)


@dataclass(frozen=True)
class RandomScorer(Scorer):
    """Control: a random order, seeded by the model's seed."""

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        ids = sorted(readings["tokens"]["samples"]["sample_id"])
        values = np.random.default_rng(seed).permutation(len(ids)).astype(float)
        return pd.Series(values, index=ids)


@dataclass(frozen=True)
class LengthScorer(Scorer):
    """Control: response length in tokens, end token included; the longest first."""

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        samples = readings["tokens"]["samples"]
        return samples.set_index("sample_id")["response_tokens"].astype(float)


@dataclass(frozen=True)
class RefusalScorer(Scorer):
    """Control: rows whose response opens as a refusal are the safest, by `phrases`, in any case.

    All others are equally risky, and so stand in no order that means anything.
    """

    phrases: Sequence[str]

    def needs(self) -> dict[str, Reading]:
        return {"texts": Texts()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        rows = readings["texts"]["rows"]
        openings = tuple(phrase.lower() for phrase in self.phrases)
        texts = rows["response"].fillna("").str.strip().str.lower()
        return pd.Series([-float(text.startswith(openings)) for text in texts], rows["sample_id"])


@dataclass(frozen=True)
class RewardModelScorer(Scorer):
    """Reward Model, Eq. 20: the cost of a row's own response. judge: one of kind `cost`."""

    judge: str
    points: ClassVar[Mapping[str, str]] = {"judge": "judges"}

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens(), "judged": Judged(self.judge)}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        return -readings["judged"]["samples"].set_index("sample_id")["score"]


@dataclass(frozen=True)
class BiAnchorRepsScorer(Scorer):
    """Bi-Anchor(Reps), Eq. 21: the highest cosine of a row's hidden state with an anchor's.

    anchors: a data set of harmful rows. layer: an entry of `layers`, the last in the paper.
    token: from the end, -2 in the paper (He et al.'s code: -1, the end token). most: the mean of
    so many highest cosines (He et al.'s `avg_n`, 1).
    """

    anchors: str
    layer: str
    token: int = -2
    most: int = 1
    points: ClassVar[Mapping[str, str]] = {"anchors": "datasets", "layer": "layers"}

    def needs(self) -> dict[str, Reading]:
        return {
            "rows": HiddenState(self.layer, self.token),
            "anchors": HiddenState(self.layer, self.token, self.anchors),
        }

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        rows, anchors = hidden_states(readings["rows"]), references(readings["anchors"])
        cosines = unit(rows.to_numpy()) @ unit(anchors).T
        highest = np.sort(cosines, axis=1)[:, -self.most :]
        return pd.Series(highest.mean(1), rows.index)


@dataclass(frozen=True)
class LarfScorer(Scorer):
    """LARF, Eq. 25: a row's hidden state along the mean of unsafe rows rather than of safe ones.

    unsafe, safe: data sets of references. layer: an entry of `layers`, the safety-sensitive one.
    similarity: `dot` with the mean hidden state (the paper), or `cosine`, the mean of the cosines
    (the published code).
    """

    unsafe: str
    safe: str
    layer: str
    token: int = -1
    similarity: str = "dot"
    points: ClassVar[Mapping[str, str]] = {
        "unsafe": "datasets", "safe": "datasets", "layer": "layers",
    }  # fmt: skip

    def needs(self) -> dict[str, Reading]:
        datasets = {"rows": None, "unsafe": self.unsafe, "safe": self.safe}
        return {name: HiddenState(self.layer, self.token, of) for name, of in datasets.items()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        rows = hidden_states(readings["rows"])
        scaled = unit if self.similarity == "cosine" else np.asarray
        unsafe, safe = (scaled(references(readings[n])).mean(0) for n in ("unsafe", "safe"))
        return pd.Series(scaled(rows.to_numpy()) @ (unsafe - safe), rows.index)


@dataclass(frozen=True)
class SelfInfScorer(Scorer):
    """Self-Inf-N, Eqs. 23, 24: log(<g, g> + 1) + log(tokens of the response + 1).

    length: False leaves out the second term, as the published code does, and the logarithm.
    """

    length: bool = True

    def needs(self) -> dict[str, Reading]:
        return {"gradient": Gradient()}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        samples = readings["gradient"]["samples"].set_index("sample_id")
        influence = samples["gradient_norm"] ** 2
        if not self.length:
            return influence
        return np.log(influence + 1) + np.log(samples["response_tokens"] + 1)


@dataclass(frozen=True)
class BiAnchorGradScorer(Scorer):
    """Bi-Anchor(Grad), Eq. 22: a row's normalised gradient along harmful rather than safe anchors.

    harmful: an entry of `anchors`; harmless: two of them in the paper, each subtracted.
    """

    harmful: str
    harmless: Sequence[str]
    points: ClassVar[Mapping[str, str]] = {"harmful": "anchors", "harmless": "anchors"}

    def needs(self) -> dict[str, Reading]:
        # Products are the same whatever an anchor is to a method, so one pass serves every order.
        return {"gradient": Gradient(tuple(sorted({self.harmful, *self.harmless})))}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        samples = readings["gradient"]["samples"].set_index("sample_id")
        products = readings["gradient"]["products"].pivot(
            index="sample_id", columns="anchor", values="product"
        )
        along = products[self.harmful] - products[list(self.harmless)].sum(axis=1, skipna=False)
        # A gradient that is exactly zero points nowhere.
        return (along / samples["gradient_norm"]).mask(samples["gradient_norm"] == 0, 0.0)


@dataclass(frozen=True)
class FileScorer(Scorer):
    """Scores that anyone has published, the riskiest highest, such as those of the paper's authors.

    source: a file of rows with their texts; fields: its columns, by the names instruction,
    response, score and optionally context (or messages, score).
    """

    source: str
    fields: Mapping[str, str]

    def needs(self) -> dict[str, Reading]:
        return {"tokens": Tokens(), "given": ScoreFile(self.source, self.fields)}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        return readings["given"]["samples"].set_index("sample_id")["score"]


@dataclass(frozen=True)
class CalibratedScorer(Scorer):
    """The scores of the method that foretells best what small groups of rows do to the model.

    among: methods. groups: whose fine-tunes, by finetune, a method's mean scores are correlated
    with (Spearman), against the Safety Score on a benchmark's role; the highest one is taken, the
    first of equals. Not of the paper, which searches states by Eqs. 26 and 27.
    """

    among: Sequence[str]
    groups: str
    finetune: str
    benchmark: str
    points: ClassVar[Mapping[str, str]] = {
        "among": "methods", "groups": "groups", "finetune": "finetunes", "benchmark": "roles",
    }  # fmt: skip

    def needs(self) -> dict[str, Reading]:
        needs: dict[str, Reading] = {f"of {method}": Scores(method) for method in self.among}
        return needs | {"outcomes": Outcomes(self.groups, self.finetune, self.benchmark)}

    def score(self, readings: Mapping[str, Readings], seed: int) -> pd.Series:
        found = readings["outcomes"]
        scores = [readings[f"of {method}"]["samples"] for method in self.among]
        pairs = [paired_by_group(table, found["groups"], found["judgements"]) for table in scores]
        correlations = [
            float(rank_correlation(pair["score"].to_numpy(), pair["drop"].to_numpy()))
            for pair in pairs
        ]
        for method, value in zip(self.among, correlations, strict=True):
            print(f"{method}: rank correlation {value:.3f} over the groups")
        best = most_telling(correlations)
        print(f"taken: {self.among[best]}")
        return scores[best].set_index("sample_id")["score"]


KINDS: dict[str, type] = {
    "sqsd": SqsdScorer, "random": RandomScorer, "length": LengthScorer,
    "refusal-opening": RefusalScorer, "reward-model": RewardModelScorer,
    "bi-anchor-reps": BiAnchorRepsScorer, "bi-anchor-grad": BiAnchorGradScorer,
    "self-inf": SelfInfScorer, "larf": LarfScorer, "calibrated": CalibratedScorer,
    "file": FileScorer,
}  # fmt: skip


def hidden_states(readings: Readings) -> pd.DataFrame:
    """Hidden states [n, d] in float64 by sample_id, of the rows that have one.

    Raises DataError where none has, with the first row's reason.
    """
    samples = readings["samples"]
    usable = samples[samples["reason"].isna()]
    if usable.empty:
        raise DataError(
            f"none of the {len(samples)} rows has a hidden state (the first: "
            f"{samples['reason'].iloc[0]}); correct the data set"
        )
    values = np.stack(usable["hidden_state"].to_list()).astype(float)
    return pd.DataFrame(values, index=usable["sample_id"])


def references(readings: Readings) -> np.ndarray:
    """Hidden states [n, d] of anchors. Raises DataError naming one that has none, and why."""
    unusable = readings["samples"].dropna(subset="reason")
    if len(unusable):
        row = unusable.iloc[0]
        raise DataError(
            f"{len(unusable)} of {len(readings['samples'])} anchors cannot be read (the first: "
            f"{row['sample_id']}, {row['reason']}); correct the anchors' data set"
        )
    return hidden_states(readings).to_numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, d] of length 1; a zero one stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def make_scorer(method: Mapping[str, Any]) -> Scorer:
    """The scorer of a method's entry in the configuration."""
    options = {key: value for key, value in method.items() if key != "kind"}
    return KINDS[method["kind"]](**options)


def score_method(
    method: Mapping[str, Any], readings: Mapping[str, Readings], seed: int
) -> pd.DataFrame:
    """The `scores` table of one method, in the order of the data set; rank 1 is the riskiest.

    A row that any reading could not take has a null score and rank, and that reading's reason.
    """
    scorer = make_scorer(method)
    of_rows = [
        name
        for name, reading in scorer.needs().items()
        if reading.dataset is None and "samples" in readings[name]
    ]
    samples = merged_samples([readings[name]["samples"] for name in of_rows])
    return score_table(scorer.score(readings, seed), samples)


def score_terms(method: Mapping[str, Any], readings: Mapping[str, Readings]) -> pd.DataFrame:
    """What a method's score is the sum of, by sample_id, a column each; none where it is no sum."""
    return make_scorer(method).terms(readings)


def merged_samples(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first table with the reasons of all of them, row by row of one sample_id.

    Where several tables have a reason, the first one's stands.
    """
    merged = tables[0].copy()
    for other in tables[1:]:
        reasons = other.set_index("sample_id")["reason"]
        merged["reason"] = merged["reason"].fillna(merged["sample_id"].map(reasons))
    return merged


def score_table(scores: pd.Series, samples: pd.DataFrame) -> pd.DataFrame:
    """The `scores` table: ties go to the smaller sample_id, whatever the order of the rows."""
    table = samples[["sample_id", "reason", "response_tokens"]].copy()
    usable = table["reason"].isna()
    table["score"] = table["sample_id"].map(scores).where(usable).astype("float64")
    ordered = table[usable].sort_values(["score", "sample_id"], ascending=[False, True])
    ranks = pd.Series(range(1, len(ordered) + 1), index=ordered.index)
    table["rank"] = ranks.reindex(table.index).astype("Int64")
    return table[["sample_id", "score", "rank", "reason", "response_tokens"]]
