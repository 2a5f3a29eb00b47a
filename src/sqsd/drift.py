"""Low-rank algebra of adapters: inner products, norms and projections of drifts (Eqs. 2, 6-8)."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sqsd.errors import AGAIN, DataError, ShapeMismatch
from sqsd.states import checkpoints


@dataclass(frozen=True)
class LoraWeights:
    """One module's adapter: A [r, d_in], B [d_out, r], drift `scale * B @ A`."""

    A: Tensor
    B: Tensor
    scale: float

    @property
    def drift_shape(self) -> tuple[int, int]:
        return self.B.shape[0], self.A.shape[1]


Adapter = dict[str, LoraWeights]


def load_adapter(
    folder: str | Path, multiplier: float = 1.0, dtype: torch.dtype = torch.float32
) -> Adapter:
    """A PEFT adapter by module name, its scale lora_alpha / r times `multiplier` (Eq. 5).

    Raises DataError naming the folder where a file of it is missing or cannot be read, or holds
    what is no adapter's, or no finite number.
    """
    try:
        adapter = read_adapter(folder, multiplier, dtype)
    except KeyError as error:
        raise DataError(f"{folder}: no adapter: {error} is missing; {AGAIN}") from error
    except (OSError, ValueError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise DataError(f"{folder}: no adapter that can be read ({error}); {AGAIN}") from error
    for module, weights in adapter.items():
        if not (weights.A.isfinite().all() and weights.B.isfinite().all()):
            raise DataError(f"{folder}: {module} holds what is no finite number; {AGAIN}")
    return adapter


def read_adapter(folder: str | Path, multiplier: float, dtype: torch.dtype) -> Adapter:
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    tensors = load_file(Path(folder) / "adapter_model.safetensors")
    scale = multiplier * config["lora_alpha"] / config["r"]
    suffix = ".lora_A.weight"
    return {
        key.removeprefix("base_model.model.").removesuffix(suffix): LoraWeights(
            tensor.to(dtype), tensors[key.replace("lora_A", "lora_B")].to(dtype), scale
        )
        for key, tensor in sorted(tensors.items())
        if key.endswith(suffix)
    }


def cast(adapter: Adapter, dtype: torch.dtype, device: torch.device) -> Adapter:
    """The same adapter with its weights in `dtype` on `device`."""
    return {
        name: LoraWeights(w.A.to(device, dtype), w.B.to(device, dtype), w.scale)
        for name, w in adapter.items()
    }


def inner_product(a: LoraWeights, b: LoraWeights) -> Tensor:
    """<s_a B_a A_a, s_b B_b A_b>, a float64 scalar, through r x r matrices only.

    Raises ShapeMismatch with both shapes.
    """
    if a.drift_shape != b.drift_shape:
        raise ShapeMismatch(f"drifts of shapes {a.drift_shape} and {b.drift_shape} do not match")
    outer = a.B.double().T @ b.B.double()
    inner = a.A.double() @ b.A.double().T
    return a.scale * b.scale * (outer * inner).sum()


def added(one: Adapter, other: Adapter, multiplier: float) -> Adapter:
    """The drift `one + multiplier * other` as an adapter, whose ranks are those of both together.

    `one` stays as it is to the last digit, so that a small step is no rounding of it. Raises
    ShapeMismatch naming a module that both have in other shapes.
    """
    found = {}
    for name in sorted({*one, *other}):
        parts = [one[name]] if name in one else []
        if name in other:
            weights = other[name]
            parts.append(LoraWeights(weights.A, weights.B, multiplier * weights.scale))
        shapes = [part.drift_shape for part in parts]
        if len(set(shapes)) > 1:
            raise ShapeMismatch(f"{name}: drifts of shapes {shapes[0]} and {shapes[1]}")
        scale = parts[0].scale
        found[name] = LoraWeights(
            torch.cat([part.A for part in parts]),
            torch.cat([part.scale / scale * part.B for part in parts], dim=1),
            scale,
        )
    return found


def module_norms(adapter: Adapter) -> dict[str, float]:
    """Frobenius norm of every module's drift."""
    # Rounding can leave a tiny negative square for a drift that is zero.
    return {m: float(inner_product(w, w).clamp(min=0).sqrt()) for m, w in adapter.items()}


def projection(drift: Adapter, direction: Adapter) -> float:
    """<dtheta, V / |V|> over all modules together (Eqs. 7, 8).

    Raises ShapeMismatch naming the first module that differs.
    """
    for module in sorted(drift.keys() | direction.keys()):
        shapes = [a[module].drift_shape if module in a else None for a in (drift, direction)]
        if shapes[0] != shapes[1]:
            raise ShapeMismatch(f"{module}: the drift is {shapes[0]}, the direction {shapes[1]}")
    products = sum(float(inner_product(drift[m], direction[m])) for m in direction)
    squares = sum(float(inner_product(w, w)) for w in direction.values())
    return products / squares**0.5


def measure_trajectory(pilot: str | Path, direction: str | Path) -> pd.DataFrame:
    """Projection of the drift at every checkpoint on a direction (Eqs. 7, 8), 0 at step 0.

    pilot: folder of its checkpoints; direction: folder of an adapter. The `trajectory` table.
    """
    loaded, saved = load_adapter(direction), checkpoints(pilot)
    if not saved:
        raise DataError(f"{pilot}: no checkpoint in it; {AGAIN}")
    if not any(module_norms(loaded).values()):
        raise DataError(
            f"{direction}: its drift is zero, so nothing points along it; train it again with more "
            "steps or a higher learning_rate"
        )
    rows = [(0, 0.0)]
    for step, folder in saved:
        try:
            rows.append((step, projection(load_adapter(folder), loaded)))
        except ShapeMismatch as error:
            raise ShapeMismatch(
                f"{folder} and {direction}: {error}; they are of different models: delete the one "
                "that is not of this model and run again"
            ) from error
    return pd.DataFrame(rows, columns=pd.Index(["step", "projection"]))
