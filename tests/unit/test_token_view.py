"""The page of tokens: what is read on it, that it asks for nothing, and that texts stay texts."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.token_view import page, signed, visible

ABOUT = {"dataset": "d", "method": "m", "model": "l"}


def tokens_of(texts, shares, prompt=1, sample_id="r1"):
    """Shares by term, one for each text; the first `prompt` texts are the prompt's."""
    frames = [
        pd.DataFrame(
            {
                "sample_id": sample_id, "term": term, "position": range(1, len(texts) + 1),
                "token": texts, "is_response": [i >= prompt for i in range(len(texts))],
                "share": values,
            }
        )
        for term, values in shares.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def page_of(tokens, prompt="p", response="a", riskiest=1, safest=0, sample_id="r1"):
    parts = [("layer", "10", 1.0), ("layer", "2", -1.0), ("kind", "q_proj", 0.0)]
    modules = pd.DataFrame(
        [(sample_id, term, *part) for term in tokens["term"].unique() for part in parts],
        columns=["sample_id", "term", "part", "name", "share"],
    )
    nearest = pd.DataFrame({"sample_id": [sample_id], "neighbour": ["r2"], "similarity": [0.98765]})
    repeats = pd.DataFrame({"sample_id": [], "group": [], "similarity": []}, dtype="str")
    scores = pd.DataFrame({"sample_id": [sample_id, "r2"], "score": [2.0, -1.5], "rank": [1, 2]})
    rows = pd.DataFrame(
        {"sample_id": [sample_id, "r2"], "prompt": ["p", prompt], "response": ["a", response]}
    )
    return page(tokens, modules, nearest, repeats, scores, rows, riskiest, safest, ABOUT)


class Read(HTMLParser):
    """Elements and the text of each `div` of tokens, as a browser has them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.spans, self.open, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "span":
            self.spans.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "span":
            self.spans[-1][1] += data

    def shares(self):
        return [
            (text, given["data-share"], given["title"], given.get("class"), given.get("style"))
            for given, text in self.spans
            if "data-share" in given
        ]


def test_tokens_have_their_shares_and_colours():
    shares = {"danger": [0.25, 1.0, 0.4, 0.0], "safety": [-0.5, 1.0, 0.0, 0.0]}
    read = Read(page_of(tokens_of(["ask", "Sure", " go", "."], shares)))
    # Totals -.25, 2, .4, 0; the strongest has .7 of the colour, so the others .0875 and .14.
    assert read.shares()[:4] == [
        ("ask", "-0.250", "danger +0.250, safety -0.500", "s", "--a:0.09"),
        ("Sure", "+2.000", "danger +1.000, safety +1.000", "r", "--a:0.70"),
        (" go", "+0.400", "danger +0.400, safety 0.000", "r", "--a:0.14"),
        (".", "0.000", "danger 0.000, safety 0.000", None, None),
    ]
    assert (
        "prompt -0.250; response +2.400; danger +1.650; safety +0.500. Full colour: 2.000. "
        "Strongest: “Sure”\xa0+2.000, “go”\xa0+0.400, “ask”\xa0-0.250, “.”\xa00.000."
    ) in " ".join(re.split("[ \n]+", "".join(read.texts)))
    # Layers by number, and what the other row is.
    assert [share[0] for share in read.shares()[4:]] == ["2", "10", "q_proj"]
    assert "0.988 2 -1.500 r2 p → a" in re.sub(r"\s+", " ", " ".join(read.texts))


def test_the_turns_of_a_conversation_stand_one_below_another():
    tokens = tokens_of(["ask", " more", "Sure", "now", "Done", "."], {"danger": [0.5] * 6})
    tokens["is_response"] = [False, False, True, False, True, True]
    turns = re.findall(
        "<h4>(Prompt|Response)</h4>\n<div[^>]*>(.*?)</div>", page_of(tokens), re.DOTALL
    )
    shown = [(heading, re.findall(">([^<]*)</span>", turn)) for heading, turn in turns]
    assert shown == [
        ("Prompt", ["ask", " more"]), ("Response", ["Sure"]), ("Prompt", ["now"]),
        ("Response", ["Done", "."]),
    ]  # fmt: skip


def test_a_character_of_several_tokens_is_one_with_the_sum_of_their_shares():
    tokens = tokens_of(["ask", "", "", "é", "!"], {"danger": [0.0, 1.0, 2.0, 4.0, 0.5]})
    shown = [(text, share) for text, share, *_ in Read(page_of(tokens)).shares()[:3]]
    assert shown == [("ask", "0.000"), ("é", "+7.000"), ("!", "+0.500")]


@pytest.mark.parametrize(
    ("riskiest", "safest", "heading"),
    [(1, 2, "The riskiest rows"), (0, 1, "In the middle"), (0, 2, "The least risky rows")],
)
def test_a_row_stands_under_its_heading(riskiest, safest, heading):
    """Two rows have a score, of which this is the riskier."""
    tokens = tokens_of(["a", "b"], {"danger": [0.0, 1.0]})
    text = page_of(tokens, riskiest=riskiest, safest=safest)
    (found,) = re.findall("<h2>(.*)</h2>", text)
    assert found.startswith(heading)


HOSTILE = '</span><script src="//x">alert(1)</script>&amp;"\' {{ 7 * 7 }}'


@given(text=st.one_of(st.just(HOSTILE), st.text(min_size=1)))
def test_texts_of_rows_stay_texts(text):
    """In tokens, ids and rows beside it; whatever they hold, the page's elements are the same."""
    shares = {"danger": [0.5, 1.0]}
    plain = Read(page_of(tokens_of(["a", "b"], shares)))
    tokens = tokens_of([text, text], shares, sample_id=text)
    read = Read(page_of(tokens, text, text, sample_id=text))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]
    assert [shown for shown, *_ in read.shares()[:2]] == [visible(text)] * 2
    for _, attributes in read.elements:
        assert not {"src", "href", "onclick"} & attributes.keys()


def test_the_page_loads_and_runs_nothing():
    text = page_of(tokens_of(["a", "b"], {"danger": [0.5, 1.0]}))
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a⏎\nb⇥\tc"),
        ("a\0b\x1b[2J\x7f", "a⟨U+0000⟩b⟨U+001B⟩[2J⟨U+007F⟩"),
        ("x\u202ey\u200bz\u2028", "x⟨U+202E⟩y⟨U+200B⟩z⟨U+2028⟩"),
        ("naïve 好 😀", "naïve 好 😀"),
    ],
)
def test_what_would_not_be_seen_has_a_sign(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1.5, "+1.500"), (-0.25, "-0.250"), (0.0004, "0.000"), (-0.0004, "0.000")]
)
def test_numbers_have_a_sign(value, shown):
    assert signed(value) == shown
