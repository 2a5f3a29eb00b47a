"""What a shard keeps, refuses and checks; its numbers are held by the oracle of the scores."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as parquet
import pytest
import torch
from conftest import ONE_LAYER, write_adapter
from transformers import LlamaForCausalLM

from sqsd import shards
from sqsd.chat import encode_rows
from sqsd.drift import load_adapter
from sqsd.errors import ConfigurationError, DataError, SqsdError
from sqsd.gradients import GradientEngine
from sqsd.models import load_model, load_tokenizer, make_model, make_word_tokenizer, state_applied
from sqsd.shards import (
    CPU_TOKENS,
    GPU_TOKENS,
    NOT_FINITE,
    Shard,
    budget,
    collect_shard,
    encode_samples,
    encode_shard,
    samples_table,
)
from sqsd.states import State
from sqsd.tables import read_table

WORDS = ["ash", "birch", "cedar", "elm", "fir", "oak"]
TOKENIZER = make_word_tokenizer(WORDS)
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders: a model, one in which "oak" is no number, a pilot with a checkpoint, a direction."""
    folder = tmp_path_factory.mktemp("world")
    model = make_model(TOKENIZER, ONE_LAYER | {"initializer_range": 0.2}, seed=1)
    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(PROJECTIONS)
    }
    write_adapter(folder / "state", shapes, seed=1)
    write_adapter(folder / "direction", shapes, seed=2)
    write_adapter(folder / "direction/checkpoint-5", shapes, seed=3)
    for name in ("model", "broken"):
        model.save_pretrained(folder / name)
        TOKENIZER.save_pretrained(folder / name)
        # A head of its own, or one embedding would make every logit no number.
        model.config.tie_word_embeddings = False
        model = LlamaForCausalLM(model.config)
        model.model.embed_tokens.weight.data[5 + WORDS.index("oak")] = math.nan
    return folder


def rows_of(*pairs):
    rows = [(f"z{i}", prompt, response, None, None) for i, (prompt, response) in enumerate(pairs)]
    columns = ["sample_id", "prompt", "response", "family", "problem"]
    return pd.DataFrame(rows, columns=pd.Index(columns), dtype="str")


ROWS = rows_of(*[(WORDS[i % 5], " ".join(WORDS[i % 3 : 3 + i % 2])) for i in range(8)])


SHARD: dict[str, Any] = {
    "shard": 0, "rows_per_shard": 100, "max_length_tokens": 12, "max_tokens_per_batch": "auto",
    "dtype": "float32", "checkpointing": False,
}  # fmt: skip


def collect(world, out: Path, rows=ROWS, model="model", **changed):
    """The samples and the modules of a shard."""
    out.mkdir(exist_ok=True)
    paths = [str(out / f"{kind}.parquet") for kind in ("samples", "modules")]
    settings = {name: changed.pop(name) for name in [*changed] if name in SHARD}
    arguments = {
        "state": State("d", str(world / model), str(world / "state"), 0.5),
        "direction": str(world / "direction"),
        "checkpoint": "final",
        "provenance": {"stage": "collect_gradients"},
    } | changed
    collect_shard(
        shard=Shard.of(rows, **(SHARD | settings)), samples_out=paths[0], modules_out=paths[1],
        **arguments,
    )  # fmt: skip
    return read_table(paths[0], "gradient_samples"), read_table(paths[1], "gradient_modules")


@pytest.mark.parametrize(
    ("shard", "size", "expected"),
    [(0, 3, [0, 1, 2]), (1, 3, [3, 4, 5]), (2, 3, [6, 7]), (0, 8, [*range(8)]), (1, 7, [7])],
)
def test_a_shard_is_a_slice_of_the_rows_in_their_order(world, tmp_path, shard, size, expected):
    samples, modules = collect(world, tmp_path, shard=shard, rows_per_shard=size)
    ids = [f"z{i}" for i in expected]
    assert samples["sample_id"].tolist() == ids
    # Every row's modules stand together, in its order, all seven of them.
    assert modules["sample_id"].tolist() == [sample for sample in ids for _ in PROJECTIONS]
    assert modules["module"].nunique() == len(PROJECTIONS)


def test_the_checkpoint_of_the_direction_that_is_asked_for_is_read(world, tmp_path):
    last, early = (
        collect(world, tmp_path / str(checkpoint), checkpoint=checkpoint)[1]
        for checkpoint in ("final", 5)
    )
    assert last["update_norm"].tolist() == early["update_norm"].tolist()
    assert (last["inner_product"] != early["inner_product"]).all()
    assert (last["direction_norm"] != early["direction_norm"]).all()
    with pytest.raises(ConfigurationError, match=r"checkpoint 6 was not saved; known: 5$"):
        collect(world, tmp_path / "none", checkpoint=6)


def test_the_state_s_multiplier_is_applied(world, tmp_path):
    def state(multiplier):
        return State("d", str(world / "model"), str(world / "state"), multiplier)

    losses = [
        collect(world, tmp_path / str(m), state=state(m))[0]["loss"].iloc[0] for m in (0.5, 1.0)
    ]
    ids = TOKENIZER("<user> ash <assistant> ash birch cedar <end>", return_tensors="pt").input_ids
    for multiplier, loss in zip((0.5, 1.0), losses, strict=True):
        moved = load_model(world / "model").double()
        with state_applied(moved, str(world / "state"), multiplier), torch.no_grad():
            logits = moved(input_ids=ids).logits[0].log_softmax(-1)
        expected = -sum(float(logits[i - 1, ids[0, i]]) for i in range(3, 7)) / 4
        assert loss == pytest.approx(expected, rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_at_theta_0_updates_are_those_of_the_weights(world, tmp_path):
    """By autograd: cosines with the direction of minus the gradient of each weight."""
    samples, modules = collect(
        world, tmp_path, state=State("theta", str(world / "model"), None), rows=ROWS[:2]
    )
    direction = load_adapter(world / "direction")
    model = load_model(world / "model").double()
    for row, (_, own) in zip(ROWS[:2].itertuples(), modules.groupby("sample_id"), strict=True):
        text = f"<user> {row.prompt} <assistant> {row.response} <end>"
        ids = TOKENIZER(text, return_tensors="pt").input_ids
        logits = model(input_ids=ids).logits[0].log_softmax(-1)
        loss = -sum(logits[i - 1, ids[0, i]] for i in range(3, ids.shape[1])) / (ids.shape[1] - 3)
        model.zero_grad()
        loss.backward()
        for name, norm, product in own[["module", "update_norm", "inner_product"]].values:
            gradient = model.get_submodule(name).weight.grad
            dense = direction[name].scale * direction[name].B @ direction[name].A
            assert norm == pytest.approx(float(gradient.norm()), rel=1e-5)
            expected = -float((gradient * dense.double()).sum())
            assert product == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert samples["reason"].isna().all()


@pytest.mark.parametrize("tokens", ["auto", 1])
def test_a_row_whose_gradient_is_no_number_is_kept_with_the_reason(world, tmp_path, tokens):
    rows = rows_of(("ash", "elm"), ("oak", "fir"), ("elm", ""), ("fir", "oak ash"), ("fir", "ash"))
    samples, modules = collect(
        world, tmp_path, rows=rows, model="broken", max_tokens_per_batch=tokens
    )
    assert samples["sample_id"].tolist() == [f"z{i}" for i in range(5)]
    reasons = [None if pd.isna(reason) else reason for reason in samples["reason"]]
    assert reasons == [None, NOT_FINITE, "empty response", NOT_FINITE, None]
    assert samples["loss"].isna().tolist() == [reason is not None for reason in reasons]
    assert modules["sample_id"].unique().tolist() == ["z0", "z4"]
    # And what the others give is what they give alone.
    alone, _ = collect(world, tmp_path / "alone", rows=rows.iloc[[0, 4]], model="broken")
    assert samples["loss"].dropna().tolist() == pytest.approx(alone["loss"].tolist(), rel=1e-6)


def test_a_shard_without_a_usable_row_has_no_modules(world, tmp_path, capsys):
    samples, modules = collect(world, tmp_path, rows=rows_of(("ash", ""), ("elm", " ")))
    assert samples["reason"].tolist() == ["empty response"] * 2
    assert samples["loss"].isna().all() and modules.empty
    assert "0 rows are read, 2 kept with a reason" in capsys.readouterr().out


def test_the_loss_is_checked_once_against_the_model_s_own(world, tmp_path, monkeypatch):
    checked = []
    real = GradientEngine.check_loss

    def check_loss(self, sample):
        checked.append(sample.sample_id)
        real(self, sample)

    monkeypatch.setattr(GradientEngine, "check_loss", check_loss)
    rows = rows_of(("ash elm", "ash elm fir"), ("ash", "fir"), ("ash", "elm fir"), ("ash", ""))
    collect(world, tmp_path, rows=rows)
    assert checked == ["z1"]  # the shortest of those that can be scored


def test_a_model_that_does_more_than_the_engine_knows_is_refused(world, tmp_path, monkeypatch):
    # Soft-capped logits, as Gemma 2 has them.
    real = LlamaForCausalLM.forward

    def forward(self, *args, **kwargs):
        output = real(self, *args, **kwargs)
        assert output.logits is not None
        output.logits = torch.tanh(output.logits) * 0.1
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    message = "LlamaForCausalLM: the engine computes a loss of .* where the model's own is"
    with pytest.raises(SqsdError, match=message):
        collect(world, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tokens_per_batch():
    cpu, gpu = SimpleNamespace(type="cpu"), SimpleNamespace(type="cuda")
    assert (budget("auto", cpu), budget("auto", gpu)) == (CPU_TOKENS, GPU_TOKENS)  # pyright: ignore
    assert budget(300, gpu) == budget("300", cpu) == 300  # pyright: ignore


def test_the_budget_is_handed_to_the_engine(world, tmp_path, monkeypatch):
    seen = []
    real = GradientEngine.read_all

    def read_all(self, samples, max_tokens):
        seen.append(max_tokens)
        return real(self, samples, max_tokens)

    monkeypatch.setattr(GradientEngine, "read_all", read_all)
    monkeypatch.setattr(shards, "budget", lambda tokens, device: 17 if tokens == 7 else 0)
    collect(world, tmp_path, max_tokens_per_batch=7)
    assert seen == [17]


@pytest.mark.parametrize("checkpointing", [True, False])
def test_type_and_checkpointing_are_those_asked_for(world, tmp_path, monkeypatch, checkpointing):
    seen = []
    real = GradientEngine.__enter__

    def enter(self):
        seen.append((self.model.dtype, self.checkpointing))
        return real(self)

    monkeypatch.setattr(GradientEngine, "__enter__", enter)
    collect(world, tmp_path, dtype="bfloat16", checkpointing=checkpointing)
    assert seen == [(torch.bfloat16, checkpointing)]


def test_both_tables_tell_what_they_were_made_from(world, tmp_path):
    collect(world, tmp_path, provenance={"stage": "here", "version": "7"})
    for kind in ("samples", "modules"):
        metadata = parquet.read_schema(tmp_path / f"{kind}.parquet").metadata[b"sqsd"]
        expected = {"schema": f"gradient_{kind}", "stage": "here", "version": "7"}
        assert json.loads(metadata) == expected


def test_the_table_of_samples_alone():
    rows = rows_of(("ash", "elm fir"), ("ash", ""), ("ash elm fir", "ash"))
    table = samples_table(encode_rows(rows, TOKENIZER, 4))
    assert table["sample_id"].tolist() == ["z0", "z1", "z2"]
    # <user> ash <assistant> of 3; of elm fir <end> one is left, and of the last not a word.
    assert table["prompt_tokens"].tolist() == [3, 3, 4]
    assert table["response_tokens"].tolist() == [1, 0, 0]
    assert table["reason"].isna().tolist() == [True, False, False]


def long_rows(count, words):
    """Rows of `words` + 4 tokens: two that open turns, the question, the answer, its end."""
    return pd.DataFrame(
        {
            "sample_id": [f"z{words}-{i}" for i in range(count)],
            "prompt": "elm", "response": " ".join(["fir"] * words), "problem": None,
        }
    )  # fmt: skip


def test_a_run_whose_rows_are_nearly_all_cut_off_is_refused(world):
    model = str(world / "model")
    empty = long_rows(3, 0)
    rows = pd.concat([long_rows(9, 6), long_rows(1, 1), empty])
    found = encode_samples(rows, model, 8)
    assert found["response_tokens"].tolist() == [5] * 9 + [2] + [0] * 3
    pd.testing.assert_frame_equal(found, samples_table(encode_rows(rows, load_tokenizer(model), 8)))
    # 19 of 20 is more than nine in ten; rows that cannot be used are not counted. 18 of 20 have 11
    # tokens at most.
    rows = pd.concat([long_rows(1, 1), long_rows(17, 7), long_rows(2, 9), empty])
    message = (
        "19 of 20 rows are longer than max_length_tokens=8 and would be cut off; give `gradients: "
        "{max_length_tokens: 11}` for 90% of them, 13 for all, or shorten the rows"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        encode_samples(rows, model, 8)
    assert len(encode_samples(rows, model, 11)) == 23
    # A pass says so of the data set, of which a part alone may be as long.
    asked: dict[str, Any] = SHARD | {"max_length_tokens": 8, "rows_per_shard": 4}
    last = asked | {"shard": 4}
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        encode_shard(Shard.of(rows, **last), TOKENIZER)
    rows = pd.concat([long_rows(16, 2), long_rows(4, 9)])
    assert encode_shard(Shard.of(rows, **last), TOKENIZER) == encode_rows(rows[16:], TOKENIZER, 8)
    assert encode_samples(empty, model, 8)["reason"].tolist() == ["empty response"] * 3
