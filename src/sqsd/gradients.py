"""One forward and one backward pass over packed samples, read by probes where it goes by.

Per-sample gradients of a whole batch come from what each layer sees: its input x and the gradient
g of its output, token by token (Eqs. 9-11). The engine runs the passes and hands x and g to
probes; a probe (`sqsd.probes`) makes a few numbers per sample of them.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer

from sqsd.drift import Adapter, cast
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError, ShapeMismatch, SqsdError
from sqsd.packing import PackedBatch, by_run, pack

# Logits of so many numbers are in memory at once, 128 MB in float32.
LOGITS_AT_ONCE = 2**25
# Relative difference of the engine's loss and the model's own that rounding may explain: logits
# of some tens are good to a tenth in bfloat16.
LOSS_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.25}
ATTENTION = "sqsd_runs"


@dataclass(frozen=True)
class LayerPass:
    """What one linear layer saw of a batch: x [T, d_in] and g [T, d_out].

    With a state attached also `down` [T, r], x A', and `up` [T, r], s g B.
    """

    batch: PackedBatch
    bias: Tensor | None
    x: Tensor
    g: Tensor
    down: Tensor | None
    up: Tensor | None

    @cached_property
    def lora_gradients(self) -> tuple[Tensor, Tensor]:
        """Gradient of A [n, r, d_in], and that of B over s and transposed, [n, r, d_out]."""
        assert self.up is not None and self.down is not None
        return self.batch.outer(self.up, self.x), self.batch.outer(self.down, self.g)


@dataclass(frozen=True)
class HeadPass:
    """What the vocabulary head saw of a batch's S labels.

    hidden [S, d]; weights [S]: 1 / labels of the sample; log_normaliser [S]: log of the sum of
    the exponentials of all logits; misses [S]: the probability of all tokens but the label's.
    """

    batch: PackedBatch
    head: nn.Linear
    hidden: Tensor
    weights: Tensor
    log_normaliser: Tensor
    misses: Tensor

    def logit_gradients(self, rows: slice, columns: Tensor | slice) -> Tensor:
        """Gradient of the loss by some of the logits, [rows, columns], computed again."""
        bias = None if self.head.bias is None else self.head.bias[columns]
        logits = functional.linear(self.hidden[rows], self.head.weight[columns], bias)
        logits = logits.to(self.log_normaliser.dtype)
        every = torch.arange(len(self.head.weight), device=logits.device)[columns]
        shares = logits.sub_(self.log_normaliser[rows, None]).exp_()
        is_label = self.batch.labels[rows, None] == every
        return torch.where(is_label, -self.misses[rows, None], shares).mul_(
            self.weights[rows, None]
        )


class Probe:
    """Numbers per sample from a pass; a subclass overrides what it wants to see.

    The engine calls `attach` once; each pass is `start`, the `read_*` methods, `readings`.
    """

    needs_state = False
    needs_backward = True

    def attach(self, model, state: Adapter) -> None:
        """Look at the model, whose modules are named as in `read_*`, and at the state.

        The state is empty where gradients are taken at the model as it is.
        """

    def start(self) -> None:
        """Forget what an earlier pass left, which may have failed half-way."""

    def linear_modules(self) -> Sequence[str]:
        """Names of the linear modules to read."""
        return ()

    def other_modules(self) -> Sequence[str]:
        """Names of embeddings and of elementwise affine modules (norms) to read."""
        return ()

    def layers(self) -> Mapping[str, nn.Module]:
        """Modules whose output [T, d] is to be read, by a name of the probe's own."""
        return {}

    def read_linear(self, name: str, layer: LayerPass) -> None: ...

    def read_embedding(self, name: str, batch: PackedBatch, ids: Tensor, g: Tensor) -> None:
        """ids [T], g [T, d] of an embedding."""

    def read_affine(self, name: str, batch: PackedBatch, unit: Tensor, g: Tensor) -> None:
        """Output by unit weight, and g, both [T, ..., d], of a module `weight * unit + rest`."""

    def read_head(self, head: HeadPass) -> None: ...

    def read_layer(self, name: str, batch: PackedBatch, output: Tensor) -> None: ...

    def readings(self) -> dict[str, Tensor]:
        """What the pass gave: tensors [n, ...] in the batch's order."""
        return {}


@dataclass(frozen=True)
class BatchReadings:
    """Of n samples in the caller's order: loss [n], finite [n], and the probes' tensors [n, ...].

    A sample is finite when its loss and all its readings are.
    """

    loss: Tensor
    finite: Tensor
    values: dict[str, Tensor]


class GradientEngine:
    """Runs a frozen causal language model over samples and lets probes read the passes.

    state: the adapter that gradients are taken at, or None for the model as it is. Use as a
    context manager: within, the model's linear layers add `s B A x` and hand what they see to
    the probes, and its attention runs over packed samples, each alone. Weights get no
    gradient. checkpointing: keep a layer's input only and compute its activations twice.

    Raises ShapeMismatch naming the first module of the state that does not fit, and both shapes;
    SqsdError for a probe that needs a state where there is none.
    """

    def __init__(
        self,
        model,
        probes: Sequence[Probe],
        state: Adapter | None = None,
        checkpointing: bool = False,
    ):
        if state is None and any(probe.needs_state for probe in probes):
            raise SqsdError("a probe of LoRA gradients needs a state; give an adapter")
        check_shapes(model, "state", state or {})
        self.model = model
        self.probes = list(probes)
        self.state = cast(state or {}, model.dtype, model.device)
        self.checkpointing = checkpointing
        self.backward = any(probe.needs_backward for probe in probes)
        self.batch: PackedBatch
        self._undo: list[Callable[[], Any]] = []
        for probe in self.probes:
            probe.attach(model, self.state)

    def __enter__(self) -> Self:
        modules = dict(self.model.named_modules())
        # Nothing that is trained takes part, so the graph needs a leaf of its own to begin at.
        self.root = torch.zeros((), device=self.model.device, requires_grad=self.backward)
        for parameter in self.model.parameters():
            self._undo.append(partial(parameter.requires_grad_, parameter.requires_grad))
            parameter.requires_grad_(False)
        linear = readers(self.probes, lambda probe: probe.linear_modules())
        for name in {**linear, **self.state}:
            self._replace(modules[name], partial(self._linear, name, modules[name], linear))
        for name, probes in readers(self.probes, lambda probe: probe.other_modules()).items():
            self._replace(modules[name], partial(self._other, name, Twin(modules[name]), probes))
        for probe in self.probes:
            for name, module in probe.layers().items():
                hook = partial(self._layer_output, probe, name)
                self._undo.append(module.register_forward_hook(hook).remove)
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION)
        self._undo.append(partial(self.model.set_attn_implementation, before))
        for layer in modules.values() if self.checkpointing else ():
            if isinstance(layer, GradientCheckpointingLayer):
                forward = partial(type(layer).forward, layer)
                self._replace(layer, partial(checkpoint, forward, use_reentrant=False))
        return self

    def __exit__(self, *error) -> None:
        while self._undo:
            self._undo.pop()()

    def read(self, samples: list[EncodedSample]) -> BatchReadings:
        """Readings of each sample's own mean loss over its response tokens, in their order."""
        self.batch = batch = PackedBatch.of(samples, self.model.device)
        for probe in self.probes:
            probe.start()
        with torch.set_grad_enabled(self.backward):
            hidden = self._hidden(batch)
        with torch.no_grad():
            loss = self._head(hidden)
        values: dict[str, Tensor] = {}
        finite = loss.isfinite()
        for probe in self.probes:
            values |= probe.readings()
        for value in values.values():
            finite &= value.isfinite().reshape(len(finite), -1).all(1)
        order = batch.order
        in_order = {name: value[order] for name, value in values.items()}
        return BatchReadings(loss[order], finite[order], in_order)

    def read_all(
        self, samples: list[EncodedSample], max_tokens: int
    ) -> Iterator[tuple[list[int], BatchReadings]]:
        """(indices, readings) of batches of at most `max_tokens` tokens that cover the samples.

        When a batch runs out of memory the budget is halved, which is printed, and holds from
        there on. Raises DataError naming a sample that does not fit alone, and its length.
        """
        lengths = [len(sample.input_ids) for sample in samples]
        left = pack(lengths, max_tokens)
        while left:
            batch = left.pop(0)
            readings = self._read_if_it_fits([samples[i] for i in batch])
            if readings is not None:
                yield batch, readings
                continue
            tokens = sum(lengths[i] for i in batch)
            if len(batch) == 1:
                raise DataError(
                    f"{samples[batch[0]].sample_id}: a row of {tokens} tokens does not fit in "
                    "memory; lower gradients.max_length_tokens, set gradients.checkpointing, or "
                    "use a machine with more memory"
                )
            max_tokens = max(tokens // 2, 1)
            print(f"out of memory at {tokens} tokens per batch; going on with {max_tokens}")
            rest = [i for part in [batch, *left] for i in part]
            left = [
                [rest[i] for i in part] for part in pack([lengths[i] for i in rest], max_tokens)
            ]

    def _read_if_it_fits(self, samples: list[EncodedSample]) -> BatchReadings | None:
        try:
            return self.read(samples)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Out here the error is gone, and with it the frames that hold the pass's tensors.
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @torch.no_grad()
    def check_loss(self, sample: EncodedSample) -> None:
        """Compare the engine's loss of one sample with the model's own.

        Raises SqsdError where they differ: the model does something between embeddings and
        logits that the engine does not know of (soft-capped logits, for example).
        """
        # Probes of layers read these passes too, and forget them at the next one.
        self.batch = batch = PackedBatch.of([sample], self.model.device)
        at_labels = self._hidden(batch)[batch.predicted_from]
        head = self.model.get_output_embeddings()
        weights = torch.ones_like(batch.labels)
        ours = head_pass(head, at_labels, batch.labels, weights).loss.mean()
        self.model.set_attn_implementation("sdpa")
        logits = self.model(input_ids=batch.ids[None], use_cache=False).logits[0]
        self.model.set_attn_implementation(ATTENTION)
        own = functional.cross_entropy(logits[batch.predicted_from].to(ours), batch.labels)
        difference = float((ours - own).abs() / own.abs().clamp(min=1e-2))
        if own.isfinite() and not difference <= LOSS_TOLERANCE[self.model.dtype]:
            raise SqsdError(
                f"{type(self.model).__name__}: the engine computes a loss of {float(ours):.6g} "
                f"where the model's own is {float(own):.6g}; its attention or its head does "
                "something that is not built yet, so its rows cannot be scored"
            )

    def _hidden(self, batch: PackedBatch) -> Tensor:
        """Last hidden states [T, d] of a packed batch."""
        outputs = self.model.base_model(
            input_ids=batch.ids[None], position_ids=batch.positions[None], use_cache=False,
            runs=batch.runs,
        )  # fmt: skip
        return outputs.last_hidden_state[0]

    def _head(self, hidden: Tensor) -> Tensor:
        """Mean loss per sample [n]; the backward pass from the labels down, where one is needed."""
        batch, head = self.batch, self.model.get_output_embeddings()
        at_labels = hidden.detach()[batch.predicted_from]
        weights = (1 / batch.counts.to(exact(at_labels)))[batch.sample_of_label]
        passed = head_pass(head, at_labels, batch.labels, weights)
        if self.backward:
            normaliser, misses = passed.log_normaliser, passed.misses
            for probe in self.probes:
                probe.read_head(HeadPass(batch, head, at_labels, weights, normaliser, misses))
            into = torch.zeros_like(hidden)
            into[batch.predicted_from] = passed.gradient
            hidden.backward(into)
        return batch.sum_labels(passed.loss * weights)

    def _replace(self, module: nn.Module, forward: Callable) -> None:
        module.forward = forward
        self._undo.append(partial(module.__dict__.pop, "forward"))

    def _linear(self, name: str, module: nn.Linear, linear: dict, x: Tensor) -> Tensor:
        state = self.state.get(name)
        flat = x.flatten(0, -2)
        out = TappedLinear.apply(flat, self.root, module, state, self, name, linear.get(name, []))
        return out.unflatten(0, x.shape[:-1])

    def _other(self, name: str, twin: "Twin", probes: list[Probe], x: Tensor) -> Tensor:
        def read(batch: PackedBatch, x: Tensor, g: Tensor) -> None:
            if isinstance(twin.module, nn.Embedding):
                for probe in probes:
                    probe.read_embedding(name, batch, x, g)
            else:
                # The input is kept for the norm's own gradient anyway, its output is not.
                unit = twin.unit(x)
                for probe in probes:
                    probe.read_affine(name, batch, unit, g)

        return TappedOutput.apply(twin.module(x), self.root, x.detach(), self, read)

    def _layer_output(self, probe: Probe, name: str, module, args, output) -> None:
        output = output[0] if isinstance(output, tuple) else output
        probe.read_layer(name, self.batch, output.detach()[0])


class TappedLinear(Function):
    """A linear layer with an adapter, both frozen, whose backward pass is read on its way."""

    @staticmethod
    def forward(ctx, x, root, module, state, engine, name, probes):
        out = functional.linear(x, module.weight, module.bias)
        down = None
        if state is not None:
            down = x @ state.A.T
            out.addmm_(down, state.B.T, alpha=state.scale)
        # The LoRA readings need `down`; without a probe the backward pass needs neither.
        ctx.save_for_backward(*((x, down) if probes else (None, None)))
        ctx.called_with = module, state, engine, name, probes
        return out

    @staticmethod
    def backward(ctx, g):  # pyright: ignore[reportIncompatibleMethodOverride]
        module, state, engine, name, probes = ctx.called_with
        up = None if state is None else state.scale * (g @ state.B)
        if probes:
            x, down = ctx.saved_tensors
            layer = LayerPass(engine.batch, module.bias, x, g, down, up)
            for probe in probes:
                probe.read_linear(name, layer)
        if not ctx.needs_input_grad[0]:
            return (None,) * 7
        into = g @ module.weight
        if state is not None:
            into.addmm_(up, state.A)
        return into, *(None,) * 6


class TappedOutput(Function):
    """The identity, whose backward pass hands batch, input and g to a reader; the graph's root."""

    @staticmethod
    def forward(ctx, out, root, x, engine, read):
        ctx.save_for_backward(x)
        ctx.called_with = engine, read
        return out.view_as(out)

    @staticmethod
    def backward(ctx, g):  # pyright: ignore[reportIncompatibleMethodOverride]
        engine, read = ctx.called_with
        (x,) = ctx.saved_tensors
        read(engine.batch, x[0], g[0])
        return g, None, None, None, None


class Twin:
    """A copy of an embedding or of an elementwise affine module that the engine may call.

    The module itself calls the engine while that is entered.
    """

    def __init__(self, module: nn.Module):
        self.module = copy.copy(module)

    @torch.no_grad()
    def unit(self, x: Tensor) -> Tensor:
        """What multiplies the weight, whether the module multiplies by it or by 1 + weight."""
        weight = self.module.get_parameter("weight")
        return self._with(torch.ones_like(weight), x) - self._with(torch.zeros_like(weight), x)

    def _with(self, weight: Tensor, x: Tensor) -> Tensor:
        module = copy.copy(self.module)
        module._parameters = {"weight": nn.Parameter(weight, False)}
        # Past its hooks: they are for the pass.
        return module.forward(x)


def runs_attention(module, query, key, value, attention_mask, runs, **kwargs):
    """Causal attention within each sample of a packed batch: q, k, v [1, heads, T, d].

    A run is a batch of its own, without a mask. Returns [1, T, heads, d].
    Raises SqsdError for a sample longer than the model's sliding window.
    """
    window = kwargs.get("sliding_window")
    kwargs["dropout"] = 0.0
    if window is not None and runs[0].length > window:
        raise SqsdError(
            f"a sample of {runs[0].length} tokens is longer than the model's sliding window of "
            f"{window}; set gradients.max_length_tokens to at most {window}"
        )
    parts = []
    heads_last = (by_run(runs, t[0].transpose(0, 1)) for t in (query, key, value))
    for q, k, v in zip(*heads_last, strict=True):
        out, _ = sdpa_attention_forward(
            module, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None,
            is_causal=True, **kwargs,
        )  # fmt: skip
        parts.append(out.flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(ATTENTION, runs_attention)


def is_out_of_memory(error: RuntimeError) -> bool:
    # On the CPU there is no class for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: bfloat16 holds no sum of many terms."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def name_of(model, module: nn.Module) -> str:
    """The name of one of a model's modules."""
    return next(name for name, other in model.named_modules() if other is module)


def readers(probes: Sequence[Probe], wanted: Callable) -> dict[str, list[Probe]]:
    """The probes that want to read a module, by its name."""
    found: dict[str, list[Probe]] = {}
    for probe in probes:
        for name in wanted(probe):
            found.setdefault(name, []).append(probe)
    return found


class HeadResults(NamedTuple):
    """Of S labels: loss, log_normaliser and misses [S] (see `HeadPass`), gradient [S, d]."""

    loss: Tensor
    log_normaliser: Tensor
    misses: Tensor
    gradient: Tensor


def head_pass(head: nn.Linear, hidden: Tensor, labels: Tensor, weights: Tensor) -> HeadResults:
    """The vocabulary head over hidden states [S, d], a few rows of logits at a time.

    gradient: that of the weighted losses by `hidden`. Losses are in float32 at least.
    """
    parts = []
    step = max(1, LOGITS_AT_ONCE // head.out_features)
    for rows in (slice(start, start + step) for start in range(0, len(labels), step)):
        logits = exact(head(hidden[rows]))
        targets = labels[rows, None]
        of_label = logits.gather(1, targets)[:, 0]
        # One exponential per logit, in place: it is as long as the product with the head.
        largest = logits.amax(1, keepdim=True)
        shares = logits.sub_(largest).exp_()
        total = shares.sum(1, keepdim=True)
        normaliser = (largest + total.log())[:, 0]
        # The label's own gradient is p - 1. Where p is nearly 1 that difference would be rounding
        # noise; as the sum of all the others' it keeps its digits.
        misses = shares.scatter_(1, targets, 0.0).sum(1) / total[:, 0]
        shares.mul_(weights[rows, None] / total).scatter_(
            1, targets, (-misses * weights[rows])[:, None]
        )
        loss = normaliser - of_label
        parts.append((loss, normaliser, misses, shares.to(hidden.dtype) @ head.weight))
    return HeadResults(*(torch.cat(part) for part in zip(*parts, strict=True)))


def check_shapes(model, name: str, adapter: Adapter, modules: Sequence[str] | None = None) -> None:
    """Raises ShapeMismatch for the first module of an adapter that does not fit the model.

    modules: those the adapter must have; by default its own. Raises SqsdError for an adapter of
    the vocabulary head.
    """
    in_model = dict(model.named_modules())
    head = name_of(model, model.get_output_embeddings())
    if head in adapter:
        raise SqsdError(f"{name}: adapts {head}, the vocabulary head; train it without that module")
    for module in sorted({*(modules or ()), *adapter}):
        weight = getattr(in_model.get(module), "weight", None)
        needed = None if weight is None else tuple(weight.shape)
        found = adapter[module].drift_shape if module in adapter else None
        if needed is None or needed != found:
            raise ShapeMismatch(
                f"{name}: module {module} is {found} in the adapter, "
                f"{needed} in the model; train it on this model"
            )
