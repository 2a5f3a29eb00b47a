"""What is read from a pass of `sqsd.gradients`: one class per kind of number, any at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqsd.drift import Adapter, LoraWeights, cast
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError, SqsdError
from sqsd.gradients import HeadPass, LayerPass, Probe, check_shapes, exact, name_of
from sqsd.packing import PackedBatch, by_run

# Numbers of a dense gradient, or of logits, that are in memory at once: a CPU reads them again from
# its cache, a GPU wants fewer and larger steps.
AT_ONCE = {"cpu": 2**21, "cuda": 2**24}


@dataclass
class ByModule:
    """Tensors of modules met in the backward pass's order, stacked in a fixed one."""

    names: Sequence[str]
    found: dict[str, Tensor] = field(default_factory=dict)

    def take(self) -> Tensor:
        """[n, ..., modules]."""
        stacked = torch.stack([self.found[name] for name in self.names], -1)
        self.found = {}
        return stacked


class Losses(Probe):
    """No readings: a pass for the losses alone, which every pass gives."""

    needs_backward = False


class LoraUpdate(Probe):
    """One-step LoRA updates (Eqs. 9, 10) against directions: what SQSD is made of (Eq. 11).

    Readings of n samples, M modules (sorted by name), D directions, with eta = 1:
    `update_norm` [n, M], `inner_product` [n, D, M].

    The update is `-(B0 gA + gB A0)` and is never built. Its product with a direction V is
    `-(<gA, B0'V> + <gB, V A0'>)`: two vectors per module, whatever V's rank. Raises ShapeMismatch
    naming the first module of a direction that does not fit, and both shapes.
    """

    needs_state = True

    def __init__(self, directions: Mapping[str, Adapter]):
        self.directions = directions

    def attach(self, model, state: Adapter) -> None:
        self.state = state
        self.modules = sorted(state)
        self.squares, self.products = ByModule(self.modules), ByModule(self.modules)
        for name, direction in self.directions.items():
            check_shapes(model, name, direction, self.modules)
        self.grams: dict[str, tuple[Tensor, Tensor]] = {}
        self.tangents: dict[str, tuple[Tensor, Tensor]] = {}
        for m, lora in state.items():
            A0, B0, s = exact(lora.A), exact(lora.B), lora.scale
            # The engine leaves the scale out of B's gradient; it is put in here, once.
            self.grams[m] = (B0.T @ B0).flatten(), (s * s * (A0 @ A0.T)).flatten()
            pairs = [tangent(A0, B0, direction[m]) for direction in self.directions.values()]
            self.tangents[m] = (
                rows_of_tangents([-a for a, _ in pairs]).to(model.dtype),
                rows_of_tangents([-s * b for _, b in pairs]).to(model.dtype),
            )

    def linear_modules(self) -> Sequence[str]:
        return self.modules

    def read_linear(self, name: str, layer: LayerPass) -> None:
        gA, gB = (exact(g) for g in layer.lora_gradients)
        gram_A, gram_B = self.grams[name]
        # B0'gB is the same.
        crossed = (gA @ exact(self.state[name].A).T).flatten(1)
        square = (gA @ gA.mT).flatten(1) @ gram_A
        square.addmv_((gB @ gB.mT).flatten(1), gram_B)
        self.squares.found[name] = square.add_((crossed * crossed).sum(1), alpha=2)
        tangent_A, tangent_B = (exact(t) for t in self.tangents[name])
        of_A = gA.flatten(1) @ tangent_A.T
        self.products.found[name] = of_A.addmm_(gB.flatten(1), tangent_B.T)

    def readings(self) -> dict[str, Tensor]:
        norms = self.squares.take().clamp(min=0).sqrt()
        products = self.products.take()[:, : len(self.directions)]
        return {"update_norm": norms, "inner_product": products}


class WeightUpdate(Probe):
    """One-step updates of the weights themselves against directions: Eq. 9 without an adapter.

    Readings as `LoraUpdate`, whose modules, sorted by name, are those of the directions. The
    update is `-gW`, which is also what a fresh adapter's (B0 = 0) is on average over its random
    A0, but for the length. Deviation: the paper's updates are those of an adapter at a searched
    state. `|gW|` as in `FullGradient`; `<gW, B A>` is `sum_t (B'g_t)(A x_t)`. Raises ShapeMismatch
    as `LoraUpdate`.
    """

    def __init__(self, directions: Mapping[str, Adapter]):
        self.directions = directions

    def attach(self, model, state: Adapter) -> None:
        self.modules = sorted(next(iter(self.directions.values())))
        self.squares, self.products = ByModule(self.modules), ByModule(self.modules)
        for name, direction in self.directions.items():
            check_shapes(model, name, direction, self.modules)
        self.adapters = [
            cast(direction, model.dtype, model.device) for direction in self.directions.values()
        ]

    def linear_modules(self) -> Sequence[str]:
        return self.modules

    def read_linear(self, name: str, layer: LayerPass) -> None:
        batch, x, g = layer.batch, layer.x, layer.g
        pairs = zip(by_run(batch.runs, g), by_run(batch.runs, x), strict=True)
        self.squares.found[name] = torch.cat([outer_numbers(*pair, [])[:, 0] for pair in pairs])
        products = [
            -lora.scale * batch.sum((exact(x @ lora.A.T) * exact(g @ lora.B)).sum(-1))
            for lora in (adapter[name] for adapter in self.adapters)
        ]
        self.products.found[name] = torch.stack(products, -1)

    def readings(self) -> dict[str, Tensor]:
        norms = self.squares.take().clamp(min=0).sqrt()
        return {"update_norm": norms, "inner_product": self.products.take()}


class TokenShares(Probe):
    """What each token has of the products of `LoraUpdate`, or of `WeightUpdate` without a state.

    Reading `token_share` [n, D, M, length], 0 behind a sample's end: over a sample's tokens it
    sums to `inner_product`, since a gradient is a sum over positions. A position stands for the
    token that is predicted there, the next one; so a sample's first token has 0, and nothing is
    lost: behind its last token nothing is predicted, and no gradient arrives there. The tokens of
    a prompt have a share too, since the response attends to them. length: of the longest sample
    at least.

    With a state position t has `-(up_t' B0'V x_t + s down_t' (V A0')' g_t)`, `up` and `down` as in
    `LayerPass` and V the direction; without one `-(B'g_t)(A x_t)`. Raises ShapeMismatch as
    `LoraUpdate`.
    """

    def __init__(self, directions: Mapping[str, Adapter], length: int):
        self.directions = directions
        self.length = length

    def attach(self, model, state: Adapter) -> None:
        self.modules = sorted(state or next(iter(self.directions.values())))
        self.products = ByModule(self.modules)
        for name, direction in self.directions.items():
            check_shapes(model, name, direction, self.modules)
        # Of each module and direction: what multiplies x, and what g.
        self.factors = {
            m: [
                tuple(factor.to(model.device, model.dtype) for factor in factors(direction[m], at))
                for direction in self.directions.values()
            ]
            for m, at in ((m, state.get(m)) for m in self.modules)
        }

    def linear_modules(self) -> Sequence[str]:
        return self.modules

    def read_linear(self, name: str, layer: LayerPass) -> None:
        self.batch = layer.batch
        shares = [
            self._products(exact(layer.x @ of_x.T), exact(layer.g @ of_g.T), layer)
            for of_x, of_g in self.factors[name]
        ]
        self.products.found[name] = torch.stack(shares, -1)

    @staticmethod
    def _products(x: Tensor, g: Tensor, layer: LayerPass) -> Tensor:
        """[T] of x and g [T, r]."""
        if layer.up is None or layer.down is None:
            return (x * g).sum(-1)
        return (x * exact(layer.up)).sum(-1).add_((g * exact(layer.down)).sum(-1))

    def readings(self) -> dict[str, Tensor]:
        runs = self.batch.runs
        by_token = self.products.take()
        shares = by_token.new_zeros(len(self.batch.counts), self.length, *by_token.shape[1:])
        parts = shares.split_with_sizes([run.samples for run in runs])
        for run, part, found in zip(runs, parts, by_run(runs, by_token), strict=True):
            part[:, 1 : run.length] = found[:, :-1]
        return {"token_share": shares.permute(0, 2, 3, 1)}


def factors(direction: LoraWeights, at: LoraWeights | None) -> tuple[Tensor, Tensor]:
    """What of a direction multiplies a token's x [r, d_in] and its g [r, d_out] (`TokenShares`)."""
    if at is None:
        return exact(direction.A), -direction.scale * exact(direction.B).T
    of_x, of_g = tangent(exact(at.A), exact(at.B), direction)
    return -of_x, -at.scale * of_g


def rows_of_tangents(tangents: list[Tensor]) -> Tensor:
    """Tangents as the rows of a matrix, two at least, the second one zero.

    The product with a single row would be that of a matrix and a vector, which sums in another
    order: so a direction's numbers are the same whether it is read alone or beside others.
    """
    rows = torch.stack(tangents).flatten(1)
    return functional.pad(rows, (0, 0, 0, max(2 - len(rows), 0)))


def tangent(A0: Tensor, B0: Tensor, direction: LoraWeights) -> tuple[Tensor, Tensor]:
    """B0'V [r, d_in] and, transposed, V A0' [r, d_out] of a direction V, at A0 [r, d_in], B0."""
    A, B = direction.A.to(A0), direction.scale * direction.B.to(A0)
    return (B0.T @ B) @ A, (A0 @ A.T) @ B.T


class FullGradient(Probe):
    """Gradients over all parameters, never built, and their products with fixed anchors.

    Readings: `gradient_norm` [n], `anchor_product` [n, K] in the order of the anchors. An anchor
    is one tensor per parameter, by its name as in `named_parameters` (`mean_gradient` makes one).

    A linear layer's `|sum_t g_t x_t'|^2` is `sum((X X') * (G G'))`, [t, t] per sample, or the
    dense sum a few samples at a time, whichever takes fewer operations; with anchors the dense sum,
    which serves them all. Embeddings, norms and biases have terms of their own; a head tied to the
    embedding adds a crossed one. Raises SqsdError for a parameter of another kind, DataError for an
    anchor without one.
    """

    def __init__(self, anchors: Mapping[str, Mapping[str, Tensor]] | None = None):
        self.anchors = anchors or {}

    def attach(self, model, state: Adapter) -> None:
        named = dict(model.named_modules())
        head = model.get_output_embeddings()
        kinds: dict[str, list[str]] = {"linear": [], "embedding": [], "affine": []}
        for name, module in named.items():
            own = {n for n, _ in module.named_parameters(recurse=False)}
            if not own or module is head:
                continue
            kinds[kind_of(name, module, own)].append(name)
        self.linear, self.embeddings = kinds["linear"], kinds["embedding"]
        self.affine = kinds["affine"]
        # No token has the id -1, where an embedding has no padding.
        padding = {n: named[n].padding_idx for n in self.embeddings}
        self.padding = {n: -1 if i is None else i for n, i in padding.items()}
        self.tied = head.weight is model.get_input_embeddings().weight
        self.head_name = name_of(model, head)
        owner = name_of(model, model.get_input_embeddings()) if self.tied else self.head_name
        self.head_weight = f"{owner}.weight"
        parameters = dict(model.named_parameters())
        for name, anchor in self.anchors.items():
            for parameter, value in parameters.items():
                found = tuple(anchor[parameter].shape) if parameter in anchor else None
                if found != tuple(value.shape):
                    raise DataError(
                        f"{name}: parameter {parameter} is {found} in the anchor, "
                        f"{tuple(value.shape)} in the model; make the anchor with this model"
                    )
        self.anchors = {
            name: {p: anchor[p].to(value.device, value.dtype) for p, value in parameters.items()}
            for name, anchor in self.anchors.items()
        }

    def start(self) -> None:
        self.squares: list[Tensor] = []
        self.products: list[Tensor] = []

    def linear_modules(self) -> Sequence[str]:
        return self.linear

    def other_modules(self) -> Sequence[str]:
        return [*self.embeddings, *self.affine]

    def read_linear(self, name: str, layer: LayerPass) -> None:
        batch = layer.batch
        anchors = self._of_anchors(f"{name}.weight")
        pairs = zip(by_run(batch.runs, layer.g), by_run(batch.runs, layer.x), strict=True)
        self._keep([outer_numbers(g, x, anchors) for g, x in pairs])
        if layer.bias is not None:
            self._add(f"{name}.bias", batch.sum(exact(layer.g)))

    def read_affine(self, name: str, batch: PackedBatch, unit: Tensor, g: Tensor) -> None:
        gradient = batch.sum(exact(g) * exact(unit))
        # A norm of each head has one weight for all of them.
        self._add(
            f"{name}.weight", gradient.flatten(1, -2).sum(1) if gradient.dim() > 2 else gradient
        )

    def read_embedding(self, name: str, batch: PackedBatch, ids: Tensor, g: Tensor) -> None:
        g = exact(g).masked_fill((ids == self.padding[name])[:, None], 0.0)
        squares = []
        for own_ids, own_g in zip(by_run(batch.runs, ids), by_run(batch.runs, g), strict=True):
            same = own_ids[:, :, None] == own_ids[:, None, :]
            squares.append(((own_g @ own_g.mT) * same).sum((1, 2)))
        self.squares.append(torch.cat(squares))
        self._multiply(f"{name}.weight", lambda a: batch.sum((exact(a[ids]) * g).sum(-1)))
        if self.tied and f"{name}.weight" == self.head_weight:
            self.squares.append(2 * self._crossed(self.head, ids, g))

    def read_head(self, head: HeadPass) -> None:
        self.head = head
        rows = rows_by_sample(head.batch)
        anchors = self._of_anchors(self.head_weight)
        self._keep([head_numbers(head, r, anchors) for r in rows])
        if head.head.bias is not None:
            sums = [head.logit_gradients(r, slice(None)).sum(0) for r in rows]
            self._add(f"{self.head_name}.bias", torch.stack(sums))

    def readings(self) -> dict[str, Tensor]:
        values = {"gradient_norm": torch.stack(self.squares).sum(0).clamp(min=0).sqrt()}
        if self.anchors:
            values["anchor_product"] = torch.stack(self.products).sum(0)
        return values

    def _add(self, parameter: str, gradient: Tensor) -> None:
        """A parameter whose gradient [n, d] is there as it is."""
        self.squares.append((gradient * gradient).sum(1))
        self._multiply(parameter, lambda anchor: gradient @ exact(anchor))

    def _multiply(self, parameter: str, product) -> None:
        """Add product(anchor) [n] of every anchor's tensor of a parameter."""
        if self.anchors:
            parts = [product(anchor) for anchor in self._of_anchors(parameter)]
            self.products.append(exact(torch.stack(parts, -1)))

    def _of_anchors(self, parameter: str) -> list[Tensor]:
        return [anchor[parameter] for anchor in self.anchors.values()]

    def _keep(self, parts: Sequence[Tensor]) -> None:
        """Parts [n, 1 + K] of a batch: squares, then products."""
        numbers = torch.cat(list(parts))
        self.squares.append(numbers[:, 0])
        self.products.append(numbers[:, 1:])

    def _crossed(self, head: HeadPass, ids: Tensor, g: Tensor) -> Tensor:
        """`<embedding's gradient, head's gradient>` per sample [n], of one weight."""
        batch, found = head.batch, []
        starts, lengths = batch.starts.tolist(), batch.lengths.tolist()
        for rows, start, length in zip(rows_by_sample(batch), starts, lengths, strict=True):
            own = slice(start, start + length)
            shares = head.logit_gradients(rows, ids[own])
            found.append((shares * (exact(head.hidden[rows]) @ g[own].T)).sum())
        return torch.stack(found)


def kind_of(name: str, module: nn.Module, own: set[str]) -> str:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if own == {"weight"} and module.weight.dim() == 1:  # pyright: ignore
        return "affine"
    raise SqsdError(
        f"{name}: no per-sample gradient is known for a {type(module).__name__} with "
        f"{', '.join(sorted(own))}; known: linear layers, embeddings, norms with a weight alone"
    )


def outer_numbers(g: Tensor, x: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """`|D|^2` and `<D, anchor>` of each anchor [d_out, d_in] for D = sum_t g_t x_t'.

    Of g [n, t, d_out] and x [n, t, d_in]: [n, 1 + K].
    """
    (n, t, d_out), d_in = g.shape, x.shape[-1]
    if not anchors and t * (d_in + d_out) < d_in * d_out:
        return (exact(x @ x.mT) * exact(g @ g.mT)).sum((1, 2))[:, None]
    flat = [exact(anchor).flatten() for anchor in anchors]
    step = max(1, AT_ONCE[g.device.type] // (d_in * d_out))
    found = []
    for start in range(0, n, step):
        few = slice(start, start + step)
        dense = exact(g[few].mT @ x[few]).flatten(1)
        found.append(torch.stack([(dense * dense).sum(1), *(dense @ a for a in flat)], 1))
    return torch.cat(found)


def rows_by_sample(batch: PackedBatch) -> list[slice]:
    """Each sample's rows among the labels."""
    ends = batch.counts.cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def head_numbers(head: HeadPass, rows: slice, anchors: Sequence[Tensor]) -> Tensor:
    """As `outer_numbers`, [1, 1 + K], of sum_s p_s h_s', p_s the gradient of a sample's logits."""
    hidden = exact(head.hidden[rows])
    found = hidden.new_zeros(1, 1 + len(anchors))
    vocabulary = len(head.head.weight)
    step = max(1, AT_ONCE[hidden.device.type] // max(hidden.shape))
    for start in range(0, vocabulary, step):
        columns = slice(start, start + step)
        shares = head.logit_gradients(rows, columns)
        found += outer_numbers(shares[None], hidden[None], [a[columns] for a in anchors])
    return found


class HiddenStates(Probe):
    """Hidden states at chosen layers and tokens: `hidden_state` [n, layers, tokens, d].

    layers: 0 is the embeddings' output, k that of layer k, the last after the final norm, as in
    transformers' `hidden_states`. tokens: from the end, -1 is a sample's last. Raises DataError
    for a layer the model does not have, and for a token that a sample does not have.
    """

    needs_backward = False

    def __init__(self, layers: Sequence[int], tokens: Sequence[int] = (-1,)):
        self.wanted, self.tokens = list(layers), list(tokens)
        self.found: dict[str, Tensor] = {}
        if any(token >= 0 for token in tokens):
            raise DataError(f"tokens {self.tokens}: count from a sample's end, -1 is its last")

    def attach(self, model, state: Adapter) -> None:
        base = model.base_model
        outputs = [model.get_input_embeddings(), *base.layers[:-1], base.norm]
        for layer in self.wanted:
            if not 0 <= layer < len(outputs):
                raise DataError(
                    f"layer {layer}: the model has hidden states 0 to {len(outputs) - 1}"
                )
        self.outputs = {str(layer): outputs[layer] for layer in self.wanted}

    def layers(self) -> Mapping[str, nn.Module]:
        return self.outputs

    def read_layer(self, name: str, batch: PackedBatch, output: Tensor) -> None:
        shortest = int(batch.lengths.min())
        if shortest < -min(self.tokens):
            raise DataError(f"tokens {self.tokens}: a sample has only {shortest} tokens")
        ends = batch.starts + batch.lengths
        at = ends[:, None] + torch.tensor(self.tokens, device=ends.device)
        self.found[name] = exact(output[at])

    def readings(self) -> dict[str, Tensor]:
        stacked = torch.stack([self.found[str(layer)] for layer in self.wanted], 1)
        self.found = {}
        return {"hidden_state": stacked}


def mean_gradient(model, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
    """The mean of the samples' full gradients, each normalised to length 1, by parameter.

    An anchor of `FullGradient` (Bi-Anchor; He et al. 2024), by autograd, one sample at a time. For
    the loss of a response's first k tokens give samples cut there (`EncodedSample.first`).
    """
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    trainable = {name: value.requires_grad for name, value in parameters.items()}
    model.requires_grad_(True)
    for sample in samples:
        ids = torch.tensor([sample.input_ids], device=model.device)
        labels = torch.tensor(sample.label_places, device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, labels - 1]
        loss = nn.functional.cross_entropy(exact(logits), ids[0, labels])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        norm = torch.stack([exact(g).square().sum() for g in gradients]).sum().sqrt()
        for name, gradient in zip(parameters, gradients, strict=True):
            total[name] += gradient / (norm * len(samples)).to(gradient.dtype)
        # Else the next sample's are made beside them, which is the model's size once more.
        del gradients
    for name, value in parameters.items():
        value.requires_grad_(trainable[name])
    return total
