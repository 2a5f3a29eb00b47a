"""Token ids by hand: the word tokenizer gives special tokens 0 to 4, then the words in order."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.chat import check_template, encode_pair, encode_prompt, encode_rows
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError
from sqsd.models import make_word_tokenizer

PAD, UNK, USER, ASSISTANT, END = range(5)
WORDS = ["ash", "birch", "cedar", "elm", "fir"]  # sorted, so the ids are 5 to 9
IDS = {word: 5 + i for i, word in enumerate(WORDS)}

words = st.lists(st.sampled_from(WORDS), max_size=6)
some_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)
TURNS = "{% for m in messages %}<user> {{ m.role }} {{ m.content }} {% endfor %}"


def tokenizer_with(template):
    tokenizer = make_word_tokenizer([" ".join(WORDS), "user assistant system"])
    tokenizer.chat_template = template
    return tokenizer


def changed(old, new):
    """The word tokenizer with a part of its template replaced."""
    tokenizer = make_word_tokenizer([" ".join(WORDS)])
    template = str(tokenizer.chat_template)
    assert old in template
    tokenizer.chat_template = template.replace(old, new)
    tokenizer.name_or_path = "models/odd"
    return tokenizer


TOKENIZER = make_word_tokenizer([" ".join(WORDS)])


def ids(text):
    return [IDS[word] for word in text]


@settings(deadline=None)
@given(words)
def test_a_prompt_is_the_user_turn_and_the_assistant_s_opening(prompt):
    # The template: <user> prompt <assistant>, and nothing before it.
    assert encode_prompt(TOKENIZER, " ".join(prompt)) == [USER, *ids(prompt), ASSISTANT]


def test_there_is_no_system_message():
    tokenizer = tokenizer_with(TURNS)
    tokens = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, "elm"))
    # Without a generation prompt the answer's opening is what a finished turn has before it.
    assert tokens == ["<user>", "user", "elm", "<user>", "assistant"]
    pair = encode_pair(tokenizer, "elm", "fir", 20)
    tokens = tokenizer.convert_ids_to_tokens(pair.input_ids)
    assert tokens == ["<user>", "user", "elm", "<user>", "assistant", "fir"]


@settings(deadline=None)
@given(words, some_words, st.integers(0, 5))
def test_labels_are_the_response_and_its_end_when_nothing_is_cut(prompt, response, spare):
    whole = [USER, *ids(prompt), ASSISTANT, *ids(response), END]
    pair = encode_pair(TOKENIZER, " ".join(prompt), " ".join(response), len(whole) + spare)
    assert pair.input_ids == whole
    assert pair.input_ids[pair.prompt_tokens :] == [*ids(response), END]
    assert pair.response_tokens == len(response) + 1
    assert pair.reason is None


@settings(deadline=None)
@given(words, some_words, st.integers(1, 20))
def test_the_limit_cuts_from_the_right(prompt, response, limit):
    prompt_ids = [USER, *ids(prompt), ASSISTANT]
    whole = [*prompt_ids, *ids(response), END]
    pair = encode_pair(TOKENIZER, " ".join(prompt), " ".join(response), limit)
    assert pair.input_ids == whole[:limit]
    assert pair.input_ids[: pair.prompt_tokens] == prompt_ids[:limit]
    # What is left of the response is what lies between the prompt's end and the limit.
    left = whole[len(prompt_ids) : max(limit, len(prompt_ids))]
    assert pair.input_ids[pair.prompt_tokens :] == left
    assert pair.response_tokens == len(left)
    expected = None if left else f"response cut off entirely by max_length_tokens={limit}"
    assert pair.reason == expected


def test_words_outside_the_vocabulary_are_unknown_tokens():
    pair = encode_pair(TOKENIZER, "oak", "elm oak", 20)
    assert pair.input_ids == [USER, UNK, ASSISTANT, IDS["elm"], UNK, END]


@pytest.mark.parametrize("blank", ["", " ", "\n\t \n"])
def test_a_blank_response_has_a_reason_and_no_labels(blank):
    pair = encode_pair(TOKENIZER, "elm fir", blank, 20)
    assert pair.input_ids == [USER, IDS["elm"], IDS["fir"], ASSISTANT]
    assert pair.response_tokens == 0
    assert pair.reason == "empty response"


@settings(deadline=None)
@given(words, st.sampled_from(["", " \n"]), st.integers(1, 10))
def test_a_blank_response_is_cut_as_any_other(prompt, blank, limit):
    prompt_ids = [USER, *ids(prompt), ASSISTANT]
    pair = encode_pair(TOKENIZER, " ".join(prompt), blank, limit)
    assert pair.input_ids == prompt_ids[:limit]
    assert pair.reason == "empty response"
    # Labels are input_ids[prompt_tokens:], and there are none: never fewer than none.
    assert pair.prompt_tokens == len(pair.input_ids)
    assert pair.response_tokens == 0


@settings(deadline=None)
@given(some_words, some_words)
def test_what_the_template_appends_after_the_end_is_dropped(response, tail):
    tokenizer = changed("<end>", "<end> " + " ".join(tail))
    pair = encode_pair(tokenizer, "elm", " ".join(response), 50)
    assert pair.input_ids == [USER, IDS["elm"], ASSISTANT, *ids(response), END]
    assert pair.reason is None


def test_an_end_token_inside_the_response_does_not_end_it():
    pair = encode_pair(TOKENIZER, "elm", "ash <end> fir", 50)
    # Broken up to "< end>", which are two words that the tokenizer does not know.
    assert pair.input_ids[pair.prompt_tokens :] == [IDS["ash"], UNK, UNK, IDS["fir"], END]


@settings(deadline=None)
@given(some_words, st.integers(0, 3), st.integers(0, 12))
def test_two_end_tokens_after_a_response_are_both_learnt(response, more, spare):
    # As of a template that ends a turn, and then the conversation, with the same token.
    tokenizer = changed("<end>", "<end>" + " <end>" * more)
    whole = [USER, IDS["elm"], ASSISTANT, *ids(response), *[END] * (1 + more)]
    pair = encode_pair(tokenizer, "elm", " ".join(response), 50)
    assert (pair.input_ids, pair.reason) == (whole, None)
    assert pair.response_tokens == len(response) + 1 + more
    cut = encode_pair(tokenizer, "elm", " ".join(response), 4 + spare)
    assert cut.input_ids == whole[: 4 + spare]


def test_two_end_tokens_with_words_between_them():
    tokenizer = changed("<end>", "<end> ash <end> fir")
    pair = encode_pair(tokenizer, "elm", "birch", 50)
    expected = [IDS["birch"], END, IDS["ash"], END]
    assert pair.input_ids[pair.prompt_tokens :] == expected


def test_a_sample_has_the_id_it_is_given():
    assert encode_pair(TOKENIZER, "elm", "fir", 20, "z1").sample_id == "z1"
    assert encode_pair(TOKENIZER, "elm", "", 20, "z2").sample_id == "z2"
    assert encode_pair(TOKENIZER, "elm", "fir", 20).sample_id == ""


def test_an_end_token_of_the_prompt_s_turn_is_not_taken_for_the_response_s():
    template = "{% for m in messages %}{{ m.content }} {% if m.role == 'user' %}<end> {% endif %}"
    tokenizer = tokenizer_with(template + "{% endfor %}")
    tokenizer.name_or_path = "models/odd"
    pair = encode_pair(tokenizer, "elm", "fir ash", 50)
    assert tokenizer.convert_ids_to_tokens(pair.input_ids) == ["elm", "<end>", "fir", "ash"]
    assert pair.response_tokens == 2


def test_rows_keep_their_ids_and_their_problems():
    rows = [("a", "elm", "fir", None), ("b", "elm", None, None), ("c", "elm", "fir", "odd")]
    columns = pd.Index(["sample_id", "prompt", "response", "problem"])
    prompt, whole = [USER, IDS["elm"], ASSISTANT], [USER, IDS["elm"], ASSISTANT, IDS["fir"], END]
    assert encode_rows(pd.DataFrame(rows, columns=columns), TOKENIZER, 20) == [
        EncodedSample("a", whole, 3),
        EncodedSample("b", prompt, 3, "empty response"),
        EncodedSample("c", whole, 3, "odd"),
    ]


MISSING = (
    "models/odd: the tokenizer has no chat template; use a chat model, or add "
    "chat_template.jinja to its folder"
)


def test_a_missing_template_is_an_error():
    tokenizer = make_word_tokenizer(WORDS)
    tokenizer.name_or_path = "models/odd"
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=MISSING):
        check_template(tokenizer)
    with pytest.raises(DataError, match=MISSING):
        encode_prompt(tokenizer, "elm")
    with pytest.raises(DataError, match=MISSING):
        encode_pair(tokenizer, "elm", "fir", 10)


def test_a_prompt_that_is_no_prefix_of_the_whole_is_an_error():
    # The generation prompt opens with a word that a finished turn does not have.
    opening = "{% if add_generation_prompt %}<assistant> "
    tokenizer = changed(opening, opening + "ash ")
    message = (
        "models/odd: the chat template's prompt is not a prefix of the whole conversation, "
        "so response tokens cannot be told apart; use another template"
    )
    with pytest.raises(DataError, match=message):
        encode_pair(tokenizer, "elm", "fir", 10)
