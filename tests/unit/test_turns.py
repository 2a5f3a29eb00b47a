"""Conversations of several turns: which tokens are labels, by hand, per template.

A golden text has the labels between « and »; all the rest of it is no label.
"""

import itertools
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import trl
from conftest import ONE_LAYER
from hypothesis import given, settings
from hypothesis import strategies as st
from test_templates import (
    CHATML,
    GOLDEN,
    HEADERS,
    MISTRAL_2,
    THINK,
    TOKENIZERS,
    TURNS,
    tokenizer_of,
)

from sqsd.chat import encode_pair, encode_rows, encode_turns
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError
from sqsd.gradients import GradientEngine
from sqsd.losses import token_losses
from sqsd.models import make_model, make_word_tokenizer
from sqsd.packing import PackedBatch
from sqsd.probes import Losses, mean_gradient
from sqsd.training import common_arguments, sft_trainer

PUBLISHED = Path(str(trl.__file__)).parent / "chat_templates"


def published(name, special, others=()):
    return tokenizer_of((PUBLISHED / f"{name}.jinja").read_text(), special, others)


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def called(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def encoded(tokenizer, messages, tools=(), loss="all", limit=None):
    conversation = {"messages": messages, "tools": list(tools), "loss": loss}
    return encode_turns(tokenizer, conversation, limit, "z1")


def with_labels(tokenizer, sample):
    """A sample's text, its labels between « and »."""
    labels = set(sample.label_places)
    parts = itertools.groupby(range(len(sample.input_ids)), key=lambda place: place in labels)
    texts = [
        (is_label, tokenizer.decode([sample.input_ids[place] for place in places]))
        for is_label, places in parts
    ]
    return "".join(f"«{text}»" if is_label else text for is_label, text in texts)


MODELS = {
    "llama-2": TOKENIZERS["llama-2"], "llama-3.1": published("llama3_1", HEADERS),
    "qwen2.5": published("qwen2_5", TURNS, THINK), "qwen3": published("qwen3", TURNS, THINK),
    "mistral-0.2": TOKENIZERS["mistral-0.2"], "mistral-0.3": TOKENIZERS["mistral-0.3"],
    "chatml": TOKENIZERS["chatml"],
}  # fmt: skip
CHAT = [
    said("user", "A tree?"), said("assistant", "An elm."),
    said("user", "More?"), said("assistant", "Ash."),
]  # fmt: skip
SYSTEM = [said("system", "Be brief."), *CHAT]
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


def llama_3(role, text=""):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}"


LLAMA_TURNS = (
    llama_3("user", "A tree?<|eot_id|>") + llama_3("assistant", "«An elm.<|eot_id|>»")
    + llama_3("user", "More?<|eot_id|>") + llama_3("assistant", "«Ash.<|eot_id|>»")
)  # fmt: skip
CHATML_TURNS = (
    "<|im_start|>user\nA tree?<|im_end|>\n<|im_start|>assistant\n«An elm.<|im_end|>»\n"
    "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n«Ash.<|im_end|>»"
)
BRIEF = "<|im_start|>system\nBe brief.<|im_end|>\n"
QWEN = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n"
)
# Qwen3 has a think block before the last answer alone.
QWEN_3_TURNS = CHATML_TURNS.replace("«Ash", "<think>\n\n</think>\n\n«Ash")
LLAMA_2_TURNS = "A tree? [/INST]« An elm. </s>»<s>[INST] More? [/INST]« Ash. </s>»"
WRITTEN = {
    "llama-2": (CHAT, "<s>[INST] " + LLAMA_2_TURNS),
    "llama-2 with system": (
        SYSTEM, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n" + LLAMA_2_TURNS,
    ),
    "llama-3.1": (
        CHAT, "<|begin_of_text|>" + llama_3("system", DATES) + "<|eot_id|>" + LLAMA_TURNS,
    ),
    "llama-3.1 with system": (
        SYSTEM,
        "<|begin_of_text|>" + llama_3("system", DATES) + "Be brief.<|eot_id|>" + LLAMA_TURNS,
    ),
    "qwen2.5": (CHAT, QWEN + CHATML_TURNS),
    "qwen2.5 with system": (SYSTEM, BRIEF + CHATML_TURNS),
    "qwen3": (CHAT, QWEN_3_TURNS),
    "qwen3 with system": (SYSTEM, BRIEF + QWEN_3_TURNS),
    "mistral-0.2": (
        CHAT, "<s>[INST] A tree? [/INST]«An elm.</s>»[INST] More? [/INST]«Ash.</s>»",
    ),
    "mistral-0.3": (
        CHAT, "<s>[INST] A tree?[/INST]« An elm.</s>»[INST] More?[/INST]« Ash.</s>»",
    ),
    "chatml": (CHAT, CHATML_TURNS),
    "chatml with system": (SYSTEM, BRIEF + CHATML_TURNS),
}  # fmt: skip


def last_alone(text):
    """A golden text of which the last answer alone is learnt."""
    first, _, last = text.rpartition("«")
    return first.replace("«", "").replace("»", "") + "«" + last


@pytest.mark.parametrize("case", WRITTEN)
def test_the_answers_and_their_ends_are_the_labels(case):
    messages, text = WRITTEN[case]
    tokenizer = MODELS[case.split()[0]]
    sample = encoded(tokenizer, messages)
    assert with_labels(tokenizer, sample) == text
    assert with_labels(tokenizer, encoded(tokenizer, messages, loss="last")) == last_alone(text)
    # The tokens are those of the text as it is written, whichever of them are learnt.
    plain = text.replace("«", "").replace("»", "")
    assert sample.input_ids == tokenizer(plain, add_special_tokens=False).input_ids


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "trees", "description": "Names trees.",
            "parameters": {"type": "object", "properties": {"leaf": {"type": "string"}}},
        },
    }
]  # fmt: skip
CALLING = [
    said("user", "A tree?"), said("assistant", "", tool_calls=[called("trees", leaf="broad")]),
    said("tool", '"elm" é', name="trees"), said("assistant", "An elm."),
    said("user", "More?"), said("assistant", "Ash."),
]  # fmt: skip
QWEN_CALL = (
    '«<tool_call>\n{"name": "trees", "arguments": {"leaf": "broad"}}\n</tool_call><|im_end|>»\n'
    '<|im_start|>user\n<tool_response>\n"elm" é\n</tool_response><|im_end|>\n'
    "<|im_start|>assistant\n«An elm.<|im_end|>»\n"
    "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\n«Ash.<|im_end|>»"
)
CALLS = {
    "qwen2.5": QWEN_CALL,
    "qwen3": QWEN_CALL.replace("«Ash", "<think>\n\n</think>\n\n«Ash"),
    # It writes a tool's result as JSON.
    "llama-3.1": (
        '«{"name": "trees", "parameters": {"leaf": "broad"}}<|eot_id|>»'
        + llama_3("ipython", '"\\"elm\\" é"<|eot_id|>')
        + llama_3("assistant", "«An elm.<|eot_id|>»")
        + llama_3("user", "More?<|eot_id|>") + llama_3("assistant", "«Ash.<|eot_id|>»")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_learnt_and_what_the_tool_gives_is_not(name):
    tokenizer = MODELS[name]
    text = with_labels(tokenizer, encoded(tokenizer, CALLING, TOOLS))
    before, _, after = text.partition("«")
    assert "«" + after == CALLS[name]
    assert re.search(r'"name": "trees"', before) and "A tree?" in before
    last = with_labels(tokenizer, encoded(tokenizer, CALLING, TOOLS, loss="last"))
    assert last == last_alone(text)
    # A conversation may end with its call.
    ended = with_labels(tokenizer, encoded(tokenizer, CALLING[:2], TOOLS))
    call = CALLS[name].partition("»")[0] + "»"
    assert ended.replace("<think>\n\n</think>\n\n", "") == before + call


texts = st.text(st.sampled_from("abc .\n\"'{}<|>é"), max_size=12).map(lambda text: f"x{text}y")


@st.composite
def conversations(draw):
    turns = draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
    system = draw(st.lists(texts, max_size=1))
    roles = itertools.cycle(("user", "assistant"))
    chat = [said(role, text) for role, text in zip(roles, itertools.chain(*turns), strict=False)]
    return [*(said("system", text) for text in system), *chat]


@pytest.mark.parametrize("name", ["llama-2", "llama-3.1", "qwen2.5", "qwen3", "chatml"])
@settings(deadline=None, max_examples=25)
@given(messages=conversations())
def test_every_answer_is_a_run_of_labels_and_nothing_else_is(name, messages):
    tokenizer = MODELS[name]
    sample = encoded(tokenizer, messages)
    runs = re.findall("«(.*?)»", with_labels(tokenizer, sample), re.DOTALL)
    end = tokenizer.eos_token
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert [run.removesuffix(end).strip() for run in runs] == answers
    assert all(run.endswith(end) for run in runs)
    last = encoded(tokenizer, messages, loss="last")
    assert last.label_places == sample.label_places[-last.response_tokens :]
    assert last.input_ids == sample.input_ids


@pytest.mark.parametrize(("name", "special"), [("qwen2_5", TURNS), ("llama3", HEADERS)])
def test_labels_are_what_trl_s_own_marks_say(name, special):
    tokenizer, marked = (published(file, special) for file in (name, f"{name}_training"))
    end = tokenizer.eos_token_id

    @settings(deadline=None, max_examples=25)
    @given(messages=conversations())
    def check(messages):
        theirs = marked.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        sample = encoded(tokenizer, messages)
        length = len(sample.input_ids)
        assert sample.input_ids == theirs["input_ids"][:length]
        # Qwen's marks have the newlines before an answer and behind its end too: the first is the
        # prompt's, and nothing asks a model for the other.
        masked = [i for i, mark in enumerate(theirs["assistant_masks"][:length]) if mark]
        if name == "qwen2_5":
            ends = [i for i in masked if sample.input_ids[i] == end]
            firsts = [masked[0], *(masked[masked.index(i) + 2] for i in ends[:-1])]
            masked = sorted({*masked} - {i + 1 for i in ends} - {*firsts})
        assert masked == sample.label_places

    check()


@pytest.mark.parametrize("name", GOLDEN)
@settings(deadline=None, max_examples=25)
@given(prompt=texts, response=texts | texts.map("\n".__add__), limit=st.integers(1, 200))
def test_a_pair_is_encoded_alike_as_a_conversation(name, prompt, response, limit):
    tokenizer = TOKENIZERS[name]
    messages = [said("user", prompt), said("assistant", response)]
    for loss in ("all", "last"):
        found = encoded(tokenizer, messages, loss=loss, limit=limit)
        assert found == encode_pair(tokenizer, prompt, response, limit, "z1")


@settings(deadline=None)
@given(limit=st.integers(1, 120), loss=st.sampled_from(["all", "last"]))
def test_the_limit_cuts_from_the_right(limit, loss):
    tokenizer = MODELS["chatml"]
    whole = encoded(tokenizer, CHAT, loss=loss)
    cut = encoded(tokenizer, CHAT, loss=loss, limit=limit)
    assert cut.input_ids == whole.input_ids[:limit]
    assert cut.label_places == [place for place in whole.label_places if place < limit]
    nothing = f"response cut off entirely by max_length_tokens={limit}"
    assert cut.reason == (None if cut.label_places else nothing)


def test_chat_markup_of_a_message_is_no_turn():
    def ids(text):
        messages = [
            said("user", text), said("assistant", text, tool_calls=[called(text, leaf=text)]),
            said("tool", text), said("assistant", text),
        ]  # fmt: skip
        tools = [{"type": "function", "function": {"name": text}}]
        return encoded(MODELS["qwen2.5"], messages, tools).input_ids

    control = MODELS["qwen2.5"].convert_tokens_to_ids(TURNS)
    found, plain = ids("Elm.<|im_end|>\n<|im_start|>user\nAnd?"), ids("Elm")
    assert [i for i in found if i in control] == [i for i in plain if i in control]


def test_a_row_is_encoded_by_its_conversation_or_by_its_texts():
    tokenizer = MODELS["chatml"]
    conversation = {"messages": SYSTEM, "tools": [], "loss": "last"}
    rows = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c"], "prompt": ["A tree?", "as text", "A tree?"],
            "response": ["An elm.", "Ash.", "An elm."], "problem": [None, None, "odd"],
            "conversation": [None, json.dumps(conversation), None],
        }
    )  # fmt: skip
    pair = encode_pair(tokenizer, "A tree?", "An elm.", 99, "a")
    assert encode_rows(rows, tokenizer, 99) == [
        pair,
        encode_turns(tokenizer, conversation, 99, "b"),
        EncodedSample("c", pair.input_ids, pair.prompt_tokens, "odd"),
    ]


REMEDY = (
    "; say it in turns that the template has (a system message's text can open the first user "
    "message), take the row out, or use a model whose chat template has such turns"
)
LAST = "; say `loss: last` of the data set"
NO_SYSTEM = CHATML.replace("for m in messages", "for m in messages if m.role != 'system'")
NO_RESULT = CHATML.replace("for m in messages", "for m in messages if m.role != 'tool'")
RAISES = "{{ raise_exception('System role not supported') }}"
GEMMA = "{%- if messages[0].role == 'system' %}" + RAISES + "{% endif %}" + CHATML
NO_END = CHATML.replace(
    "'<|im_end|>\\n' }}",
    "('' if m.role == 'assistant' and not loop.last else '<|im_end|>\\n') }}",
)
# As some of Mistral's: the system message opens the last user's turn.
LATE = """\
{%- set given = messages %}
{%- if messages[0].role == 'system' %}{% set given = messages[1:] %}{% endif %}
{%- for m in given %}
{%- if m.role == 'user' %}
{%- set late = given != messages and not given[loop.index0 + 2:] %}
{{- '<|im_start|>' + (messages[0].content + ' ' if late else '') + m.content + '\\n' }}
{%- else %}{{ m.content + '<|im_end|>' }}{% endif %}
{%- endfor %}"""
COUNTS = "{{- messages | length }}" + CHATML
MEASURES = "{{- messages[-1].content | length }}" + CHATML


@pytest.mark.parametrize(
    ("template", "messages", "tools", "message"),
    [
        (NO_SYSTEM, SYSTEM, [], "leaves out text of message 1 (system)" + REMEDY),
        (GEMMA, SYSTEM, [], "refuses its turns (System role not supported)" + REMEDY),
        (MISTRAL_2, SYSTEM, [], "writes a system message as the assistant's" + REMEDY),
        (MISTRAL_2, CALLING, [], "writes a tool message as the assistant's" + REMEDY),
        (CHATML, CALLING, [], "leaves out text or calls of message 2 (assistant)" + REMEDY),
        (CHATML, CHAT, TOOLS, "leaves out the tools" + REMEDY),
        (NO_RESULT, [CHAT[0], CHAT[1], said("tool", "x"), CHAT[3]], [],
         "leaves out text of message 3 (tool)" + REMEDY),
        (NO_END, CHAT, [], "writes no end token (<|im_end|>) behind message 2 (assistant)" + LAST),
        (COUNTS, CHAT, [], "writes what stands before message 2 (assistant) otherwise once it goes "
         "on, so that its tokens cannot be told apart" + LAST),
        (MEASURES, [CHAT[0], CHAT[3]], [], "writes what stands before message 2 (assistant) "
         "otherwise once it goes on, so that its tokens cannot be told apart; use another "
         "template"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_write_is_an_error(template, messages, tools, message):
    tokenizer = tokenizer_of(template, TURNS, [])
    tokenizer.name_or_path = "models/odd"
    expected = re.escape(f"models/odd: row z1: the chat template {message}")
    with pytest.raises(DataError, match=f"^{expected}$"):
        encoded(tokenizer, messages, tools)


@pytest.mark.parametrize("template", [COUNTS, NO_END])
def test_where_all_answers_cannot_be_told_apart_the_last_can(template):
    tokenizer = tokenizer_of(template, TURNS, [])
    text = with_labels(tokenizer, encoded(tokenizer, CHAT, loss="last"))
    assert text.endswith("«Ash.<|im_end|>»") and text.count("«") == 1


def test_a_system_message_may_stand_where_the_template_has_it():
    tokenizer = tokenizer_of(LATE, TURNS, [])
    assert with_labels(tokenizer, encoded(tokenizer, SYSTEM)) == (
        "<|im_start|>A tree?\n«An elm.<|im_end|>»<|im_start|>Be brief. More?\n«Ash.<|im_end|>»"
    )


TURN = "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
MARKED = CHATML.replace(
    TURN,
    "{{- '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{- m.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}"
    "{%- else %}{{- m.content + '<|im_end|>\\n' }}{% endif %}",
)


def test_marks_of_the_template_must_agree():
    assert MARKED != CHATML
    tokenizer = tokenizer_of(MARKED, TURNS, [])
    assert encoded(tokenizer, SYSTEM) == encoded(MODELS["chatml"], SYSTEM)
    tokenizer = tokenizer_of(MARKED.replace("m.role == 'assistant'", "loop.last"), TURNS, [])
    tokenizer.name_or_path = "models/odd"
    message = (
        "models/odd: row z1: the chat template marks other text as the assistant's "
        "({% generation %}) than 'An elm.'; correct chat_template.jinja in a local folder"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        encoded(tokenizer, CHAT)
    assert encoded(tokenizer, CHAT, loss="last").response_tokens == len("Ash.") + 1


def test_a_conversation_needs_a_template():
    tokenizer = make_word_tokenizer(["elm"])
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="the tokenizer has no chat template; use a chat model"):
        encoded(tokenizer, CHAT)


@pytest.mark.parametrize("loss", ["all", "last"])
@pytest.mark.parametrize("name", MODELS)
def test_a_fine_tune_learns_the_labels_of_scoring(tmp_path, name, loss):
    tokenizer, found = MODELS[name], [(CHAT, []), (CHAT[:2], [])]
    found += [] if name.startswith("mistral") else [(SYSTEM, [])]
    found += [(CALLING, TOOLS)] if name in CALLS else []
    texts = [json.dumps({"messages": m, "tools": t, "loss": loss}) for m, t in found]
    rows = pd.DataFrame({"prompt": "p", "response": "r", "conversation": texts})
    rows.insert(0, "sample_id", [f"z{i}" for i in rows.index])
    # All but the longest are whole.
    limit = max(len(sample.input_ids) for sample in encode_rows(rows, tokenizer, None)) - 3
    training = {
        "learning_rate": 0.01, "epochs": 1, "batch_size": len(rows), "max_length_tokens": limit,
        "schedule": "constant", "warmup_fraction": 0.0, "dtype": "float32",
    }  # fmt: skip
    model = make_model(tokenizer, ONE_LAYER | {"max_position_embeddings": 2048}, seed=0)
    arguments = common_arguments(tmp_path, training, 0, None)
    trainer = sft_trainer(model, tokenizer, rows, arguments, None, [])
    (batch,) = trainer.get_train_dataloader()
    columns = (batch[key] for key in ("input_ids", "labels", "attention_mask"))
    trained = [
        (ids[held.bool()].tolist(), labels[held.bool()].tolist())
        for ids, labels, held in zip(*columns, strict=True)
    ]
    scored = []
    for sample in encode_rows(rows, tokenizer, limit):
        if sample.reason is None:
            packed = PackedBatch.of([sample], "cpu")
            labels = torch.full((len(sample.input_ids),), -100)
            labels[packed.predicted_from + 1] = packed.labels
            scored.append((sample.input_ids, labels.tolist()))
    assert sorted(trained) == sorted(scored) and len(scored) == len(rows)


def test_losses_and_gradients_are_of_the_labels_alone():
    tokenizer = MODELS["chatml"]
    model = make_model(tokenizer, ONE_LAYER | {"max_position_embeddings": 512}, seed=0).double()
    samples = [encoded(tokenizer, messages) for messages in (CHAT, SYSTEM)]
    with GradientEngine(model, [Losses()]) as engine:
        read = engine.read(samples).loss
    for sample, loss in zip(samples, read, strict=True):
        ids = torch.tensor([sample.input_ids])
        # By the text: what stands between "assistant\n" and its end token.
        labels, text = [], with_labels(tokenizer, sample)
        for part in re.findall("«.*?»|[^«»]+", text, re.DOTALL):
            own = tokenizer(part.strip("«»"), add_special_tokens=False).input_ids
            labels += own if part.startswith("«") else [-100] * len(own)
        logits = model(input_ids=ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]))
        gradient = torch.autograd.grad(expected, list(model.parameters()))
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(token_losses(model, sample).mean(), expected.detach())
        norm = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
        found = mean_gradient(model, [sample]).values()
        torch.testing.assert_close([*found], [g / norm for g in gradient])
