"""Families of architectures that the sandbox's models may have, through all that is done to one."""

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER, write_adapter
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from sqsd.chat import encode_pair
from sqsd.cost_models import make_classifier
from sqsd.drift import load_adapter
from sqsd.evaluation import generate_responses
from sqsd.models import load_model, make_model, make_word_tokenizer
from sqsd.shards import Shard, collect_shard
from sqsd.states import State
from sqsd.tables import read_table
from sqsd.training import train_sft

WORDS = ["ash", "birch", "cedar", "elm", "fir"]
TOKENIZER = make_word_tokenizer(WORDS)
# Heads of another size than hidden_size / num_attention_heads: 2 x 12 beside a width of 16.
QWEN = ONE_LAYER | {"model_type": "qwen3", "head_dim": 12, "initializer_range": 0.3}
# Of q, k and v of 2 heads and 1 key-value head, and back from them; of the MLP.
LINEAR = {
    "self_attn.q_proj": (24, 16), "self_attn.k_proj": (12, 16), "self_attn.v_proj": (12, 16),
    "self_attn.o_proj": (16, 24), "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
}  # fmt: skip
MODULES = {f"model.layers.0.{name}": shape for name, shape in LINEAR.items()}
TRAINING = {
    "learning_rate": 0.05, "epochs": 1, "batch_size": 4, "max_length_tokens": 12,
    "schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.0, "dtype": "float32",
}  # fmt: skip
ROWS = pd.DataFrame(
    {
        "sample_id": [f"z{i}" for i in range(4)], "prompt": WORDS[:4],
        "response": ["fir elm", "ash", "birch cedar ash", "elm"], "family": None, "problem": None,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a model with norms of queries and keys."""
    folder = tmp_path_factory.mktemp("base") / "model"
    make_model(TOKENIZER, QWEN, seed=3).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("given", [{}, {"model_type": "llama"}])
def test_a_llama_has_the_weights_that_transformers_gives_it_after_the_seed(given):
    ends = {"pad_token_id": 0, "eos_token_id": 4, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(TOKENIZER), tie_word_embeddings=True, **ends, **ONE_LAYER)  # pyright: ignore
    torch.manual_seed(7)
    expected = LlamaForCausalLM(config)
    assert_same(make_model(TOKENIZER, ONE_LAYER | given, seed=7), expected)
    config = LlamaConfig(vocab_size=len(TOKENIZER), num_labels=1, **ends, **ONE_LAYER)  # pyright: ignore
    torch.manual_seed(8)
    classifier = LlamaForSequenceClassification(config)
    assert_same(make_classifier(TOKENIZER, ONE_LAYER | given, seed=8), classifier)


def assert_same(model, expected):
    assert type(model) is type(expected) and model.config.to_dict() == expected.config.to_dict()
    found, weights = model.state_dict(), expected.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_qwen_norms_its_queries_and_keys(base):
    model = load_model(base)
    attention = model.model.layers[0].self_attn
    assert attention.q_norm.weight.shape == attention.k_norm.weight.shape == (12,)
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert shapes == MODULES
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_step_of_training_adapts_every_linear_layer_and_nothing_else(base, tmp_path):
    train_sft(
        load_model(base), TOKENIZER, ROWS, tmp_path / "out", tmp_path / "work",
        training=TRAINING, lora={"r": 2, "lora_alpha": 4}, seed=1, version=1,
    )  # fmt: skip
    adapter = load_adapter(tmp_path / "out")
    assert {name: weights.drift_shape for name, weights in adapter.items()} == MODULES
    assert all(weights.B.abs().sum() > 0 for weights in adapter.values())
    kept = load_file(tmp_path / "out/adapter_model.safetensors")
    assert len(kept) == 2 * len(MODULES)


def test_a_step_of_training_all_weights_moves_the_norms_of_queries_too(base, tmp_path):
    train_sft(
        load_model(base), TOKENIZER, ROWS, tmp_path / "out", tmp_path / "work",
        training=TRAINING, lora=None, seed=1, version=1,
    )  # fmt: skip
    before, after = load_model(base).state_dict(), load_model(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_a_shard_of_gradients_is_that_of_autograd(base, tmp_path):
    for name, seed in (("state", 1), ("direction", 2)):
        write_adapter(tmp_path / name, MODULES, seed=seed)
    out = {f"{table}_out": tmp_path / f"{table}.parquet" for table in ("samples", "modules")}
    shard = Shard.of(
        ROWS.astype("str").where(ROWS.notna()), shard=0, rows_per_shard=10, max_length_tokens=12,
        max_tokens_per_batch="auto", dtype="float32", checkpointing=False,
    )  # fmt: skip
    collect_shard(
        shard=shard, state=State("d", str(base), str(tmp_path / "state")),
        direction=str(tmp_path / "direction"), checkpoint="final", provenance={}, **out,
    )  # fmt: skip
    found = read_table(out["modules_out"], "gradient_modules").set_index(["sample_id", "module"])
    assert len(found) == len(ROWS) * len(MODULES)
    model = load_model(base).double()
    state, direction = (
        load_adapter(tmp_path / name, dtype=torch.float64) for name in ("state", "direction")
    )
    for row in ROWS.itertuples():
        for module, (a, b) in gradients(model, state, row).items():
            at, along = state[module], direction[module]
            update = -(at.B @ a + b @ at.A)  # pyright: ignore
            dense = along.scale * along.B @ along.A
            norm, product = found.loc[(row.sample_id, module), ["update_norm", "inner_product"]]  # pyright: ignore
            assert norm == pytest.approx(float(update.norm()), rel=1e-3, abs=1e-6)
            size = float(update.norm() * dense.norm())
            assert product == pytest.approx(float((update * dense).sum()), abs=1e-3 * size)


def gradients(model, state, row):
    """Gradients of a row's mean loss by A and B of every module, by autograd through the model."""
    leaves = {
        name: (at.A.clone().requires_grad_(), at.B.clone().requires_grad_())
        for name, at in state.items()
    }
    moved = {
        f"{name}.weight": model.get_parameter(f"{name}.weight").detach() + at.scale * b @ a
        for (name, (a, b)), at in zip(leaves.items(), state.values(), strict=True)
    }
    encoded = encode_pair(TOKENIZER, row.prompt, row.response, 12)
    ids = torch.tensor([encoded.input_ids])
    logits = functional_call(model, moved, (ids,)).logits[0].log_softmax(-1)
    places = range(encoded.prompt_tokens, ids.shape[1])
    loss = -sum(logits[t - 1, ids[0, t]] for t in places) / len(places)
    loss.backward()  # pyright: ignore
    return {name: (a.grad, b.grad) for name, (a, b) in leaves.items()}


def test_responses_are_those_of_one_token_at_a_time(base):
    prompts = pd.DataFrame({"prompt_id": WORDS, "prompt": [f"{w} fir" for w in WORDS]})
    found = generate_responses(prompts, [State("theta-0", str(base), None)], 5, 3, "float32")
    model = load_model(base)
    for prompt, count, response in found[["prompt", "response_tokens", "response"]].values:
        ids = [2, *(5 + WORDS.index(word) for word in prompt.split()), 3]
        new = []
        with torch.no_grad():
            while len(new) < 5 and 4 not in new:
                logits = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits
                new.append(int(logits[0, -1].argmax()))
        new = [token for token in new if token != 0]
        assert response.split() == [WORDS[token - 5] for token in new if token >= 5]
        assert count == len(new)
