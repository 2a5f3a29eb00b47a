"""Ways to score the same rows against the same directions.

Each gives the products of a row's update, normalised, with the directions as they are:
[n, D, modules], cosines but for the directions' norms.
The rows, the state and the directions are a `Task`; what is done once for a data set (directions
as each way wants them) is done when a contender is made, not when it is timed.
"""

import copy
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional

from sqsd.drift import Adapter, LoraWeights
from sqsd.encoded import EncodedSample
from sqsd.gradients import GradientEngine, Probe, name_of
from sqsd.packing import pack
from sqsd.probes import LoraUpdate

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Task:
    """Rows to score with a model at a state against directions, in batches of so many tokens."""

    model: torch.nn.Module
    samples: list[EncodedSample]
    state: Adapter
    directions: dict[str, Adapter]
    max_tokens: int

    @property
    def modules(self) -> list[str]:
        return sorted(self.state)

    @property
    def batches(self) -> list[list[int]]:
        return pack([len(s.input_ids) for s in self.samples], self.max_tokens)


def engine(task: Task) -> Run:
    """Ours."""
    probe = LoraUpdate(task.directions)
    reader = GradientEngine(task.model, [probe], task.state)

    def run() -> Tensor:
        batches, parts = [], []
        with reader:
            for batch, readings in reader.read_all(task.samples, task.max_tokens):
                values = readings.values
                batches.append(batch)
                parts.append(values["inner_product"] / values["update_norm"][:, None])
        return in_order(batches, parts)

    return run


def in_order(batches: list[list[int]], parts: list[Tensor]) -> Tensor:
    """Rows of all batches in the order of the samples."""
    indices = torch.tensor([i for batch in batches for i in batch])
    joined = torch.cat(parts)
    return joined[indices.argsort().to(joined.device)]


class Nothing(Probe):
    """Asks for a backward pass down to the embeddings and reads nothing of it."""

    def attach(self, model, state: Adapter) -> None:
        self.embedding = name_of(model, model.get_input_embeddings())

    def other_modules(self) -> list[str]:
        return [self.embedding]


def bare(task: Task) -> Run:
    """The floor: forward and backward passes for activations alone, on the engine's packing."""
    return passes(task, Nothing(), None)


def passes(task: Task, probe: Probe, state: Adapter | None) -> Run:
    """The engine's passes over its batches, for a probe that has nothing to say."""
    reader = GradientEngine(task.model, [probe], state)

    def run() -> Tensor:
        with reader:
            for _ in reader.read_all(task.samples, task.max_tokens):
                pass
        return torch.empty(0)

    return run


class Inputs(Nothing):
    """Has each linear layer's input kept besides, as the gradient of any of its weights must."""

    def attach(self, model, state: Adapter) -> None:
        super().attach(model, state)
        self.linear = list(state)

    def linear_modules(self) -> list[str]:
        return self.linear


def activations(task: Task) -> Run:
    """A pass at the state that keeps all that gradients of weights are made of, and makes none."""
    return passes(task, Inputs(), task.state)


def published(task: Task) -> Run:
    """A PEFT model, one row at a time, every update and direction a dense matrix, made for each.

    As the authors' code does: four dense products per module and state, two of the update and
    one of each direction (about 1e12 operations per row of Qwen3-8B over two states).
    """
    return by_row(task, lambda m: dense_direction(task, m))


def published_kept(task: Task) -> Run:
    """The published way with the directions' dense matrices made once, which is kinder."""
    dense = {m: dense_direction(task, m) for m in task.modules}
    return by_row(task, dense.__getitem__)


def by_row(task: Task, directions: Callable[[str], list[Tensor]]) -> Run:
    """One row at a time; `directions` gives a module's dense directions."""
    model = peft_copy(task)
    name = "base_model.model.{}.lora_{}.default.weight"
    weights = [[model.get_parameter(name.format(m, k)) for k in "AB"] for m in task.modules]
    flat = [weight for pair in weights for weight in pair]

    def run() -> Tensor:
        rows = []
        for sample in task.samples:
            gradients = torch.autograd.grad(padded_loss(model, [sample]), flat)
            pairs = zip(gradients[::2], gradients[1::2], strict=True)
            row = []
            for m, (A, B), (gA, gB) in zip(task.modules, weights, pairs, strict=True):
                update = -(B.detach() @ gA + gB @ A.detach())
                row.append(dense_products(update, directions(m)))
            rows.append(torch.stack(row, -1))
        return torch.stack(rows)

    return run


def plain_hooks(task: Task) -> Run:
    """Padded batches, hooks for per-sample gA and gB, then a dense update a row."""
    dense = {m: dense_direction(task, m) for m in task.modules}
    found: dict[str, Tensor] = {}

    def read(name: str, lora: LoraWeights, x: Tensor, Ax: Tensor, g: Tensor) -> None:
        gA = lora.scale * torch.einsum("nto,or,nti->nri", g, lora.B, x)
        gB = lora.scale * torch.einsum("nto,ntr->nor", g, Ax)
        updates = (-(lora.B @ a + b @ lora.A) for a, b in zip(gA, gB, strict=True))
        found[name] = torch.stack([dense_products(update, dense[name]) for update in updates])

    def hook(name: str, lora: LoraWeights, module, args, output: Tensor) -> Tensor:
        x = args[0]
        Ax = x @ lora.A.T
        output = output + lora.scale * (Ax @ lora.B.T)
        output.register_hook(partial(read, name, lora, x.detach(), Ax.detach()))
        return output

    def run() -> Tensor:
        modules = dict(task.model.named_modules())
        handles = [
            modules[m].register_forward_hook(partial(hook, m, lora))
            for m, lora in task.state.items()
        ]
        embeddings = task.model.get_input_embeddings()  # pyright: ignore
        handles.append(embeddings.register_forward_hook(lambda *a: a[-1].requires_grad_()))
        parts = []
        for batch in task.batches:
            padded_loss(task.model, [task.samples[i] for i in batch]).backward()
            parts.append(torch.stack([found[m] for m in task.modules], -1))
        for handle in handles:
            handle.remove()
        return in_order(task.batches, parts)

    return run


def bergson(task: Task) -> Run:
    """bergson's collector of per-sample LoRA gradients, then the engine's own dot products.

    Raises ImportError where bergson is not installed: it is no dependency of this project.
    """
    quiet_bergson()
    from bergson import (  # pyright: ignore[reportMissingImports]
        CollectorComputer,
        InMemoryCollector,
    )

    probe = LoraUpdate(task.directions)
    probe.attach(task.model, task.state)
    model = peft_copy(task)
    names = {
        n for n, _ in model.named_modules() if n.endswith(("lora_A.default", "lora_B.default"))
    }
    rows, settings = bergson_rows(task.samples)

    def run() -> Tensor:
        collector = InMemoryCollector(model=model, data=rows, cfg=settings, target_modules=names)
        computer = CollectorComputer(
            model, rows, collector=collector, batches=task.batches, cfg=settings
        )
        computer.run_with_collector_hooks()
        found = []
        for m in task.modules:
            gA, gB = (collector.gradients[f"base_model.model.{m}.lora_{k}.default"] for k in "AB")
            lora = task.state[m]
            n, r = len(gA), len(lora.A)
            found.append(products_of(probe, m, lora, gA.view(n, r, -1), gB.view(n, -1, r)))
        return torch.stack(found, -1)

    return run


def quiet_bergson() -> None:
    """No bars, no lines; to be called before bergson is imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.INFO)


def bergson_rows(samples: list[EncodedSample]) -> tuple[Any, Any]:
    """The rows as bergson takes them, and its settings, in a folder that is there."""
    from bergson import IndexConfig  # pyright: ignore[reportMissingImports]
    from datasets import Dataset

    labels = [[-100] * s.prompt_tokens + s.input_ids[s.prompt_tokens :] for s in samples]
    columns = {"input_ids": [s.input_ids for s in samples], "labels": labels}
    rows = Dataset.from_dict({**columns, "length": [len(s.input_ids) for s in samples]})
    settings = IndexConfig(run_path=tempfile.mkdtemp(), loss_reduction="mean")
    settings.partial_run_path.mkdir(parents=True, exist_ok=True)
    return rows, settings


def products_of(probe: LoraUpdate, name: str, lora: LoraWeights, gA: Tensor, gB: Tensor) -> Tensor:
    """Products [n, D] from LoRA gradients gA [n, r, d_in] and gB [n, d_out, r], low-rank."""
    gram_A, gram_B = probe.grams[name]
    gB = gB / lora.scale
    crossed = (lora.B.T @ gB) * (gA @ lora.A.T)
    square = (gA @ gA.mT).flatten(1) @ gram_A + (gB.mT @ gB).flatten(1) @ gram_B
    square += 2 * lora.scale * crossed.sum((1, 2))
    tangent_A, tangent_B = probe.tangents[name]
    product = gA.flatten(1) @ tangent_A.T + gB.mT.flatten(1) @ tangent_B.T
    return product / square.sqrt()[:, None]


def peft_copy(task: Task):
    """The task's model under PEFT with the state as its adapter."""
    first = next(iter(task.state.values()))
    rank = len(first.A)
    targets = sorted({m.rsplit(".", 1)[-1] for m in task.state})
    config = LoraConfig(r=rank, lora_alpha=int(first.scale * rank), target_modules=targets)
    # As fast as PEFT can be: adapters stay in the model's type.
    model = get_peft_model(copy.deepcopy(task.model), config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for m, lora in task.state.items():
            layer = model.get_submodule(f"base_model.model.{m}")
            layer.lora_A["default"].weight.copy_(lora.A)  # pyright: ignore
            layer.lora_B["default"].weight.copy_(lora.B)  # pyright: ignore
    return model.eval()


def dense_direction(task: Task, module: str) -> list[Tensor]:
    """The drift of every direction in a module."""
    loras = [direction[module] for direction in task.directions.values()]
    return [lora.scale * lora.B @ lora.A for lora in loras]


def dense_products(update: Tensor, directions: list[Tensor]) -> Tensor:
    products = [torch.dot(update.flatten(), drift.flatten()) for drift in directions]
    return torch.stack(products) / update.norm()


def padded_loss(model, samples: list[EncodedSample]) -> Tensor:
    """Sum of the samples' mean losses, padded on the right, where causal models see nothing."""
    width = max(len(s.input_ids) for s in samples)
    ids = torch.tensor([s.input_ids + [0] * (width - len(s.input_ids)) for s in samples])
    labels = torch.full_like(ids, -100)
    for i, sample in enumerate(samples):
        end = len(sample.input_ids)
        labels[i, sample.prompt_tokens : end] = ids[i, sample.prompt_tokens : end]
    ids, labels = ids.to(model.device), labels.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    losses = functional.cross_entropy(logits.mT, labels[:, 1:], reduction="none")
    return (losses.sum(1) / (labels[:, 1:] >= 0).sum(1)).sum()
