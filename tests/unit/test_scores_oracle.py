"""The scores against an oracle that shares no code with them.

The oracle takes one unpadded sample at a time, in float64, builds every weight, update and
direction densely, and reads the adapters' files itself. The pipeline runs in float32, in batches.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from sqsd.models import make_model, make_word_tokenizer
from sqsd.scorers import score_all
from sqsd.shards import collect_shard
from sqsd.tables import read_table, write_table

ARCHITECTURE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEAR += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
MODULES = [f"model.layers.{i}.{name}" for i in range(3) for name in LINEAR]
MAX_LENGTH = 24
WORDS = "a b c d e f g h i j k l m n o p q r s t"
LONG = " ".join([WORDS, WORDS])

USABLE = {
    "one": ("a b", "c"),
    "two": ("d e f g h", "i j k l"),
    "three": ("m", "n o p q r s t a b c d e"),
    "repeats": ("q q q q q q q q", "q q q"),
    "unknown": ("what is b", "no idea c"),  # four words outside the vocabulary
    "padding": ("a <pad> b", "c <pad> d <pad>"),  # text that looks like padding
    "cut": ("s t", LONG),  # the response's tail and its end token are past the limit
    "one_left": (" ".join(WORDS.split()[: MAX_LENGTH - 3]), "r s t"),  # one label is left
    "longer": ("k i d", "a b e d f a c e l i p o r t s h"),
}
# prompt, response, problem, part of the reason
UNUSABLE = {
    "empty": ("a b c", "", None, "empty response"),
    "blank": ("a b c", "  ", None, "empty response"),
    "cut_off": (LONG, "a b c", None, f"max_length_tokens={MAX_LENGTH}"),
    "just_cut_off": (" ".join(WORDS.split()[:20] + ["a", "b"]), "c", None, "max_length_tokens"),
    "problem": ("a b c", "d e f", "no answer chosen", "no answer chosen"),
    "problem_null": ("a b c", None, "no answer written", "no answer written"),
}
ORDER = [
    "empty", "one", "two", "cut_off", "three", "repeats", "problem", "just_cut_off", "unknown",
    "padding", "cut", "problem_null", "one_left", "longer", "blank",
]  # fmt: skip
SHUFFLED = [ORDER[i] for i in np.random.default_rng(5).permutation(len(ORDER))]

STATES = {"danger-danger": ("pilot", 1.0), "safety": ("safety", 0.3)}
EXPERIMENT = {
    "danger": {"danger": {"rank": 1}},
    "safety": {"direction": "safety", "alpha": 0.3},
}
FULL, DANGER_ONLY, SAFETY_ONLY, UNNORMALISED = METHODS = [
    "sqsd-danger",
    "sqsd-danger-danger-only",
    "sqsd-danger-safety-only",
    "sqsd-danger-unnormalised",
]
COSINE_BOUND = 1e-5
NORM_BOUND = 1e-5  # relative
LOSS_BOUND = 1e-5


# --- inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A model, its adapters and the states' files in one folder."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    @property
    def directions(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in ("danger", "safety")}

    def state(self, name: str) -> str:
        return str(self.folder / f"{name}.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    world = World(tmp_path_factory.mktemp("oracle"))
    tokenizer = make_word_tokenizer([WORDS])
    model = make_model(tokenizer, ARCHITECTURE, seed=11)
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.save_pretrained(world.model)
    tokenizer.save_pretrained(world.model)
    for seed, name in enumerate(["pilot", "danger", "safety"]):
        write_adapter(world.model, world.folder / name, seed)
    for state, (adapter, multiplier) in STATES.items():
        content = {"adapter": str(world.folder / adapter), "multiplier": multiplier}
        Path(world.state(state)).write_text(json.dumps(content))
    return world


def write_adapter(model_folder: str, out: Path, seed: int) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    base: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.save_pretrained(str(out))


def write_rows(path: Path, order: list[str]) -> None:
    rows = {name: (prompt, response, None) for name, (prompt, response) in USABLE.items()}
    rows |= {name: row[:3] for name, row in UNUSABLE.items()}
    columns = ["prompt", "response", "problem"]
    frame = pd.DataFrame([rows[name] for name in order], columns=columns, dtype="str")
    frame.insert(0, "sample_id", pd.Series(order, dtype="str"))
    frame.insert(3, "family", pd.Series([None] * len(order), dtype="str"))
    write_table(frame, path, "dataset")


# --- the oracle -----------------------------------------------------------------------------


class Norm64(nn.Module):
    """RMS norm in the type of its input; transformers' goes through float32."""

    def __init__(self, norm):
        super().__init__()
        self.weight = nn.Parameter(norm.weight.double(), requires_grad=False)
        self.epsilon = norm.variance_epsilon

    def forward(self, x):
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.epsilon).sqrt()


class Rotary64(nn.Module):
    """Rotary angles in float64; transformers' are float32."""

    def __init__(self, config):
        super().__init__()
        size = config.hidden_size // config.num_attention_heads
        exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
        self.frequencies = config.rope_parameters["rope_theta"] ** -exponents

    def forward(self, x, position_ids):
        angles = position_ids[..., None].double() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x), angles.sin().to(x)


@dataclass(frozen=True)
class Lora:
    A: torch.Tensor
    B: torch.Tensor
    scale: float

    @property
    def dense(self) -> torch.Tensor:
        return self.scale * self.B @ self.A


def read_adapter(folder: str | Path, multiplier: float = 1.0) -> dict[str, Lora]:
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    weights = load_file(Path(folder) / "adapter_model.safetensors")
    scale = multiplier * config["lora_alpha"] / config["r"]
    adapter = {}
    for module in MODULES:
        prefix = f"base_model.model.{module}"
        A, B = (weights.pop(f"{prefix}.lora_{x}.weight").double() for x in "AB")
        adapter[module] = Lora(A.requires_grad_(), B.requires_grad_(), scale)
    assert not weights, "the adapter has modules that the oracle does not know"
    return adapter


class Oracle:
    """Losses, dense updates and dense directions in float64."""

    def __init__(self, world: World):
        self.world = world
        self.tokenizer: Any = AutoTokenizer.from_pretrained(world.model)
        # The eager attention's softmax is float32; sdpa keeps float64.
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            world.model, dtype=torch.float64, attn_implementation="sdpa"
        )
        for layer in self.model.model.layers:
            layer.input_layernorm = Norm64(layer.input_layernorm)
            layer.post_attention_layernorm = Norm64(layer.post_attention_layernorm)
        self.model.model.norm = Norm64(self.model.model.norm)
        self.model.model.rotary_emb = Rotary64(self.model.config)
        self.model.requires_grad_(False)
        self.base = {m: self.model.get_submodule(m).weight for m in MODULES}
        self.states = {
            state: read_adapter(world.folder / adapter, multiplier)
            for state, (adapter, multiplier) in STATES.items()
        }
        with torch.no_grad():
            self.directions = {
                name: {m: lora.dense for m, lora in read_adapter(folder).items()}
                for name, folder in world.directions.items()
            }

    def tokens(self, sample: str) -> tuple[list[int], int]:
        """Ids as the pipeline may see them, and where the response begins."""
        prompt, response = USABLE[sample]
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
        ]
        ids = self.tokenizer.apply_chat_template(messages, return_dict=False)[:MAX_LENGTH]
        begin = ids.index(self.tokenizer.convert_tokens_to_ids("<assistant>")) + 1
        assert 0 < begin < len(ids)
        return ids, begin

    def loss(self, sample: str, adapter: dict[str, Lora]) -> torch.Tensor:
        """Mean of -log p(token) over the response's tokens: L = -(1/T) sum_t log p(y_t | < t)."""
        ids, begin = self.tokens(sample)
        weights = {f"{m}.weight": self.base[m] + lora.dense for m, lora in adapter.items()}
        inputs = {"input_ids": torch.tensor([ids]), "use_cache": False}
        logits = functional_call(self.model, weights, kwargs=inputs).logits[0]
        assert logits.dtype == torch.float64
        logs = logits - logits.exp().sum(-1, keepdim=True).log()
        picked = [logs[t - 1, ids[t]] for t in range(begin, len(ids))]
        return -torch.stack(picked).mean()

    def gradients(self, sample: str, adapter: dict[str, Lora]):
        loss = self.loss(sample, adapter)
        leaves = [leaf for lora in adapter.values() for leaf in (lora.A, lora.B)]
        found = torch.autograd.grad(loss, leaves)
        return loss.item(), dict(zip(adapter, zip(found[::2], found[1::2], strict=True)))

    @torch.no_grad()
    def collect(self, state: str) -> tuple[dict[str, float], pd.DataFrame]:
        """Losses by sample; by sample and module the norms and inner products of dense matrices."""
        adapter, losses, rows = self.states[state], {}, []
        for sample in USABLE:
            with torch.enable_grad():
                losses[sample], gradients = self.gradients(sample, adapter)
            for module, (gA, gB) in gradients.items():
                lora = adapter[module]
                dW = -(lora.B @ gA + gB @ lora.A)
                row = {"sample_id": sample, "module": module, "update_norm": norm(dW)}
                for name, direction in self.directions.items():
                    row[f"inner_product.{name}"] = (dW * direction[module]).sum().item()
                    row[f"direction_norm.{name}"] = norm(direction[module])
                rows.append(row)
        return losses, pd.DataFrame(rows).set_index(["sample_id", "module"])


def norm(matrix: torch.Tensor) -> float:
    return matrix.square().sum().sqrt().item()


def cosines(modules: pd.DataFrame, direction: str) -> pd.Series:
    norms = modules["update_norm"] * modules[f"direction_norm.{direction}"]
    return modules[f"inner_product.{direction}"] / norms


@pytest.fixture(scope="module")
def oracle(world) -> Oracle:
    return Oracle(world)


@pytest.fixture(scope="module")
def expected(oracle) -> dict[str, tuple[dict[str, float], pd.DataFrame]]:
    return {state: oracle.collect(state) for state in STATES}


@pytest.fixture(scope="module")
def expected_scores(expected) -> pd.DataFrame:
    """Eq. 12 and its ablations: one column a method, and the bound of each (`bound.<method>`).

    A cosine is off by at most e = COSINE_BOUND, so a sum over M modules by M e and the difference
    of two such sums by 2 M e. Unnormalised, a term is <dW, V> / |V| = |dW| cos: off by at most
    |dW| e + |cos| |dW| NORM_BOUND.
    """
    danger, safety = expected["danger-danger"][1], expected["safety"][1]
    plus, minus = cosines(danger, "danger"), cosines(safety, "safety")
    one = COSINE_BOUND * len(MODULES)
    terms = {
        FULL: (plus, minus, 2 * one),
        DANGER_ONLY: (plus, 0 * minus, one),
        SAFETY_ONLY: (0 * plus, minus, one),
        UNNORMALISED: (
            danger["inner_product.danger"] / danger["direction_norm.danger"],
            safety["inner_product.safety"] / safety["direction_norm.safety"],
            (danger["update_norm"] * (COSINE_BOUND + NORM_BOUND * plus.abs())).groupby(level=0).sum()
            + (safety["update_norm"] * (COSINE_BOUND + NORM_BOUND * minus.abs()))
            .groupby(level=0)
            .sum(),
        ),
    }
    columns = {}
    for method, (first, second, bound) in terms.items():
        columns[method] = first.groupby(level=0).sum() - second.groupby(level=0).sum()
        columns[f"bound.{method}"] = bound
    return pd.DataFrame(columns)


# --- the pipeline ---------------------------------------------------------------------------


def collect(
    world: World,
    out: Path,
    order: list[str],
    tokens: int = 10_000,
    rows_per_shard: int = 100,
    states: dict[str, str] | None = None,
    directions: dict[str, str] | None = None,
) -> list[str]:
    """Both states' tables under `out`; `states`: the state file by name where not the usual."""
    out.mkdir(parents=True, exist_ok=True)
    rows = out / "rows.parquet"
    write_rows(rows, order)
    paths = []
    for state in STATES:
        (out / state).mkdir()
        for shard in range(-(-len(order) // rows_per_shard)):
            made = [str(out / state / f"{shard}-{kind}.parquet") for kind in ("samples", "modules")]
            collect_shard(
                model_folder=world.model,
                rows_file=str(rows),
                state_file=(states or {}).get(state, world.state(state)),
                directions=directions or world.directions,
                shard=shard,
                samples_out=made[0],
                modules_out=made[1],
                rows_per_shard=rows_per_shard,
                max_length_tokens=MAX_LENGTH,
                max_tokens_per_batch=tokens,
                dtype="float32",
            )
            paths += made
    return paths


def read(paths: list[str], state: str, kind: str) -> pd.DataFrame:
    mine = [p for p in paths if Path(p).parent.name == state and p.endswith(f"-{kind}.parquet")]
    return pd.concat([read_table(p, f"gradient_{kind}") for p in mine], ignore_index=True)


@pytest.fixture(scope="module", params=["one batch", "one row a batch", "shuffled", "shards"])
def collected(request, world, tmp_path_factory) -> tuple[list[str], list[str]]:
    """The pipeline's tables and the order of their rows."""
    out = tmp_path_factory.mktemp("collected")
    if request.param == "one row a batch":
        return collect(world, out, ORDER, tokens=1), ORDER
    if request.param == "shuffled":
        return collect(world, out, SHUFFLED, tokens=60), SHUFFLED
    if request.param == "shards":
        return collect(world, out, ORDER, tokens=40, rows_per_shard=4), ORDER
    return collect(world, out, ORDER), ORDER


@pytest.fixture(scope="module")
def one_batch(world, tmp_path_factory) -> list[str]:
    return collect(world, tmp_path_factory.mktemp("one"), ORDER)


# --- the oracle is right --------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("module", ["model.layers.0.self_attn.k_proj", "model.layers.2.mlp.up_proj"])
def test_oracle_gradients_are_central_differences(oracle, state, module):
    # (L(x + h) - L(x - h)) / 2h = L'(x) + h^2 L'''/6 + rounding: with h = 1e-4 some 1e-9 of
    # truncation and 1e-16 / 1e-4 = 1e-12 of rounding. One float32 step inside the model would give
    # 1e-7 / 1e-4 = 1e-3.
    adapter, step = oracle.states[state], 1e-4
    _, gradients = oracle.gradients("two", adapter)
    compared = 0
    for matrix, gradient in zip(
        (adapter[module].A, adapter[module].B), gradients[module], strict=True
    ):
        assert gradient.abs().max() > 1e-3
        for index in [(0, 0), (1, 3), (3, 2), (2, 1)]:
            losses = []
            for sign in (1, -1):
                moved = matrix.detach().clone()
                moved[index] += sign * step
                pair = (moved, adapter[module].B) if compared < 4 else (adapter[module].A, moved)
                changed = adapter | {module: Lora(*pair, adapter[module].scale)}
                with torch.no_grad():
                    losses.append(oracle.loss("two", changed).item())
            difference = (losses[0] - losses[1]) / (2 * step)
            assert difference == pytest.approx(gradient[index].item(), abs=1e-7)
            compared += 1
    assert compared == 8
