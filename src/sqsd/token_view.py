"""A page that shows tokens by what they have of a score. It asks for nothing and runs nothing."""

import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

# Of Unicode: controls, formats (which can turn the reading order), what has no meaning, and lines.
UNSEEN = frozenset(("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"))
SIGNS = {"\n": "⏎\n", "\t": "⇥\t"}
# Colours are of Okabe and Ito (2008), which the colour-blind can tell apart; text stays readable
# on the strongest of them.
STRONGEST = 0.7
RISKIEST, MIDDLE = "The riskiest rows", "In the middle of the ranking"
SAFEST = "The least risky rows"
NAMED_TOKENS = 8
MOST_LETTERS, MOST_RANKS = 160, 20
# Every text that stands in a page is escaped.
TEMPLATES = Environment(loader=PackageLoader("sqsd"), autoescape=True, undefined=StrictUndefined)


@dataclass(frozen=True)
class Span:
    """A text with its share, ready to be shown; kind: `r` towards danger, `s` towards safety."""

    text: str
    share: str
    told: str
    kind: str
    strength: str


def page(
    tokens: pd.DataFrame,
    modules: pd.DataFrame,
    nearest: pd.DataFrame,
    repeats: pd.DataFrame,
    scores: pd.DataFrame,
    rows: pd.DataFrame,
    riskiest: int,
    safest: int,
    about: Mapping[str, str],
) -> str:
    """The page of the rows of a `token_shares` table, in its order.

    The other tables are `module_shares`, `nearest`, `repeats`, `scores` and `dataset`. riskiest,
    safest: so many ranks from either end stand under headings of their own, all others under the
    middle's. about: names of dataset, method and model.
    Texts of rows stand for themselves: no markup, no control character that is not shown as one.
    """
    shown = shown_rows(tokens, modules, nearest, repeats, scores, rows)
    return TEMPLATES.get_template("explained.html").render(
        about=about, groups=grouped(shown, ranked_rows(scores), riskiest, safest),
        ranked=ranked_rows(scores), terms=list(tokens["term"].unique()), strongest=STRONGEST,
    )  # fmt: skip


def ranked_rows(scores: pd.DataFrame) -> int:
    return int(scores["rank"].notna().sum())


def grouped(
    shown: Sequence[Mapping[str, Any]], ranked: int, riskiest: int, safest: int
) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Rows of `shown_rows` by the heading that they stand under, without those of no row."""
    groups: dict[str, list[Mapping[str, Any]]] = {RISKIEST: [], MIDDLE: [], SAFEST: []}
    for row in shown:
        last = SAFEST if row["rank"] > ranked - safest else MIDDLE
        groups[RISKIEST if row["rank"] <= riskiest else last].append(row)
    return [(heading, found) for heading, found in groups.items() if found]


def shown_rows(
    tokens: pd.DataFrame,
    modules: pd.DataFrame,
    nearest: pd.DataFrame,
    repeats: pd.DataFrame,
    scores: pd.DataFrame,
    rows: pd.DataFrame,
) -> list[dict[str, Any]]:
    """What `rows.html` shows of each row of a `token_shares` table; the tables as in `page`."""
    known = {row["sample_id"]: row for row in scores.to_dict("records")}
    texts = {row["sample_id"]: row for row in rows.to_dict("records")}
    return [
        {
            **shown_score(known[sample_id]),
            **shown_tokens(own),
            "parts": shown_parts(modules[modules["sample_id"] == sample_id]),
            "nearest": [
                {
                    **shown_score(known[other["neighbour"]]),
                    "similarity": f"{other['similarity']:.3f}",
                    "text": shortened(texts[other["neighbour"]]),
                }
                for other in nearest[nearest["sample_id"] == sample_id].to_dict("records")
            ],
            "repeated": told_repeats(repeats, str(sample_id), known),
        }
        for sample_id, own in tokens.groupby("sample_id", sort=False)
    ]


def shown_score(score: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "id": visible(score["sample_id"]),
        "rank": score["rank"],
        "score": signed(score["score"]),
    }


def shown_tokens(own: pd.DataFrame) -> dict[str, Any]:
    """Spans of one row's `token_shares`, their sums and the strongest of them."""
    terms = own["term"].unique().tolist()
    shares = own.pivot(index="position", columns="term", values="share")[terms].to_numpy()
    tokens = own[own["term"] == terms[0]]
    of_response = tokens["is_response"].to_numpy(dtype=bool)
    total = shares.sum(1)
    sums = {"prompt": total[~of_response].sum(), "response": total[of_response].sum()}
    sums |= dict(zip(terms, shares.sum(0), strict=True))
    # A token without text begins a character that the next ones complete.
    ends = [i + 1 for i, text in enumerate(tokens["token"]) if text]
    starts = [0, *ends[:-1]]
    texts = ["".join(tokens["token"][a:b]) for a, b in zip(starts, ends, strict=True)]
    whole = np.add.reduceat(shares, starts)
    found = spans(texts, whole, terms)
    strongest = np.argsort(-abs(whole.sum(1)), kind="stable")[:NAMED_TOKENS]
    # A conversation has several of each: what is no label, as a user's later turn, is a prompt's.
    turns = groupby(zip(found, ends, strict=True), key=lambda pair: of_response[pair[1] - 1])
    return {
        "sums": {name: signed(value) for name, value in sums.items()},
        "full": full_colour(whole),
        "strongest": [(found[i].text.strip(), found[i].share) for i in strongest],
        "turns": [(of, [span for span, _ in pairs]) for of, pairs in turns],
    }


def shown_parts(modules: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Spans of one row's `module_shares`."""
    found = {}
    for part, heading in {"layer": "Layers", "kind": "Kinds of modules"}.items():
        own = modules[modules["part"] == part]
        terms, names = own["term"].unique().tolist(), own["name"].unique().tolist()
        names.sort(key=lambda name: (int(name) if name.isdigit() else -1, name))
        shares = own.pivot(index="name", columns="term", values="share").loc[names, terms]
        values = shares.to_numpy()
        found[heading] = {"full": full_colour(values), "spans": spans(names, values, terms)}
    return found


def full_colour(shares: np.ndarray) -> str:
    """The share that has the strongest colour of shares [n, terms]."""
    return signed(abs(shares.sum(1)).max()).lstrip("+")


def spans(texts: Sequence[str], shares: np.ndarray, terms: Sequence[str]) -> list[Span]:
    """Texts with their shares [n, terms], coloured by the strongest of all."""
    total = shares.sum(1)
    most = abs(total).max() or 1.0
    found = []
    for text, value, own in zip(texts, total, shares, strict=True):
        strength = f"{STRONGEST * abs(value) / most:.2f}"
        kind = "" if strength == "0.00" else "r" if value > 0 else "s"
        told = ", ".join(f"{name} {signed(v)}" for name, v in zip(terms, own, strict=True))
        found.append(Span(visible(text), signed(value), told, kind, strength))
    return found


def signed(value: float) -> str:
    """Three decimals with a sign; what rounds to 0 has none."""
    text = f"{value:+.3f}"
    return text[1:] if float(text[1:]) == 0 else text


def visible(text: str) -> str:
    """The text with a sign for every character that would not be seen, or would move others."""
    return "".join(
        SIGNS.get(letter)
        or (f"⟨U+{ord(letter):04X}⟩" if unicodedata.category(letter) in UNSEEN else letter)
        for letter in text
    )


def shortened(row: Mapping[Hashable, Any]) -> str:
    """The beginning of a row's prompt and response on one line."""
    texts = (row["prompt"], "" if pd.isna(row["response"]) else row["response"])
    lines = (" ".join(text.split()) for text in texts)
    half = MOST_LETTERS // 2
    return visible(" → ".join(t if len(t) <= half else t[: half - 1] + "…" for t in lines))


def told_repeats(
    repeats: pd.DataFrame, sample_id: str, known: Mapping[str, Mapping[Hashable, Any]]
) -> str:
    """How many rows say what one says, and where they stand."""
    group = repeats.loc[repeats["sample_id"] == sample_id, "group"]
    ids = repeats.loc[repeats["group"].isin(group), "sample_id"]
    if ids.empty:
        return "No other row says the same, or nearly."
    ranks = sorted(known[i]["rank"] for i in ids if not pd.isna(known[i]["rank"]))
    listed = ", ".join(map(str, ranks[:MOST_RANKS])) + (", …" if len(ranks) > MOST_RANKS else "")
    return f"{len(ids)} rows say the same, or nearly: ranks {listed}."
