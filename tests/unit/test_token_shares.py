"""Shares of tokens against the scores of another pass, and what each token's text is."""

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER, write_adapter
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sqsd.chat import token_texts
from sqsd.errors import ConfigurationError
from sqsd.models import make_model, make_word_tokenizer
from sqsd.readings import sums_over_modules
from sqsd.scorers import SqsdScorer
from sqsd.shards import Shard, collect_shard
from sqsd.states import State
from sqsd.tables import read_table, write_table
from sqsd.token_shares import Term, measure_token_shares

WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak"]
SETTINGS = {
    "max_length_tokens": 7, "max_tokens_per_batch": 11, "dtype": "float32", "checkpointing": False,
}  # fmt: skip
NAMES = {"danger": {"direction": "d", "state": "s"}, "safety": {"direction": "d", "state": "s"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, a state's adapter and a direction with a checkpoint, each a folder."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = make_word_tokenizer(WORDS)
    model = make_model(tokenizer, ONE_LAYER | {"initializer_range": 0.2}, seed=1)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith("_proj")
    }
    for seed, name in enumerate(("state", "direction", "direction/checkpoint-5")):
        write_adapter(folder / name, shapes, seed=seed)
    return folder


@pytest.fixture(scope="module")
def terms(world):
    """One at an adapter, one at theta_0, against a direction at two checkpoints."""
    model = str(world / "model")
    at = {"danger": State("d", model, str(world / "state"), 0.5), "safety": State("s", model, None)}
    ends: dict[str, int | str] = {"danger": "final", "safety": 5}
    return {n: Term(state, str(world / "direction"), ends[n]) for n, state in at.items()}


def rows_of(*responses):
    frame = pd.DataFrame({"sample_id": [f"z{i}" for i in range(len(responses))]}, dtype="str")
    texts = {"prompt": "elm", "response": list(responses), "family": None, "problem": None}
    return frame.assign(**texts).astype("str")


ROWS = rows_of("ash birch", "oak", "fir fir fir elm oak ash", "cedar elm", "ash")
SCORES = pd.DataFrame(
    {"sample_id": ROWS["sample_id"], "rank": pd.array([3, 1, 2, 5, 4], dtype="Int64")}
)


def measure(world, terms, normalised, riskiest=2, middling=2, safest=0):
    scorer = SqsdScorer(**NAMES, normalised=normalised)
    return measure_token_shares(
        ROWS, SCORES, str(world / "model"), terms, scorer, riskiest, middling, safest, **SETTINGS
    )


@pytest.mark.parametrize("normalised", [True, False])
def test_shares_sum_to_the_terms_that_the_score_is_made_of(world, terms, tmp_path, normalised):
    """Those of another pass, over all rows, in other batches."""
    found = measure(world, terms, normalised)
    for (name, term), sign in zip(terms.items(), (1, -1), strict=True):
        out = [str(tmp_path / f"{name}-{kind}.parquet") for kind in ("samples", "modules")]
        shard = Shard(ROWS, **{**SETTINGS, "max_tokens_per_batch": 999})
        collect_shard(shard, term.state, term.direction, term.checkpoint, out[0], out[1], {})
        sums = sums_over_modules(read_table(out[1], "gradient_modules")).set_index("sample_id")
        expected = sign * sums["cosine" if normalised else "projection"]
        own = found[found["term"] == name].groupby("sample_id")["share"].sum()
        # By rank: the first two, and of the five ranks those after them, from the middle on.
        assert own.index.tolist() == ["z0", "z1", "z2", "z4"]
        scale = 1e-5 * max(abs(expected))
        assert own.to_numpy() == pytest.approx(expected[own.index].to_numpy(), abs=scale)


def test_the_table_of_a_row(world, terms, tmp_path):
    found = measure(world, terms, True)
    write_table(found, tmp_path / "t.parquet", "token_shares", {})
    assert found["sample_id"].unique().tolist() == ["z1", "z2", "z0", "z4"]
    own = found[(found["sample_id"] == "z2") & (found["term"] == "safety")]
    # Cut off at seven tokens, so without an end; the prompt is three.
    assert "".join(own["token"]) == "<user> elm <assistant> fir fir fir elm"
    assert own["position"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert own["is_response"].tolist() == [False] * 3 + [True] * 4
    assert own["share"].iloc[0] == 0 and (own["share"].iloc[1:] != 0).all()


def test_a_checkpoint_that_is_not_there(world, terms):
    term = terms["safety"]
    missing = {"safety": Term(term.state, term.direction, 6)}
    with pytest.raises(ConfigurationError, match=r"checkpoint 6 was not saved; known: 5$"):
        measure(world, missing, True)


def bytes_tokenizer():
    """A token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = bytes_tokenizer()


def test_a_character_of_several_tokens_is_told_by_the_last_of_them():
    ids = BYTES("aé 😀").input_ids
    assert token_texts(BYTES, ids) == ["a", "", "é", " ", "", "", "", "😀"]
    # Cut off within its last character, a text ends as it does when decoded whole.
    assert token_texts(BYTES, ids[:-1]) == ["a", "", "é", " ", "", "", "\ufffd"]


@given(text=st.text(), cut=st.integers(0, 3))
def test_texts_of_tokens_are_the_text_of_all(text, cut):
    ids = BYTES(text).input_ids
    ids = ids[: max(len(ids) - cut, 0)]
    texts = token_texts(BYTES, ids)
    assert len(texts) == len(ids) and "".join(texts) == BYTES.decode(ids)
