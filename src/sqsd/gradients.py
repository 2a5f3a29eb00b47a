"""Per-sample LoRA gradients of a batch from one backward pass, read low-rank (Eqs. 9-11)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from sqsd.drift import Adapter, LoraWeights
from sqsd.errors import ShapeMismatch


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt and response; labels are `input_ids[prompt_tokens:]`, at least one."""

    sample_id: str
    input_ids: list[int]
    prompt_tokens: int


@dataclass(frozen=True)
class BatchReadings:
    """What one batch gives: loss [n], update_norm [n, M], inner_product [n, D, M], finite [n]."""

    loss: Tensor
    update_norm: Tensor
    inner_product: Tensor
    finite: Tensor


def pack(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches by length, longest first; padded tokens a batch at most `max_tokens`.

    A batch holds at least one sample, however long.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


class GradientEngine:
    """Reads per-sample updates of a frozen model whose state is attached by forward hooks.

    state: the adapter the gradients are taken at; directions: the drifts they are compared with.
    The base model is used as it is, without PEFT: hooks add `scale * B A x` to each adapted
    linear layer. Use as a context manager; the hooks are gone afterwards. Raises ShapeMismatch
    naming the first module that does not fit, and both shapes.
    """

    def __init__(self, model, state: Adapter, directions: dict[str, Adapter]):
        check_shapes(model, {"state": state, **directions})
        self.model = model.requires_grad_(False)
        self.modules = sorted(state)
        self.readers = {
            m: ModuleReader(state[m], [d[m] for d in directions.values()]) for m in self.modules
        }
        self.handles: list = []

    def __enter__(self) -> Self:
        modules = dict(self.model.named_modules())
        for name, reader in self.readers.items():
            self.handles.append(modules[name].register_forward_hook(reader.hook))
        # Frozen weights give no graph: let it start at the embeddings' output.
        embeddings = self.model.get_input_embeddings()
        self.handles.append(
            embeddings.register_forward_hook(lambda module, args, out: out.requires_grad_())
        )
        return self

    def __exit__(self, *error) -> None:
        for handle in self.handles:
            handle.remove()

    def read(
        self, samples: list[EncodedSample], pad_token_id: int, padding_side: str = "right"
    ) -> BatchReadings:
        """Readings of each sample's own mean loss over its response tokens, in order."""
        ids, attention, labelled = pad(samples, pad_token_id, padding_side, self.model.device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        hidden = self.model.model(
            input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False
        ).last_hidden_state
        # The label at position t is predicted from t - 1: the head runs only there.
        row, column = labelled.nonzero(as_tuple=True)
        logits = self.model.lm_head(hidden[row, column - 1])
        precision = torch.promote_types(logits.dtype, torch.float32)
        token_loss = functional.cross_entropy(
            logits.to(precision), ids[row, column], reduction="none"
        )
        counts = labelled.sum(1).to(precision)
        loss = torch.zeros_like(counts).index_add(0, row, token_loss) / counts
        loss.sum().backward()
        norm = torch.stack([self.readers[m].update_norm for m in self.modules], -1)
        product = torch.stack([self.readers[m].inner_product for m in self.modules], -1)
        finite = loss.isfinite() & norm.isfinite().all(-1) & product.isfinite().all((1, 2))
        return BatchReadings(loss.detach(), norm, product, finite)


class ModuleReader:
    """One module's hook: applies the state, and reads norm and inner products of the updates."""

    def __init__(self, state: LoraWeights, directions: list[LoraWeights]):
        self.state = state
        A0, B0 = state.A, state.B
        self.A0A0, self.B0B0 = A0 @ A0.T, B0.T @ B0
        # Directions side by side along their ranks, which may differ: [V, d_in] and [d_out, V].
        self.Av = torch.cat([d.A for d in directions])
        self.Bv = torch.cat([d.scale * d.B for d in directions], dim=1)
        self.B0Bv, self.A0Av = B0.T @ self.Bv, A0 @ self.Av.T
        ranks = torch.tensor([len(d.A) for d in directions])
        owner = torch.arange(len(directions)).repeat_interleave(ranks)
        self.by_direction = functional.one_hot(owner, len(directions)).to(B0)
        self.update_norm: Tensor
        self.inner_product: Tensor

    def hook(self, module, args, output: Tensor) -> Tensor:
        x = args[0].detach()
        Ax = args[0] @ self.state.A.T
        output = output + self.state.scale * (Ax @ self.state.B.T)
        if output.requires_grad:
            output.register_hook(lambda g: self.read(x, Ax.detach(), g))
        return output

    def read(self, x: Tensor, Ax: Tensor, g: Tensor) -> None:
        """x [n, t, d_in], Ax [n, t, r], g [n, t, d_out] to norm [n] and products [n, D].

        Method notes, section 2: with gA [n, r, d_in], gB [n, d_out, r] the update
        `-(B0 gA + gB A0)` (eta = 1) is only ever met through r x r matrices.
        """
        s, A0, B0 = self.state.scale, self.state.A, self.state.B
        gA = s * torch.einsum("ntr,nti->nri", g @ B0, x)
        gB = s * torch.einsum("nto,ntr->nor", g, Ax)
        square = (
            ((gA @ gA.mT) * self.B0B0).sum((1, 2))
            + 2 * ((B0.T @ gB) * (gA @ A0.T)).sum((1, 2))
            + ((gB.mT @ gB) * self.A0A0).sum((1, 2))
        )
        self.update_norm = square.clamp(min=0).sqrt()
        products = ((gA @ self.Av.T) * self.B0Bv + (gB.mT @ self.Bv) * self.A0Av).sum(1)
        self.inner_product = -products @ self.by_direction


def pad(samples: list[EncodedSample], pad_token_id: int, side: str, device):
    """(input ids, attention mask, labelled mask), each [n, longest]."""
    width = max(len(s.input_ids) for s in samples)
    ids = torch.full((len(samples), width), pad_token_id)
    attention = torch.zeros_like(ids)
    labelled = torch.zeros_like(ids, dtype=torch.bool)
    for i, sample in enumerate(samples):
        length = len(sample.input_ids)
        start = 0 if side == "right" else width - length
        ids[i, start : start + length] = torch.tensor(sample.input_ids)
        attention[i, start : start + length] = 1
        labelled[i, start + sample.prompt_tokens : start + length] = True
    return ids.to(device), attention.to(device), labelled.to(device)


def check_shapes(model, adapters: dict[str, Adapter]) -> None:
    """Raises ShapeMismatch for the first module of an adapter that does not fit the model."""
    modules = dict(model.named_modules())
    expected = set(adapters["state"])
    for name, adapter in adapters.items():
        for module in sorted(expected | adapter.keys()):
            weight = getattr(modules.get(module), "weight", None)
            in_model = None if weight is None else tuple(weight.shape)
            in_adapter = adapter[module].drift_shape if module in adapter else None
            if in_model is None or in_model != in_adapter:
                raise ShapeMismatch(
                    f"{name}: module {module} is {in_adapter} in the adapter, "
                    f"{in_model} in the model; train it on this model"
                )
