import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from sqsd.drift import (
    LoraWeights,
    added,
    inner_product,
    load_adapter,
    measure_trajectory,
    module_norms,
    projection,
)
from sqsd.errors import ShapeMismatch
from sqsd.tables import write_table

SHAPES = {"model.layers.0.mlp.up_proj": (5, 4), "model.layers.1.self_attn.o_proj": (3, 6)}


def lora(seed, r, d_out, d_in, scale):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(r, d_in, generator=generator, dtype=torch.float64)
    b = torch.randn(d_out, r, generator=generator, dtype=torch.float64)
    return LoraWeights(a, b, scale)


def dense(w):
    return w.scale * w.B @ w.A


def test_drifts_are_added_as_dense_ones():
    seed = 5
    (first, one), (second, other) = SHAPES.items()
    a = {first: lora(seed, 2, *one, 0.5), second: lora(seed + 1, 3, *other, 2.0)}
    b = {first: lora(seed + 2, 3, *one, 1.5)}
    found = added(a, b, -0.3)
    assert dense(found[first]) == pytest.approx(dense(a[first]) - 0.3 * dense(b[first]))
    # A module that one of them lacks is the other's, times the multiplier where that is its.
    assert dense(found[second]) == pytest.approx(dense(a[second]))
    assert dense(added({}, b, 0.3)[first]) == pytest.approx(0.3 * dense(b[first]))
    assert {name: w.drift_shape for name, w in found.items()} == SHAPES
    wrong = {first: lora(seed, 2, 9, 9, 1.0)}
    with pytest.raises(ShapeMismatch, match=r"up_proj: drifts of shapes \(5, 4\) and \(9, 9\)"):
        added(a, wrong, 1.0)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    ranks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    scales=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_inner_product_equals_the_dense_one(seed, ranks, shape, scales):
    a, b = (lora(seed + i, ranks[i], shape[0], shape[1], scales[i]) for i in (0, 1))
    expected = (dense(a) * dense(b)).sum()
    assert torch.allclose(inner_product(a, b), expected, rtol=1e-10, atol=1e-10)


def test_projection_is_over_all_modules_together():
    drift = {"p": lora(0, 2, 3, 4, 2.0), "q": lora(1, 2, 5, 3, 2.0)}
    v = {"p": lora(2, 2, 3, 4, 1.0), "q": lora(3, 2, 5, 3, 1.0)}
    flat = [torch.cat([dense(x[m]).flatten() for m in ("p", "q")]) for x in (drift, v)]
    assert projection(drift, v) == pytest.approx(float(flat[0] @ flat[1] / flat[1].norm()))
    assert projection(v, v) == pytest.approx(float(flat[1].norm()))
    assert module_norms(v)["q"] == pytest.approx(float(dense(v["q"]).norm()))


def test_shapes_that_differ_are_named():
    with pytest.raises(ShapeMismatch, match=r"p: the drift is \(3, 4\), the direction \(3, 5\)"):
        projection({"p": lora(0, 2, 3, 4, 1.0)}, {"p": lora(0, 2, 3, 5, 1.0)})
    with pytest.raises(ShapeMismatch, match=r"q: the drift is None, the direction \(3, 4\)"):
        projection({"p": lora(0, 2, 3, 4, 1.0)}, {k: lora(0, 2, 3, 4, 1.0) for k in "pq"})
    with pytest.raises(ShapeMismatch, match=r"shapes \(3, 4\) and \(3, 5\)"):
        inner_product(lora(0, 2, 3, 4, 1.0), lora(0, 2, 3, 5, 1.0))


def test_a_loaded_adapter_is_pefts_delta_weight(tmp_path):
    model = get_peft_model(
        nn.ModuleDict({"p": nn.Linear(4, 3, bias=False)}),  # pyright: ignore[reportArgumentType]
        LoraConfig(r=2, lora_alpha=6, target_modules=["p"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path)
    loaded = load_adapter(tmp_path, multiplier=0.5)["p"]
    layer = dict(model.named_modules())["base_model.model.p"]
    expected = 0.5 * layer.get_delta_weight("default").detach()  # pyright: ignore
    assert torch.allclose(loaded.scale * loaded.B @ loaded.A, expected, atol=1e-6)


def write_adapter(folder, seed, r, lora_alpha):
    """An adapter's files as PEFT writes them; returns its whole drift as one float64 vector."""
    generator = torch.Generator().manual_seed(seed)
    tensors, parts = {}, []
    for name, (d_out, d_in) in SHAPES.items():
        a = torch.randn(r, d_in, generator=generator)
        b = torch.randn(d_out, r, generator=generator)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        parts.append((lora_alpha / r * b.double() @ a.double()).flatten())
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"r": r, "lora_alpha": lora_alpha}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return torch.cat(parts)


def test_a_trajectory_is_the_dense_projection_of_every_checkpoint(tmp_path):
    dense = {
        name: write_adapter(tmp_path / name, seed=i, r=2 + i, lora_alpha=5)
        for i, name in enumerate(("danger", "safety"))
    }
    drifts = {0: torch.zeros(5 * 4 + 3 * 6, dtype=torch.float64)}
    for step in (300, 1500, 150):
        folder = tmp_path / f"pilot/checkpoint-{step}"
        drifts[step] = write_adapter(folder, seed=step, r=3, lora_alpha=2)
    # The run's last adapter, beside its checkpoints, is no point of the trajectory.
    (tmp_path / "pilot/adapter_config.json").write_text("{}")
    for name, direction in dense.items():
        table = measure_trajectory(tmp_path / "pilot", tmp_path / name)
        write_table(table, tmp_path / "trajectory.parquet", "trajectory", {})
        assert table["step"].tolist() == [0, 150, 300, 1500]
        length = math.sqrt(direction @ direction)
        expected = [float(drifts[s] @ direction) / length for s in table["step"]]
        assert table["projection"].tolist() == pytest.approx(expected, abs=1e-10)


def test_a_direction_projects_on_itself_with_its_length(tmp_path):
    v = write_adapter(tmp_path / "pilot/checkpoint-10", seed=1, r=2, lora_alpha=4)
    table = measure_trajectory(tmp_path / "pilot", tmp_path / "pilot/checkpoint-10")
    assert table["projection"].tolist() == pytest.approx([0, float(v.norm())])
