"""The engine against a dense oracle: autograd, explicit updates, one sample at a time, float64."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from sqsd.drift import LoraWeights
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError, ShapeMismatch, SqsdError
from sqsd.gradients import GradientEngine
from sqsd.probes import LoraUpdate

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny_model(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).double().eval()


def random_adapter(model, seed, r=3, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LoraWeights(
            0.3 * torch.randn(r, m.in_features, generator=generator, dtype=torch.float64),
            0.3 * torch.randn(m.out_features, r, generator=generator, dtype=torch.float64),
            scale,
        )
        for name, m in model.named_modules()
        if name.endswith(LINEAR)
    }


def cast(adapter, dtype):
    return {m: LoraWeights(w.A.to(dtype), w.B.to(dtype), w.scale) for m, w in adapter.items()}


def random_samples(seed=0, count=6):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 20, (count,), generator=generator).tolist()
    return [
        EncodedSample(
            f"z{i}",
            torch.randint(0, 50, (length,), generator=generator).tolist(),
            int(torch.randint(1, length, (1,), generator=generator)),
        )
        for i, length in enumerate(lengths)
    ]


def sqsd_engine(model, state, directions, **options):
    return GradientEngine(model, [LoraUpdate(directions)], state, **options)


def oracle(model, state, directions, sample):
    """(loss, update norm [M], inner products [D, M]) by autograd on A and B, dense throughout."""
    leaves = {
        m: (w.A.clone().requires_grad_(), w.B.clone().requires_grad_()) for m, w in state.items()
    }
    weights = dict(model.named_parameters())
    for m, (a, b) in leaves.items():
        weights[f"{m}.weight"] = weights[f"{m}.weight"].detach() + state[m].scale * b @ a
    logits = functional_call(model, weights, (torch.tensor([sample.input_ids]),)).logits[0]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(sample.prompt_tokens, len(sample.input_ids)):
        total = total - torch.log_softmax(logits[t - 1], -1)[sample.input_ids[t]]
    loss = total / (len(sample.input_ids) - sample.prompt_tokens)
    loss.backward()
    norms, products = [], []
    for m in sorted(state):
        a, b = leaves[m]
        assert a.grad is not None and b.grad is not None
        update = -(b.detach() @ a.grad + b.grad @ a.detach())
        norms.append(update.norm())
        dense = [d[m].scale * d[m].B @ d[m].A for d in directions.values()]
        products.append(torch.stack([(update * v).sum() for v in dense]))
    return loss.detach(), torch.stack(norms), torch.stack(products, -1)


def setting(dtype):
    model = tiny_model()
    state = random_adapter(model, 1)
    directions = {
        "danger": random_adapter(model, 2),
        "safety": random_adapter(model, 3, r=5, scale=0.5),  # a rank of its own
    }
    expected = [oracle(model, state, directions, s) for s in random_samples()]
    cast_directions = {n: cast(d, dtype) for n, d in directions.items()}
    return model.to(dtype), cast(state, dtype), cast_directions, expected


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def case(request):
    return request.param, *setting(request.param)


@settings(deadline=None, max_examples=30)
@given(
    order=st.permutations(range(6)),
    batch_size=st.integers(1, 6),
    checkpointing=st.booleans(),
)
def test_every_sample_matches_the_dense_oracle(case, order, batch_size, checkpointing):
    """Cosines, norms and losses, whatever the batch size and the order."""
    dtype, model, state, directions, expected = case
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    samples = random_samples()
    with sqsd_engine(model, state, directions, checkpointing=checkpointing) as engine:
        for start in range(0, 6, batch_size):
            batch = order[start : start + batch_size]
            readings = engine.read([samples[i] for i in batch])
            for row, i in enumerate(batch):
                loss, norm, product = expected[i]
                found = readings.values["update_norm"][row]
                cosine = readings.values["inner_product"][row] / found
                dense = product / norm
                scale = dense.abs().max()
                assert (cosine - dense).abs().max() <= tolerance * max(1.0, scale)
                assert torch.allclose(found.double(), norm, rtol=10 * tolerance, atol=0)
                assert abs(readings.loss[row] - loss) <= 10 * tolerance


def test_positive_inner_product_means_the_step_moves_along_the_direction():
    """Finite difference: (L(theta + h V) - L(theta - h V)) / 2h = <grad_W L, V> in dense weights.

    At B0 = 0 the update is -gB A0 = -s grad_W A0'A0, so with V = B_v A0 and A0 A0' = I the inner
    product is -s <grad_W, V>: opposite in sign to the change of the loss along V. The norm layers
    compute in float32 whatever the model: at h = 3e-3 that leaves about 1e-7 / 6e-3 of noise.
    """
    model = tiny_model()
    name = "model.layers.1.self_attn.v_proj"
    weight = model.get_parameter(f"{name}.weight")
    A0 = torch.linalg.qr(torch.randn(16, 3, dtype=torch.float64))[0].T
    Bv = torch.randn(8, 3, dtype=torch.float64)
    state = {name: LoraWeights(A0, torch.zeros(8, 3, dtype=torch.float64), 2.0)}
    direction = {name: LoraWeights(A0, Bv, 1.0)}
    sample = random_samples()[0]

    def loss_at(h):
        with torch.no_grad():
            weight.add_(h * Bv @ A0)
        labels = torch.tensor([sample.input_ids]).clone()
        labels[:, : sample.prompt_tokens] = -100
        with torch.no_grad():
            logits = functional_call(model, {}, (torch.tensor([sample.input_ids]),)).logits
        value = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
        with torch.no_grad():
            weight.sub_(h * Bv @ A0)
        return value

    slope = (loss_at(3e-3) - loss_at(-3e-3)) / 6e-3
    with sqsd_engine(model, state, {"v": direction}) as engine:
        readings = engine.read([sample])
    assert torch.allclose(readings.values["inner_product"][0, 0, 0], -2.0 * slope, rtol=1e-3)


def test_a_row_with_a_nan_leaves_the_others_untouched():
    model, state, directions, expected = setting(torch.float64)
    samples = random_samples()
    token = next(
        t
        for t in samples[2].input_ids
        if all(t not in s.input_ids for s in samples if s is not samples[2])
    )
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[token] = float("nan")
    with sqsd_engine(model, state, directions) as engine:
        readings = engine.read(samples)
    assert readings.finite.tolist() == [i != 2 for i in range(6)]
    for i in (0, 1, 3, 4, 5):
        assert torch.allclose(readings.values["update_norm"][i], expected[i][1], rtol=1e-10)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_model_is_as_it_was_afterwards(checkpointing):
    model, state, directions, _ = setting(torch.float64)
    ids = torch.tensor([[1, 2, 3]])
    before = model(ids).logits.detach()
    attributes = [set(vars(module)) for module in model.modules()]
    attention = model.config._attn_implementation
    with sqsd_engine(model, state, directions, checkpointing=checkpointing) as engine:
        engine.read(random_samples())
    assert torch.equal(model(ids).logits.detach(), before)
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert model.config._attn_implementation == attention
    assert not any(module.training for module in model.modules())


def test_a_direction_of_another_shape_is_refused():
    model = tiny_model()
    state = random_adapter(model, 1)
    first = sorted(state)[0]
    wrong = dict(state)
    wrong[first] = LoraWeights(torch.zeros(3, 5), torch.zeros(7, 3), 1.0)
    with pytest.raises(ShapeMismatch, match=rf"danger: module {first} is \(7, 5\) in the adapter"):
        sqsd_engine(model, state, {"danger": wrong})


class Cramped(GradientEngine):
    """An engine on a machine with memory for so many tokens."""

    def __init__(self, *arguments, tokens: int, error: RuntimeError):
        super().__init__(*arguments)
        self.tokens, self.error = tokens, error
        self.tried: list[int] = []

    def read(self, samples):
        self.tried.append(sum(len(sample.input_ids) for sample in samples))
        if self.tried[-1] > self.tokens:
            raise self.error
        return super().read(samples)


ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ON_A_CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize("error", [ON_A_GPU, ON_A_CPU])
def test_out_of_memory_halves_the_budget_for_all_that_follows(capsys, error):
    model, state, directions, expected = setting(torch.float64)
    samples = random_samples(count=6)
    longest, total = (f(len(s.input_ids) for s in samples) for f in (max, sum))
    probe = LoraUpdate(directions)
    with Cramped(model, [probe], state, tokens=longest, error=error) as engine:
        found: dict[int, torch.Tensor] = {}
        for batch, readings in engine.read_all(samples, 10 * total):
            for row, i in enumerate(batch):
                assert i not in found
                found[i] = readings.values["update_norm"][row]
    for i in range(6):
        assert torch.allclose(found[i], expected[i][1], rtol=1e-10)
    # Fails at `total`, at about its half, ..., then fits: nothing larger is tried again.
    failed = [tokens for tokens in engine.tried if tokens > longest]
    assert engine.tried[: len(failed)] == failed and failed[0] == total
    assert all(after <= before // 2 for before, after in itertools.pairwise(failed))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(failed)
    assert lines[0] == f"out of memory at {total} tokens per batch; going on with {total // 2}"


def test_a_row_that_does_not_fit_alone_is_named():
    model, state, directions, _ = setting(torch.float64)
    samples = random_samples(count=6)
    lengths = [len(s.input_ids) for s in samples]
    name = samples[lengths.index(max(lengths))].sample_id
    probe = LoraUpdate(directions)
    with Cramped(model, [probe], state, tokens=max(lengths) - 1, error=ON_A_GPU) as engine:
        message = rf"{name}: a row of {max(lengths)} tokens does not fit in memory; lower grad"
        with pytest.raises(DataError, match=message):
            list(engine.read_all(samples, 1000))


def test_another_error_of_a_pass_is_not_taken_for_memory():
    model, state, directions, _ = setting(torch.float64)
    probe = LoraUpdate(directions)
    error = RuntimeError("shape '[3]' is invalid for input of size 4")
    engine = Cramped(model, [probe], state, tokens=0, error=error)
    with engine, pytest.raises(RuntimeError, match="is invalid for input"):
        list(engine.read_all(random_samples(), 1000))


def test_a_model_that_the_engine_misreads_is_refused(monkeypatch):
    model, state, directions, _ = setting(torch.float64)
    with sqsd_engine(model, state, directions) as engine:
        engine.check_loss(random_samples()[0])
        forward = model.forward

        def capped(**inputs):
            outputs = forward(**inputs)
            capped_logits = 2 * torch.tanh(outputs["logits"] / 2)
            return SimpleNamespace(logits=capped_logits)

        monkeypatch.setattr(model, "forward", capped)
        message = r"LlamaForCausalLM: the engine computes a loss of \S+ where the model's own is"
        with pytest.raises(SqsdError, match=message):
            engine.check_loss(random_samples()[0])


def test_a_sample_longer_than_the_sliding_window_is_refused():
    config = MistralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=5, pad_token_id=0,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    state = cast(random_adapter(model, 1), torch.float32)
    ids = [3, 4, 5, 6, 7]
    with sqsd_engine(model, state, {"v": state}) as engine:
        engine.check_loss(EncodedSample("z", ids, 2))
        assert engine.read([EncodedSample("z", ids, 2)]).finite.all()
        with pytest.raises(SqsdError, match=r"a sample of 6 tokens is longer than .* window of 5"):
            engine.read([EncodedSample("z", [*ids, 8], 2)])
