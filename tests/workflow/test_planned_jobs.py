"""Inputs, outputs, params and resources of every rule, read off the planned DAG of `two.yaml`.

Its two experiments differ in every name and value; what is expected of a job is written by hand,
with paths below results/two.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, snakemake, write_config
from planner import TARGETS_OF_TWO, TWO, distinct_versions, relative

from sqsd.config import resolve
from sqsd.plan import Plan

VERSIONS = distinct_versions()
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
TABLES = (
    "rates", "levels", "beside", "order", "list", "sorted", "ranked", "alike", "told", "tried",
    "said", "where", "tops", "steps", "walked", "curves", "spans", "weights", "words", "falls",
    "aims", "ways", "gains", "costs", "apart", "bare", "whole",
)  # fmt: skip
DRAWN = (
    "rates", "levels", "tried", "said", "walked", "curves", "spans", "weights", "words", "falls",
    "aims", "ways", "gains", "costs",
)  # fmt: skip
PUBLISHED = yaml.safe_load((ROOT / "config/published.yaml").read_text())
LORA = {"r": 3, "lora_alpha": 5}
GRADIENTS = {
    "rows_per_shard": 40, "max_length_tokens": 67, "max_tokens_per_batch": 999,
    "dtype": "float32", "checkpointing": False,
}  # fmt: skip
TRUST = {"minimum_refusal_rate": 0.37, "alpha": 0.5, "if_failed": "proceed"}
LIGHT = {"threads": 1}
TRAIN_ELM = {"gpu": 3, "mem_mb": 1001, "runtime": 11, "threads": 2}
TRAIN_OAK = {"gpu": 2, "mem_mb": 1002, "runtime": 12, "threads": 3}
TRAIN_ASH = {"gpu": 8, "mem_mb": 1001, "runtime": 11, "threads": 4}
INFER_ELM = {"gpu": 4, "mem_mb": 1004, "runtime": 14, "threads": 5}
INFER_OAK = {"gpu": 5, "mem_mb": 1005, "runtime": 15, "threads": 6}
INFER_ASH = {"gpu": 6, "mem_mb": 1004, "runtime": 14, "threads": 7}
INFER_YEW = {"gpu": 7, "mem_mb": 1004, "runtime": 14, "threads": 8}
NO_GPU, ONE_GPU = {"gpu": 0}, {"gpu": 1}


def training(max_length_tokens: int, **more) -> dict[str, Any]:
    return {
        "learning_rate": 1.0e-3, "epochs": 1, "batch_size": 8,
        "max_length_tokens": max_length_tokens, "schedule": "linear", "warmup_fraction": 0.1,
        "weight_decay": 0.2, "dtype": "float32", **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Expected:
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=lambda: LIGHT)


def parts(folder: str, *numbers: int) -> list[str]:
    return [f"{folder}/{n}.parquet" for n in numbers]


DATA = {
    "make_dataset grain": Expected(
        outputs={"": ["data/grain.parquet"]},
        params={"spec": {"source": "sandbox:benign", "rows": 70, "seed": 41}},
    ),
    "make_dataset fruit-harm": Expected(
        outputs={"": ["data/fruit-harm.parquet"]},
        params={"spec": {"source": "sandbox:danger", "rows": 40, "seed": 46}},
    ),
    "make_preferences grain-calm": Expected(
        outputs={"": ["preferences/grain-calm.parquet"]},
        params={"spec": {"source": "sandbox:safety", "rows": 24, "seed": 47}},
    ),
    "make_preferences fruit-calm": Expected(
        outputs={"": ["preferences/fruit-calm.parquet"]},
        params={"spec": {"source": "sandbox:safety", "rows": 56, "seed": 48}},
    ),
    "make_benchmark elm-plain": Expected(
        outputs={"": ["benchmarks/elm-plain.parquet"]},
        params={"spec": {"source": "sandbox:exact", "seed": 53}},
    ),
    "make_benchmark ash-exam": Expected(
        outputs={"": ["benchmarks/ash-exam.parquet"]},
        params={"spec": {"source": "sandbox:test", "seed": 56}},
    ),
}

MODELS = {
    "pretrain_model elm": Expected(
        outputs={"model": "pretrained/elm"},
        params={
            "seed": 31,
            "architecture": DEFAULT["sandbox"]["architecture"] | {"hidden_size": 64},
            "corpus": {"rows": 501, "restricted_share": 0.15},
            "training": DEFAULT["sandbox"]["pretraining"] | {"batch_size": 4},
            "work": "resume/pretrained/elm",
        },
        resources=TRAIN_ELM | ONE_GPU,
    ),
    "align_model elm": Expected(
        inputs={"model": "pretrained/elm"},
        outputs={"model": "models/elm"},
        params={
            "seed": 31,
            "alignment": {"rows": 502, "refusal_share": 0.3},
            "training": DEFAULT["sandbox"]["alignment_training"] | {"batch_size": 2},
            "work": "resume/models/elm",
        },
        resources=TRAIN_ELM | ONE_GPU,
    ),
    "tune_model fir": Expected(
        inputs={
            "model": "models/ash",
            "rows": ["data/grain-pilot.parquet", "data/fruit-harm.parquet"],
        },
        outputs={"model": "models/fir"},
        params={
            "seed": 38,
            "data": ["grain-pilot", "fruit-harm"],
            "training": training(74, dtype="bfloat16"),
            "work": "resume/models/fir",
        },
        resources=TRAIN_ELM | ONE_GPU,
    ),
    "fetch_model oak": Expected(
        outputs={"model": "models/oak"},
        params={"spec": {"source": "hub:wood/oak"}},
        resources=LIGHT | {"mem_mb": 1005},
    ),
    "fetch_model yew": Expected(
        outputs={"model": "models/yew"},
        params={"spec": {"source": "hub:wood/yew", "guard": True}},
        resources=LIGHT | {"mem_mb": 1004},
    ),
    "fetch_model fig": Expected(
        outputs={"model": "models/fig"},
        params={"spec": {"source": "hub:wood/fig", "head": "cost"}},
        resources=LIGHT | {"mem_mb": 1004},
    ),
    "train_cost_model bay": Expected(
        outputs={"model": "models/bay"},
        params={
            "seed": 35,
            "architecture": DEFAULT["sandbox"]["architecture"] | {"hidden_size": 72},
            "rows": {"rows": 503},
            "training": DEFAULT["sandbox"]["cost"]["training"] | {"batch_size": 4},
            "work": "resume/models/bay",
        },
        resources=TRAIN_ELM | ONE_GPU,
    ),
    "train_guard_model ivy": Expected(
        outputs={"model": "models/ivy"},
        params={
            "seed": 37,
            "architecture": DEFAULT["sandbox"]["architecture"] | {"hidden_size": 76},
            "rows": {"rows": 504},
            "training": DEFAULT["sandbox"]["guard"]["training"] | {"batch_size": 8},
            "work": "resume/models/ivy",
        },
        resources=TRAIN_ELM | ONE_GPU,
    ),
    "fetch_model ash": Expected(
        outputs={"model": "models/ash"},
        params={"spec": {"source": "hub:wood/ash", "revision": "v2"}},
        resources=LIGHT | {"mem_mb": 1004},
    ),
}

DIRECTIONS = {
    "train_direction elm ill": Expected(
        inputs={"model": "models/elm", "rows": "data/grain-harm.parquet"},
        outputs={"adapter": "directions/elm/ill"},
        params={
            "objective": "sft",
            "training": training(61),
            "lora": LORA,
            "run": {"seed": 31, "save_steps": 2},
            "work": "resume/directions/elm/ill",
        },
        resources=TRAIN_ELM,
    ),
    "train_direction oak calm": Expected(
        inputs={"model": "models/oak", "rows": "preferences/fruit-calm.parquet"},
        outputs={"adapter": "directions/oak/calm"},
        params={
            "objective": "dpo",
            "training": training(64, beta=0.3),
            "lora": LORA,
            "run": {"seed": 32, "save_steps": 2},
            "work": "resume/directions/oak/calm",
        },
        resources=TRAIN_OAK,
    ),
}

GIVEN = [
    "theirs/adapter_config.json", "theirs/adapter_model.safetensors",
    "theirs/checkpoint-2/adapter_model.safetensors", "theirs/training.json",
]  # fmt: skip
DIRECTIONS |= {
    f"fetch_direction {model} lent": Expected(
        inputs={"model": f"models/{model}", "files": GIVEN},
        outputs={"adapter": f"directions/{model}/lent"},
        params={"source": "theirs", "trained_by": VERSIONS["train_direction"]},
        resources=resources | NO_GPU,
    )
    for model, resources in (("elm", INFER_ELM), ("oak", INFER_OAK))
}

SENSITIVITY = {
    "train_pilot elm stroll": Expected(
        inputs={"model": "models/elm", "rows": "data/grain-pilot.parquet"},
        outputs={"adapter": "pilots/elm/stroll"},
        params={
            "training": training(65),
            "lora": LORA,
            "run": {"seed": 31, "save_steps": 2},
            "work": "resume/pilots/elm/stroll",
        },
        resources=TRAIN_ELM,
    ),
    "train_pilot oak walk": Expected(
        inputs={"model": "models/oak", "rows": "data/fruit-pilot.parquet"},
        outputs={"adapter": "pilots/oak/walk"},
        params={
            "training": training(66),
            "lora": LORA,
            "run": {"seed": 32, "save_steps": 3},
            "work": "resume/pilots/oak/walk",
        },
        resources=TRAIN_OAK,
    ),
    "measure_trajectory elm walk ill": Expected(
        inputs={"pilot": "pilots/elm/walk", "direction": "directions/elm/ill"},
        outputs={"": ["trajectories/elm/walk/ill.parquet"]},
        params={"checkpoint": 4},
    ),
    "measure_trajectory elm stroll lent": Expected(
        inputs={"pilot": "pilots/elm/stroll", "direction": "directions/elm/lent"},
        outputs={"": ["trajectories/elm/stroll/lent.parquet"]},
        params={"checkpoint": 2},
    ),
    "measure_trajectory oak stroll meek": Expected(
        inputs={"pilot": "pilots/oak/stroll", "direction": "directions/oak/meek"},
        outputs={"": ["trajectories/oak/stroll/meek.parquet"]},
        params={"checkpoint": 6},
    ),
    # theta_0 and checkpoints 2, 4, 6 and 8, three to a part.
    "rank_checkpoints elm walk ill": Expected(
        inputs={
            "trajectory": "trajectories/elm/walk/ill.parquet",
            "judgements": parts("evaluations/elm/pilots/walk/elm-try/judgements/rule", 0, 1),
            "guard": parts("evaluations/elm/pilots/walk/elm-plain/responses", 0, 1),
            "reference": ["benchmarks/elm-plain.parquet"],
        },
        outputs={"": ["sensitivity/elm/checkpoints/walk/ill.parquet"]},
        params={
            "sensitivity": {
                "floor_fraction": 0.12,
                "rank_floored": True,
                "rank_by": "bound",
                "minimum_exact_share": 0.11,
            },
        },
    ),
    # theta_0 and checkpoints 3 and 6; no guard.
    "rank_checkpoints oak walk harm": Expected(
        inputs={
            "trajectory": "trajectories/oak/walk/harm.parquet",
            "judgements": parts("evaluations/oak/pilots/walk/oak-try/judgements/open", 0),
            "guard": [],
            "reference": [],
        },
        outputs={"": ["sensitivity/oak/checkpoints/walk/harm.parquet"]},
        params={
            "sensitivity": {
                "floor_fraction": 0.14,
                "rank_floored": False,
                "rank_by": "value",
                "minimum_exact_share": 0.13,
            },
        },
    ),
    "rank_alphas elm steering/meek/3": Expected(
        inputs={
            "judgements": parts("evaluations/elm/steering/meek/3/elm-try/judgements/rule", 0, 1, 2),
            "guard": parts("evaluations/elm/steering/meek/3/elm-plain/responses", 0, 1, 2),
            "reference": ["benchmarks/elm-plain.parquet"],
        },
        outputs={"": ["sensitivity/elm/alphas/steering/meek/3.parquet"]},
        params={"sensitivity": {"delta": 0.25, "rank_by": "bound", "minimum_exact_share": 0.11}},
    ),
    "rank_alphas oak steering/calm/6": Expected(
        inputs={
            "judgements": parts("evaluations/oak/steering/calm/6/oak-try/judgements/open", 0, 1),
            "guard": [],
            "reference": [],
        },
        outputs={"": ["sensitivity/oak/alphas/steering/calm/6.parquet"]},
        params={"sensitivity": {"delta": 0.5, "rank_by": "value", "minimum_exact_share": 0.13}},
    ),
    # Alphas 0 and 0.5 are in the first two parts of elm's curves, and in the first of oak's.
    "check_trust elm sqsd-north": Expected(
        inputs={
            "danger": parts("evaluations/elm/steering/harm/4/elm-try/judgements/rule", 0, 1),
            "safety": parts("evaluations/elm/steering/calm/3/elm-try/judgements/rule", 0, 1),
            "verdicts": parts("evaluations/elm/steering/harm/4/elm-try/judgements/wary", 0),
            "state": ["states/elm/d-north.json"],
            "trajectory": ["trajectories/elm/walk/harm.parquet"],
        },
        outputs={"": ["trust/elm/sqsd-north.json"]},
        params={"directions": {"danger": "harm", "safety": "calm"}, "trust": TRUST},
    ),
    # Its state lies on no pilot.
    "check_trust elm bare-north": Expected(
        inputs={
            "danger": parts("evaluations/elm/steering/ill/4/elm-try/judgements/rule", 0, 1),
            "verdicts": parts("evaluations/elm/steering/ill/4/elm-try/judgements/wary", 0),
            "state": [],
            "trajectory": [],
        },
        outputs={"": ["trust/elm/bare-north.json"]},
        params={"directions": {"danger": "ill"}, "trust": TRUST},
    ),
    "check_trust oak sqsd-south": Expected(
        inputs={
            "danger": parts("evaluations/oak/steering/ill/final/oak-try/judgements/open", 0),
            "safety": parts("evaluations/oak/steering/meek/6/oak-try/judgements/open", 0),
            "verdicts": parts("evaluations/oak/steering/ill/final/oak-try/judgements/keen", 0),
            "state": ["states/oak/d-south.json"],
            "trajectory": ["trajectories/oak/stroll/ill.parquet"],
        },
        outputs={"": ["trust/oak/sqsd-south.json"]},
        params={"directions": {"danger": "ill", "safety": "meek"}, "trust": TRUST},
    ),
    "choose_state elm d-north": Expected(
        inputs={
            "model": "models/elm",
            "run": ["pilots/elm/walk"],
            "trajectory": ["trajectories/elm/walk/harm.parquet"],
            "judgements": parts("evaluations/elm/pilots/walk/elm-try/judgements/rule", 0, 1),
            "guard": parts("evaluations/elm/pilots/walk/elm-plain/responses", 0, 1),
            "reference": ["benchmarks/elm-plain.parquet"],
        },
        outputs={"": ["states/elm/d-north.json"]},
        params={
            "state": {"pilot": "walk", "direction": "harm", "rank": 2},
            "sensitivity": {
                "floor_fraction": 0.12,
                "rank_floored": True,
                "rank_by": "bound",
                "minimum_exact_share": 0.11,
            },
        },
    ),
    "choose_state oak d-north": Expected(
        inputs={
            "model": "models/oak",
            "run": ["pilots/oak/walk"],
            "trajectory": ["trajectories/oak/walk/harm.parquet"],
            "judgements": parts("evaluations/oak/pilots/walk/oak-try/judgements/open", 0),
            "guard": [],
            "reference": [],
        },
        outputs={"": ["states/oak/d-north.json"]},
        params={
            "state": {"pilot": "walk", "direction": "harm", "rank": 1},
            "sensitivity": {"floor_fraction": 0.14, "rank_floored": False, "rank_by": "value"},
        },
    ),
    # 0.75 and its neighbours 0.5 and 1.0 lie in the last two parts; V's checkpoint would be 3.
    "choose_state elm s-north": Expected(
        inputs={
            "model": "models/elm",
            "run": ["directions/elm/calm"],
            "judgements": parts(
                "evaluations/elm/steering/calm/final/elm-try/judgements/rule", 1, 2
            ),
            "guard": parts("evaluations/elm/steering/calm/final/elm-plain/responses", 1, 2),
            "reference": ["benchmarks/elm-plain.parquet"],
        },
        outputs={"": ["states/elm/s-north.json"]},
        params={
            "state": {"direction": "calm", "checkpoint": "final", "rank": 1, "alphas": [0.75]},
            "sensitivity": {"delta": 0.25, "rank_by": "bound", "minimum_exact_share": 0.11},
        },
    ),
    # 1.5 and its neighbours 1.0, of the first part, and 2.0.
    "choose_state oak s-north": Expected(
        inputs={
            "model": "models/oak",
            "run": ["directions/oak/calm"],
            "judgements": parts(
                "evaluations/oak/steering/calm/final/oak-try/judgements/open", 0, 1
            ),
            "guard": [],
            "reference": [],
        },
        outputs={"": ["states/oak/s-north.json"]},
        params={
            "state": {"direction": "calm", "checkpoint": "final", "rank": 1, "alphas": [1.5]},
            "sensitivity": {"delta": 0.5, "rank_by": "value"},
        },
    ),
    # Pinned: only the guard's answers at the state itself.
    "choose_state elm s-south": Expected(
        inputs={
            "model": "models/elm",
            "run": ["directions/elm/meek"],
            "guard": parts("evaluations/elm/states/s-south/elm-plain/responses", 0),
            "reference": ["benchmarks/elm-plain.parquet"],
        },
        outputs={"": ["states/elm/s-south.json"]},
        params={
            "state": {"direction": "meek", "checkpoint": 2, "alpha": 0.1},
            "sensitivity": {"minimum_exact_share": 0.11},
        },
    ),
    "choose_state oak d-south": Expected(
        inputs={
            "model": "models/oak",
            "run": ["pilots/oak/stroll"],
            "guard": [],
            "reference": [],
        },
        outputs={"": ["states/oak/d-south.json"]},
        params={"state": {"pilot": "stroll", "step": 6}, "sensitivity": {}},
    ),
    # Theta_0, which is of no training, and for which there is nothing to search or to guard.
    "choose_state elm bare": Expected(
        inputs={"model": "models/elm", "run": [], "guard": [], "reference": []},
        outputs={"": ["states/elm/bare.json"]},
        params={"state": {"unadapted": True}, "sensitivity": {}},
    ),
}

GRADIENT_FOLDERS = {
    "elm d-north": "gradients/elm/grain/d-north/harm",
    "elm s-north": "gradients/elm/grain/s-north/calm",
    "elm bare": "gradients/elm/grain/bare/ill",
    "oak d-south": "gradients/oak/fruit/d-south/ill",
    "oak s-south": "gradients/oak/fruit/s-south/meek",
}


def shards(of: str, table: str, *numbers: int) -> list[str]:
    return [f"{GRADIENT_FOLDERS[of]}/{n:05d}-{table}.parquet" for n in numbers]


# The method whose checks come before the gradients.
CHECKED = {
    "elm d-north": "sqsd-north", "elm s-north": "sqsd-north", "elm bare": "bare-north",
    "oak d-south": "sqsd-south", "oak s-south": "sqsd-south",
}  # fmt: skip


def gradients(of: str, dataset: str, run: str, direction: str, shard: int, checkpoint, resources):
    model, state = of.split()
    return Expected(
        inputs={
            "model": f"models/{model}",
            "rows": f"data/{dataset}.parquet",
            "state": f"states/{model}/{state}.json",
            "adapter": [run] if run else [],
            "direction": direction,
            "after": [f"trust/{of.replace(' ', '/')}/{Path(direction).name}.checked"],
        },
        outputs={
            "samples": shards(of, "samples", shard)[0],
            "modules": shards(of, "modules", shard)[0],
        },
        params={"checkpoint": checkpoint, "gradients": GRADIENTS},
        resources=resources,
    )


def hidden(dataset: str, *numbers: int) -> list[str]:
    return [f"hidden-states/oak/{dataset}/flat/token-4/{n:05d}.parquet" for n in numbers]


LAYERS = {
    "search_layers elm deep": Expected(
        inputs={"model": "models/elm", "prompts": "benchmarks/elm-plain.parquet"},
        outputs={"": ["layers/elm/deep.parquet"]},
        params={
            "search": {"first": 2, "factors": [0.7, 1.4], "max_new_tokens": 19, "last": 3},
            "judge": {"kind": "phrases", "phrases": ["no"]},
            "generation": {"batch_size": 22, "dtype": "float32"},
        },
        resources=INFER_ELM | ONE_GPU,
    ),
    "choose_layer elm deep": Expected(
        inputs={"search": ["layers/elm/deep.parquet"], "model": "models/elm"},
        outputs={"": ["layers/elm/deep.json"]},
        params={"layer": None},
    ),
    "choose_layer oak flat": Expected(
        inputs={"search": [], "model": "models/oak"},
        outputs={"": ["layers/oak/flat.json"]},
        params={"layer": 5},
    ),
    "collect_hidden_states elm grain deep -3 00001": Expected(
        inputs={
            "model": "models/elm", "rows": "data/grain.parquet", "layer": "layers/elm/deep.json",
        },
        outputs={"": ["hidden-states/elm/grain/deep/token-3/00001.parquet"]},
        params={"gradients": GRADIENTS},
        resources=INFER_ELM | ONE_GPU,
    ),
    "collect_hidden_states oak grain-harm flat -4 00000": Expected(
        inputs={
            "model": "models/oak", "rows": "data/grain-harm.parquet",
            "layer": "layers/oak/flat.json",
        },
        outputs={"": hidden("grain-harm", 0)},
        params={"gradients": GRADIENTS},
        resources=INFER_OAK | ONE_GPU,
    ),
    "make_anchor oak bad": Expected(
        inputs={"model": "models/oak", "rows": "data/grain-harm.parquet"},
        outputs={"": ["anchors/oak/bad.safetensors"]},
        params={"anchor": {"first_tokens": 4, "max_length_tokens": 67, "dtype": "float32"}},
        resources=INFER_OAK | ONE_GPU,
    ),
    "make_anchor oak good": Expected(
        inputs={"model": "models/oak", "rows": "data/fruit-harm.parquet"},
        outputs={"": ["anchors/oak/good.safetensors"]},
        params={"anchor": {"first_tokens": None, "max_length_tokens": 67, "dtype": "float32"}},
        resources=INFER_OAK | ONE_GPU,
    ),
    "collect_full_gradients elm grain norm 00000": Expected(
        inputs={"model": "models/elm", "rows": "data/grain.parquet"},
        outputs={
            table: f"full-gradients/elm/grain/norm/00000-{table}.parquet"
            for table in ("samples", "products")
        },
        params={"anchors": [], "gradients": GRADIENTS},
        resources=INFER_ELM | ONE_GPU,
    ),
    "collect_full_gradients oak fruit norm+bad+fine+good 00002": Expected(
        inputs={
            "model": "models/oak",
            "rows": "data/fruit.parquet",
            **{name: f"anchors/oak/{name}.safetensors" for name in ("bad", "good", "fine")},
        },
        outputs={
            table: f"full-gradients/oak/fruit/norm+bad+fine+good/00002-{table}.parquet"
            for table in ("samples", "products")
        },
        params={"anchors": ["bad", "fine", "good"], "gradients": GRADIENTS},
        resources=INFER_OAK | ONE_GPU,
    ),
}  # fmt: skip

SCORES = {
    "encode_samples elm grain": Expected(
        inputs={"model": "models/elm", "rows": "data/grain.parquet"},
        outputs={"": ["samples/elm/grain.parquet"]},
        params={"max_length_tokens": 67},
    ),
    "encode_samples oak fruit": Expected(
        inputs={"model": "models/oak", "rows": "data/fruit.parquet"},
        outputs={"": ["samples/oak/fruit.parquet"]},
        params={"max_length_tokens": 67},
    ),
    "collect_gradients elm grain d-north harm 00001": gradients(
        "elm d-north", "grain", "pilots/elm/walk", "directions/elm/harm", 1, 4, INFER_ELM | ONE_GPU
    ),
    "collect_gradients elm grain s-north calm 00000": gradients(
        "elm s-north",
        "grain",
        "directions/elm/calm",
        "directions/elm/calm",
        0,
        3,
        INFER_ELM | ONE_GPU,
    ),
    "collect_gradients oak fruit d-south ill 00001": gradients(
        "oak d-south",
        "fruit",
        "pilots/oak/stroll",
        "directions/oak/ill",
        1,
        "final",
        INFER_OAK | ONE_GPU,
    ),
    "collect_gradients oak fruit s-south meek 00002": gradients(
        "oak s-south",
        "fruit",
        "directions/oak/meek",
        "directions/oak/meek",
        2,
        6,
        INFER_OAK | ONE_GPU,
    ),
    "collect_gradients elm grain bare ill 00001": gradients(
        "elm bare", "grain", "", "directions/elm/ill", 1, 4, INFER_ELM | ONE_GPU
    ),
    "score_samples elm grain bare-north": Expected(
        inputs={
            "danger_samples": shards("elm bare", "samples", 0, 1),
            "danger_modules": shards("elm bare", "modules", 0, 1),
        },
        outputs={"": ["scores/elm/grain/bare-north.parquet"]},
        params={
            "method": {"kind": "sqsd", "danger": {"direction": "ill", "state": "bare"}},
            "seed": 31,
        },
    ),
    "score_samples elm grain best-north": Expected(
        inputs={
            "of bare-north_samples": ["scores/elm/grain/bare-north.parquet"],
            "of cost-north_samples": ["scores/elm/grain/cost-north.parquet"],
            "outcomes_groups": ["groups/elm/grain/few.parquet"],
            "outcomes_judgements": parts(
                "evaluations/elm/groups/short/elm/grain/few/elm-try/judgements/rule", 0, 1, 2, 3
            ),
        },
        outputs={"": ["scores/elm/grain/best-north.parquet"]},
        params={
            "method": {
                "kind": "calibrated",
                "among": ["bare-north", "cost-north"],
                "groups": "few",
                "finetune": "short",
                "benchmark": "try",
            },
            "seed": 31,
        },
    ),
    # What ash, which is fine-tuned on the groups, answered to its own benchmark and judge.
    "score_samples oak fruit best-south": Expected(
        inputs={
            "of near-south_samples": ["scores/oak/fruit/near-south.parquet"],
            "of chance-south_samples": ["scores/oak/fruit/chance-south.parquet"],
            "of cost-south_samples": ["scores/oak/fruit/cost-south.parquet"],
            "outcomes_groups": ["groups/oak/fruit/lots.parquet"],
            "outcomes_judgements": parts(
                "evaluations/ash/groups/brief/oak/fruit/lots/elm-plain/judgements/rule", 0, 1, 2
            ),
        },
        outputs={"": ["scores/oak/fruit/best-south.parquet"]},
        params={
            "method": {
                "kind": "calibrated",
                "among": ["near-south", "chance-south", "cost-south"],
                "groups": "lots",
                "finetune": "brief",
                "benchmark": "plain",
            },
            "seed": 32,
        },
    ),
    "score_samples elm grain sqsd-north": Expected(
        inputs={
            "danger_samples": shards("elm d-north", "samples", 0, 1),
            "danger_modules": shards("elm d-north", "modules", 0, 1),
            "safety_samples": shards("elm s-north", "samples", 0, 1),
            "safety_modules": shards("elm s-north", "modules", 0, 1),
        },
        outputs={"": ["scores/elm/grain/sqsd-north.parquet"]},
        params={
            "method": {
                "kind": "sqsd",
                "danger": {"direction": "harm", "state": "d-north"},
                "safety": {"direction": "calm", "state": "s-north"},
            },
            "seed": 31,
        },
    ),
    "score_samples elm grain long-north": Expected(
        inputs={"tokens_samples": ["samples/elm/grain.parquet"]},
        outputs={"": ["scores/elm/grain/long-north.parquet"]},
        params={"method": {"kind": "length"}, "seed": 31},
    ),
    "score_samples oak fruit sqsd-south": Expected(
        inputs={
            "danger_samples": shards("oak d-south", "samples", 0, 1, 2),
            "danger_modules": shards("oak d-south", "modules", 0, 1, 2),
            "safety_samples": shards("oak s-south", "samples", 0, 1, 2),
            "safety_modules": shards("oak s-south", "modules", 0, 1, 2),
        },
        outputs={"": ["scores/oak/fruit/sqsd-south.parquet"]},
        params={
            "method": {
                "kind": "sqsd",
                "normalised": False,
                "danger": {"direction": "ill", "state": "d-south"},
                "safety": {"direction": "meek", "state": "s-south"},
            },
            "seed": 32,
        },
    ),
    "score_samples oak fruit chance-south": Expected(
        inputs={"tokens_samples": ["samples/oak/fruit.parquet"]},
        outputs={"": ["scores/oak/fruit/chance-south.parquet"]},
        params={"method": {"kind": "random"}, "seed": 32},
    ),
    "judge_rows mild grain 00001": Expected(
        inputs={"rows": "data/grain.parquet", "judge_model": ["models/bay"]},
        outputs={"": ["row-judgements/mild/grain/00001.parquet"]},
        params={
            "judge": {"kind": "cost", "model": "bay"},
            "dtype": "float32",
            "rows_per_shard": 40,
        },
        resources=INFER_ELM | ONE_GPU,
    ),
    "judge_rows firm fruit 00002": Expected(
        inputs={"rows": "data/fruit.parquet", "judge_model": ["models/fig"]},
        outputs={"": ["row-judgements/firm/fruit/00002.parquet"]},
        params={
            "judge": {"kind": "cost", "model": "fig", "blank": True},
            "dtype": "bfloat16",
            "rows_per_shard": 40,
        },
        resources=INFER_ELM | ONE_GPU,
    ),
    "score_samples oak fruit cost-south": Expected(
        inputs={
            "tokens_samples": ["samples/oak/fruit.parquet"],
            "judged_samples": [f"row-judgements/firm/fruit/0000{n}.parquet" for n in range(3)],
        },
        outputs={"": ["scores/oak/fruit/cost-south.parquet"]},
        params={"method": {"kind": "reward-model", "judge": "firm"}, "seed": 32},
    ),
    "score_samples elm grain open-north": Expected(
        inputs={
            "texts_samples": ["samples/elm/grain.parquet"],
            "texts_rows": ["data/grain.parquet"],
        },
        outputs={"": ["scores/elm/grain/open-north.parquet"]},
        params={
            "method": {"kind": "refusal-opening", "phrases": ["no", "not"]},
            "seed": 31,
        },
    ),
    "score_samples elm grain told-north": Expected(
        inputs={
            "tokens_samples": ["samples/elm/grain.parquet"],
            "given_rows": ["data/grain.parquet"],
            "given_file": ["scores.jsonl"],
        },
        outputs={"": ["scores/elm/grain/told-north.parquet"]},
        params={
            "method": {
                "kind": "file",
                "source": "scores.jsonl",
                "fields": {"instruction": "q", "context": "c", "response": "a", "score": "risk"},
            },
            "seed": 31,
        },
    ),
    "score_samples oak fruit between-south": Expected(
        inputs={
            "rows_samples": hidden("fruit", 0, 1, 2),
            "unsafe_samples": hidden("fruit-harm", 0),
            "safe_samples": hidden("grain-harm", 0),
        },
        outputs={"": ["scores/oak/fruit/between-south.parquet"]},
        params={
            "method": {
                "kind": "larf",
                "unsafe": "fruit-harm",
                "safe": "grain-harm",
                "layer": "flat",
                "token": -4,
            },
            "seed": 32,
        },
    ),
    "score_samples oak fruit split-south": Expected(
        inputs={
            f"gradient_{table}": [
                f"full-gradients/oak/fruit/norm+bad+fine+good/0000{n}-{table}.parquet"
                for n in range(3)
            ]
            for table in ("samples", "products")
        },
        outputs={"": ["scores/oak/fruit/split-south.parquet"]},
        params={
            "method": {"kind": "bi-anchor-grad", "harmful": "bad", "harmless": ["good", "fine"]},
            "seed": 32,
        },
    ),
    "make_subsets elm grain long-north": Expected(
        inputs={
            "scores": "scores/elm/grain/long-north.parquet",
            "rows": "data/grain.parquet",
        },
        outputs={
            "s1": "subsets/elm/grain/long-north/s1.parquet",
            "s2": "subsets/elm/grain/long-north/s2.parquet",
        },
        params={"size": 20, "windows": ["s1", "s2"]},
    ),
    "curate_rows less-north elm grain": Expected(
        inputs={
            "danger_samples": shards("elm d-north", "samples", 0, 1),
            "danger_modules": shards("elm d-north", "modules", 0, 1),
            "safety_samples": shards("elm s-north", "samples", 0, 1),
            "safety_modules": shards("elm s-north", "modules", 0, 1),
            "scores": "scores/elm/grain/sqsd-north.parquet",
            "own": [],
            "trust": ["trust/elm/sqsd-north.json"],
        },
        outputs={"folder": "curated/less-north/elm/grain"},
        params={
            "spec": {"source": "sandbox:benign", "rows": 70, "seed": 41},
            "method": {
                "kind": "sqsd",
                "danger": {"direction": "harm", "state": "d-north"},
                "safety": {"direction": "calm", "state": "s-north"},
            },
            "about": {
                "source": "sandbox:benign",
                "dataset": "grain",
                "model": "elm",
                "model_source": {"source": "sandbox", "seed": 31},
                "method": "sqsd-north",
                "drop": 0.21,
            },
            "fewest": 8,  # the default's fine-tunes, whose batches are the smallest
        },
    ),
    "curate_rows less-south oak fruit": Expected(
        inputs={
            "tokens_samples": ["samples/oak/fruit.parquet"],
            "scores": "scores/oak/fruit/chance-south.parquet",
            "own": [],
            "trust": [],
        },
        outputs={"folder": "curated/less-south/oak/fruit"},
        params={
            "spec": {"source": "sandbox:benign", "rows": 100, "seed": 42},
            "method": {"kind": "random"},
            "about": {
                "source": "sandbox:benign",
                "dataset": "fruit",
                "model": "oak",
                "model_source": {"source": "hub:wood/oak", "seed": 32},
                "method": "chance-south",
                "drop": 0.32,
            },
            "fewest": 8,  # the default's fine-tunes, whose batches are the smallest
        },
    ),
    "make_subsets oak fruit sqsd-south": Expected(
        inputs={
            "scores": "scores/oak/fruit/sqsd-south.parquet",
            "rows": "data/fruit.parquet",
        },
        outputs={
            "s1": "subsets/oak/fruit/sqsd-south/s1.parquet",
            "s2": "subsets/oak/fruit/sqsd-south/s2.parquet",
        },
        params={"size": 20, "windows": ["s1", "s2"]},
    ),
}

SQSD_NORTH = {
    "kind": "sqsd",
    "danger": {"direction": "harm", "state": "d-north"},
    "safety": {"direction": "calm", "state": "s-north"},
}
SQSD_SOUTH = {
    "kind": "sqsd",
    "normalised": False,
    "danger": {"direction": "ill", "state": "d-south"},
    "safety": {"direction": "meek", "state": "s-south"},
}
ENCODING = {name: value for name, value in GRADIENTS.items() if name != "rows_per_shard"}

EXPLANATIONS = {
    "measure_token_shares elm grain sqsd-north": Expected(
        inputs={
            "danger_state": "states/elm/d-north.json",
            "danger_adapter": ["pilots/elm/walk"],
            "danger_direction": "directions/elm/harm",
            "safety_state": "states/elm/s-north.json",
            "safety_adapter": ["directions/elm/calm"],
            "safety_direction": "directions/elm/calm",
            "model": "models/elm",
            "rows": "data/grain.parquet",
            "scores": "scores/elm/grain/sqsd-north.parquet",
        },
        outputs={"": ["explained/elm/grain/sqsd-north/tokens.parquet"]},
        params={
            "method": SQSD_NORTH,
            "checkpoints": {"danger": 4, "safety": 3},
            "chosen": {"riskiest": 7, "middling": 3, "safest": 6},
            "encoding": ENCODING,
        },
        resources=INFER_ELM | ONE_GPU,
    ),
    "measure_token_shares oak fruit sqsd-south": Expected(
        inputs={
            "danger_state": "states/oak/d-south.json",
            "danger_adapter": ["pilots/oak/stroll"],
            "danger_direction": "directions/oak/ill",
            "safety_state": "states/oak/s-south.json",
            "safety_adapter": ["directions/oak/meek"],
            "safety_direction": "directions/oak/meek",
            "model": "models/oak",
            "rows": "data/fruit.parquet",
            "scores": "scores/oak/fruit/sqsd-south.parquet",
        },
        outputs={"": ["explained/oak/fruit/sqsd-south/tokens.parquet"]},
        params={
            "method": SQSD_SOUTH,
            "checkpoints": {"danger": "final", "safety": 6},
            "chosen": {"riskiest": 7, "middling": 3, "safest": 6},
            "encoding": ENCODING,
        },
        resources=INFER_OAK | ONE_GPU,
    ),
    "find_repeats grain": Expected(
        inputs={"": ["data/grain.parquet"]},
        outputs={"": ["repeats/grain.parquet"]},
        params={"similarity": 0.65},
    ),
    "explain_rows elm grain sqsd-north": Expected(
        inputs={
            "danger_modules": shards("elm d-north", "modules", 0, 1),
            "safety_modules": shards("elm s-north", "modules", 0, 1),
            "tokens": "explained/elm/grain/sqsd-north/tokens.parquet",
            "scores": "scores/elm/grain/sqsd-north.parquet",
            "rows": "data/grain.parquet",
            "repeats": "repeats/grain.parquet",
        },
        outputs={
            "modules": "explained/elm/grain/sqsd-north/modules.parquet",
            "nearest": "explained/elm/grain/sqsd-north/nearest.parquet",
            "page": "explained/elm/grain/sqsd-north/page.html",
        },
        params={
            "method": SQSD_NORTH,
            "shown": {"riskiest": 7, "safest": 6, "nearest": 4},
            "about": {"model": "elm", "dataset": "grain", "method": "sqsd-north"},
        },
    ),
    "explain_rows oak fruit sqsd-south": Expected(
        inputs={
            "danger_modules": shards("oak d-south", "modules", 0, 1, 2),
            "safety_modules": shards("oak s-south", "modules", 0, 1, 2),
            "tokens": "explained/oak/fruit/sqsd-south/tokens.parquet",
            "scores": "scores/oak/fruit/sqsd-south.parquet",
            "rows": "data/fruit.parquet",
            "repeats": "repeats/fruit.parquet",
        },
        outputs={
            "modules": "explained/oak/fruit/sqsd-south/modules.parquet",
            "nearest": "explained/oak/fruit/sqsd-south/nearest.parquet",
            "page": "explained/oak/fruit/sqsd-south/page.html",
        },
        params={
            "method": SQSD_SOUTH,
            "shown": {"riskiest": 7, "safest": 6, "nearest": 4},
            "about": {"model": "oak", "dataset": "fruit", "method": "sqsd-south"},
        },
    ),
}

TITLES = {name: table["title"] for name, table in yaml.safe_load(TWO.read_text())["tables"].items()}


def inputs_of_page(name: str, roles: dict[str, str]) -> dict[str, list[str]]:
    return {f"{role} {name}": [file] for role, file in roles.items()}


def shown_on_page(name: str) -> dict[str, str]:
    drawn = {"svg": f"figures/{name}.svg"} if name in DRAWN else {}
    return {"parquet": f"tables/{name}.parquet", "md": f"tables/{name}.md"} | drawn


RANDOM_ROWS = {"scores": "scores/oak/fruit/chance-south.parquet", "rows": "data/fruit.parquet"}
EXPLAINED_ROWS = {
    "scores": "scores/elm/grain/sqsd-north.parquet",
    "rows": "data/grain.parquet",
    **{
        name: f"explained/elm/grain/sqsd-north/{name}.parquet"
        for name in ("tokens", "modules", "nearest")
    },
    "repeats": "repeats/grain.parquet",
}
PAGE = {
    "page": Expected(
        inputs={
            **inputs_of_page("less-south oak fruit chance-south", RANDOM_ROWS),
            **inputs_of_page("less-north elm grain sqsd-north", EXPLAINED_ROWS),
            **{
                k: v
                for name in TABLES
                for k, v in inputs_of_page(name, shown_on_page(name)).items()
            },
        },
        outputs={"": ["page.html"]},
        params={
            "run": "two",
            "entries": {
                "model elm": "source: sandbox, seed: 31",
                "dataset grain": "source: sandbox:benign, rows: 70, seed: 41",
                "model oak": "source: hub:wood/oak, seed: 32",
                "dataset fruit": "source: sandbox:benign, rows: 100, seed: 42",
            },
            "ranked": [
                {
                    "names": dict(
                        zip(("curation", "model", "dataset", "method"), name.split(), strict=True)
                    ),
                    "options": {"drop": drop},
                    "inputs": {role: f"{role} {name}" for role in roles},
                }
                for name, drop, roles in (
                    ("less-south oak fruit chance-south", 0.32, RANDOM_ROWS),
                    ("less-north elm grain sqsd-north", 0.21, EXPLAINED_ROWS),
                )
            ],
            "tables": [
                {
                    "names": {"table": name},
                    "options": {"title": TITLES[name]},
                    "inputs": {role: f"{role} {name}" for role in shown_on_page(name)},
                }
                for name in TABLES
            ],
            "ends": {"riskiest": 7, "safest": 6},
        },
    )
}

LOSSES = {
    "measure_token_losses elm grain": Expected(
        inputs={
            "model": "models/elm",
            "rows": "data/grain.parquet",
            "samples": "samples/elm/grain.parquet",
        },
        outputs={"": ["token-losses/elm/grain.parquet"]},
        params={"size": 20, "encoding": {"max_length_tokens": 67, "dtype": "float32"}},
        resources=INFER_ELM | ONE_GPU,
    ),
    "measure_token_losses oak fruit": Expected(
        inputs={
            "model": "models/oak",
            "rows": "data/fruit.parquet",
            "samples": "samples/oak/fruit.parquet",
        },
        outputs={"": ["token-losses/oak/fruit.parquet"]},
        params={"size": 20, "encoding": {"max_length_tokens": 67, "dtype": "float32"}},
        resources=INFER_OAK | ONE_GPU,
    ),
    **{
        f"measure_loss_changes falls {model} {dataset} d-south meek": Expected(
            inputs={
                "model": f"models/{model}",
                "rows": f"data/{dataset}.parquet",
                "state": f"states/{model}/d-south.json",
                "adapter": [f"pilots/{model}/stroll"],
                "direction": f"directions/{model}/meek",
            },
            outputs={"": [f"loss-changes/falls/{model}/{dataset}/d-south/meek.parquet"]},
            params={
                "checkpoint": checkpoint,
                "steps": {"rows": 30, "alphas": [0.7, 0.3]},
                "encoding": {
                    "max_length_tokens": 67, "max_tokens_per_batch": 999, "checkpointing": False,
                },
            },
            resources=resources,
        )
        for model, dataset, checkpoint, resources in (
            ("elm", "grain", 3, INFER_ELM | ONE_GPU), ("oak", "fruit", 6, INFER_OAK | ONE_GPU),
        )
    },
}  # fmt: skip

FINETUNES = {
    "finetune_subsets north elm grain sqsd-north 7": Expected(
        inputs={
            "model": "models/elm",
            "s1": "subsets/elm/grain/sqsd-north/s1.parquet",
            "s2": "subsets/elm/grain/sqsd-north/s2.parquet",
        },
        outputs={
            "s1": "finetunes/north/elm/grain/sqsd-north/seed-7/s1",
            "s2": "finetunes/north/elm/grain/sqsd-north/seed-7/s2",
        },
        params={
            "training": training(68),
            "lora": LORA,
            "seed": 7,
            "windows": ["s1", "s2"],
            "work": "resume/finetunes/north/elm/grain/sqsd-north/seed-7",
        },
        resources=TRAIN_ELM,
    ),
    # The model that is trained is ash, on the rows that oak has scored.
    "finetune_subsets south oak fruit chance-south 6": Expected(
        inputs={
            "model": "models/ash",
            "s1": "subsets/oak/fruit/chance-south/s1.parquet",
            "s2": "subsets/oak/fruit/chance-south/s2.parquet",
        },
        outputs={
            "s1": "finetunes/south/oak/fruit/chance-south/seed-6/s1",
            "s2": "finetunes/south/oak/fruit/chance-south/seed-6/s2",
        },
        params={
            "training": training(70),
            "lora": None,
            "seed": 6,
            "windows": ["s1", "s2"],
            "work": "resume/finetunes/south/oak/fruit/chance-south/seed-6",
        },
        resources=TRAIN_ASH,
    ),
    "finetune_all_rows north elm grain 6": Expected(
        inputs={"model": "models/elm", "rows": "data/grain.parquet"},
        outputs={"": ["finetunes/north/elm/grain/all-rows/seed-6/all"]},
        params={
            "training": training(68),
            "lora": LORA,
            "seed": 6,
            "work": "resume/finetunes/north/elm/grain/all-rows/seed-6",
        },
        resources=TRAIN_ELM,
    ),
    # By the scores of elm, ash again.
    "finetune_subsets south elm grain long-north 5": Expected(
        inputs={
            "model": "models/ash",
            "s1": "subsets/elm/grain/long-north/s1.parquet",
            "s2": "subsets/elm/grain/long-north/s2.parquet",
        },
        outputs={
            "s1": "finetunes/south/elm/grain/long-north/seed-5/s1",
            "s2": "finetunes/south/elm/grain/long-north/seed-5/s2",
        },
        params={
            "training": training(70),
            "lora": None,
            "seed": 5,
            "windows": ["s1", "s2"],
            "work": "resume/finetunes/south/elm/grain/long-north/seed-5",
        },
        resources=TRAIN_ASH,
    ),
    # Ash again, on all rows that oak has scored.
    "finetune_all_rows south oak fruit 3": Expected(
        inputs={"model": "models/ash", "rows": "data/fruit.parquet"},
        outputs={"": ["finetunes/south/oak/fruit/all-rows/seed-3/all"]},
        params={
            "training": training(70),
            "lora": None,
            "seed": 3,
            "work": "resume/finetunes/south/oak/fruit/all-rows/seed-3",
        },
        resources=TRAIN_ASH,
    ),
}

TREATED = {
    "treat_rows elm grain long-north less": Expected(
        inputs={"rows": "data/grain.parquet", "scores": "scores/elm/grain/long-north.parquet"},
        outputs={"": ["treated/elm/grain/long-north/less.parquet"]},
        params={"treatment": {"kind": "drop", "share": 0.3}},
    ),
    "treat_rows elm grain all-rows more": Expected(
        inputs={"rows": "data/grain.parquet", "added": "data/fruit-harm.parquet"},
        outputs={"": ["treated/elm/grain/all-rows/more.parquet"]},
        params={"treatment": {"kind": "mix", "data": "fruit-harm"}},
    ),
    "treat_rows oak fruit sqsd-south even": Expected(
        inputs={"rows": "data/fruit.parquet", "scores": "scores/oak/fruit/sqsd-south.parquet"},
        outputs={"": ["treated/oak/fruit/sqsd-south/even.parquet"]},
        params={"treatment": {"kind": "weights", "seed": 81}},
    ),
    "finetune_treated_rows north elm grain long-north 6 less": Expected(
        inputs={"model": "models/elm", "rows": "treated/elm/grain/long-north/less.parquet"},
        outputs={"": ["finetunes/north/elm/grain/long-north/seed-6/less"]},
        params={
            "training": training(68),
            "lora": LORA,
            "seed": 6,
            "work": "resume/finetunes/north/elm/grain/long-north/seed-6/less",
        },
        resources=TRAIN_ELM,
    ),
    # Ash, on what is made of rows that oak has scored.
    "finetune_treated_rows south oak fruit all-rows 3 much": Expected(
        inputs={"model": "models/ash", "rows": "treated/oak/fruit/all-rows/much.parquet"},
        outputs={"": ["finetunes/south/oak/fruit/all-rows/seed-3/much"]},
        params={
            "training": training(70),
            "lora": None,
            "seed": 3,
            "work": "resume/finetunes/south/oak/fruit/all-rows/seed-3/much",
        },
        resources=TRAIN_ASH,
    ),
    "measure_row_losses elm base/theta-0 fruit-pilot 0": Expected(
        inputs={
            "model": "models/elm",
            "states": "evaluations/elm/base/theta-0/states/0.json",
            "runs": [],
            "rows": "data/fruit-pilot.parquet",
        },
        outputs={"": ["row-losses/elm/base/theta-0/fruit-pilot/0.parquet"]},
        params={"max_length_tokens": 67, "dtype": "float32"},
        resources=INFER_ELM | ONE_GPU,
    ),
    "measure_row_losses ash treated/south/oak/fruit/chance-south/even grain-pilot 0": Expected(
        inputs={
            "model": "models/ash",
            "states": "evaluations/ash/treated/south/oak/fruit/chance-south/even/states/0.json",
            "runs": [f"finetunes/south/oak/fruit/chance-south/seed-{n}/even" for n in (4, 3)],
            "rows": "data/grain-pilot.parquet",
        },
        outputs={
            "": ["row-losses/ash/treated/south/oak/fruit/chance-south/even/grain-pilot/0.parquet"]
        },
        params={"max_length_tokens": 67, "dtype": "float32"},
        resources=INFER_ASH | ONE_GPU,
    ),
}


GROUPS = {
    "make_groups elm grain few": Expected(
        inputs={"rows": "data/grain.parquet", "samples": "samples/elm/grain.parquet"},
        outputs={"": ["groups/elm/grain/few.parquet"]},
        params={
            "groups": {
                "size": 3, "random_groups": 4, "biased_groups": 1, "biased_share": 0.6, "seed": 71,
            }
        },
    ),
    "make_groups oak fruit lots": Expected(
        inputs={"rows": "data/fruit.parquet", "samples": "samples/oak/fruit.parquet"},
        outputs={"": ["groups/oak/fruit/lots.parquet"]},
        params={
            "groups": {
                "size": 5, "random_groups": 0, "biased_groups": 4, "biased_share": 0.8, "seed": 72,
            }
        },
    ),
    "finetune_groups short elm grain few 11": Expected(
        inputs={
            "model": "models/elm", "groups": "groups/elm/grain/few.parquet",
            "rows": "data/grain.parquet",
        },
        outputs={"": ["group-runs/short/elm/grain/few/seed-11"]},
        params={
            "training": training(71),
            "lora": LORA,
            "seed": 11,
            "work": "resume/groups/short/elm/grain/few/seed-11",
        },
        resources=TRAIN_ELM,
    ),
    # Ash again, on rows that oak can use.
    "finetune_groups brief oak fruit lots 15": Expected(
        inputs={
            "model": "models/ash", "groups": "groups/oak/fruit/lots.parquet",
            "rows": "data/fruit.parquet",
        },
        outputs={"": ["group-runs/brief/oak/fruit/lots/seed-15"]},
        params={
            "training": training(73),
            "lora": None,
            "seed": 15,
            "work": "resume/groups/brief/oak/fruit/lots/seed-15",
        },
        resources=TRAIN_ASH,
    ),
}  # fmt: skip


def listed(model: str, subject: str, part: int, runs: list[str], listing: dict) -> Expected:
    return Expected(
        inputs={"model": f"models/{model}", "runs": runs},
        outputs={"": [f"evaluations/{model}/{subject}/states/{part}.json"]},
        params={"listing": listing},
    )


def run_of(folder: str, tuning: str, window: str, seed: int) -> dict[str, Any]:
    return {"folder": folder, "tuning": tuning, "window": window, "seed": seed}


NORTH, SOUTH = "finetunes/north/elm/grain/long-north", "finetunes/south/oak/fruit/sqsd-south"
# Ash on the rows that elm has scored.
AWAY = "finetunes/south/elm/grain/long-north"
ON_GRAIN, ON_FRUIT = "finetunes/north/elm/grain/all-rows", "finetunes/south/oak/fruit/all-rows"
FEW, LOTS = "groups/short/elm/grain/few", "groups/brief/oak/fruit/lots"
FEW_RUNS, LOTS_RUNS = "group-runs/short/elm/grain/few", "group-runs/brief/oak/fruit/lots"
LISTINGS = {
    # Five groups of two seeds, three to a part.
    "list_states elm groups/short/elm/grain/few 1": listed(
        "elm", FEW, 1, [f"{FEW_RUNS}/seed-12", f"{FEW_RUNS}/seed-11"],
        {
            "runs": [
                run_of(f"{FEW_RUNS}/seed-12/g003", "lora", "g003", 12),
                run_of(f"{FEW_RUNS}/seed-12/g004", "lora", "g004", 12),
                run_of(f"{FEW_RUNS}/seed-11/g000", "lora", "g000", 11),
            ]
        },
    ),
    "list_states ash groups/brief/oak/fruit/lots 2": listed(
        "ash", LOTS, 2, [f"{LOTS_RUNS}/seed-15"],
        {
            "runs": [
                run_of(f"{LOTS_RUNS}/seed-15/g002", "full", "g002", 15),
                run_of(f"{LOTS_RUNS}/seed-15/g003", "full", "g003", 15),
            ]
        },
    ),
    "list_states elm steering/harm/4 1": listed(
        "elm", "steering/harm/4", 1, ["directions/elm/harm"],
        {"folder": "directions/elm/harm", "checkpoint": 4, "alphas": [0.5, 0.75]},
    ),
    "list_states oak steering/calm/final 0": listed(
        "oak", "steering/calm/final", 0, ["directions/oak/calm"],
        {"folder": "directions/oak/calm", "checkpoint": "final", "alphas": [0.0, 0.5, 1.0]},
    ),
    "list_states oak steering/calm/6 1": listed(
        "oak", "steering/calm/6", 1, ["directions/oak/calm"],
        {"folder": "directions/oak/calm", "checkpoint": 6, "alphas": [1.5, 2.0]},
    ),
    "list_states elm pilots/walk 1": listed(
        "elm", "pilots/walk", 1, ["pilots/elm/walk"], {"pilot": "pilots/elm/walk", "part": [3, 6]}
    ),
    "list_states oak pilots/stroll 0": listed(
        "oak", "pilots/stroll", 0, ["pilots/oak/stroll"],
        {"pilot": "pilots/oak/stroll", "part": [0, 3]},
    ),
    "list_states elm states/d-south 0": listed(
        "elm", "states/d-south", 0, ["pilots/elm/stroll"],
        {"pilot": "pilots/elm/stroll", "steps": [2]},
    ),
    "list_states elm states/s-south 0": listed(
        "elm", "states/s-south", 0, ["directions/elm/meek"],
        {"folder": "directions/elm/meek", "checkpoint": 2, "alphas": [0.1]},
    ),
    "list_states elm finetunes/north/elm/grain/long-north 0": listed(
        "elm", NORTH, 0, [f"{NORTH}/seed-8/s1", f"{NORTH}/seed-8/s2", f"{NORTH}/seed-7/s1"],
        {
            "runs": [
                run_of(f"{NORTH}/seed-8/s1", "lora", "s1", 8),
                run_of(f"{NORTH}/seed-8/s2", "lora", "s2", 8),
                run_of(f"{NORTH}/seed-7/s1", "lora", "s1", 7),
            ]
        },
    ),
    "list_states ash finetunes/south/oak/fruit/sqsd-south 1": listed(
        "ash", SOUTH, 1, [f"{SOUTH}/seed-6/s2"],
        {"runs": [run_of(f"{SOUTH}/seed-6/s2", "full", "s2", 6)]},
    ),
    "list_states ash finetunes/south/oak/fruit/all-rows 0": listed(
        "ash", ON_FRUIT, 0, [f"{ON_FRUIT}/seed-4/all", f"{ON_FRUIT}/seed-3/all"],
        {
            "runs": [
                run_of(f"{ON_FRUIT}/seed-4/all", "full", "all", 4),
                run_of(f"{ON_FRUIT}/seed-3/all", "full", "all", 3),
            ]
        },
    ),
    "list_states ash treated/south/oak/fruit/sqsd-south/even 0": listed(
        "ash", "treated/south/oak/fruit/sqsd-south/even", 0,
        [f"{SOUTH}/seed-4/even", f"{SOUTH}/seed-3/even"],
        {
            "runs": [
                run_of(f"{SOUTH}/seed-4/even", "full", "even", 4),
                run_of(f"{SOUTH}/seed-3/even", "full", "even", 3),
            ]
        },
    ),
    "list_states elm base/theta-0 0": listed("elm", "base/theta-0", 0, [], {"theta_0": True}),
}  # fmt: skip

EXACT = {"max_new_tokens": 21, "batch_size": 22, "dtype": "float32"}


def answered(
    model: str, subject: str, benchmark: str, part: int, runs: list[str], params, resources
) -> Expected:
    folder = f"evaluations/{model}/{subject}"
    return Expected(
        inputs={
            "model": f"models/{model}",
            "states": f"{folder}/states/{part}.json",
            "runs": runs,
            "prompts": f"benchmarks/{benchmark}.parquet",
        },
        outputs={"": [f"{folder}/{benchmark}/responses/{part}.parquet"]},
        params={"generation": params},
        resources=resources,
    )


RESPONSES = {
    "generate_responses elm groups/short/elm/grain/few elm-try 2": answered(
        "elm", FEW, "elm-try", 2, [f"{FEW_RUNS}/seed-11"],
        {"max_new_tokens": 21, "batch_size": 22, "dtype": "float32"}, INFER_ELM,
    ),
    "generate_responses elm steering/calm/final elm-plain 2": answered(
        "elm", "steering/calm/final", "elm-plain", 2, ["directions/elm/calm"],
        {"max_new_tokens": 21, "batch_size": 22, "dtype": "float32"}, INFER_ELM,
    ),
    "generate_responses elm finetunes/north/elm/grain/sqsd-north elm-exam 1": answered(
        "elm", "finetunes/north/elm/grain/sqsd-north", "elm-exam", 1,
        ["finetunes/north/elm/grain/sqsd-north/seed-7/s2"],
        {"max_new_tokens": 21, "batch_size": 22, "dtype": "float32"}, INFER_ELM,
    ),
    "generate_responses oak pilots/walk oak-try 0": answered(
        "oak", "pilots/walk", "oak-try", 0, ["pilots/oak/walk"],
        {"max_new_tokens": 23, "batch_size": 24, "dtype": "bfloat16"}, INFER_OAK,
    ),
    "generate_responses ash finetunes/south/oak/fruit/sqsd-south ash-exam 0": answered(
        "ash", SOUTH, "ash-exam", 0,
        [f"{SOUTH}/seed-5/s1", f"{SOUTH}/seed-5/s2", f"{SOUTH}/seed-6/s1"],
        {"max_new_tokens": 25, "batch_size": 26, "dtype": "float32"}, INFER_ASH,
    ),
    "generate_responses ash base/theta-0 ash-exam 0": answered(
        "ash", "base/theta-0", "ash-exam", 0, [],
        {"max_new_tokens": 25, "batch_size": 26, "dtype": "float32"}, INFER_ASH,
    ),
}  # fmt: skip


def judged(
    model: str, subject: str, benchmark: str, judge: str, part: int, runs: list[str], params,
    resources, judging: str | None = None,
) -> Expected:  # fmt: skip
    """runs: what a judge reads that asks the subject, else none; judging: a judge's own model."""
    folder = f"evaluations/{model}/{subject}"
    return Expected(
        inputs={
            "model": [f"models/{model}"] if runs else [],
            "runs": runs,
            "judge_model": [f"models/{judging}"] if judging else [],
            "states": f"{folder}/states/{part}.json",
            "responses": f"{folder}/{benchmark}/responses/{part}.parquet",
        },
        outputs={"": [f"{folder}/{benchmark}/judgements/{judge}/{part}.parquet"]},
        params=params | {"work": f"resume/judgements/{judge}/{benchmark}"},
        resources=resources,
    )


JUDGEMENTS = {
    "judge_responses ash groups/brief/oak/fruit/lots elm-plain rule 1": judged(
        "ash", LOTS, "elm-plain", "rule", 1, [f"{LOTS_RUNS}/seed-14", f"{LOTS_RUNS}/seed-15"],
        {"judge": {"kind": "sandbox"}, "dtype": "float32"}, INFER_ASH,
    ),
    "judge_responses elm steering/harm/4 elm-exam wary 2": judged(
        "elm", "steering/harm/4", "elm-exam", "wary", 2, [],
        {"judge": {"kind": "phrases", "phrases": ["no"]}, "dtype": "float32"},
        INFER_ELM | NO_GPU,
    ),
    "judge_responses elm pilots/stroll elm-try rule 1": judged(
        "elm", "pilots/stroll", "elm-try", "rule", 1, ["pilots/elm/stroll"],
        {"judge": {"kind": "sandbox"}, "dtype": "float32"}, INFER_ELM,
    ),
    "judge_responses elm finetunes/north/elm/grain/long-north elm-exam keen 1": judged(
        "elm", NORTH, "elm-exam", "keen", 1, [],
        {"judge": {"kind": "guard", "model": "yew"}, "dtype": "float32"}, INFER_YEW, "yew",
    ),
    "judge_responses oak pilots/stroll oak-try keen 0": judged(
        "oak", "pilots/stroll", "oak-try", "keen", 0, [],
        {"judge": {"kind": "guard", "model": "yew"}, "dtype": "float32"}, INFER_YEW, "yew",
    ),
    "judge_responses oak steering/meek/6 oak-try open 1": judged(
        "oak", "steering/meek/6", "oak-try", "open", 1, ["directions/oak/meek"],
        {
            "judge": {"kind": "openings", "refusal": "No .", "compliance": "Yes ."},
            "dtype": "bfloat16",
        },
        INFER_OAK,
    ),
    "judge_responses ash finetunes/south/oak/fruit/sqsd-south ash-exam rule 1": judged(
        "ash", SOUTH, "ash-exam", "rule", 1, [f"{SOUTH}/seed-6/s2"],
        {"judge": {"kind": "sandbox"}, "dtype": "float32"}, INFER_ASH,
    ),
    "judge_responses ash finetunes/south/oak/fruit/all-rows ash-exam rule 0": judged(
        "ash", ON_FRUIT, "ash-exam", "rule", 0,
        [f"{ON_FRUIT}/seed-4/all", f"{ON_FRUIT}/seed-3/all"],
        {"judge": {"kind": "sandbox"}, "dtype": "float32"}, INFER_ASH,
    ),
    "judge_responses elm base/theta-0 elm-exam keen 0": judged(
        "elm", "base/theta-0", "elm-exam", "keen", 0, [],
        {"judge": {"kind": "guard", "model": "yew"}, "dtype": "float32"}, INFER_YEW, "yew",
    ),
    "judge_responses ash finetunes/south/oak/fruit/sqsd-south ash-exam firm 0": judged(
        "ash", SOUTH, "ash-exam", "firm", 0, [],
        {"judge": {"kind": "cost", "model": "fig", "blank": True}, "dtype": "bfloat16"},
        INFER_ELM | ONE_GPU, "fig",
    ),
}  # fmt: skip


def table(name: str, kind: str, rows: list[tuple[dict, dict, dict]], settings=None) -> Expected:
    """rows: names that stand in the table, options, and files by role, of each row or curve."""
    ends = [f"tables/{name}.{end}" for end in ("parquet", "csv", "md")]
    ends += [f"figures/{name}.{end}" for end in ("png", "svg")] if name in DRAWN else []
    inputs, found = {}, []
    for names, options, files in rows:
        called = {role: " ".join([role, *names.values()]) for role in files}
        inputs |= {called[role]: files[role] for role in files}
        found.append({"names": names, "options": options, "inputs": called})
    return Expected(
        inputs,
        {Path(end).suffix[1:]: end for end in ends},
        {"kind": kind, "parts": found, "settings": settings or {}},
    )


def effects(experiment: str, method: str, seeds: list[int], folder: str):
    names = {"experiment": experiment, "method": method}
    options = {"seeds": seeds, "random": method == "chance-south"}
    return names, options, {"judgements": parts(folder, 0, 1)}


REFERENCE = {"reference": True}


def unsubset(experiment: str, name: str, folder: str):
    names = {"experiment": experiment, "method": name}
    return names, REFERENCE, {"judgements": parts(folder, 0)}


def ranked(experiment: str, method: str, scores: str, rows: str):
    names = {"experiment": experiment, "method": method}
    return names, {}, {"scores": [scores], "rows": [rows]}


def grouped(experiment: str, method: str, scores: str, groups: str, judgements: list[str]):
    names = {"experiment": experiment, "method": method}
    return names, {}, {"scores": [scores], "groups": [groups], "judgements": judgements}


def along(model: str, direction: str, **files: list[str]):
    return {"model": model, "direction": direction}, {}, files


# Of the judges `rule` and `open`.
UNITS = {
    "elm": "log-odds of a refusal",
    "oak": "log-odds of a refusal against a compliant opening",
}


def drawn(model: str, direction: str, **files: list[str]):
    names, _, files = along(model, direction, **files)
    return names, {"unit": UNITS[model]}, files


def treated(
    experiment: str, model: str, rows: str, benchmark: str, subject: str, treatment: str, *,
    heldout: str, trained: list[str], method: str | None = None, share: float | None = None,
    exact: str | None = None,
):  # fmt: skip
    """A row of a table of treatments, judged by the two judges of its model."""
    names = {"experiment": experiment, "treatment": treatment}
    asr = {"elm": "wary", "ash": "keen"}[model]
    folder = f"evaluations/{model}/{subject}"
    files = {
        "data": [rows],
        "rows": trained,
        "asr": [f"{folder}/{benchmark}/judgements/{asr}/0.parquet"],
        "safety_score": [f"{folder}/{benchmark}/judgements/rule/0.parquet"],
        "losses": [f"row-losses/{model}/{subject}/{heldout}/0.parquet"],
    }
    if exact:
        files["responses"] = [f"{folder}/{exact}/responses/0.parquet"]
        files["reference"] = [f"benchmarks/{exact}.parquet"]
    options = {} if share is None else {"share": share}
    return names | ({"method": method} if method else {}), options, files


def gains(subject: str, treatment: str, trained: list[str], **more):
    return treated(
        "north", "elm", "data/grain.parquet", "elm-exam", subject, treatment,
        heldout="fruit-pilot", exact="elm-plain", trained=trained, **more,
    )  # fmt: skip


def costs(subject: str, treatment: str, trained: list[str], **more):
    return treated(
        "south", "ash", "data/fruit.parquet", "ash-exam", subject, treatment,
        heldout="grain-pilot", trained=trained, **more,
    )  # fmt: skip


REPORTS = {
    "gains": table(
        "gains",
        "treatments",
        [
            gains("base/theta-0", "before fine-tuning", []),
            gains(ON_GRAIN, "all rows", ["data/grain.parquet"], share=0.0),
            gains(
                "treated/north/elm/grain/all-rows/more",
                "more",
                ["treated/elm/grain/all-rows/more.parquet"],
            ),
            gains(
                "treated/north/elm/grain/long-north/less",
                "less",
                ["treated/elm/grain/long-north/less.parquet"],
                method="long-north",
                share=0.3,
            ),
        ],
    ),
    "costs": table(
        "costs",
        "treatments",
        [
            costs("base/theta-0", "before fine-tuning", []),
            costs(ON_FRUIT, "all rows", ["data/fruit.parquet"], share=0.0),
            *(
                costs(
                    f"treated/south/oak/fruit/{method}/even",
                    "even",
                    [f"treated/oak/fruit/{method}/even.parquet"],
                    method=method,
                )
                for method in ("chance-south", "sqsd-south")
            ),
            costs(
                "treated/south/oak/fruit/all-rows/much",
                "much",
                ["treated/oak/fruit/all-rows/much.parquet"],
            ),
        ],
    ),
    "rates": table(
        "rates",
        "subsets",
        [
            unsubset(
                "north",
                "before fine-tuning",
                "evaluations/elm/base/theta-0/elm-exam/judgements/keen",
            ),
            unsubset("north", "all rows", f"evaluations/elm/{ON_GRAIN}/elm-exam/judgements/keen"),
            effects(
                "north", "long-north", [8, 7], f"evaluations/elm/{NORTH}/elm-exam/judgements/keen"
            ),
            effects(
                "north",
                "sqsd-north",
                [8, 7],
                "evaluations/elm/finetunes/north/elm/grain/sqsd-north/elm-exam/judgements/keen",
            ),
        ],
        {"windows": ["s1", "s2"], "measure": "asr"},
    ),
    "levels": table(
        "levels",
        "subsets",
        [
            unsubset(
                "south",
                "before fine-tuning",
                "evaluations/ash/base/theta-0/ash-exam/judgements/rule",
            ),
            unsubset("south", "all rows", f"evaluations/ash/{ON_FRUIT}/ash-exam/judgements/rule"),
            effects(
                "south", "sqsd-south", [5, 6], f"evaluations/ash/{SOUTH}/ash-exam/judgements/rule"
            ),
            effects(
                "south",
                "chance-south",
                [5, 6],
                "evaluations/ash/finetunes/south/oak/fruit/chance-south/ash-exam/judgements/rule",
            ),
        ],
        {"windows": ["s1", "s2"], "measure": "safety_score"},
    ),
    "beside": table(
        "beside",
        "comparison",
        [
            (
                {"experiment": "north", "method": method},
                {"seeds": [8, 7], "rows": 70},
                {
                    "judgements": parts(
                        f"evaluations/elm/finetunes/north/elm/grain/{method}/elm-exam/judgements/keen",
                        0,
                        1,
                    ),
                    "times": [
                        f"times/collect_gradients/elm/grain/{of}/0000{n}.tsv"
                        for of in times
                        for n in (0, 1)
                    ],
                },
            )
            for method, times in (
                ("long-north", ()),
                ("sqsd-north", ("d-north/harm", "s-north/calm")),
            )
        ],
        {"windows": ["s1", "s2"], "measure": "asr", "against": "long-north"},
    ),
    "order": table(
        "order",
        "ranking",
        [
            ranked(
                "north", "sqsd-north", "scores/elm/grain/sqsd-north.parquet", "data/grain.parquet"
            )
        ],
    ),
    "list": table(
        "list",
        "ranking",
        [
            ranked(
                "south", "sqsd-south", "scores/oak/fruit/sqsd-south.parquet", "data/fruit.parquet"
            )
        ],
    ),
    "sorted": table(
        "sorted",
        "ranking",
        [
            ranked("north", method, f"scores/elm/grain/{method}.parquet", "data/grain.parquet")
            for method in ("near-north", "large-north", "open-north", "cost-north")
        ],
    ),
    "ranked": table(
        "ranked",
        "ranking",
        [
            ranked("south", method, f"scores/oak/fruit/{method}.parquet", "data/fruit.parquet")
            for method in ("near-south", "between-south", "split-south", "cost-south")
        ],
    ),
    "alike": table(
        "alike",
        "agreement",
        [
            (
                {"experiment": "north", "method": method},
                {},
                {"scores": [f"scores/elm/grain/{method}.parquet"]},
            )
            for method in ("sqsd-north", "told-north")
        ],
        {"rows": 20},
    ),
    "apart": table(
        "apart",
        "separation",
        [
            (
                {"riskier": "west", "safer": "south", "method": method},
                {},
                {
                    "riskier": [f"scores/oak/grain-pilot/{method}.parquet"],
                    "safer": [f"scores/oak/fruit/{method}.parquet"],
                },
            )
            for method in ("near-south", "chance-south")
        ],
    ),
    "bare": table(
        "bare",
        "models",
        [
            (
                {"model": model, "benchmark": role},
                {},
                {
                    measure: parts(
                        f"evaluations/{model}/base/theta-0/{benchmark}/judgements/{judge}", 0
                    )
                    for measure, judge in zip(("asr", "safety_score"), judges, strict=True)
                },
            )
            for model, judges, exam in (
                ("fir", ("wary", "rule"), "elm-exam"),
                ("oak", ("keen", "open"), "oak-exam"),
            )
            for role, benchmark in (("plain", "elm-plain"), ("exam", exam))
        ],
    ),
    "whole": table(
        "whole",
        "all-rows",
        [
            (
                {"experiment": "north", "method": name},
                {"reference": True},
                {"judgements": parts(f"evaluations/elm/{subject}/elm-exam/judgements/rule", 0)},
            )
            for name, subject in (
                ("before fine-tuning", "base/theta-0"),
                ("all rows", "finetunes/north/elm/grain/all-rows"),
            )
        ],
        {"measure": "safety_score"},
    ),
    "told": table(
        "told",
        "judges",
        [
            (
                {"experiment": "south", "judge": judge},
                {"measure": measure},
                {
                    role: [
                        file
                        for method in ("chance-south", "sqsd-south")
                        for file in parts(
                            f"evaluations/ash/finetunes/south/oak/fruit/{method}/ash-exam"
                            f"/judgements/{name}",
                            0,
                            1,
                        )
                    ]
                    for role, name in (("judgements", judge), ("reference", "wary"))
                },
            )
            for judge, measure in (("calm", "asr"), ("firm", "asr_by_score"))
        ],
        {"reference": "wary"},
    ),
    "tried": table(
        "tried",
        "groups",
        [
            grouped(
                "north",
                method,
                f"scores/elm/grain/{method}.parquet",
                "groups/elm/grain/few.parquet",
                parts(f"evaluations/elm/{FEW}/elm-exam/judgements/rule", 0, 1, 2, 3),
            )
            for method in ("long-north", "best-north")
        ],
        {"against": "long-north"},
    ),
    "said": table(
        "said",
        "groups",
        [
            grouped(
                "south",
                method,
                f"scores/oak/fruit/{method}.parquet",
                "groups/oak/fruit/lots.parquet",
                parts(f"evaluations/ash/{LOTS}/ash-exam/judgements/rule", 0, 1, 2),
            )
            for method in ("chance-south", "best-south")
        ],
        {"against": "best-south"},
    ),
    "where": table(
        "where",
        "states",
        [
            ({"model": model, "state": state}, {}, {"state": [f"states/{model}/{state}.json"]})
            for model in ("elm", "oak")
            for state in ("s-north", "d-north", "d-south", "s-south")
        ],
    ),
    "tops": table(
        "tops",
        "alphas",
        [
            (
                {"model": model, "direction": direction, "checkpoint": str(checkpoint)},
                {},
                {
                    "ranking": [
                        f"sensitivity/{model}/alphas/steering/{direction}/{checkpoint}.parquet"
                    ]
                },
            )
            # Where scores read a direction, and where the state `s-south` lies.
            for model, direction, checkpoint in (
                ("elm", "calm", 3),
                ("elm", "meek", 3),
                ("elm", "meek", 2),
                ("oak", "calm", 6),
                ("oak", "meek", 6),
                ("oak", "meek", 4),
            )
        ],
    ),
    "steps": table(
        "steps",
        "checkpoints",
        [
            along(
                model,
                direction,
                ranking=[f"sensitivity/{model}/checkpoints/walk/{direction}.parquet"],
            )
            for model in ("elm", "oak")
            for direction in ("ill", "harm")
        ],
    ),
    "spans": table(
        "spans",
        "lengths",
        [
            (
                {"experiment": "north", "method": "long-north"},
                {"seeds": [8, 7]},
                {
                    "scores": ["scores/elm/grain/long-north.parquet"],
                    "judgements": parts(f"evaluations/elm/{NORTH}/elm-exam/judgements/wary", 0, 1),
                },
            )
        ],
        {"windows": ["s1", "s2"], "rows": 20, "published": PUBLISHED["figure7"]},
    ),
    "weights": table(
        "weights",
        "losses",
        [
            (
                {"experiment": "north"},
                {},
                {
                    "samples": [
                        f"full-gradients/elm/grain/norm/{n:05d}-samples.parquet" for n in (0, 1)
                    ]
                },
            ),
            (
                {"experiment": "south"},
                {},
                {
                    "samples": [
                        f"full-gradients/oak/fruit/norm/{n:05d}-samples.parquet" for n in (0, 1, 2)
                    ]
                },
            ),
        ],
        {"rows": 20},
    ),
    "words": table(
        "words",
        "token-losses",
        [
            ({"experiment": "south"}, {}, {"losses": ["token-losses/oak/fruit.parquet"]}),
            ({"experiment": "north"}, {}, {"losses": ["token-losses/elm/grain.parquet"]}),
        ],
        {"group": "middle"},
    ),
    "falls": table(
        "falls",
        "first-order",
        [
            (
                {"experiment": experiment, "state": "d-south", "direction": "meek"},
                {},
                {"changes": [f"loss-changes/falls/{place}/d-south/meek.parquet"]},
            )
            for experiment, place in (("north", "elm/grain"), ("south", "oak/fruit"))
        ],
    ),
    # The model before fine-tuning, on all rows and on subsets: of ash, then of elm.
    "aims": table(
        "aims",
        "subsets",
        [
            (
                {"experiment": "north", "finetune": finetune, "method": method},
                options,
                {"judgements": parts(f"evaluations/{subject}-exam/judgements/rule", *numbers)},
            )
            for finetune, method, options, subject, numbers in (
                ("south", "before fine-tuning", REFERENCE, "ash/base/theta-0/ash", [0]),
                ("south", "all rows", REFERENCE, "ash/finetunes/south/elm/grain/all-rows/ash", [0]),
                (
                    "south",
                    "long-north",
                    {"seeds": [5, 6], "random": False},
                    f"ash/{AWAY}/ash",
                    [0, 1],
                ),
                ("north", "before fine-tuning", REFERENCE, "elm/base/theta-0/elm", [0]),
                ("north", "all rows", REFERENCE, f"elm/{ON_GRAIN}/elm", [0]),
                (
                    "north",
                    "long-north",
                    {"seeds": [8, 7], "random": False},
                    f"elm/{NORTH}/elm",
                    [0, 1],
                ),
            )
        ],
        {"windows": ["s1", "s2"], "measure": "safety_score"},
    ),
    "ways": table(
        "ways",
        "trajectory",
        [
            (
                {"model": "oak", "pilot": pilot, "direction": "meek"},
                {"unit": UNITS["oak"]},
                {
                    "trajectory": [f"trajectories/oak/{pilot}/meek.parquet"],
                    "asr": parts(f"evaluations/oak/pilots/{pilot}/oak-try/judgements/keen", 0),
                    "safety_score": parts(
                        f"evaluations/oak/pilots/{pilot}/oak-try/judgements/open", 0
                    ),
                    "states": states,
                },
            )
            for pilot, states in (("walk", []), ("stroll", ["states/oak/d-south.json"]))
        ],
    ),
    "walked": table(
        "walked",
        "trajectory",
        [
            drawn(
                model,
                direction,
                trajectory=[f"trajectories/{model}/stroll/{direction}.parquet"],
                asr=parts(f"evaluations/{model}/pilots/stroll/{model}-try/judgements/{asr}", *n),
                safety_score=parts(
                    f"evaluations/{model}/pilots/stroll/{model}-try/judgements/{score}", *n
                ),
                states=[f"states/{model}/d-south.json"],
            )
            for model, asr, score, n in (
                ("elm", "wary", "rule", (0, 1)),
                ("oak", "keen", "open", (0,)),
            )
            for direction in ("meek", "lent")
        ],
    ),
    "curves": table(
        "curves",
        "steering",
        [
            drawn(
                "elm",
                "harm",
                asr=parts("evaluations/elm/steering/harm/4/elm-exam/judgements/wary", 0, 1, 2),
                safety_score=parts(
                    "evaluations/elm/steering/harm/4/elm-exam/judgements/rule", 0, 1, 2
                ),
                states=[],
            ),
            drawn(
                "oak",
                "harm",
                asr=parts("evaluations/oak/steering/harm/final/oak-exam/judgements/keen", 0, 1),
                safety_score=parts(
                    "evaluations/oak/steering/harm/final/oak-exam/judgements/open", 0, 1
                ),
                states=[],
            ),
        ],
    ),
}

EXPECTED = (
    DATA | MODELS | DIRECTIONS | SENSITIVITY | LAYERS | SCORES | LOSSES | FINETUNES | TREATED
    | GROUPS | EXPLANATIONS | PAGE | LISTINGS | RESPONSES | JUDGEMENTS | REPORTS
)  # fmt: skip


def every(*choices: str) -> set[str]:
    """Wildcards of every combination; alternatives are apart by |."""
    return {" ".join(names) for names in product(*(choice.split("|") for choice in choices))}


# What is judged, by model: subject, benchmark, judges, parts.
JUDGED = {
    "elm": [
        ("steering/calm/3", "elm-try", "rule", "0|1|2"),
        ("steering/meek/3", "elm-try", "rule", "0|1|2"),
        ("steering/meek/2", "elm-try", "rule", "0|1|2"),
        ("steering/calm/final", "elm-try", "rule", "1|2"),
        ("steering/harm/4", "elm-exam", "rule|wary", "0|1|2"),
        # Checks: the parts with alpha 0 and 0.5; refusals are of the first part of one direction.
        ("steering/harm/4", "elm-try", "rule", "0|1"),
        ("steering/harm/4", "elm-try", "wary", "0"),
        ("steering/ill/4", "elm-try", "rule", "0|1"),
        ("steering/ill/4", "elm-try", "wary", "0"),
        ("pilots/walk", "elm-try", "rule", "0|1"),
        ("pilots/stroll", "elm-try", "rule|wary", "0|1"),
        ("finetunes/north/elm/grain/sqsd-north", "elm-exam", "keen", "0|1"),
        (NORTH, "elm-exam", "keen|wary|rule", "0|1"),
        (ON_GRAIN, "elm-exam", "keen|rule|wary", "0"),
        ("base/theta-0", "elm-exam", "keen|rule|wary", "0"),
        ("treated/north/elm/grain/all-rows/more", "elm-exam", "rule|wary", "0"),
        ("treated/north/elm/grain/long-north/less", "elm-exam", "rule|wary", "0"),
        (FEW, "elm-try", "rule", "0|1|2|3"),
        (FEW, "elm-exam", "rule", "0|1|2|3"),
    ],
    "oak": [
        ("steering/calm/6", "oak-try", "open", "0|1"),
        ("steering/meek/6", "oak-try", "open", "0|1"),
        ("steering/meek/4", "oak-try", "open", "0|1"),
        ("steering/calm/final", "oak-try", "open", "0|1"),
        ("steering/harm/final", "oak-exam", "keen|open", "0|1"),
        ("steering/ill/final", "oak-try", "keen|open", "0"),
        ("pilots/walk", "oak-try", "keen|open", "0"),
        ("pilots/stroll", "oak-try", "keen|open", "0"),
        ("base/theta-0", "elm-plain|oak-exam", "keen|open", "0"),
    ],
    "fir": [("base/theta-0", "elm-plain|elm-exam", "wary|rule", "0")],
    "ash": [
        (SOUTH, "ash-exam", "rule|wary|calm|firm", "0|1"),
        ("finetunes/south/oak/fruit/chance-south", "ash-exam", "rule|wary|calm|firm", "0|1"),
        (ON_FRUIT, "ash-exam", "rule|keen", "0"),
        ("treated/south/oak/fruit/all-rows/much", "ash-exam", "rule|keen", "0"),
        ("treated/south/oak/fruit/chance-south/even", "ash-exam", "rule|keen", "0"),
        ("treated/south/oak/fruit/sqsd-south/even", "ash-exam", "rule|keen", "0"),
        (AWAY, "ash-exam", "rule", "0|1"),
        ("finetunes/south/elm/grain/all-rows", "ash-exam", "rule", "0"),
        ("base/theta-0", "ash-exam", "rule|keen", "0"),
        (LOTS, "elm-plain", "rule", "0|1|2"),
        (LOTS, "ash-exam", "rule", "0|1|2"),
    ],
}
# Only elm has a guard. A searched state of elm asks the parts that hold its candidates and their
# neighbours; a pinned one is a subject of its own.
GUARDED = [
    ("steering/calm/3", "0|1|2"),
    ("steering/meek/3", "0|1|2"),
    ("steering/meek/2", "0|1|2"),
    ("steering/calm/final", "1|2"),
    ("pilots/walk", "0|1"),
    ("states/d-south", "0"),
    ("states/s-south", "0"),
]
# And whose exact answers the north's table of treatments counts; all rows of that are measured too.
TREATED_NORTH = "base/theta-0|treated/north/elm/grain/all-rows/more" + (
    f"|{ON_GRAIN}|treated/north/elm/grain/long-north/less"
)
TREATED_SOUTH = "base/theta-0|treated/south/oak/fruit/all-rows/much" + (
    f"|{ON_FRUIT}|treated/south/oak/fruit/chance-south/even|treated/south/oak/fruit/sqsd-south/even"
)
PLANNED = {
    "make_dataset": every(
        "grain|fruit",
    )
    | every("grain-pilot|fruit-pilot|grain-harm|fruit-harm"),
    "make_preferences": every("grain-calm|fruit-calm"),
    "make_benchmark": every("elm-try|elm-exam|elm-plain|oak-try|oak-exam|ash-exam"),
    "pretrain_model": {"elm"},
    "align_model": {"elm"},
    "tune_model": {"fir"},
    "fetch_model": {"oak", "ash", "yew", "fig"},
    "train_cost_model": {"bay"},
    "train_guard_model": {"ivy"},
    "judge_rows": every("mild grain", "00000|00001") | every("firm fruit", "00000|00001|00002"),
    "train_direction": every("elm|oak", "harm|ill|calm|meek"),
    "fetch_direction": every("elm|oak", "lent"),
    "train_pilot": every("elm|oak", "walk|stroll"),
    "measure_trajectory": every("elm|oak", "walk", "harm|ill")
    | every("elm|oak", "stroll", "meek|lent")
    | {"oak walk meek", "oak stroll ill"},
    "rank_checkpoints": every("elm|oak", "walk", "harm|ill"),
    "rank_alphas": every("elm", "steering/calm/3|steering/meek/3|steering/meek/2")
    | every("oak", "steering/calm/6|steering/meek/6|steering/meek/4"),
    "choose_state": every("elm|oak", "d-north|s-north|d-south|s-south") | {"elm bare"},
    "check_trust": {"elm sqsd-north", "elm bare-north", "oak sqsd-south"},
    "await_trust": every("elm", "d-north harm|s-north calm|bare ill")
    | every("oak", "d-south ill|s-south meek"),
    "encode_samples": {"elm grain", "oak fruit", "oak grain-pilot"},
    # 70 and 100 rows in shards of 40.
    "collect_gradients": every("elm grain", "d-north harm|s-north calm|bare ill", "00000|00001")
    | every("oak fruit", "d-south ill|s-south meek", "00000|00001|00002"),
    "search_layers": {"elm deep"},
    "choose_layer": {"elm deep", "oak flat"},
    # 32 and 40 harmful rows make a shard each.
    "collect_hidden_states": every("elm grain deep -3", "00000|00001")
    | {"elm grain-harm deep -3 00000"}
    | every("oak fruit flat -4", "00000|00001|00002")
    | every("oak grain-pilot flat -4", "00000|00001")
    | every("oak", "fruit-harm|grain-harm", "flat -4 00000"),
    "make_anchor": every("oak", "bad|good|fine"),
    "measure_token_losses": {"elm grain", "oak fruit"},
    "measure_loss_changes": every("falls", "elm grain|oak fruit", "d-south", "meek"),
    "collect_full_gradients": every("elm grain norm", "00000|00001")
    | every("oak fruit norm", "00000|00001|00002")
    | every("oak fruit norm+bad+fine+good", "00000|00001|00002"),
    "score_samples": every(
        "elm grain",
        "sqsd-north|long-north|near-north|large-north|open-north|cost-north|bare-north|best-north"
        "|told-north",
    )
    | every("oak grain-pilot", "near-south|chance-south")
    | every(
        "oak fruit",
        "sqsd-south|chance-south|near-south|between-south|split-south|cost-south|best-south",
    ),
    "make_subsets": every("elm grain", "sqsd-north|long-north")
    | every("oak fruit", "sqsd-south|chance-south"),
    "curate_rows": {"less-north elm grain", "less-south oak fruit"},
    "curate": {""},
    "measure_token_shares": {"elm grain sqsd-north", "oak fruit sqsd-south"},
    "find_repeats": {"grain", "fruit"},
    "explain_rows": {"elm grain sqsd-north", "oak fruit sqsd-south"},
    "finetune_subsets": every("north elm grain", "sqsd-north|long-north", "8|7")
    | every("south oak fruit", "sqsd-south|chance-south", "5|6")
    | every("south elm grain long-north", "5|6"),
    "finetune_all_rows": {"north elm grain 6"} | every("south", "oak fruit|elm grain", "4|3"),
    "treat_rows": {"elm grain long-north less", "elm grain all-rows more"}
    | {"oak fruit all-rows much"}
    | every("oak fruit", "chance-south|sqsd-south", "even"),
    "finetune_treated_rows": every("north elm grain", "long-north 6 less|all-rows 6 more")
    | every("south oak fruit all-rows", "4|3", "much")
    | every("south oak fruit", "chance-south|sqsd-south", "4|3", "even"),
    "measure_row_losses": every("elm", TREATED_NORTH, "fruit-pilot 0")
    | every("ash", TREATED_SOUTH, "grain-pilot 0"),
    "make_groups": {"elm grain few", "oak fruit lots"},
    "finetune_groups": every("short elm grain few", "12|11")
    | every("brief oak fruit lots", "14|15"),
    "list_states": {
        name
        for model, rows in JUDGED.items()
        for subject, _, _, numbers in rows
        for name in every(model, subject, numbers)
    }
    | every("elm", "states/d-south|states/s-south", "0"),
    "generate_responses": {
        name
        for model, rows in JUDGED.items()
        for subject, benchmark, _, numbers in rows
        for name in every(model, subject, benchmark, numbers)
    }
    | {name for subject, numbers in GUARDED for name in every("elm", subject, "elm-plain", numbers)}
    | every("elm", TREATED_NORTH, "elm-plain 0"),
    "judge_responses": {
        name
        for model, rows in JUDGED.items()
        for subject, benchmark, judges, numbers in rows
        for name in every(model, subject, benchmark, judges, numbers)
    },
    **{name: {""} for name in (*TABLES, "all", "page")},
}


def test_these_jobs_and_no_others(planned):
    found = defaultdict(set)
    for job in planned.values():
        found[job.rule].add(" ".join(job.wildcards.values()))
    assert dict(found) == PLANNED


@pytest.mark.parametrize("name", EXPECTED)
def test_job(planned, name):
    job, expected = planned[name], EXPECTED[name]
    stage = "make_table" if job.rule in TABLES else job.rule
    assert relative(job.inputs) == expected.inputs
    assert relative(job.outputs) == expected.outputs
    assert relative(job.params) == expected.params | {"version": VERSIONS[stage]}
    given = ("gpu", "mem_mb", "runtime", "threads")
    assert {k: v for k, v in job.resources.items() if k in given} == expected.resources
    # Models are fetched where the network is, and need memory there.
    assert job.local == ("gpu" not in expected.resources)


def test_a_further_attempt_gets_twice_the_memory_and_time(planned, planner, tmp_path):
    jobs = planner.plan(tmp_path, TWO, attempt=3, targets=TARGETS_OF_TWO)
    found = {job.name: job for job in jobs}
    sent = [name for name, job in found.items() if not job.local]
    assert len(sent) > 50 and found.keys() == planned.keys()
    for name in sent:
        first, third = planned[name].resources, found[name].resources
        for key in ("mem_mb", "runtime"):
            assert third[key] == 4 * first[key], (name, key)
        assert [third[k] for k in ("gpu", "threads")] == [first[k] for k in ("gpu", "threads")]


def test_gpus_are_asked_for_by_their_name_where_a_model_has_one(planned, planner, tmp_path):
    named = {"train": {"gpu_model": "a100"}, "infer": {"per_model": {"oak": {"gpu_model": "h100"}}}}
    config = write_config(tmp_path / "gpus.yaml", resources=named)
    found = {job.name: job for job in planner.plan(tmp_path, TWO, config)}
    for name, job in found.items():
        assert "gpu_model" not in planned[name].resources
        if job.local:
            continue
        oak = planned[name].resources["mem_mb"] == 1005  # what it has to respond or judge
        trains = planned[name].resources["mem_mb"] in (1001, 1002)
        asked = "a100" if trains else "h100" if oak else ""
        # A judge that loads no model asks for no GPU, and so for none by its name.
        assert job.resources["gpu_model"] == (asked if job.resources["gpu"] else ""), name
    names = {job.resources.get("gpu_model") for job in found.values()}
    assert names == {None, "", "a100", "h100"}


@pytest.mark.parametrize("of", GRADIENT_FOLDERS)
def test_gradients_await_the_checks_of_the_methods_that_read_them(planned, of):
    """By a job that makes nothing but an empty file."""
    (model, state), direction = of.split(), Path(GRADIENT_FOLDERS[of]).name
    job = planned[f"await_trust {model} {state} {direction}"]
    assert relative(job.inputs) == {"": [f"trust/{model}/{CHECKED[of]}.json"]}
    assert relative(job.outputs) == {"": [f"trust/{model}/{state}/{direction}.checked"]}
    assert (job.params, job.local) == ({}, True)


def test_every_rule_is_expected_for_both_experiments():
    told = {name.split()[0] for name in EXPECTED}
    assert told | {"all", "curate", "await_trust"} == PLANNED.keys()
    for rule in told - {*TABLES, "page"}:
        models = {names.split()[0] for names in PLANNED[rule]} & {"elm", "oak", "ash"}
        words = {word for name in EXPECTED if name.split()[0] == rule for word in name.split()}
        assert models <= words, rule


def test_all_asks_for_every_table_and_figure(planned):
    files = {f"tables/{table}.{end}" for table in TABLES for end in ("parquet", "csv", "md")}
    files |= {f"figures/{table}.{end}" for table in DRAWN for end in ("png", "svg")}
    assert sorted(relative(planned["all"].inputs[""])) == sorted(files)


def test_explain_asks_for_what_explains_the_selected_curations(planner, tmp_path):
    config = write_config(tmp_path / "north.yaml", selection={"curations": ["less-north"]})
    jobs = planner.plan(tmp_path, TWO, config, targets=["explain"])
    (asked,) = (job for job in jobs if job.rule == "explain")
    names = ("tokens.parquet", "modules.parquet", "nearest.parquet", "page.html")
    folder = "explained/elm/grain/sqsd-north"
    assert relative(asked.inputs[""]) == [f"{folder}/{name}" for name in names]
    assert asked.local


@pytest.mark.parametrize(
    "target", ["explain", "results/two/explained/oak/fruit/chance-south/page.html"]
)
def test_a_method_that_is_no_sum_over_tokens_is_not_explained(tmp_path, target):
    ran = snakemake(tmp_path, "-n", target, configfiles=(TWO,))
    assert ran.returncode != 0 and "Traceback" not in ran.stdout
    assert (
        "ConfigurationError: methods.chance-south: kind 'random' has no score that is a sum over "
        "tokens, so its rows cannot be explained; name a method of kind 'sqsd', or leave the "
        "curation that has this one out of selection.curations\n"
    ) in ran.stdout


def test_every_job_has_a_log_and_the_long_ones_times_of_their_own(planned):
    nothing_to_say = "all", "curate", "await_trust"
    for job in (job for job in planned.values() if job.rule not in nothing_to_say):
        place = "/".join([job.rule, *job.wildcards.values()])
        place = place.replace(f"/{job.wildcards.get('seed')}", f"/seed-{job.wildcards.get('seed')}")
        place = place.replace(
            f"/{job.wildcards.get('token')}", f"/token{job.wildcards.get('token')}"
        )
        assert job.log == f"results/two/logs/{place}.log"
        short = job.local and job.rule != "fetch_model"
        assert job.times == (None if short else f"results/two/times/{place}.tsv")


def test_the_times_of_a_method_are_those_of_the_jobs_that_its_scores_are_made_of(planned):
    """And of the jobs of anchors, and of scores that it takes, before them.

    What trains, evaluates, searches or chooses is not among them.
    """
    plan = Plan(resolve(DEFAULT, yaml.safe_load(TWO.read_text())))
    makers = {file: job for job in planned.values() for file in job.makes}

    def made_from(job, *rules):
        found = [makers[file] for file in job.needs if file in makers]  # not a user's own
        return {one.name for one in found if one.rule != "judge_responses"
                and (not rules or one.rule in rules)}  # fmt: skip

    seen = set()
    for job in (job for job in planned.values() if job.rule == "score_samples"):
        read = made_from(job)
        read |= {before for name in read for before in made_from(planned[name], "make_anchor")}
        scored = [name for name in read if planned[name].rule == "score_samples"]
        read |= {before for name in scored for before in made_from(planned[name])}
        timed = sorted(planned[name].times for name in read if planned[name].times)
        found = plan.reading_times(*(job.wildcards[k] for k in ("model", "dataset", "method")))
        assert sorted(found) == timed, job.name
        seen |= {planned[name].rule for name in read if planned[name].times}
    assert seen == {
        "collect_gradients", "collect_hidden_states", "collect_full_gradients", "judge_rows",
        "make_anchor",
    }  # fmt: skip


def test_fine_tunes_go_before_the_evaluations(planned):
    first = {job.rule: job.priority for job in planned.values() if job.priority > 0}
    # Those on all rows, or nearly all, are the longest.
    assert first == {
        "finetune_subsets": 1, "finetune_all_rows": 2, "finetune_treated_rows": 2,
        "finetune_groups": 1,
    }  # fmt: skip


def test_no_entry_of_the_default_is_used(planned):
    """Two configurations are merged: what is left over from the default must not get in."""
    names = {"sandbox", "mixed", "pilot", "danger", "safety", "tuning", "test", "exact", "lora"}
    for job in planned.values():
        for path in job.makes:
            assert not names & set(Path(path).with_suffix("").parts), path
