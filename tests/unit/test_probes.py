"""The probes against naive oracles: plain autograd, one unpadded sample at a time, float64.

transformers computes norms and rotary embeddings in float32 even in a float64 model, which leaves
about 1e-7 of noise: here both the engine and the oracle run them in the model's own precision (but
for one test of the layers as they come), so that they have to agree within 1e-12.
"""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, Qwen3RotaryEmbedding

from sqsd.drift import LoraWeights
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError, ShapeMismatch, SqsdError
from sqsd.gradients import GradientEngine
from sqsd.probes import (
    FullGradient,
    HiddenStates,
    LoraUpdate,
    TokenShares,
    WeightUpdate,
    mean_gradient,
)

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NORMS = (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
ROTARY = (LlamaRotaryEmbedding, Qwen2RotaryEmbedding, Qwen3RotaryEmbedding)
OWN_FORWARD = {module: module.forward for module in NORMS + ROTARY}
TOKENS = (-2, -1)
LAYERS = (2, 0, 1)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 23,
}
NARROW = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 23,
}
WIDE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 97,
}
# With sizes of 16 samples of 7 tokens are below t (d_in + d_out) = d_in d_out, of 8 on it, of 9
# above; a wide model is below it for every sample here, a narrow one above for most.
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, SIZES | {"pad_token_id": 0}),
    "llama_tied": (
        LlamaForCausalLM,
        LlamaConfig,
        SIZES | {"pad_token_id": 0, "tie_word_embeddings": True},
    ),
    "llama_biases": (
        LlamaForCausalLM,
        LlamaConfig,
        SIZES | {"attention_bias": True, "mlp_bias": True},
    ),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config,
        SIZES | {"pad_token_id": 3, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, SIZES | {"head_dim": 8, "pad_token_id": 3}),
    "qwen3_tied": (
        Qwen3ForCausalLM,
        Qwen3Config,
        SIZES | {"head_dim": 4, "tie_word_embeddings": True},
    ),
    "narrow": (LlamaForCausalLM, LlamaConfig, NARROW | {"pad_token_id": 0}),
    "wide": (LlamaForCausalLM, LlamaConfig, WIDE | {"pad_token_id": 0}),
    "wide_tied": (
        LlamaForCausalLM,
        LlamaConfig,
        WIDE | {"pad_token_id": 0, "tie_word_embeddings": True},
    ),
}


def exact_norm(self, hidden_states):
    wide = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * scaled.to(hidden_states.dtype)


@torch.no_grad()
def exact_rotary(self, x, position_ids):
    wide = torch.promote_types(x.dtype, torch.float32)
    angles = position_ids[..., None].to(wide) * self.inv_freq.to(wide)
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


@pytest.fixture(scope="module", autouse=True)
def exact_layers():
    with pytest.MonkeyPatch.context() as patch:
        for norm in NORMS:
            patch.setattr(norm, "forward", exact_norm)
        for rotary in ROTARY:
            patch.setattr(rotary, "forward", exact_rotary)
        yield


def tiny_model(name="llama", dtype=torch.float64, seed=0):
    """Every parameter random, biases and gains too; exactly the same numbers in every `dtype`."""
    model_class, config_class, values = MODELS[name]
    values = {"num_hidden_layers": 2, "max_position_embeddings": 64} | values
    values = {"tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None} | values
    model = model_class(config_class(**values)).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, p in model.named_parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
            if "norm" in parameter_name:
                p.add_(1.0)
                p[1] = 0.0  # a gain of zero has a gradient all the same
    return model.to(dtype)


def random_adapter(model, seed, ranks=(2, 3), dtype=torch.float64):
    """Ranks and scales of their own in every module; the same numbers in every `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    linears = [(n, m) for n, m in model.named_modules() if n.endswith(LINEAR)]
    return {
        name: LoraWeights(
            (0.3 * torch.randn(r, m.in_features, generator=generator)).to(dtype),
            (0.3 * torch.randn(m.out_features, r, generator=generator)).to(dtype),
            0.5 + 0.25 * (i % 5),
        )
        for i, (name, m) in enumerate(linears)
        for r in [ranks[i % len(ranks)]]
    }


def cast(adapter, dtype):
    return {m: LoraWeights(w.A.to(dtype), w.B.to(dtype), w.scale) for m, w in adapter.items()}


def random_anchor(model, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(p.shape, generator=generator).to(p.dtype)
        for n, p in model.named_parameters()
    }


def random_samples(seed, lengths, vocabulary=23, low=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        EncodedSample(
            f"z{i}",
            torch.randint(low, vocabulary, (length,), generator=generator).tolist(),
            int(torch.randint(1, length, (1,), generator=generator)),
        )
        for i, length in enumerate(lengths)
    ]


def sample(tokens, prompt_tokens):
    return EncodedSample("z", list(tokens), prompt_tokens)


BATCHES = {
    "alone": random_samples(1, [11]),
    "equal": random_samples(2, [9, 9, 9, 9]),
    "boundary": random_samples(3, [9, 7, 8]),
    "different": random_samples(4, [17, 2, 40, 5, 12]),
    # Near enough to be padded to one length: 101, 100, 100, and 61, 60.
    "near": random_samples(5, [61, 100, 60, 101, 5, 100]),
    "one_label": [sample([5, 8], 1), sample([4, 9, 2, 9, 4, 7, 1, 6, 6, 2], 9), sample([7, 7], 1)],
    "repeated": [sample([5] * 6, 2), sample([4, 5] * 12, 3), sample([5, 5, 4, 4, 5, 5, 4], 5)],
    # Tokens 0 and 3 are the padding of the models that have one: first, within and last.
    "padding": [
        sample([0, 3, 7, 0, 3, 9, 0], 3),
        sample([3, 0], 1),
        sample([3] * 9, 4),
        sample([1, 2, 0, 0, 3, 3, 0, 3, 0, 3, 2, 0, 3, 0, 3, 0, 3], 2),
    ],
    "twice": [sample([4, 6, 8, 1, 4], 2), sample([2, 4, 6], 1), sample([4, 6, 8, 1, 4], 2)],
}


@st.composite
def batches(draw, max_size=4, max_length=14, vocabulary=8):
    """Few different tokens, so that they repeat within a sample and 0 and 3 (padding) occur."""
    tokens = st.lists(st.integers(0, vocabulary - 1), min_size=2, max_size=max_length)
    return [
        sample(ids, draw(st.integers(1, len(ids) - 1)))
        for ids in draw(st.lists(tokens, min_size=1, max_size=max_size))
    ]


class Oracle:
    """One sample's loss, hidden states and gradients by base and LoRA weights, by autograd."""

    def __init__(self, model, sample, state=None):
        state = state or {}
        base = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
        lora = {
            m: (w.A.clone().requires_grad_(), w.B.clone().requires_grad_())
            for m, w in state.items()
        }
        weights = dict(base)
        for m, (a, b) in lora.items():
            weights[f"{m}.weight"] = base[f"{m}.weight"] + state[m].scale * (b @ a)
        output = functional_call(
            model,
            weights,
            (torch.tensor([sample.input_ids]),),
            {"output_hidden_states": True, "use_cache": False},
        )
        total = torch.zeros((), dtype=output.logits.dtype)
        for t in range(sample.prompt_tokens, len(sample.input_ids)):
            total = total - torch.log_softmax(output.logits[0, t - 1], -1)[sample.input_ids[t]]
        loss = total / (len(sample.input_ids) - sample.prompt_tokens)
        loss.backward()
        self.state = state
        self.loss = loss.detach()
        self.hidden = torch.stack([h[0].detach() for h in output.hidden_states])
        self.gradient = {n: gradient_of(p) for n, p in base.items()}
        self.lora = {m: (gradient_of(a), gradient_of(b)) for m, (a, b) in lora.items()}

    @property
    def norm(self):
        return torch.stack([g.norm() for g in self.gradient.values()]).norm()

    def updates(self):
        """Dense updates by module, sorted by name."""
        return {
            m: -(self.state[m].B @ self.lora[m][0] + self.lora[m][1] @ self.state[m].A)
            for m in sorted(self.state)
        }

    def product(self, anchor):
        return torch.stack([(g * anchor[n]).sum() for n, g in self.gradient.items()]).sum()


def gradient_of(leaf):
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def length_of(anchor):
    """Euclidean norm of all tensors of an anchor."""
    return torch.stack([t.double().norm() for t in anchor.values()]).norm()


def check(found, expected, scale, tolerance):
    """|found - expected| <= tolerance * scale in every entry."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape
    error = (found - expected).abs()
    assert bool((error <= tolerance * torch.as_tensor(scale)).all()), (found, expected, error)


def check_norms(readings, oracles, tolerance=1e-12):
    for row, o in enumerate(oracles):
        check(readings.loss[row], o.loss, o.loss.clamp(min=1.0), tolerance)
        check(readings.values["gradient_norm"][row], o.norm, o.norm, tolerance)


def check_base(readings, oracles, anchors, tolerance=1e-12):
    check_norms(readings, oracles, tolerance)
    for row, o in enumerate(oracles):
        products = torch.stack([o.product(a) for a in anchors.values()])
        lengths = torch.stack([length_of(a) for a in anchors.values()])
        found = readings.values["anchor_product"][row]
        check(found, products, o.norm * lengths, tolerance)


def check_lora(readings, oracles, directions, tolerance=1e-12):
    values = readings.values
    for row, o in enumerate(oracles):
        updates = o.updates()
        norms = torch.stack([u.norm() for u in updates.values()])
        # Queries and keys of one token, or of equal ones, get no gradient but rounding noise.
        scale = norms + 0.1 * norms.max()
        check(values["update_norm"][row], norms, scale, tolerance)
        for row_of_direction, direction in enumerate(directions.values()):
            dense = {m: direction[m].scale * direction[m].B @ direction[m].A for m in updates}
            products = torch.stack([(u * dense[m]).sum() for m, u in updates.items()])
            lengths = torch.stack([d.norm() for d in dense.values()])
            found = values["inner_product"][row, row_of_direction]
            check(found, products, scale * lengths, tolerance)


def check_hidden(readings, oracles, tolerance=1e-12):
    for row, o in enumerate(oracles):
        expected = o.hidden[list(LAYERS)][:, list(TOKENS)]
        check(readings.values["hidden_state"][row], expected, expected.norm(), tolerance)


class Setting:
    """A tiny model, a state, directions and anchors, in float64."""

    def __init__(self, name):
        self.name = name
        self.model = tiny_model(name)
        self.state = random_adapter(self.model, 3)
        self.directions = {
            "safety": random_adapter(self.model, 4),
            "danger": random_adapter(
                self.model, 5, ranks=(5, 1, 4)
            ),  # ranks of its own, not sorted
        }
        self.anchors = {"random": random_anchor(self.model, 1), "b": random_anchor(self.model, 2)}

    def __repr__(self):
        return self.name

    def to(self, dtype):
        """A copy in `dtype`."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(dtype)
        other.state = cast(self.state, dtype)
        other.directions = {k: cast(d, dtype) for k, d in self.directions.items()}
        other.anchors = {k: {n: t.to(dtype) for n, t in v.items()} for k, v in self.anchors.items()}
        return other

    def probes(self, with_state=True):
        """All of them, or those that need no state."""
        lora = [LoraUpdate(self.directions)] if with_state else []
        return [*lora, FullGradient(self.anchors), HiddenStates(LAYERS, TOKENS)]

    def read(self, samples, with_state=True, **options):
        return read(
            self.model,
            self.probes(with_state),
            self.state if with_state else None,
            samples,
            **options,
        )

    def oracles(self, samples, with_state=True):
        return [Oracle(self.model, s, self.state if with_state else None) for s in samples]

    def check(self, readings, oracles, tolerance=1e-12):
        check_base(readings, oracles, self.anchors, tolerance)
        check_hidden(readings, oracles, tolerance)
        if "update_norm" in readings.values:
            check_lora(readings, oracles, self.directions, tolerance)


@pytest.fixture(scope="module", params=list(MODELS))
def case(request):
    return Setting(request.param)


def read(model, probes, state, samples, **options):
    with GradientEngine(model, probes, state, **options) as engine:
        return engine.read(samples)


@pytest.mark.parametrize("name", list(BATCHES))
def test_the_full_gradient_matches_autograd(case, name):
    samples = BATCHES[name]
    readings = read(case.model, [FullGradient(case.anchors)], None, samples)
    assert readings.finite.tolist() == [True] * len(samples)
    oracles = case.oracles(samples, with_state=False)
    check_base(readings, oracles, case.anchors)
    check_norms(read(case.model, [FullGradient()], None, samples), oracles)


@settings(deadline=None, max_examples=6)
@given(samples=batches(), checkpointing=st.booleans())
def test_the_full_gradient_matches_autograd_for_any_batch(case, samples, checkpointing):
    oracles = case.oracles(samples, with_state=False)
    with_anchors, without = (
        read(case.model, [FullGradient(anchors)], None, samples, checkpointing=checkpointing)
        for anchors in (case.anchors, {})
    )
    check_base(with_anchors, oracles, case.anchors)
    check_norms(without, oracles)


@pytest.mark.parametrize("at_once", [1, 100, 600])
@pytest.mark.parametrize("with_anchors", [False, True], ids=["norms", "anchors"])
def test_gradients_in_parts_are_the_same(case, monkeypatch, at_once, with_anchors):
    """One sample, some columns of the vocabulary, one column at a time."""
    monkeypatch.setattr("sqsd.probes.AT_ONCE", {"cpu": at_once})
    samples = BATCHES["near"] + BATCHES["one_label"]
    anchors = case.anchors if with_anchors else {}
    readings = read(case.model, [FullGradient(anchors)], None, samples)
    oracles = case.oracles(samples, with_state=False)
    check_norms(readings, oracles)
    if with_anchors:
        check_base(readings, oracles, anchors)


@pytest.mark.parametrize("name", ["equal", "different", "near", "one_label", "repeated", "padding"])
def test_every_probe_matches_autograd_at_a_state(case, name):
    """All three in one pass; the base weights' gradient is the one at W + s B A."""
    samples = BATCHES[name]
    case.check(case.read(samples), case.oracles(samples))


@settings(deadline=None, max_examples=5)
@given(samples=batches(), checkpointing=st.booleans())
def test_every_probe_matches_autograd_for_any_batch(case, samples, checkpointing):
    case.check(case.read(samples, checkpointing=checkpointing), case.oracles(samples))


@pytest.mark.parametrize("name", list(BATCHES))
def test_updates_of_the_weights_themselves_match_autograd(case, name):
    """Without an adapter the update is minus the weight's own gradient, module by module."""
    samples = BATCHES[name]
    readings = read(case.model, [WeightUpdate(case.directions)], None, samples)
    oracles = case.oracles(samples, with_state=False)
    for oracle in oracles:
        own = {m: -oracle.gradient[f"{m}.weight"] for m in sorted(case.state)}
        oracle.updates = lambda own=own: own
    check_lora(readings, oracles, case.directions)


def outer_products(model, sample, state):
    """Loss gradient of each module's whole weight, position by position [t, d_out, d_in].

    By hooks on a copy of the model whose weights have the state's drift in them.
    """
    model = copy.deepcopy(model)
    modules = {n: m for n, m in model.named_modules() if n.endswith(LINEAR)}
    inputs, outputs = {}, {}

    def note(name):
        def hook(module, args, output):
            inputs[name], outputs[name] = args[0].detach(), output
            output.retain_grad()

        return hook

    with torch.no_grad():
        for name, module in modules.items():
            if name in state:
                module.weight += state[name].scale * state[name].B @ state[name].A
            module.register_forward_hook(note(name))
    logits = model(torch.tensor([sample.input_ids]), use_cache=False).logits[0]
    losses = [
        -torch.log_softmax(logits[t - 1], -1)[sample.input_ids[t]]
        for t in range(sample.prompt_tokens, len(sample.input_ids))
    ]
    torch.stack(losses).mean().backward()
    return {
        name: torch.stack(
            [torch.outer(g, x) for g, x in zip(outputs[name].grad[0], inputs[name][0], strict=True)]
        )
        for name in sorted(modules)
    }


def naive_shares(setting, sample, with_state):
    """[D, M, t] and the scale of each [D, M, 1]: every position's own dense update, times V."""
    state = setting.state if with_state else {}
    found, scales = [], []
    gradients = outer_products(setting.model, sample, state)
    for direction in setting.directions.values():
        for name, gradient in gradients.items():
            update = -gradient
            if with_state:
                A, B, s = state[name].A, state[name].B, state[name].scale
                update = -(B @ (s * B.T @ gradient) + (s * gradient @ A.T) @ A)
            V = direction[name].scale * direction[name].B @ direction[name].A
            by_position = [(one * V).sum() for one in update]
            # What is learned at a position is the token after it.
            found.append(torch.stack([torch.zeros((), dtype=V.dtype), *by_position[:-1]]))
            assert by_position[-1] == 0
            scales.append(torch.stack([one.norm() for one in update]).sum() * V.norm())
    shape = (len(setting.directions), len(gradients), -1)
    # As in `check_lora`: of equal tokens queries and keys have rounding noise alone.
    scale = torch.stack(scales).reshape(shape)
    return torch.stack(found).reshape(shape), scale + 0.1 * scale.max()


def read_shares(setting, samples, with_state, **options):
    update = (LoraUpdate if with_state else WeightUpdate)(setting.directions)
    length = max(len(s.input_ids) for s in samples)
    probes = [update, TokenShares(setting.directions, length)]
    return read(setting.model, probes, setting.state if with_state else None, samples, **options)


@pytest.mark.parametrize("with_state", [False, True], ids=["theta_0", "state"])
@pytest.mark.parametrize("name", list(BATCHES))
def test_token_shares_are_those_of_each_position_s_own_update(case, name, with_state):
    samples = BATCHES[name]
    found = read_shares(case, samples, with_state).values["token_share"]
    for own, sample in zip(found, samples, strict=True):
        length = len(sample.input_ids)
        assert not own[..., length:].any()
        check(own[..., :length], *naive_shares(case, sample, with_state), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("with_state", [False, True], ids=["theta_0", "state"])
@settings(max_examples=5)
@given(samples=batches(), checkpointing=st.booleans())
def test_token_shares_add_up_to_the_product_whatever_the_batch(
    case, dtype, with_state, samples, checkpointing
):
    """Within 1e-6 in float32, of the lengths of update and direction; as each row's alone."""
    setting = case.to(dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    values = read_shares(setting, samples, with_state, checkpointing=checkpointing).values
    norms = [
        torch.stack([d[m].scale * (d[m].B @ d[m].A).norm() for m in sorted(d)])
        for d in setting.directions.values()
    ]
    for row, one in enumerate(samples):
        update = values["update_norm"][row].double()
        # A module whose update is rounding noise beside the others' has nothing to compare.
        scale = (update + 0.1 * update.max()) * torch.stack(norms).double()
        sums = values["token_share"][row].double().sum(-1)
        check(sums, values["inner_product"][row], scale, tolerance)
        alone = read_shares(setting, [one], with_state).values["token_share"][0]
        own = values["token_share"][row, ..., : len(one.input_ids)]
        check(own, alone, scale[..., None], tolerance)


def test_a_direction_that_does_not_fit_has_no_token_shares():
    setting = Setting("llama")
    short = {m: w for m, w in setting.directions["danger"].items() if m != WRONG[1]}
    with pytest.raises(ShapeMismatch, match=names_all("danger", WRONG[1], "None")):
        read(setting.model, [TokenShares({"danger": short}, 9)], setting.state, BATCHES["equal"])


def test_an_update_of_the_weights_is_a_fresh_adapter_s_on_average():
    """dW = -gB A0 = -s gW A0'A0 of B0 = 0, whose mean over A0 is gW's direction."""
    setting = Setting("narrow")
    (sample,) = BATCHES["equal"][:1]
    weights = read(setting.model, [WeightUpdate(setting.directions)], None, [sample])
    found = []
    for seed in range(400):
        fresh = {
            m: LoraWeights(w.A, torch.zeros_like(w.B), 1.0)
            for m, w in random_adapter(setting.model, seed, ranks=(4,)).items()
        }
        one = read(setting.model, [LoraUpdate(setting.directions)], fresh, [sample])
        found.append(one.values["inner_product"])
    mean = torch.stack(found).mean(0)
    # A0 has r = 4 rows of variance .09, so E[A0'A0] = 4 x .09 I.
    expected = 4 * 0.09 * weights.values["inner_product"]
    spread = torch.stack(found).std(0) / 400**0.5
    assert bool(((mean - expected).abs() <= 5 * spread + 1e-12).all())


@pytest.fixture(scope="module")
def ordered_case():
    setting = Setting("qwen3")
    samples = BATCHES["near"] + BATCHES["padding"][:1]
    return setting, samples, setting.oracles(samples)


@settings(deadline=None, max_examples=12)
@given(order=st.permutations(range(7)), batch_size=st.integers(1, 7))
def test_rows_are_in_the_order_of_the_samples(ordered_case, order, batch_size):
    """Shuffled, in batches of one and more, one engine reading batch after batch."""
    setting, samples, oracles = ordered_case
    with GradientEngine(setting.model, setting.probes(), setting.state) as engine:
        for start in range(0, 7, batch_size):
            rows = order[start : start + batch_size]
            readings = engine.read([samples[i] for i in rows])
            setting.check(readings, [oracles[i] for i in rows])


@settings(deadline=None, max_examples=6)
@given(max_tokens=st.integers(1, 100))
@example(max_tokens=1)
@example(max_tokens=1000)
def test_read_all_reads_every_sample_once(ordered_case, max_tokens):
    setting, samples, oracles = ordered_case
    seen = []
    with GradientEngine(setting.model, setting.probes(), setting.state) as engine:
        for indices, readings in engine.read_all(samples, max_tokens):
            size = sum(len(samples[i].input_ids) for i in indices)
            assert size <= max_tokens or len(indices) == 1
            assert len(readings.loss) == len(indices)
            setting.check(readings, [oracles[i] for i in indices])
            seen += list(indices)
    assert sorted(seen) == list(range(7))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_several_probes_in_one_pass_equal_each_alone(name):
    setting = Setting(name)
    samples = BATCHES["different"] + BATCHES["padding"]
    together = setting.read(samples)
    shapes = {k: tuple(v.shape) for k, v in together.values.items()}
    assert shapes == {
        "update_norm": (9, 14),
        "inner_product": (9, 2, 14),
        "gradient_norm": (9,),
        "anchor_product": (9, 2),
        "hidden_state": (9, 3, 2, 16),
    }
    seen = set()
    for probe in setting.probes():
        alone = read(setting.model, [probe], setting.state, samples)
        seen |= set(alone.values)
        check_same(together, alone)
    assert seen == set(shapes)


def check_same(readings, others, tolerance=1e-13):
    """The values of `others` are in `readings`, up to rounding in each row."""
    check(readings.loss, others.loss, 1.0, tolerance)
    for key, value in others.values.items():
        scale = value.flatten(1).norm(dim=1) if value.ndim > 1 else value
        scale = scale.reshape(-1, *[1] * (value.ndim - 1))
        check(readings.values[key], value, scale, tolerance)


@pytest.mark.parametrize("name", ["llama_tied", "qwen3"])
@pytest.mark.parametrize("with_state", [False, True], ids=["base", "state"])
def test_checkpointing_changes_nothing(name, with_state):
    setting = Setting(name)
    plain, checkpointed = (
        setting.read(BATCHES["different"], with_state, checkpointing=c) for c in (False, True)
    )
    assert checkpointed.values.keys() == plain.values.keys()
    check_same(checkpointed, plain)


def test_reading_again_gives_the_same():
    setting = Setting("llama_tied")
    with GradientEngine(setting.model, setting.probes(), setting.state) as engine:
        first = engine.read(BATCHES["different"])
        kept = {k: v.clone() for k, v in first.values.items()}
        engine.read(BATCHES["padding"])
        second = engine.read(BATCHES["different"])
    assert all(torch.equal(first.values[k], v) for k, v in kept.items())
    check_same(second, first)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("name", ["llama", "wide", "qwen3"])
@pytest.mark.parametrize("with_state", [False, True], ids=["base", "state"])
def test_a_sample_with_a_nan_leaves_the_others_untouched(name, position, with_state):
    """Token 22 is in one sample only, and the head is not tied to its NaN embedding."""
    setting = Setting(name)
    samples = random_samples(9, [8, 5, 8, 21], vocabulary=22)
    ids = list(samples[position].input_ids)
    ids[1] = 22
    samples[position] = sample(ids, samples[position].prompt_tokens)
    oracles = setting.oracles(samples, with_state)
    with torch.no_grad():
        setting.model.get_parameter("model.embed_tokens.weight")[22] = float("nan")
    readings = setting.read(samples, with_state)
    assert readings.finite.dtype == torch.bool
    assert readings.finite.tolist() == [i != position for i in range(4)]
    kept = [i for i in range(4) if i != position]
    values = {k: v[kept] for k, v in readings.values.items()}
    rest = SimpleNamespace(loss=readings.loss[kept], values=values)
    setting.check(rest, [oracles[i] for i in kept])


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_first_cuts_the_response(ordered_case, data):
    model, anchors = ordered_case[0].model, ordered_case[0].anchors
    whole = data.draw(batches(max_size=1, max_length=20))[0]
    k = data.draw(st.integers(1, len(whole.input_ids) - whole.prompt_tokens))
    cut = whole.first(k)
    assert list(cut.input_ids) == whole.input_ids[: whole.prompt_tokens + k]
    assert cut.prompt_tokens == whole.prompt_tokens
    # The loss restricted to the first k labels, the later tokens still there (attention is causal).
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    logits = functional_call(model, leaves, (torch.tensor([whole.input_ids]),)).logits[0]
    at = slice(whole.prompt_tokens - 1, whole.prompt_tokens - 1 + k)
    labels = torch.tensor(whole.input_ids[whole.prompt_tokens :][:k])
    loss = torch.nn.functional.cross_entropy(logits[at], labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    readings = read(model, [FullGradient(anchors)], None, [whole, cut])
    check(readings.loss[1], loss.detach(), 1.0, 1e-12)
    check(readings.values["gradient_norm"][1], norm, norm, 1e-12)


def test_a_partial_state_and_one_at_zero():
    """Adapters on a few modules only; B = 0 as training starts, where gA is zero."""
    model = tiny_model("qwen2")
    full = random_adapter(model, 3)
    names = ["model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"]
    for zero in (False, True):
        state = {m: full[m] for m in names}
        if zero:
            state = {m: LoraWeights(w.A, torch.zeros_like(w.B), w.scale) for m, w in state.items()}
        directions = {"v": {m: random_adapter(model, 4)[m] for m in names}}
        base = {"b": random_anchor(model, 6)}
        probes = [LoraUpdate(directions), FullGradient(base)]
        samples = BATCHES["different"]
        readings = read(model, probes, state, samples)
        oracles = [Oracle(model, s, state) for s in samples]
        check_lora(readings, oracles, directions)
        check_base(readings, oracles, base)


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3"])
def test_a_sample_is_parallel_to_its_own_gradient(name):
    model = tiny_model(name)
    state = random_adapter(model, 3)
    samples = BATCHES["padding"]
    oracles = [Oracle(model, s, state) for s in samples]
    anchors = {f"{i}": o.gradient for i, o in enumerate(oracles)}
    values = read(model, [FullGradient(anchors)], state, samples).values
    products, norms = values["anchor_product"], values["gradient_norm"]
    # Row by row |g|^2 on the diagonal, and a symmetric matrix.
    check(products.diagonal(), norms**2, norms**2, 1e-12)
    check(products, products.T, norms[:, None] * norms, 1e-12)


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3"])
def test_mean_gradient_is_the_mean_of_unit_gradients(name):
    model = tiny_model(name)
    samples = BATCHES["different"] + BATCHES["padding"]
    oracles = [Oracle(model, s) for s in samples]
    found = mean_gradient(model, samples)
    assert set(found) == set(dict(model.named_parameters()))
    for n, value in found.items():
        expected = torch.stack([o.gradient[n] / o.norm for o in oracles]).mean(0)
        check(value, expected, 1.0, 1e-12)
    check(length_of(mean_gradient(model, samples[:1])), 1.0, 1.0, 1e-12)
    # It is an anchor as it is.
    readings = read(model, [FullGradient({"mean": found})], None, samples)
    check_base(readings, oracles, {"mean": found})
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("anchors", [None, {}], ids=["none", "empty"])
def test_without_anchors_there_are_norms_only(anchors):
    model = tiny_model("llama_tied")
    state = random_adapter(model, 3)
    samples = BATCHES["different"]
    oracles = [Oracle(model, s, state) for s in samples]
    full = read(model, [FullGradient(anchors)], state, samples).values
    assert set(full) == {"gradient_norm"}
    norms = torch.stack([o.norm for o in oracles])
    check(full["gradient_norm"], norms, norms, 1e-12)


@pytest.mark.parametrize("name", ["llama", "qwen3_tied"])
@pytest.mark.parametrize("with_state", [False, True], ids=["base", "state"])
@pytest.mark.parametrize("tokens", [(-1,), (-3, -1, -2)], ids=["last", "three"])
def test_hidden_states_are_those_of_transformers(name, with_state, tokens):
    model = tiny_model(name)
    state = random_adapter(model, 3) if with_state else None
    samples = random_samples(5, [12, 3, 7, 12])
    probe = HiddenStates((1, 2, 0)) if tokens == (-1,) else HiddenStates((1, 2, 0), tokens)
    found = read(model, [probe], state, samples).values["hidden_state"]
    for row, s in enumerate(samples):
        expected = Oracle(model, s, state).hidden[[1, 2, 0]][:, list(tokens)]
        check(found[row], expected, expected.norm(), 1e-12)
        embedding = model.get_parameter("model.embed_tokens.weight").detach()
        check(found[row, 2, -1], embedding[s.input_ids[tokens[-1]]], 1.0, 1e-12)


def test_float32_cosines(case):
    """The float64 oracle has the same weights, samples and anchors."""
    samples = BATCHES["different"] + BATCHES["padding"] + BATCHES["repeated"]
    oracles = case.oracles(samples)
    in_float32 = case.to(torch.float32)
    readings = in_float32.read(samples)
    case.check(readings, oracles, 1e-5)
    check_norms(read(in_float32.model, [FullGradient()], in_float32.state, samples), oracles, 1e-5)
    found = readings.values["anchor_product"].double()
    found = found / readings.values["gradient_norm"].double()[:, None]
    for column, anchor in enumerate(case.anchors.values()):
        cosines = torch.stack([o.product(anchor) / o.norm for o in oracles]) / length_of(anchor)
        check(found[:, column] / length_of(anchor), cosines, 1.0, 1e-5)


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_bfloat16_runs_through(name, checkpointing):
    """Against the float64 oracle at the weights as rounded; naive autograd is up to 15 % off."""
    short = Setting(name).to(torch.bfloat16)
    samples = BATCHES["different"]
    exact = short.to(torch.float64)
    readings = short.read(samples, checkpointing=checkpointing)
    assert readings.finite.all()
    exact.check(readings, exact.oracles(samples), 0.25)


@pytest.mark.parametrize("name", ["llama", "llama_tied", "qwen2", "qwen3"])
def test_the_layers_of_transformers_as_they_come(name, monkeypatch):
    """Norms and rotary embeddings in float32 inside a float64 model: agreement within 1e-5."""
    for module, forward in OWN_FORWARD.items():
        monkeypatch.setattr(module, "forward", forward)
    setting = Setting(name)
    samples = BATCHES["different"] + BATCHES["padding"]
    setting.check(setting.read(samples), setting.oracles(samples), 1e-5)


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "trainable"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_the_model_is_as_it_was_afterwards(trainable, checkpointing):
    """And it does not matter whether its parameters required gradients."""
    setting = Setting("qwen2")
    model = setting.model
    samples = BATCHES["padding"]
    oracles = setting.oracles(samples)
    model.requires_grad_(trainable)
    before = copy.deepcopy(model.state_dict())
    attributes = [set(vars(module)) for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    setting.check(setting.read(samples, checkpointing=checkpointing), oracles)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


def test_parameters_require_gradients_as_before():
    setting = Setting("qwen2")
    with pytest.raises(DataError):
        GradientEngine(setting.model, [HiddenStates((7,))])
    assert all(p.requires_grad for p in setting.model.parameters())
    setting.read(BATCHES["equal"])
    assert all(p.requires_grad for p in setting.model.parameters())


def names_all(*words):
    """A pattern for a message with all these words, in any order."""
    return "(?s)" + "".join(f"(?=.*{re.escape(word)})" for word in words)


WRONG = [
    # Two modules differ: the first by name is reported.
    "model.layers.1.mlp.down_proj",
    "model.layers.0.self_attn.v_proj",
]


def test_a_direction_of_another_shape_is_refused():
    model = tiny_model()
    state = random_adapter(model, 3)
    wrong = random_adapter(model, 4)
    for m in WRONG:
        wrong[m] = LoraWeights(torch.zeros(3, 5).double(), torch.zeros(7, 3).double(), 1.0)
    probe = LoraUpdate({"safety": random_adapter(model, 5), "danger": wrong})
    pattern = names_all("danger", WRONG[1], "(7, 5)", "(8, 16)")
    with pytest.raises(ShapeMismatch, match=pattern) as caught:
        GradientEngine(model, [probe], state)
    assert WRONG[0] not in str(caught.value)
    assert "safety" not in str(caught.value)


def test_a_direction_without_a_module_is_refused():
    model = tiny_model()
    state = random_adapter(model, 3)
    wrong = {m: w for m, w in random_adapter(model, 4).items() if m not in WRONG}
    with pytest.raises(ShapeMismatch, match=names_all("danger", WRONG[1], "(8, 16)")):
        GradientEngine(model, [LoraUpdate({"danger": wrong})], state)


@pytest.mark.parametrize("parameter", ["model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("missing", [False, True], ids=["shape", "missing"])
def test_an_anchor_that_does_not_fit_is_refused(parameter, missing):
    model = tiny_model()
    anchor = random_anchor(model, 1)
    shape = str(tuple(anchor[parameter].shape))
    if missing:
        del anchor[parameter]
        pattern = names_all("danger", parameter, shape)
    else:
        anchor[parameter] = torch.zeros(7, 5).double()
        pattern = names_all("danger", parameter, shape, "(7, 5)")
    probe = FullGradient({"safety": random_anchor(model, 2), "danger": anchor})
    with pytest.raises(DataError, match=pattern) as caught:
        GradientEngine(model, [probe])
    assert "safety" not in str(caught.value)


def test_an_anchor_of_a_tied_model_has_no_head():
    """named_parameters() has the shared matrix once, under the embedding's name."""
    model = tiny_model("llama_tied")
    anchor = random_anchor(model, 1)
    assert "lm_head.weight" not in anchor
    del anchor["model.embed_tokens.weight"]
    pattern = names_all("danger", "model.embed_tokens.weight", "(23, 16)")
    with pytest.raises(DataError, match=pattern):
        GradientEngine(model, [FullGradient({"danger": anchor})])


def test_a_lora_probe_needs_a_state():
    model = tiny_model()
    probe = LoraUpdate({"v": random_adapter(model, 3)})
    with pytest.raises(SqsdError, match="state"):
        GradientEngine(model, [FullGradient(None), probe])


@pytest.mark.parametrize("layer", [3, 10])
def test_a_layer_out_of_range_is_refused(layer):
    with pytest.raises(DataError, match=rf"(?s){layer}.*the model has hidden states 0 to 2"):
        GradientEngine(tiny_model(), [HiddenStates((0, layer))])


@pytest.mark.parametrize("tokens", [(0,), (-1, 3)])
def test_a_token_counted_from_the_start_is_refused(tokens):
    with pytest.raises(
        DataError, match=r"tokens \[.*\]: count from a sample's end, -1 is its last"
    ):
        HiddenStates((1,), tokens)


def test_a_token_that_a_sample_does_not_have_is_refused():
    samples = [EncodedSample("long", [3, 4, 5, 6], 1), EncodedSample("short", [3, 4], 1)]
    with GradientEngine(tiny_model(), [HiddenStates((1,), (-3,))]) as engine:
        assert engine.read(samples[:1]).finite.all()
        with pytest.raises(DataError, match=r"tokens \[-3\]: a sample has only 2 tokens"):
            engine.read(samples)


@pytest.mark.parametrize("ids, prompt", [([3, 4], 2), ([3, 4], 0), ([3], 1), ([], 0)])
def test_a_sample_without_prompt_or_label_is_refused(ids, prompt):
    with pytest.raises(
        DataError, match=rf"z7: {prompt} prompt tokens of {len(ids)}; a sample needs"
    ):
        EncodedSample("z7", ids, prompt)


def test_an_adapter_of_the_head_is_refused():
    model = tiny_model()
    state = {"lm_head": LoraWeights(torch.zeros(3, 16), torch.zeros(23, 3), 1.0)}
    with pytest.raises(SqsdError, match="state: adapts lm_head, the vocabulary head; train it wi"):
        GradientEngine(model, [LoraUpdate({})], state)


def test_a_refused_engine_leaves_the_model_alone():
    model = tiny_model()
    expected = Oracle(model, BATCHES["alone"][0])
    attributes = [set(vars(module)) for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    attention = model.config._attn_implementation
    with pytest.raises(DataError):
        GradientEngine(model, [FullGradient(None), HiddenStates((7,))])
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert model.config._attn_implementation == attention
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    check(Oracle(model, BATCHES["alone"][0]).loss, expected.loss, 1.0, 1e-13)
