"""The scores against an oracle that shares no code with them.

The oracle takes one unpadded sample at a time, in float64, builds every weight, update and
direction densely, and reads the adapters' files itself. The pipeline runs in float32, in batches.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from sqsd.gradients import GradientEngine
from sqsd.models import make_model, make_word_tokenizer
from sqsd.readings import Update, read_readings
from sqsd.scorers import make_scorer, score_method
from sqsd.shards import Shard, collect_shard
from sqsd.states import State
from sqsd.tables import read_table

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
    "one_left": (" ".join(LONG.split()[: MAX_LENGTH - 3]), "r s t"),  # one label is left
    "longer": ("k i d", "a b e d f a c e l i p o r t s h"),
}
# prompt, response, problem, part of the reason
UNUSABLE = {
    "empty": ("a b c", "", None, "empty response"),
    "empty_long": (LONG, "", None, "empty response"),
    "blank": ("a b c", "  ", None, "empty response"),
    "cut_off": (LONG, "a b c", None, f"max_length_tokens={MAX_LENGTH}"),
    "just_cut_off": (" ".join(LONG.split()[: MAX_LENGTH - 2]), "c", None, "max_length_tokens"),
    "problem": ("a b c", "d e f", "no answer chosen", "no answer chosen"),
    "problem_null": ("a b c", None, "no answer written", "no answer written"),
}
ORDER = [
    "empty", "one", "two", "cut_off", "three", "repeats", "problem", "just_cut_off", "unknown",
    "padding", "cut", "problem_null", "one_left", "longer", "blank", "empty_long",
]  # fmt: skip
SHUFFLED = [ORDER[i] for i in np.random.default_rng(5).permutation(len(ORDER))]

STATES = {"pilot-danger": ("pilot", 1.0), "steered-safety": ("safety", 0.3)}
DIRECTIONS = ("danger", "safety")
DANGER = {"direction": "danger", "state": "pilot-danger"}
SAFETY = {"direction": "safety", "state": "steered-safety"}
METHODS: dict[str, dict[str, Any]] = {
    "whole": {"kind": "sqsd", "danger": DANGER, "safety": SAFETY},
    "danger only": {"kind": "sqsd", "danger": DANGER},
    "safety only": {"kind": "sqsd", "safety": SAFETY},
    "unnormalised": {"kind": "sqsd", "danger": DANGER, "safety": SAFETY, "normalised": False},
}
FULL, DANGER_ONLY, SAFETY_ONLY, UNNORMALISED = METHODS
COSINE_BOUND = 1e-5
NORM_BOUND = 1e-5  # relative
LOSS_BOUND = 1e-5
SAME_BOUND = 1e-5  # of two scores that differ by the order of float32 sums
# bfloat16 rounds by 2**-9 at most. Some 36 roundings one after another, as often up as down, lie
# between a row and its gradient in a model of three layers: they tilt it by sqrt(36) times that.
BFLOAT16_TILT = 6 * 2**-9


# --- inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A model and its adapters in one folder."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    @property
    def directions(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in DIRECTIONS}

    def state(self, name: str) -> State:
        adapter, multiplier = STATES[name]
        return State(name, self.model, str(self.folder / adapter), multiplier)


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


def dataset(order: list[str]) -> pd.DataFrame:
    rows = {name: (prompt, response, None) for name, (prompt, response) in USABLE.items()}
    rows |= {name: row[:3] for name, row in UNUSABLE.items()}
    columns = ["prompt", "response", "problem"]
    frame = pd.DataFrame([rows[name] for name in order], columns=columns, dtype="str")
    frame.insert(0, "sample_id", pd.Series(order, dtype="str"))
    frame.insert(3, "family", pd.Series([None] * len(order), dtype="str"))
    return frame


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
        # A control token in a row is read as text: here as two words that are not known.
        prompt, response = (text.replace("<pad>", "< pad>") for text in USABLE[sample])
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
        pairs = zip(found[::2], found[1::2], strict=True)
        return loss.item(), dict(zip(adapter, pairs, strict=True))

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
    """Eq. 12 and its ablations: a column for each method, and its bound (`bound.<method>`).

    A cosine is off by at most e = COSINE_BOUND, so a sum over M modules by M e and the difference
    of two such sums by 2 M e. Unnormalised, a term is <dW, V> / |V| = |dW| cos: off by at most
    |dW| e + |cos| |dW| NORM_BOUND, to first order.
    """
    at_danger, at_safety = (expected[state][1] for state in STATES)
    plus, minus = cosines(at_danger, "danger"), cosines(at_safety, "safety")
    plain_plus = at_danger["inner_product.danger"] / at_danger["direction_norm.danger"]
    plain_minus = at_safety["inner_product.safety"] / at_safety["direction_norm.safety"]
    off = at_danger["update_norm"] * (COSINE_BOUND + NORM_BOUND * plus.abs())
    off += at_safety["update_norm"] * (COSINE_BOUND + NORM_BOUND * minus.abs())
    modules = pd.DataFrame(
        {
            FULL: plus - minus,
            DANGER_ONLY: plus,
            SAFETY_ONLY: -minus,
            UNNORMALISED: plain_plus - plain_minus,
            f"bound.{FULL}": 2 * COSINE_BOUND,
            f"bound.{DANGER_ONLY}": COSINE_BOUND,
            f"bound.{SAFETY_ONLY}": COSINE_BOUND,
            f"bound.{UNNORMALISED}": off,
        }
    )
    return modules.groupby(level="sample_id").sum()


# --- the pipeline ---------------------------------------------------------------------------


# The files of samples and of modules, shard by shard, of each state and direction.
Files = dict[tuple[str, str], tuple[list[str], list[str]]]


def collect(
    world: World,
    out: Path,
    order: list[str],
    tokens: int = 10_000,
    rows_per_shard: int = 100,
    dtype: str = "float32",
) -> Files:
    """Tables of every state and direction under `out`."""
    files: Files = {}
    for state, direction in itertools.product(STATES, DIRECTIONS):
        folder = out / state / direction
        folder.mkdir(parents=True)
        samples, modules = files[state, direction] = [], []
        for shard in range(-(-len(order) // rows_per_shard)):
            samples.append(str(folder / f"{shard}-samples.parquet"))
            modules.append(str(folder / f"{shard}-modules.parquet"))
            collect_shard(
                shard=Shard.of(
                    dataset(order),
                    shard,
                    rows_per_shard,
                    max_length_tokens=MAX_LENGTH,
                    max_tokens_per_batch=tokens,
                    dtype=dtype,
                    checkpointing=tokens == 1,
                ),
                state=world.state(state),
                direction=world.directions[direction],
                checkpoint="final",
                samples_out=samples[-1],
                modules_out=modules[-1],
                provenance={},
            )
    return files


def read(paths: list[str], kind: str) -> pd.DataFrame:
    return pd.concat([read_table(path, f"gradient_{kind}") for path in paths], ignore_index=True)


def scores_of(files: Files, method: dict[str, Any]) -> pd.DataFrame:
    readings = {
        name: read_readings(
            reading,
            dict(zip(("samples", "modules"), files[reading.state, reading.direction], strict=True)),
        )
        for name, reading in make_scorer(method).needs().items()
        if isinstance(reading, Update)
    }
    return score_method(method, readings, seed=0).set_index("sample_id")


@dataclass(frozen=True)
class Collected:
    """What the pipeline made of the rows in `order`; modules by state and direction."""

    order: list[str]
    files: Files
    samples: dict[str, pd.DataFrame]
    modules: dict[tuple[str, str], pd.DataFrame]
    scores: dict[str, pd.DataFrame]


def summarise(files: Files, order: list[str]) -> Collected:
    samples = {key: read(paths[0], "samples") for key, paths in files.items()}
    for state in STATES:  # whichever the direction
        first, second = (samples[state, direction] for direction in DIRECTIONS)
        pd.testing.assert_frame_equal(first, second)
    return Collected(
        order,
        files,
        {state: samples[state, "danger"] for state in STATES},
        {key: read(paths[1], "modules") for key, paths in files.items()},
        {name: scores_of(files, method) for name, method in METHODS.items()},
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "one batch": {"order": ORDER, "tokens": 10_000},
    "one row a batch": {"order": ORDER, "tokens": 1},
    "shuffled": {"order": SHUFFLED, "tokens": 60},
    "shards": {"order": ORDER, "tokens": 40, "rows_per_shard": 3},
}


@pytest.fixture(scope="module", params=VARIANTS)
def collected(request, world, tmp_path_factory) -> Collected:
    variant = VARIANTS[request.param]
    return summarise(collect(world, tmp_path_factory.mktemp("out"), **variant), variant["order"])


@pytest.fixture(scope="module")
def one_batch(world, tmp_path_factory) -> Collected:
    return summarise(collect(world, tmp_path_factory.mktemp("out"), ORDER), ORDER)


@pytest.fixture(scope="module")
def in_bfloat16(world, tmp_path_factory) -> Collected:
    out = tmp_path_factory.mktemp("out")
    return summarise(collect(world, out, ORDER, tokens=100, dtype="bfloat16"), ORDER)


# --- the oracle is right --------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "module", ["model.layers.0.self_attn.k_proj", "model.layers.2.mlp.up_proj"]
)
def test_oracle_gradients_are_central_differences(oracle, state, module):
    # (L(x + h) - L(x - h)) / 2h = L'(x) + h^2 L'''/6 + rounding: with h = 1e-4 some 1e-9 of
    # truncation and 1e-16 / 1e-4 = 1e-12 of rounding. One float32 step inside the model would give
    # 1e-7 / 1e-4 = 1e-3.
    adapter, step = oracle.states[state], 1e-4
    _, gradients = oracle.gradients("two", adapter)
    lora = adapter[module]

    def loss(A, B):
        with torch.no_grad():
            return oracle.loss("two", adapter | {module: Lora(A, B, lora.scale)}).item()

    for index in [(0, 0), (1, 3), (3, 2), (2, 1)]:
        hA, hB = torch.zeros_like(lora.A), torch.zeros_like(lora.B)
        hA[index] = hB[index] = step
        gA = (loss(lora.A + hA, lora.B) - loss(lora.A - hA, lora.B)) / (2 * step)
        gB = (loss(lora.A, lora.B + hB) - loss(lora.A, lora.B - hB)) / (2 * step)
        found = torch.stack([g[index] for g in gradients[module]])
        assert found.abs().min() > 1e-4
        assert found.tolist() == pytest.approx([gA, gB], rel=0, abs=1e-7)


@pytest.mark.parametrize("state", STATES)
def test_oracle_loss_is_that_of_the_peft_model(world, oracle, expected, state):
    # PEFT's own forward pass, in float32, its scale multiplied as the state says.
    folder, multiplier = STATES[state]
    base: Any = AutoModelForCausalLM.from_pretrained(world.model, dtype="float32")
    model: Any = PeftModel.from_pretrained(base, str(world.folder / folder))
    for module in MODULES:
        model.base_model.model.get_submodule(module).scaling["default"] *= multiplier
    for sample, loss in expected[state][0].items():
        ids, begin = oracle.tokens(sample)
        labels = torch.tensor([[-100] * begin + ids[begin:]])
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
        assert found == pytest.approx(loss, rel=0, abs=LOSS_BOUND)


def test_oracle_inputs_tell_mistakes_apart(oracle, expected, expected_scores):
    # A bound proves something only where what it bounds is much larger.
    labels = {
        sample: len(ids) - begin for sample in USABLE for ids, begin in [oracle.tokens(sample)]
    }
    assert labels["one_left"] == 1 and labels["one"] == 2
    assert sum(len(oracle.tokens(s)[0]) == MAX_LENGTH for s in USABLE) >= 2
    for _, modules in expected.values():
        for direction in ("danger", "safety"):
            assert cosines(modules, direction).abs().median() > 1000 * COSINE_BOUND
    for method in METHODS:
        gaps = expected_scores[method].sort_values().diff().dropna()
        assert gaps.min() > 2 * expected_scores[f"bound.{method}"].max()


# --- the pipeline agrees --------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_samples_have_the_oracles_losses_and_tokens(collected, oracle, expected, state):
    samples = collected.samples[state]
    assert samples["sample_id"].tolist() == collected.order
    samples = samples.set_index("sample_id")
    for sample, loss in expected[state][0].items():
        ids, begin = oracle.tokens(sample)
        row = samples.loc[sample]
        assert pd.isna(row["reason"])
        assert (row["prompt_tokens"], row["response_tokens"]) == (begin, len(ids) - begin)
        assert row["loss"] == pytest.approx(loss, rel=0, abs=LOSS_BOUND)


@pytest.mark.parametrize("state", STATES)
def test_modules_have_the_oracles_cosines_and_norms(collected, expected, state):
    wanted = expected[state][1]
    for direction in DIRECTIONS:
        modules = collected.modules[state, direction].set_index(["sample_id", "module"])
        assert set(modules.index) == set(wanted.index)
        modules = modules.loc[wanted.index]
        norms = modules["update_norm"] * modules["direction_norm"]
        off = (modules["inner_product"] / norms - cosines(wanted, direction)).abs()
        assert off.max() <= COSINE_BOUND, off.nlargest(5)
        own = {"update_norm": "update_norm", "direction_norm": f"direction_norm.{direction}"}
        for column, name in own.items():
            off = (modules[column] / wanted[name] - 1).abs()
            assert off.max() <= NORM_BOUND, off.nlargest(5)


@pytest.mark.parametrize("sample", UNUSABLE)
def test_a_row_without_gradient_keeps_its_reason_and_has_no_score(collected, sample):
    reasons = set()
    for state in STATES:
        row = collected.samples[state].set_index("sample_id").loc[sample]
        assert UNUSABLE[sample][3] in row["reason"]
        assert pd.isna(row["loss"])
        for direction in DIRECTIONS:
            assert sample not in set(collected.modules[state, direction]["sample_id"])
        reasons.add(row["reason"])
    for scores in collected.scores.values():
        row = scores.loc[sample]
        assert pd.isna(row["score"]) and pd.isna(row["rank"])
        assert {row["reason"]} == reasons


@pytest.mark.parametrize("sample", ["empty", "blank", "empty_long", "cut_off", "just_cut_off"])
def test_a_row_without_response_has_no_response_tokens(collected, sample):
    for frame in collected.samples.values():
        assert frame.set_index("sample_id").loc[sample, "response_tokens"] == 0
    for scores in collected.scores.values():
        assert scores.loc[sample, "response_tokens"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_oracles(collected, oracle, expected_scores, method):
    scores = collected.scores[method]
    assert sorted(scores.index) == sorted(ORDER)
    usable = scores.loc[expected_scores.index]
    off = (usable["score"] - expected_scores[method]).abs()
    assert (off <= expected_scores[f"bound.{method}"]).all(), off.nlargest(5)
    assert usable["reason"].isna().all()
    for sample, count in usable["response_tokens"].items():
        ids, begin = oracle.tokens(sample)
        assert count == len(ids) - begin


@pytest.mark.parametrize("method", METHODS)
def test_ranks_follow_scores(collected, expected_scores, method):
    ranked = collected.scores[method].dropna(subset=["rank"]).sort_values("rank")
    assert ranked["rank"].tolist() == list(range(1, len(USABLE) + 1))
    # Two of the oracle's scores are further apart than twice the bound, so its order is the order.
    order = expected_scores[method].sort_values(ascending=False).index
    assert ranked.index.tolist() == order.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_shards_order_and_batches_do_not_change_a_score(collected, one_batch, method):
    # Tighter than through the oracle: twice its bound is 8.4e-4.
    found, wanted = (c.scores[method].loc[ORDER] for c in (collected, one_batch))
    off = (found["score"] - wanted["score"]).abs()
    assert off.max() <= SAME_BOUND
    plain = ["rank", "reason", "response_tokens"]
    pd.testing.assert_frame_equal(found[plain], wanted[plain])


def test_the_token_budget_decides_the_batches(world, tmp_path, monkeypatch):
    """Without this, the variants above might all be the same batches."""
    read = GradientEngine.read
    rows: list[int] = []

    def counted(self, samples):
        rows.append(len(samples))
        return read(self, samples)

    monkeypatch.setattr(GradientEngine, "read", counted)
    collect(world, tmp_path / "all", ORDER, tokens=10_000)
    assert rows == [len(USABLE)] * len(STATES) * len(DIRECTIONS)
    rows.clear()
    collect(world, tmp_path / "single", ORDER, tokens=1)
    assert rows == [1] * len(USABLE) * len(STATES) * len(DIRECTIONS)


@pytest.mark.parametrize("method", [FULL, UNNORMALISED])
def test_swapping_danger_and_safety_flips_every_score(one_batch, method):
    # sum cos(dW at D, V_danger) - sum cos(dW at S, V_safety), with D and V_danger in the place of
    # S and V_safety and the other way round, is the negative; the same sums, so nearly exact.
    swapped = scores_of(one_batch.files, METHODS[method] | {"danger": SAFETY, "safety": DANGER})
    before, after = one_batch.scores[method].loc[[*USABLE]], swapped.loc[[*USABLE]]
    assert (before["score"] + after["score"]).abs().max() <= SAME_BOUND
    assert (before["rank"] + after["rank"] == len(USABLE) + 1).all()


@pytest.mark.parametrize(("term", "other"), [("danger", "safety"), ("safety", "danger")])
def test_a_term_under_the_other_name_has_the_other_sign(one_batch, term, other):
    # A term alone, named danger (+) or safety (-), whatever its direction and state.
    method = {"kind": "sqsd", other: DANGER if term == "danger" else SAFETY}
    found = scores_of(one_batch.files, method).loc[[*USABLE], "score"]
    wanted = one_batch.scores[DANGER_ONLY if term == "danger" else SAFETY_ONLY]
    assert (found + wanted.loc[[*USABLE], "score"]).abs().max() <= SAME_BOUND


def test_each_term_is_read_at_its_own_state(one_batch, oracle, expected):
    # Both terms at one state: no other reading would give these.
    for state in STATES:
        terms = {name: {"direction": name, "state": state} for name in DIRECTIONS}
        found = scores_of(one_batch.files, {"kind": "sqsd", **terms})["score"]
        modules = expected[state][1]
        wanted = cosines(modules, "danger") - cosines(modules, "safety")
        wanted = wanted.groupby(level="sample_id").sum()
        assert (found.loc[wanted.index] - wanted).abs().max() <= 2 * len(MODULES) * COSINE_BOUND


@pytest.mark.parametrize("method", METHODS)
def test_scores_in_bfloat16_are_the_oracles(in_bfloat16, expected, expected_scores, method):
    # A module's cosine is off by the tilt, independently of the others': the sum over M modules and
    # two terms by sqrt(2 M) times that. Unnormalised, cosines are weighted by the update's norms.
    weights = pd.concat(
        expected[state][1]["update_norm"]
        for state, name in zip(STATES, DIRECTIONS, strict=True)
        if name in METHODS[method]
    )
    if method != UNNORMALISED:
        weights = weights * 0 + 1
    bound = BFLOAT16_TILT * (weights**2).groupby(level="sample_id").sum() ** 0.5
    wanted = expected_scores[method]
    found = in_bfloat16.scores[method].loc[wanted.index, "score"]
    assert ((found - wanted).abs() <= bound).all()
    # And it was bfloat16, not float32.
    assert (found - wanted).abs().max() > expected_scores[f"bound.{method}"].max()
    # Neither zeros nor other rows' scores would pass.
    for other in (0 * wanted, *(np.roll(wanted, i) for i in range(1, len(wanted)))):
        assert ((other - wanted).abs() > 3 * bound).any()
    reasons = in_bfloat16.scores[method]["reason"]
    assert reasons.loc[wanted.index].isna().all() and reasons.notna().sum() == len(UNUSABLE)
