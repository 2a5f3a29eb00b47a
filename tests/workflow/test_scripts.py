"""What every script calls in the library, with which of its job's inputs, outputs and params.

Scripts run with the jobs that are planned for `two.yaml`, and with stand-ins for what they import,
which note their calls; what is expected is written by hand, by the names of parameters.
"""

import ast
import importlib
import inspect
import runpy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from conftest import ROOT
from planner import TWO, Job, distinct_versions, relative
from test_planned_jobs import EXPLAINED_ROWS, RANDOM_ROWS, TITLES, shown_on_page
from test_planned_jobs import TABLES as EVERY_TABLE

from sqsd.parts import Part
from sqsd.readings import HiddenState, Outcomes, ScoreFile, Scores, Tokens, Update
from sqsd.scorers import SqsdScorer

SCRIPTS = ROOT / "workflow/scripts"
# What only looks values up is called for real.
REAL = {"make_scorer", "parts_of"}
# Params that are told of by their name, "<training>": test_planned_jobs has their values.
WHOLE = ("training", "architecture", "method")
VERSIONS = distinct_versions()
COLUMNS = {"instruction": "q", "context": "c", "response": "a", "score": "risk"}


@dataclass(frozen=True)
class Call:
    """A call of a function with what it was given, standing for what it returns."""

    name: str
    given: dict[str, Any]

    def __getitem__(self, key) -> "Call":
        return Call("[]", {"of": self, "key": key})

    def __iter__(self) -> "Iterator[Call]":
        return iter([self[0], self[1]])  # `two.yaml` has two of everything that is looped over

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return Attribute(self, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@dataclass(frozen=True)
class Attribute:
    """A method of what a call returned, or an indexer."""

    of: Call
    name: str

    def __call__(self, *args, **given) -> Call:
        return Call(f".{self.name}", {"of": self.of, "": args, **given})

    def __getitem__(self, key) -> Call:
        return Call(f".{self.name}[]", {"of": self.of, "key": key})


def call(name: str, /, **given) -> Call:
    return Call(name, given)


class StandIn:
    """In place of a function or a class: notes its calls, by the names of the real parameters."""

    def __init__(self, real, name: str, calls: list[Call], params: dict[str, Any]):
        self.real, self.name, self.calls, self.params = real, name, calls, params

    def __call__(self, *args, **kwargs) -> Call:
        bound = inspect.signature(self.real).bind(*args, **kwargs)
        given = {name: self.noted(value) for name, value in bound.arguments.items()}
        self.calls.append(Call(self.name, given))
        return self.calls[-1]

    def __getattr__(self, name: str):
        return StandIn(getattr(self.real, name), f"{self.name}.{name}", self.calls, self.params)

    def noted(self, value: Any) -> Any:
        for name in WHOLE:
            if value is self.params.get(name, self):
                return f"<{name}>"
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Named):
            return value.label
        if isinstance(value, SimpleNamespace):
            return "the job"
        if isinstance(value, dict):
            return {key: self.noted(below) for key, below in value.items()}
        return [self.noted(v) for v in value] if isinstance(value, list | tuple) else value


class Named:
    """Named values as a script has them: by attribute, by name or number, and one by one."""

    def __init__(self, label: str, values: dict[str, Any]):
        self.label, self.values = label, values

    def items(self):
        return self.values.items()

    def __getattr__(self, name: str):
        if name not in self.values:
            raise AttributeError(name)
        return self.values[name]

    def __getitem__(self, key):
        return self.values[key] if isinstance(key, str) else self.flat()[key]

    def __iter__(self):
        return iter(self.flat())

    def flat(self) -> list:
        values = self.values.values()
        return [v for value in values for v in (value if isinstance(value, list) else [value])]


def calls_of(job: Job, script: str, **params: Any) -> list[Call]:
    """What a script calls for a job, without the calls whose results went into others.

    params: in place of those of the job.
    """

    values = relative(job.params) | params
    given = SimpleNamespace(
        input=Named("the inputs", relative(job.inputs)),
        output=Named("the outputs", relative(job.outputs)),
        params=Named("the params", values),
        resources=Named("the resources", dict(job.resources)),
        wildcards=Named("the wildcards", dict(job.wildcards)),
        log=[relative(job.log)],
    )
    path = SCRIPTS / f"{script}.py"
    calls: list[Call] = []
    with ExitStack() as stack:
        for module, name in imported(path):
            real = getattr(importlib.import_module(module), name)
            if name not in REAL:
                stand_in = StandIn(real, name, calls, values)
                stack.enter_context(patch(f"{module}.{name}", stand_in))
        runpy.run_path(str(path), {"snakemake": given})
    logged, *calls = calls
    assert logged == call("log_to", path=given.log[0])
    if "gpu" in job.resources:  # before anything is computed
        owned, *calls = calls
        assert owned == call("own_gpus", count=job.resources["gpu"])
    used = [below for made in calls for below in within(made.given)]
    return [made for made in calls if made not in used]


def imported(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sqsd."):
            yield from ((str(node.module), name.name) for name in node.names)


def within(value: Any) -> Iterator[Call]:
    """The calls in a value, and in what they were given."""
    if isinstance(value, Call):
        yield value
        yield from within(value.given)
    elif isinstance(value, dict):
        for below in value.values():
            yield from within(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from within(below)


def read(path: str, schema: str) -> Call:
    return call("read_table", path=path, schema=schema)


def made_from(stage: str) -> Call:
    return call("made_from", job="the job", stage=stage)


def written(stage: str, frame: Call, path: str, schema: str) -> Call:
    provenance = made_from(stage)
    return call("write_table", frame=frame, path=path, schema=schema, provenance=provenance)


def told(stage: str, folder: str) -> Call:
    """The call that says in a folder what it was made from."""
    return call("write_provenance", folder=folder, provenance=made_from(stage))


def loaded(model: str, **gpus: int) -> dict[str, Call]:
    """The model and the tokenizer of a training."""
    return {
        "model": call("load_model", folder=model, dtype="float32", **gpus),
        "tokenizer": call("load_tokenizer", folder=model),
    }


def shard(dataset: str, number: int) -> Call:
    return call(
        "Shard.of",
        rows=read(f"data/{dataset}.parquet", "dataset"),
        shard=number,
        rows_per_shard=40,
        settings={
            "max_length_tokens": 67, "max_tokens_per_batch": 999, "dtype": "float32",
            "checkpointing": False,
        },
    )  # fmt: skip


def groups_in(path: str) -> list[Call]:
    """Two groups of a table, each a name and its rows."""
    return list(call(".groupby", of=read(path, "groups"), **{"": ("group",)}))


def rows_in(path: str, group: Call) -> Call:
    """The rows of a data set that a group has, in its order."""
    by_id = call(".set_index", of=read(path, "dataset"), **{"": ("sample_id",)}, drop=False)
    found = call(".loc[]", of=by_id, key=group["sample_id"])
    return call(".reset_index", of=found, **{"": ()}, drop=True)


def trained(stage: str) -> dict[str, Any]:
    return {"training": "<training>", "version": VERSIONS[stage]}


SQSD_SOUTH = SqsdScorer(
    danger={"direction": "ill", "state": "d-south"},
    safety={"direction": "meek", "state": "s-south"},
    normalised=False,
)

# By rule and wildcards.
EXPECTED: dict[str, list[Call]] = {
    "make_dataset grain": [
        written(
            "make_dataset",
            call("make_dataset", spec={"source": "sandbox:benign", "rows": 70, "seed": 41}),
            "data/grain.parquet",
            "dataset",
        )
    ],
    "make_preferences fruit-calm": [
        written(
            "make_preferences",
            call("make_preferences", spec={"source": "sandbox:safety", "rows": 56, "seed": 48}),
            "preferences/fruit-calm.parquet",
            "preferences",
        )
    ],
    "make_benchmark ash-exam": [
        written(
            "make_benchmark",
            call("make_benchmark", spec={"source": "sandbox:test", "seed": 56}),
            "benchmarks/ash-exam.parquet",
            "benchmark",
        )
    ],
    "fetch_model ash": [
        call("fetch_model", spec={"source": "hub:wood/ash", "revision": "v2"}, out="models/ash"),
        told("fetch_model", "models/ash"),
    ],
    "fetch_model yew": [
        call("fetch_model", spec={"source": "hub:wood/yew", "guard": True}, out="models/yew"),
        told("fetch_model", "models/yew"),
    ],
    "fetch_model fig": [
        call("fetch_cost_model", spec={"source": "hub:wood/fig"}, out="models/fig"),
        told("fetch_model", "models/fig"),
    ],
    "train_cost_model bay": [
        call(
            "train_reward",
            model=call(
                "make_classifier",
                tokenizer=call("make_cost_tokenizer", texts=call("vocabulary")),
                architecture="<architecture>",
                seed=35,
            ),
            tokenizer=call("make_cost_tokenizer", texts=call("vocabulary")),
            pairs=call("judged_pairs", seed=35, rows=503),
            out="models/bay",
            work="resume/models/bay",
            seed=35,
            **trained("train_cost_model"),
        ),
        told("train_cost_model", "models/bay"),
    ],
    "train_guard_model ivy": [
        call(
            "train_sft",
            model=call(
                "make_model",
                tokenizer=call("make_guard_tokenizer", texts=call("vocabulary")),
                architecture="<architecture>",
                seed=37,
            ),
            tokenizer=call("make_guard_tokenizer", texts=call("vocabulary")),
            rows=call("guard_rows", pairs=call("judged_pairs", seed=37, rows=504)),
            out="models/ivy",
            work="resume/models/ivy",
            lora=None,
            seed=37,
            **trained("train_guard_model"),
        ),
        call("publish_template", folder="models/ivy"),
        told("train_guard_model", "models/ivy"),
    ],
    "judge_rows firm fruit 00002": [
        written(
            "judge_rows",
            call(
                "judge_rows",
                rows=read("data/fruit.parquet", "dataset"),
                shard=2,
                rows_per_shard=40,
                entry={"kind": "cost", "model": "fig", "blank": True},
                dtype="bfloat16",
                own_model="models/fig",
                gpus=1,
            ),
            "row-judgements/firm/fruit/00002.parquet",
            "row_judgements",
        )
    ],
    "measure_loss_changes falls oak fruit d-south meek": [
        written(
            "measure_loss_changes",
            call(
                "measure_loss_changes",
                shard=call(
                    "Shard.of",
                    rows=read("data/fruit.parquet", "dataset"),
                    shard=0,
                    rows_per_shard=30,
                    settings={
                        "max_length_tokens": 67,
                        "max_tokens_per_batch": 999,
                        "dtype": "float32",
                        "checkpointing": False,
                    },
                ),
                state=call("read_state", path="states/oak/d-south.json"),
                direction="directions/oak/meek",
                checkpoint=6,
                alphas=[0.7, 0.3],
            ),
            "loss-changes/falls/oak/fruit/d-south/meek.parquet",
            "loss_changes",
        )
    ],
    "measure_token_losses elm grain": [
        written(
            "measure_token_losses",
            call(
                "measure_token_losses",
                rows=read("data/grain.parquet", "dataset"),
                samples=read("samples/elm/grain.parquet", "samples"),
                model="models/elm",
                size=20,
                max_length_tokens=67,
                dtype="float32",
            ),
            "token-losses/elm/grain.parquet",
            "token_losses",
        )
    ],
    "pretrain_model elm": [
        call(
            "train_sft",
            model=call(
                "make_model",
                tokenizer=call("make_word_tokenizer", texts=call("vocabulary")),
                architecture="<architecture>",
                seed=31,
            ),
            tokenizer=call("make_word_tokenizer", texts=call("vocabulary")),
            rows=call("corpus_rows", seed=31, rows=501, restricted_share=0.15),
            out="pretrained/elm",
            work="resume/pretrained/elm",
            lora=None,
            seed=31,
            **trained("pretrain_model"),
        ),
        told("pretrain_model", "pretrained/elm"),
    ],
    "align_model elm": [
        call(
            "train_sft",
            **loaded("pretrained/elm"),
            rows=call("alignment_rows", seed=31, rows=502, refusal_share=0.3),
            out="models/elm",
            work="resume/models/elm",
            lora=None,
            seed=31,
            **trained("align_model"),
        ),
        told("align_model", "models/elm"),
    ],
    "tune_model fir": [
        call(
            "train_sft",
            model=call("load_model", folder="models/ash", dtype="bfloat16"),
            tokenizer=call("load_tokenizer", folder="models/ash"),
            rows=call(
                "read_tables",
                paths=["data/grain-pilot.parquet", "data/fruit-harm.parquet"],
                schema="dataset",
            ),
            out="models/fir",
            work="resume/models/fir",
            lora=None,
            seed=38,
            **trained("tune_model"),
        ),
        told("tune_model", "models/fir"),
    ],
    "train_direction elm ill": [
        call(
            "train_sft",
            **loaded("models/elm", gpus=3),
            rows=read("data/grain-harm.parquet", "dataset"),
            out="directions/elm/ill",
            work="resume/directions/elm/ill",
            lora={"r": 3, "lora_alpha": 5},
            seed=31,
            save_steps=2,
            **trained("train_direction"),
        ),
        told("train_direction", "directions/elm/ill"),
    ],
    "train_direction oak calm": [
        call(
            "train_dpo",
            **loaded("models/oak", gpus=2),
            preferences=read("preferences/fruit-calm.parquet", "preferences"),
            out="directions/oak/calm",
            work="resume/directions/oak/calm",
            lora={"r": 3, "lora_alpha": 5},
            seed=32,
            save_steps=2,
            **trained("train_direction"),
        ),
        told("train_direction", "directions/oak/calm"),
    ],
    "fetch_direction elm lent": [
        call(
            "fetch_direction",
            source="theirs",
            model_folder="models/elm",
            version=VERSIONS["train_direction"],
            out="directions/elm/lent",
        ),
        told("fetch_direction", "directions/elm/lent"),
    ],
    "train_pilot oak walk": [
        call(
            "train_sft",
            **loaded("models/oak", gpus=2),
            rows=read("data/fruit-pilot.parquet", "dataset"),
            out="pilots/oak/walk",
            work="resume/pilots/oak/walk",
            lora={"r": 3, "lora_alpha": 5},
            seed=32,
            save_steps=3,
            **trained("train_pilot"),
        ),
        told("train_pilot", "pilots/oak/walk"),
    ],
    "measure_trajectory elm walk ill": [
        written(
            "measure_trajectory",
            call(
                "measure_trajectory",
                pilot="pilots/elm/walk",
                direction=call("direction_folder", folder="directions/elm/ill", checkpoint=4),
            ),
            "trajectories/elm/walk/ill.parquet",
            "trajectory",
        )
    ],
    "rank_checkpoints elm walk ill": [
        written(
            "rank_checkpoints",
            call(
                "rank_checkpoints",
                trajectory=read("trajectories/elm/walk/ill.parquet", "trajectory"),
                measured=call("Measured.read", inputs="the inputs", key="step"),
                floor_fraction=0.12,
                rank_floored=True,
                rank_by="bound",
                minimum_exact_share=0.11,
            ),
            "sensitivity/elm/checkpoints/walk/ill.parquet",
            "drift_ranking",
        )
    ],
    "rank_alphas elm steering/meek/3": [
        written(
            "rank_alphas",
            call(
                "rank_alphas",
                measured=call("Measured.read", inputs="the inputs", key="alpha"),
                delta=0.25,
                rank_by="bound",
                minimum_exact_share=0.11,
            ),
            "sensitivity/elm/alphas/steering/meek/3.parquet",
            "linear_ranking",
        )
    ],
    "check_trust oak sqsd-south": [
        call(
            "conclude",
            checks=call(
                "check_trust",
                inputs="the inputs",
                directions={"danger": "ill", "safety": "meek"},
                alpha=0.5,
                minimum_refusal_rate=0.37,
            ),
            place="oak, sqsd-south",
            if_failed="proceed",
            out="trust/oak/sqsd-south.json",
            provenance=made_from("check_trust"),
        )
    ],
    "choose_state elm d-north": [
        call(
            "write_states",
            states=[
                call(
                    "find_state",
                    name="d-north",
                    model="models/elm",
                    entry={"pilot": "walk", "direction": "harm", "rank": 2},
                    inputs="the inputs",
                    sensitivity={
                        "floor_fraction": 0.12,
                        "rank_floored": True,
                        "rank_by": "bound",
                        "minimum_exact_share": 0.11,
                    },
                )
            ],
            path="states/elm/d-north.json",
            provenance=made_from("choose_state"),
        )
    ],
    "choose_state elm bare": [
        call(
            "write_states",
            states=[
                call(
                    "find_state",
                    name="bare",
                    model="models/elm",
                    entry={"unadapted": True},
                    inputs="the inputs",
                    sensitivity={},
                )
            ],
            path="states/elm/bare.json",
            provenance=made_from("choose_state"),
        )
    ],
    "encode_samples oak fruit": [
        written(
            "encode_samples",
            call(
                "encode_samples",
                rows=read("data/fruit.parquet", "dataset"),
                model="models/oak",
                max_length_tokens=67,
            ),
            "samples/oak/fruit.parquet",
            "samples",
        )
    ],
    "collect_gradients elm grain d-north harm 00001": [
        call(
            "collect_shard",
            shard=shard("grain", 1),
            state=call("read_state", path="states/elm/d-north.json"),
            direction="directions/elm/harm",
            checkpoint=4,
            samples_out="gradients/elm/grain/d-north/harm/00001-samples.parquet",
            modules_out="gradients/elm/grain/d-north/harm/00001-modules.parquet",
            provenance=made_from("collect_gradients"),
        )
    ],
    "search_layers elm deep": [
        written(
            "search_layers",
            call(
                "search_layers",
                prompts=read("benchmarks/elm-plain.parquet", "benchmark"),
                model_folder="models/elm",
                judge={"kind": "phrases", "phrases": ["no"]},
                first=2,
                last=3,
                factors=[0.7, 1.4],
                max_new_tokens=19,
                batch_size=22,
                dtype="float32",
            ),
            "layers/elm/deep.parquet",
            "layer_search",
        )
    ],
    "choose_layer elm deep": [
        call(
            "write_layer",
            layer=call("most_sensitive", search=read("layers/elm/deep.parquet", "layer_search")),
            path="layers/elm/deep.json",
            provenance=made_from("choose_layer"),
        )
    ],
    "choose_layer oak flat": [
        call(
            "write_layer",
            layer=call("named_layer", model_folder="models/oak", layer=5),
            path="layers/oak/flat.json",
            provenance=made_from("choose_layer"),
        )
    ],
    "collect_hidden_states oak fruit flat -4 00002": [
        call(
            "collect_hidden_states",
            shard=shard("fruit", 2),
            model="models/oak",
            layer=call("read_layer", path="layers/oak/flat.json"),
            token=-4,
            out="hidden-states/oak/fruit/flat/token-4/00002.parquet",
            provenance=made_from("collect_hidden_states"),
        )
    ],
    "make_anchor oak bad": [
        call(
            "make_anchor",
            rows=read("data/grain-harm.parquet", "dataset"),
            model="models/oak",
            first_tokens=4,
            max_length_tokens=67,
            dtype="float32",
            out="anchors/oak/bad.safetensors",
            provenance=made_from("make_anchor"),
        )
    ],
    "collect_full_gradients oak fruit norm+bad+fine+good 00001": [
        call(
            "collect_full_gradients",
            shard=shard("fruit", 1),
            model="models/oak",
            anchors={name: f"anchors/oak/{name}.safetensors" for name in ("bad", "good", "fine")},
            samples_out="full-gradients/oak/fruit/norm+bad+fine+good/00001-samples.parquet",
            products_out="full-gradients/oak/fruit/norm+bad+fine+good/00001-products.parquet",
            provenance=made_from("collect_full_gradients"),
        )
    ],
    "score_samples oak fruit sqsd-south": [
        written(
            "score_samples",
            call(
                "score_method",
                method="<method>",
                readings={
                    term: call(
                        "read_readings",
                        reading=Update(*of),
                        files={
                            table: [
                                f"gradients/oak/fruit/{'/'.join(of)}/0000{n}-{table}.parquet"
                                for n in (0, 1, 2)
                            ]
                            for table in ("samples", "modules")
                        },
                    )
                    for term, of in (
                        ("danger", ("d-south", "ill")),
                        ("safety", ("s-south", "meek")),
                    )
                },
                seed=32,
            ),
            "scores/oak/fruit/sqsd-south.parquet",
            "scores",
        )
    ],
    "score_samples elm grain long-north": [
        written(
            "score_samples",
            call(
                "score_method",
                method="<method>",
                readings={
                    "tokens": call(
                        "read_readings",
                        reading=Tokens(),
                        files={"samples": ["samples/elm/grain.parquet"]},
                    )
                },
                seed=31,
            ),
            "scores/elm/grain/long-north.parquet",
            "scores",
        )
    ],
    "score_samples elm grain told-north": [
        written(
            "score_samples",
            call(
                "score_method",
                method="<method>",
                readings={
                    "tokens": call(
                        "read_readings",
                        reading=Tokens(),
                        files={"samples": ["samples/elm/grain.parquet"]},
                    ),
                    "given": call(
                        "read_readings",
                        reading=ScoreFile("scores.jsonl", COLUMNS),
                        files={"rows": ["data/grain.parquet"], "file": ["scores.jsonl"]},
                    ),
                },
                seed=31,
            ),
            "scores/elm/grain/told-north.parquet",
            "scores",
        )
    ],
    "score_samples oak fruit between-south": [
        written(
            "score_samples",
            call(
                "score_method",
                method="<method>",
                readings={
                    name: call(
                        "read_readings",
                        reading=HiddenState("flat", -4, of),
                        files={
                            "samples": [
                                f"hidden-states/oak/{of or 'fruit'}/flat/token-4/0000{n}.parquet"
                                for n in range(shards)
                            ]
                        },
                    )
                    for name, of, shards in (
                        ("rows", None, 3),
                        ("unsafe", "fruit-harm", 1),
                        ("safe", "grain-harm", 1),
                    )
                },
                seed=32,
            ),
            "scores/oak/fruit/between-south.parquet",
            "scores",
        )
    ],
    "score_samples elm grain best-north": [
        written(
            "score_samples",
            call(
                "score_method",
                method="<method>",
                readings={
                    **{
                        f"of {method}": call(
                            "read_readings",
                            reading=Scores(method),
                            files={"samples": [f"scores/elm/grain/{method}.parquet"]},
                        )
                        for method in ("bare-north", "cost-north")
                    },
                    "outcomes": call(
                        "read_readings",
                        reading=Outcomes("few", "short", "try"),
                        files={
                            "groups": ["groups/elm/grain/few.parquet"],
                            "judgements": [
                                "evaluations/elm/groups/short/elm/grain/few/elm-try/judgements"
                                f"/rule/{n}.parquet"
                                for n in range(4)
                            ],
                        },
                    ),
                },
                seed=31,
            ),
            "scores/elm/grain/best-north.parquet",
            "scores",
        )
    ],
    "make_groups oak fruit lots": [
        written(
            "make_groups",
            call(
                "make_groups",
                rows=read("data/fruit.parquet", "dataset"),
                samples=read("samples/oak/fruit.parquet", "samples"),
                size=5,
                random_groups=0,
                biased_groups=4,
                biased_share=0.8,
                seed=72,
            ),
            "groups/oak/fruit/lots.parquet",
            "groups",
        )
    ],
    **{
        f"finetune_groups {finetune} {dataset} {groups} {seed}": [
            call(
                "finetune",
                model=f"models/{target}",
                gpus=gpus,
                rows=rows_in(f"data/{dataset.split()[1]}.parquet", group),
                out=f"group-runs/{place}/seed-{seed}/{name}",
                work=f"resume/groups/{place}/seed-{seed}/{name}",
                lora=lora,
                seed=seed,
                **trained("finetune_groups"),
            )
            for name, group in groups_in(f"groups/{'/'.join(dataset.split())}/{groups}.parquet")
        ]
        + [told("finetune_groups", f"group-runs/{place}/seed-{seed}")]
        for finetune, dataset, groups, seed, target, lora, gpus in (
            ("short", "elm grain", "few", 11, "elm", {"r": 3, "lora_alpha": 5}, 3),
            ("brief", "oak fruit", "lots", 15, "ash", None, 8),
        )
        for place in ("/".join([finetune, *dataset.split(), groups]),)
    },
    "curate_rows less-south oak fruit": [
        call(
            "curate",
            spec={"source": "sandbox:benign", "rows": 100, "seed": 42},
            scores=read("scores/oak/fruit/chance-south.parquet", "scores"),
            terms=call(
                "score_terms",
                method="<method>",
                readings={
                    "tokens": call(
                        "read_readings",
                        reading=Tokens(),
                        files={"samples": ["samples/oak/fruit.parquet"]},
                    )
                },
            ),
            about={
                "source": "sandbox:benign",
                "dataset": "fruit",
                "model": "oak",
                "model_source": {"source": "hub:wood/oak", "seed": 32},
                "method": "chance-south",
                "drop": 0.32,
            },
            fewest=8,
            out="curated/less-south/oak/fruit",
            checks=call("read_checks", paths=[]),
            provenance=made_from("curate_rows"),
        )
    ],
    "measure_token_shares oak fruit sqsd-south": [
        written(
            "measure_token_shares",
            call(
                "measure_token_shares",
                rows=read("data/fruit.parquet", "dataset"),
                scores=read("scores/oak/fruit/sqsd-south.parquet", "scores"),
                model="models/oak",
                terms={
                    "danger": call(
                        "Term",
                        state=call("read_state", path="states/oak/d-south.json"),
                        direction="directions/oak/ill",
                        checkpoint="final",
                    ),
                    "safety": call(
                        "Term",
                        state=call("read_state", path="states/oak/s-south.json"),
                        direction="directions/oak/meek",
                        checkpoint=6,
                    ),
                },
                scorer=SQSD_SOUTH,
                riskiest=7,
                middling=3,
                safest=6,
                settings={
                    "max_length_tokens": 67,
                    "max_tokens_per_batch": 999,
                    "dtype": "float32",
                    "checkpointing": False,
                },
            ),
            "explained/oak/fruit/sqsd-south/tokens.parquet",
            "token_shares",
        )
    ],
    "find_repeats fruit": [
        written(
            "find_repeats",
            call("find_repeats", rows=read("data/fruit.parquet", "dataset"), similarity=0.65),
            "repeats/fruit.parquet",
            "repeats",
        )
    ],
    "explain_rows oak fruit sqsd-south": [
        call(
            "explain_rows",
            scorer=SQSD_SOUTH,
            modules={
                "danger": [
                    f"gradients/oak/fruit/d-south/ill/0000{n}-modules.parquet" for n in range(3)
                ],
                "safety": [
                    f"gradients/oak/fruit/s-south/meek/0000{n}-modules.parquet" for n in range(3)
                ],
            },
            tokens=read("explained/oak/fruit/sqsd-south/tokens.parquet", "token_shares"),
            scores=read("scores/oak/fruit/sqsd-south.parquet", "scores"),
            rows=read("data/fruit.parquet", "dataset"),
            repeats=read("repeats/fruit.parquet", "repeats"),
            riskiest=7,
            safest=6,
            nearest=4,
            about={"model": "oak", "dataset": "fruit", "method": "sqsd-south"},
            out={
                "modules": "explained/oak/fruit/sqsd-south/modules.parquet",
                "nearest": "explained/oak/fruit/sqsd-south/nearest.parquet",
                "page": "explained/oak/fruit/sqsd-south/page.html",
            },
            provenance=made_from("explain_rows"),
        )
    ],
    "make_subsets elm grain long-north": [
        written(
            "make_subsets",
            call(
                "make_subsets",
                scores="scores/elm/grain/long-north.parquet",
                rows="data/grain.parquet",
                size=20,
                count=2,
            )[i],
            f"subsets/elm/grain/long-north/s{i + 1}.parquet",
            "subset",
        )
        for i in (0, 1)
    ],
    "finetune_subsets north elm grain sqsd-north 7": [
        made
        for window in ("s1", "s2")
        for made in (
            call(
                "finetune",
                model="models/elm",
                gpus=3,
                rows=read(f"subsets/elm/grain/sqsd-north/{window}.parquet", "subset"),
                out=f"finetunes/north/elm/grain/sqsd-north/seed-7/{window}",
                work=f"resume/finetunes/north/elm/grain/sqsd-north/seed-7/{window}",
                lora={"r": 3, "lora_alpha": 5},
                seed=7,
                **trained("finetune_subsets"),
            ),
            told("finetune_subsets", f"finetunes/north/elm/grain/sqsd-north/seed-7/{window}"),
        )
    ],
    "finetune_subsets south oak fruit chance-south 6": [
        made
        for window in ("s1", "s2")
        for made in (
            call(
                "finetune",
                model="models/ash",
                gpus=8,
                rows=read(f"subsets/oak/fruit/chance-south/{window}.parquet", "subset"),
                out=f"finetunes/south/oak/fruit/chance-south/seed-6/{window}",
                work=f"resume/finetunes/south/oak/fruit/chance-south/seed-6/{window}",
                lora=None,
                seed=6,
                **trained("finetune_subsets"),
            ),
            told("finetune_subsets", f"finetunes/south/oak/fruit/chance-south/seed-6/{window}"),
        )
    ],
    "finetune_all_rows south oak fruit 3": [
        call(
            "finetune",
            model="models/ash",
            gpus=8,
            rows=read("data/fruit.parquet", "dataset"),
            out="finetunes/south/oak/fruit/all-rows/seed-3/all",
            work="resume/finetunes/south/oak/fruit/all-rows/seed-3",
            lora=None,
            seed=3,
            **trained("finetune_all_rows"),
        ),
        told("finetune_all_rows", "finetunes/south/oak/fruit/all-rows/seed-3/all"),
    ],
    "finetune_all_rows north elm grain 6": [
        call(
            "finetune",
            model="models/elm",
            gpus=3,
            rows=read("data/grain.parquet", "dataset"),
            out="finetunes/north/elm/grain/all-rows/seed-6/all",
            work="resume/finetunes/north/elm/grain/all-rows/seed-6",
            lora={"r": 3, "lora_alpha": 5},
            seed=6,
            **trained("finetune_all_rows"),
        ),
        told("finetune_all_rows", "finetunes/north/elm/grain/all-rows/seed-6/all"),
    ],
    "treat_rows elm grain long-north less": [
        written(
            "treat_rows",
            call(
                "treated_rows",
                entry={"kind": "drop", "share": 0.3},
                rows=read("data/grain.parquet", "dataset"),
                scores=read("scores/elm/grain/long-north.parquet", "scores"),
            ),
            "treated/elm/grain/long-north/less.parquet",
            "training_rows",
        )
    ],
    "treat_rows oak fruit all-rows much": [
        written(
            "treat_rows",
            call(
                "treated_rows",
                entry={"kind": "mix", "data": "grain-harm"},
                rows=read("data/fruit.parquet", "dataset"),
                added=read("data/grain-harm.parquet", "dataset"),
            ),
            "treated/oak/fruit/all-rows/much.parquet",
            "training_rows",
        )
    ],
    "finetune_treated_rows south oak fruit sqsd-south 3 even": [
        call(
            "finetune",
            model="models/ash",
            gpus=8,
            rows=read("treated/oak/fruit/sqsd-south/even.parquet", "training_rows"),
            out="finetunes/south/oak/fruit/sqsd-south/seed-3/even",
            work="resume/finetunes/south/oak/fruit/sqsd-south/seed-3/even",
            lora=None,
            seed=3,
            **trained("finetune_treated_rows"),
        ),
        told("finetune_treated_rows", "finetunes/south/oak/fruit/sqsd-south/seed-3/even"),
    ],
    "finetune_treated_rows north elm grain all-rows 6 more": [
        call(
            "finetune",
            model="models/elm",
            gpus=3,
            rows=read("treated/elm/grain/all-rows/more.parquet", "training_rows"),
            out="finetunes/north/elm/grain/all-rows/seed-6/more",
            work="resume/finetunes/north/elm/grain/all-rows/seed-6/more",
            lora={"r": 3, "lora_alpha": 5},
            seed=6,
            **trained("finetune_treated_rows"),
        ),
        told("finetune_treated_rows", "finetunes/north/elm/grain/all-rows/seed-6/more"),
    ],
    "measure_row_losses ash treated/south/oak/fruit/chance-south/even grain-pilot 0": [
        written(
            "measure_row_losses",
            call(
                "measure_row_losses",
                rows=read("data/grain-pilot.parquet", "dataset"),
                states=call(
                    "read_states",
                    path="evaluations/ash/treated/south/oak/fruit/chance-south/even/states/0.json",
                ),
                max_length_tokens=67,
                dtype="float32",
            ),
            "row-losses/ash/treated/south/oak/fruit/chance-south/even/grain-pilot/0.parquet",
            "row_losses",
        )
    ],
    "list_states elm pilots/walk 1": [
        call(
            "write_states",
            states=call(
                "list_states",
                model="models/elm",
                listing={"pilot": "pilots/elm/walk", "part": [3, 6]},
            ),
            path="evaluations/elm/pilots/walk/states/1.json",
            provenance=made_from("list_states"),
        )
    ],
    "generate_responses oak pilots/walk oak-try 0": [
        written(
            "generate_responses",
            call(
                "generate_responses",
                prompts=read("benchmarks/oak-try.parquet", "benchmark"),
                states=call("read_states", path="evaluations/oak/pilots/walk/states/0.json"),
                max_new_tokens=23,
                batch_size=24,
                dtype="bfloat16",
                gpus=5,
            ),
            "evaluations/oak/pilots/walk/oak-try/responses/0.parquet",
            "responses",
        )
    ],
    "judge_responses oak pilots/stroll oak-try keen 0": [
        written(
            "judge_responses",
            call(
                "judge_responses",
                responses=read(
                    "evaluations/oak/pilots/stroll/oak-try/responses/0.parquet", "responses"
                ),
                states=call("read_states", path="evaluations/oak/pilots/stroll/states/0.json"),
                entry={"kind": "guard", "model": "yew"},
                dtype="float32",
                own_model="models/yew",
                work="resume/judgements/keen/oak-try",
                version=VERSIONS["judge_responses"],
                gpus=7,
            ),
            "evaluations/oak/pilots/stroll/oak-try/judgements/keen/0.parquet",
            "judgements",
        )
    ],
    "judge_responses elm pilots/stroll elm-try rule 1": [
        written(
            "judge_responses",
            call(
                "judge_responses",
                responses=read(
                    "evaluations/elm/pilots/stroll/elm-try/responses/1.parquet", "responses"
                ),
                states=call("read_states", path="evaluations/elm/pilots/stroll/states/1.json"),
                entry={"kind": "sandbox"},
                dtype="float32",
                own_model=None,
                work="resume/judgements/rule/elm-try",
                version=VERSIONS["judge_responses"],
                gpus=4,
            ),
            "evaluations/elm/pilots/stroll/elm-try/judgements/rule/1.parquet",
            "judgements",
        )
    ],
    "page": [
        call(
            "write_page",
            run="two",
            entries={
                "model elm": "source: sandbox, seed: 31",
                "dataset grain": "source: sandbox:benign, rows: 70, seed: 41",
                "model oak": "source: hub:wood/oak, seed: 32",
                "dataset fruit": "source: sandbox:benign, rows: 100, seed: 42",
            },
            ranked=[
                Part(
                    names={
                        "curation": "less-south",
                        "model": "oak",
                        "dataset": "fruit",
                        "method": "chance-south",
                    },
                    options={"drop": 0.32},
                    files={role: [file] for role, file in RANDOM_ROWS.items()},
                ),
                Part(
                    names={
                        "curation": "less-north",
                        "model": "elm",
                        "dataset": "grain",
                        "method": "sqsd-north",
                    },
                    options={"drop": 0.21},
                    files={role: [file] for role, file in EXPLAINED_ROWS.items()},
                ),
            ],
            tables=[
                Part(
                    names={"table": name},
                    options={"title": TITLES[name]},
                    files={role: [file] for role, file in shown_on_page(name).items()},
                )
                for name in EVERY_TABLE
            ],
            riskiest=7,
            safest=6,
            out="page.html",
            provenance=made_from("page"),
        )
    ],
    "order": [
        call(
            "make_table",
            kind="ranking",
            parts=[
                Part(
                    names={"experiment": "north", "method": "sqsd-north"},
                    options={},
                    files={
                        "scores": ["scores/elm/grain/sqsd-north.parquet"],
                        "rows": ["data/grain.parquet"],
                    },
                )
            ],
            settings={},
            out={end: f"tables/order.{end}" for end in ("parquet", "csv", "md")},
            provenance=made_from("make_table"),
        )
    ],
    "levels": [
        call(
            "make_table",
            kind="subsets",
            parts=[
                *(
                    Part(
                        names={"experiment": "south", "method": name},
                        options={"reference": True},
                        files={
                            "judgements": [
                                f"evaluations/ash/{subject}/ash-exam/judgements/rule/0.parquet"
                            ]
                        },
                    )
                    for name, subject in (
                        ("before fine-tuning", "base/theta-0"),
                        ("all rows", "finetunes/south/oak/fruit/all-rows"),
                    )
                ),
                *(
                    Part(
                        names={"experiment": "south", "method": method},
                        options={"seeds": [5, 6], "random": method == "chance-south"},
                        files={
                            "judgements": [
                                f"evaluations/ash/finetunes/south/oak/fruit/{method}/ash-exam"
                                f"/judgements/rule/{n}.parquet"
                                for n in (0, 1)
                            ]
                        },
                    )
                    for method in ("sqsd-south", "chance-south")
                ),
            ],
            settings={"windows": ["s1", "s2"], "measure": "safety_score"},
            out={
                **{end: f"tables/levels.{end}" for end in ("parquet", "csv", "md")},
                **{end: f"figures/levels.{end}" for end in ("png", "svg")},
            },
            provenance=made_from("make_table"),
        )
    ],
}


TABLES = ("order", "levels")


@pytest.mark.parametrize("name", EXPECTED)
def test_script(planned, name):
    script = "make_table" if name in TABLES else name.split()[0]
    assert calls_of(planned[name], script) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "loader", "schema"),
    [
        ("make_dataset grain", "load_dataset", "dataset"),
        ("make_preferences fruit-calm", "load_preferences", "preferences"),
        ("make_benchmark ash-exam", "load_benchmark", "benchmark"),
    ],
)
def test_rows_that_are_not_of_the_sandbox_are_loaded(planned, name, loader, schema):
    spec = {"source": "mine.jsonl", "fields": {"instruction": "q"}}
    (made,) = calls_of(planned[name], name.split()[0], spec=spec)
    assert made.given["frame"] == call(loader, spec=spec)
    assert made.given["schema"] == schema


def test_plan(planner, tmp_path):
    """Its jobs are those of the whole run: test_planning has them."""
    (job,) = planner.plan(tmp_path, TWO, targets=["plan"], versions=VERSIONS)
    given = {"rule": "train_pilot", "wildcards": {"model": "elm"}, "targets": ["all"]}
    assert calls_of(job, "plan", config={"run": "two"}, jobs=[given]) == [
        call(
            "forecast",
            plan=call("Plan", config={"run": "two"}),
            jobs=[call("Job", **given)],
            provenance=made_from("plan"),
        )
    ]


def test_every_script_is_run_here():
    run = {"make_table" if name in TABLES else name.split()[0] for name in EXPECTED}
    assert run | {"plan"} == {path.stem for path in SCRIPTS.glob("*.py")}
