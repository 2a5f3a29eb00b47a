"""Repeated and near-repeated rows against a comparison of every two rows, with sets of tuples."""

from fractions import Fraction

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from sqsd.repeats import find_repeats, similar_pairs

LEAST = [Fraction(1, 5), Fraction(1, 2), Fraction(4, 5), Fraction(9, 10), Fraction(1)]
# Few words, so that texts are often alike; a letter of a script without blanks is a word.
PIECES = ["wipe", "the", "Kettle", "a", "lamp", "好", "พ"]


def table(*texts):
    """Rows of (prompt, response), named r0, r1, ..."""
    rows = pd.DataFrame(texts, columns=["prompt", "response"], dtype="str")
    return rows.assign(sample_id=[f"r{i}" for i in range(len(texts))])


def words_of(text):
    found, word = [], ""
    for letter in text:
        if letter in "好พ" or letter.isspace():
            found += [word] * bool(word) + [letter] * (not letter.isspace())
            word = ""
        else:
            word += letter.lower()
    return found + [word] * bool(word)


def naive(rows, least):
    """By sample_id: (group, similarity), of rows that are like another one."""
    texts = [(words_of(row.prompt), words_of(row.response)) for row in rows.itertuples()]
    # What is the same is said with the same words between the same blanks.
    plain = [
        (row.prompt.lower().split(), row.response.lower().split()) for row in rows.itertuples()
    ]
    sets = []
    for prompt, response in texts:
        words = prompt + response
        sets.append({tuple(words[i : i + 3]) for i in range(len(words) - 2)} or {tuple(words)})
    n = len(texts)
    alike = {}
    for i in range(n):
        for j in range(i):
            if plain[i] == plain[j]:
                alike[i, j] = alike[j, i] = Fraction(1)
            else:
                found = Fraction(len(sets[i] & sets[j]), len(sets[i] | sets[j]))
                if found >= least:
                    alike[i, j] = alike[j, i] = found
    groups = list(range(n))
    for _ in range(n):  # the smallest name spreads by one pair a time
        for i, j in alike:
            groups[i] = min(groups[i], groups[j])
    return {
        f"r{i}": (f"r{groups[i]}", float(max(v for (a, _), v in alike.items() if a == i)))
        for i in sorted({i for i, _ in alike})
    }


def texts(most):
    return st.lists(st.sampled_from(PIECES), max_size=most).map(" ".join)


@given(
    pairs=st.lists(st.tuples(texts(4), texts(9)), max_size=12),
    again=st.lists(st.integers(0, 11), max_size=4),
    least=st.sampled_from(LEAST),
)
def test_rows_that_are_alike_are_those_of_a_comparison_of_all(pairs, again, least):
    pairs = pairs + [pairs[i] for i in again if i < len(pairs)]
    rows = table(*pairs)
    found = find_repeats(rows, float(least))
    given = {row.sample_id: (row.group, row.similarity) for row in found.itertuples()}
    assert given == naive(rows, least)


@given(
    sets=st.lists(st.sets(st.integers(0, 15), min_size=1, max_size=10), max_size=15),
    least=st.sampled_from(LEAST),
)
def test_similar_pairs_are_those_of_all_pairs(sets, least):
    numbers = [pd.Series(sorted(one), dtype="uint64").to_numpy() for one in sets]
    expected = [
        (i, j, float(found))
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if (found := Fraction(len(sets[i] & sets[j]), len(sets[i] | sets[j]))) >= least
    ]
    assert similar_pairs(numbers, float(least)) == expected


def test_case_and_blanks_are_no_difference_and_the_end_of_the_prompt_is_one():
    rows = table(
        ("Wipe the lamp", "Sure"), ("wipe  the\tLAMP ", "\nSURE"), ("wipe the", "lamp sure"),
        ("fix it", None), ("FIX it", ""),
    )  # fmt: skip
    found = find_repeats(rows, 1.0)
    # The third has the words of the first, and so its shingles: alike, though not the same.
    assert found["sample_id"].tolist() == ["r0", "r1", "r2", "r3", "r4"]
    assert found["group"].tolist() == ["r0", "r0", "r0", "r3", "r3"]


def test_a_row_that_is_like_no_other_is_not_told():
    rows = table(("one two three", "four five six"), ("seven eight nine", "ten eleven twelve"))
    assert find_repeats(rows, 0.1).empty


def test_one_word_of_nine_changed_leaves_four_shingles_of_ten():
    """abc bcd cde def efg fgh ghi; with f changed def, efg, fgh are others: 4 of 7 + 7 - 4."""
    rows = table(("a b c d", "e f g h i"), ("a b c d", "e x g h i"))
    assert find_repeats(rows, 0.4)["similarity"].tolist() == [0.4, 0.4]
    assert find_repeats(rows, 0.41).empty
