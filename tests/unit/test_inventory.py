"""Rows, tokens and sizes before a run, against what the run itself would read and make."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, write_model

from sqsd import sandbox
from sqsd.chat import encode_rows
from sqsd.config import merged, resolve
from sqsd.costs import Lengths
from sqsd.errors import UnknownSizeError
from sqsd.inventory import ASSUMED, CHARACTERS, COUNTED, MOST_ROWS, SAMPLED, SIZES, Inventory
from sqsd.models import load_model, load_tokenizer, make_model
from sqsd.plan import Plan
from sqsd.tokenization import make_word_tokenizer, read_tokenizer

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
WHEEL = next(source for source in SIZES if source.startswith("wheel:"))


def inventory(**given) -> Inventory:
    return Inventory(Plan(resolve(DEFAULT, given)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("most_tokens", [20, 30, 128])
def test_tokens_and_rows_cut_off_are_those_of_encode_samples(most_tokens):
    known = inventory(datasets={"mixed": {"rows": 200}})
    rows = sandbox.make_dataset({"source": "sandbox:benign", "rows": 200, "seed": 1})
    tokenizer = make_word_tokenizer(sandbox.vocabulary())
    cut = encode_rows(rows, tokenizer, most_tokens)
    whole = encode_rows(rows, tokenizer, 10_000)
    found = known.tokens("datasets", "mixed", "sandbox")
    assert (found.rows, found.how) == (200, COUNTED)
    changed = sum(a.input_ids != b.input_ids for a, b in zip(cut, whole, strict=True))
    assert found.cut_off(most_tokens) == changed
    lengths = known.lengths("datasets", "mixed", "sandbox", most_tokens)
    assert lengths.mean * lengths.rows == pytest.approx(sum(len(s.input_ids) for s in cut))
    assert lengths.longest == max(len(s.input_ids) for s in cut)


def test_of_many_rows_some_stand_for_all():
    known = inventory(datasets={"mixed": {"rows": 3 * MOST_ROWS}})
    found = known.tokens("datasets", "mixed", "sandbox")
    assert (found.rows, found.how, len(found.tokens)) == (3 * MOST_ROWS, SAMPLED, MOST_ROWS)
    assert found.cut_off(0) == 3 * MOST_ROWS


def test_a_preference_is_two_sequences():
    known = inventory(preferences={"safety": {"rows": 20}})
    rows = sandbox.make_preferences({"source": "sandbox:safety", "rows": 20, "seed": 1})
    tokenizer = make_word_tokenizer(sandbox.vocabulary())
    each = [
        encode_rows(rows.rename(columns={side: "response"}), tokenizer, 1000)
        for side in ("chosen", "rejected")
    ]
    expected = sorted(len(sample.input_ids) for samples in each for sample in samples)
    assert sorted(known.tokens("preferences", "safety", "sandbox").tokens) == expected


def test_a_conversation_has_the_tokens_of_all_its_turns(folder):
    turns = [("user", "ask"), ("assistant", "yes"), ("user", "and"), ("assistant", "no")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    known = inventory(datasets={"mixed": {"source": "rows.jsonl", "rows": 1}})
    found = known.tokens("datasets", "mixed", "sandbox")
    tokenizer = make_word_tokenizer(sandbox.vocabulary())
    text = str(tokenizer.apply_chat_template(row["messages"], tokenize=False))
    text = text[: text.rindex("<end>") + len("<end>")]
    assert found.tokens.tolist() == [len(tokenizer(text, add_special_tokens=False).input_ids)]


def test_rows_that_get_no_score_are_counted_by_reason(folder):
    answers = ["yes", None, "", " \n", 5, "no"]
    rows = [{"instruction": f"ask {i}", "response": answer} for i, answer in enumerate(answers)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns = [{"role": role, "content": role} for role in ("user", "assistant")] * 2
    blank = [*turns[:-1], {"role": "assistant", "content": " "}]
    chats = [json.dumps({"messages": messages}) + "\n" for messages in (turns, blank)]
    (folder / "chats.jsonl").write_text("".join(chats))
    known = inventory(
        datasets={
            "mine": {"source": "rows.jsonl"}, "chats": {"source": "chats.jsonl"},
            "far": {"source": "hub:wood/rows:train", "rows": 70, "seed": 1},
        }
    )  # fmt: skip
    tokenizer = make_word_tokenizer(sandbox.vocabulary())
    for name, without in (("mine", 4), ("chats", 1)):
        loaded = known.rows("datasets", name)
        assert loaded is not None
        expected = Counter(s.reason for s in encode_rows(loaded, tokenizer, 1000) if s.reason)
        assert expected.total() == without and known.without_score(name) == expected
    assert known.without_score("far") == {}


def test_a_tuned_model_has_size_and_tokens_of_its_base():
    training = DEFAULT["sandbox"]["pretraining"]
    tuned = {
        "source": "tuned",
        "base": "sandbox",
        "data": ["mixed"],
        "training": training,
        "seed": 1,
    }
    known = inventory(models={"mine": tuned}, datasets={"mixed": {"rows": 20}})
    assert known.model("mine") == known.model("sandbox")
    for name in ("mine", "sandbox"):
        assert known.tokens("datasets", "mixed", name).how == COUNTED
    ours, theirs = (known.tokens("datasets", "mixed", name).tokens for name in ("mine", "sandbox"))
    assert ours.tolist() == theirs.tolist()


def test_without_a_tokenizer_tokens_are_four_characters(folder):
    row = {"instruction": "a" * 12, "response": "b" * 8}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    known = inventory(
        models={"real": {"source": WHEEL, "sha256": "0" * 64, "seed": 1}},
        datasets={"mine": {"source": "rows.jsonl"}},
    )
    found = known.tokens("datasets", "mine", "real")
    assert (found.how, found.tokens.tolist()) == (CHARACTERS, [30 + 5])


def test_rows_of_the_hub_are_as_the_configuration_says():
    known = inventory(
        datasets={"far": {"source": "hub:wood/rows:train", "rows": 70, "seed": 1}},
        benchmarks={"asked": {"source": "hub:wood/asked:train"}},
    )
    found = known.tokens("datasets", "far", "sandbox")
    assert (found.rows, found.how, found.cut_off(5)) == (70, ASSUMED, None)
    assert known.lengths("datasets", "far", "sandbox", 90) == Lengths(70, 90.0, 90, assumed=True)
    assert not known.lengths("datasets", "mixed", "sandbox", 90).assumed
    assert known.tokens("benchmarks", "asked", "sandbox").rows is None
    assert known.lengths("benchmarks", "asked", "sandbox", None).rows == 500


def test_an_answer_that_all_rows_of_the_hub_share_is_known():
    spec = {"source": "hub:wood/asked:train", "rows": 70, "seed": 1}
    given = {"chosen": "a" * 40, "rejected": "b" * 80}
    known = inventory(
        datasets={"opened": spec | {"constants": {"response": "c" * 20}}},
        preferences={"refused": spec | {"constants": given}},
    )
    # A prompt of 40 tokens, and a token for 4 characters of the answers, of the mean one if two.
    assert known.tokens("datasets", "opened", "sandbox").tokens.tolist() == [45]
    assert known.tokens("preferences", "refused", "sandbox").tokens.tolist() == [55]


def test_rows_that_a_run_has_made_are_read(folder):
    from sqsd.tables import write_table

    known = inventory(datasets={"far": {"source": "hub:wood/rows:train", "rows": 70, "seed": 1}})
    rows = sandbox.make_dataset({"source": "sandbox:benign", "rows": 7, "seed": 1})
    path = folder / known.paths.dataset("far")
    path.parent.mkdir(parents=True)
    write_table(rows, path, "dataset", {})
    found = known.tokens("datasets", "far", "sandbox")
    assert (found.rows, found.how) == (7, COUNTED)


def test_a_sandbox_model_has_the_size_that_it_will_be_made_with():
    made = make_model(
        make_word_tokenizer(sandbox.vocabulary()), DEFAULT["sandbox"]["architecture"], 1
    )
    assert inventory().model("sandbox").parameters == pytest.approx(made.num_parameters(), rel=2e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_has_the_size_of_its_weights(folder, tied):
    write_model(folder / "mine")
    config = json.loads((folder / "mine/config.json").read_text())
    known = inventory(models={"real": {"source": "mine", "seed": 1}})
    whole = load_model(folder / "mine").num_parameters()
    head = 0 if tied else config["vocab_size"] * config["hidden_size"]
    text = json.dumps(merged(config, {"tie_word_embeddings": tied}))
    (folder / "mine/config.json").write_text(text)
    # Three norms of 16 are left out.
    assert known.model("real").parameters == whole + head - 3 * 16


@pytest.mark.parametrize(
    ("source", "how"), [("sandbox:guard", COUNTED), ("hub:wood/yew", CHARACTERS)]
)
def test_rows_that_a_judge_reads_are_not_written_by_its_own_template(folder, source, how):
    known = inventory(
        datasets={"mixed": {"rows": 9}},
        models={"yew": {"source": source, "seed": 1}},
        judges={"strict": {"kind": "guard", "model": "yew"}},
    )
    place = folder / known.paths.model("yew")
    write_model(place)
    (place / "chat_template.jinja").write_text("{{ messages[1].content }}")
    assert known.tokens("datasets", "mixed", "yew").how == how


def test_a_fetched_model_goes_before_what_a_preset_says(folder):
    known = inventory(models={"real": {"source": WHEEL, "sha256": "0" * 64, "seed": 1}})
    write_model(folder / known.paths.model("real"))
    assert known.model("real").width == 16
    assert known.tokenizer("real") is not None


def test_nothing_is_guessed_of_a_model_that_is_not_here():
    known = inventory(models={"far": {"source": "hub:wood/oak-7b", "seed": 1}})
    said = (
        "models.far: nothing is known of the size of hub:wood/oak-7b before it is fetched; "
        "run `snakemake results/sandbox/models/far` and plan again"
    )
    with pytest.raises(UnknownSizeError, match=f"^{said}$"):
        known.model("far")


@pytest.mark.parametrize("change", [{"num_experts": 8}, {"hidden_size": None}])
def test_a_model_of_another_kind_is_not_guessed_either(folder, change):
    write_model(folder / "mine")
    config = json.loads((folder / "mine/config.json").read_text()) | change
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "mine/config.json").write_text(json.dumps(kept))
    known = inventory(models={"real": {"source": "mine", "seed": 1}})
    with pytest.raises(UnknownSizeError, match=r"^mine: a llama is not built as Llama is, so that"):
        known.model("real")


def test_the_tokenizer_is_that_of_the_models_own_class(folder):
    write_model(folder / "mine")
    texts = ["Hello there , answer me", "answer  Hello", "", "unseen <end> words"]
    mine, whole = read_tokenizer(folder / "mine"), load_tokenizer(folder / "mine")
    assert [mine(t).input_ids for t in texts] == [whole(t).input_ids for t in texts]
    assert (mine.chat_template, mine.eos_token) == (whole.chat_template, whole.eos_token)


def test_sizes_of_presets_are_those_of_their_layers():
    """Parameters of a decoder are those of its layers and embeddings, within a twentieth."""
    for source, size in SIZES.items():
        query = 2 * size.width * (64 * 128 if "32B" in source else size.width)
        layer = query + 2 * size.width * size.kv + 3 * size.width * size.inner
        embeddings = size.vocabulary * size.width * np.array([1, 2])
        assert min(abs(size.layers * layer + embeddings - size.parameters)) < size.parameters / 20
