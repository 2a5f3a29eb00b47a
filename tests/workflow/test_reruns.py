"""What a change runs again, on a finished tiny run: job by job, for every key of the configuration.

The lines that users meet most are counted by hand. For every other key the table says which jobs
the change itself touches; what comes after them runs too, and nothing else does.
"""

import fnmatch
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, TINY, write_config
from planner import Job, Planner

from sqsd.config import resolve
from sqsd.provenance import STAGE_VERSIONS

GIVEN = yaml.safe_load(TINY.read_text())
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(folder: Path, values: dict[str, Any]) -> Path:
    """The tiny configuration with other values, each by its dotted key."""
    config = deepcopy(GIVEN)
    for key, value in values.items():
        *above, last = key.split(".")
        place = config
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return write_config(folder / "changed.yaml", **config)


def run_again(jobs: Iterable[Job]) -> set[str]:
    return {job.name for job in jobs if job.runs}


def by_rule(jobs: Iterable[Job]) -> dict[str, int]:
    return dict(Counter(job.rule for job in jobs if job.runs))


def and_what_follows(jobs: list[Job], touched: Iterable[str]) -> set[str]:
    """Jobs whose name fits a pattern, and all that come after one of them.

    A pattern that no name fits stands for itself, so that it is never run.
    """
    names = [job.name for job in jobs]
    found = {name for pattern in touched for name in fnmatch.filter(names, pattern) or [pattern]}
    makers = {file: job.name for job in jobs for file in job.makes}
    before = {job.name: {makers[f] for f in job.needs if f in makers} for job in jobs}
    while more := {name for name, needed in before.items() if needed & found} - found:
        found |= more
    return found


def test_a_second_run_has_nothing_to_do(planner, tiny_run):
    assert run_again(planner.plan(tiny_run, TINY)) == set()


def test_the_order_of_keys_is_no_change(planner, tiny_run, tmp_path):
    config = tmp_path / "sorted.yaml"
    config.write_text(yaml.safe_dump(GIVEN, sort_keys=True))
    assert config.read_text() != TINY.read_text()
    assert run_again(planner.plan(tiny_run, config)) == set()


# Two experiments of three methods, of which `sandbox` has a fourth in table 3; two seeds of three
# windows make one part of six states. Table 1 has the judge `steps`, all else the judge `sandbox`.
LINES = {
    "method `length` deselected": (
        {
            "tables.table1.methods": ["sqsd-danger", "random"],
            "tables.table7.methods": ["sqsd-danger", "random"],
        },
        {"table1": 1, "table7": 1, "all": 1},
    ),
    "another `test` benchmark": (
        {
            "benchmarks.another": {"source": "sandbox:test", "seed": 9},
            "evaluation.benchmarks.test": "another",
        },
        # Of the model `sandbox`, since `young` has its own: its four methods, of which tables 3
        # and 7 show four by the one judge and table 1 three by the other; and by both the model
        # before fine-tuning, and on all rows. Two methods are judged by two learned judges.
        # And of what groups did, by which a method is calibrated.
        {
            "make_benchmark": 1, "generate_responses": 4 + 2 + 1,
            "judge_responses": 4 + 3 + 2 * 2 + 2 * 2 + 1, "score_samples": 1,
            "table1": 1, "table3": 1, "table7": 1, "table11": 1, "learned": 1, "all": 1,
        },
    ),
    # Of two models; in the part of the first, which is not full, and by two judges.
    "a second seed on all rows": (
        {"finetunes.lora.all_rows_seeds": [1, 2]},
        {
            "finetune_all_rows": 2, "list_states": 2, "generate_responses": 2,
            "judge_responses": 2 * 2, "table1": 1, "table3": 1, "table7": 1, "all": 1,
        },
    ),
    "a third fine-tuning seed": (
        {"finetunes.lora.seeds": [1, 2, 3]},
        {
            "finetune_subsets": 4 + 3, "list_states": 4 + 3, "generate_responses": 4 + 3,
            "judge_responses": 4 + 3 + 3 + 3 + 2 * 2, "table1": 1, "table3": 1, "table7": 1,
            "learned": 1, "all": 1,
        },
    ),
    "an alpha added": (
        {"steering.alphas": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]},
        # Two models and two directions, one of them at two checkpoints of one model; table 4 asks
        # the guard along that direction.
        {
            "list_states": 5, "generate_responses": 5 + 3, "judge_responses": 5, "rank_alphas": 3,
            "table4": 1, "figure5": 1, "all": 1,
        },
    ),
    "a method added whose readings are there": (
        {"tables.table1.methods": ["sqsd-danger", "random", "length", "danger-alone"]},
        # Once for each experiment; two seeds.
        {
            "score_samples": 2, "make_subsets": 2, "finetune_subsets": 4, "list_states": 2,
            "generate_responses": 2, "judge_responses": 2, "table1": 1, "all": 1,
        },
    ),
    "baselines added whose readings are there": (
        {
            "methods.reps-of-three": {
                "kind": "bi-anchor-reps", "anchors": "harmful-10", "layer": "last", "most": 3,
            },
            "methods.larf-cosine": {
                "kind": "larf", "unsafe": "harmful-100", "safe": "refused-100",
                "layer": "safety-sensitive", "similarity": "cosine",
            },
            "methods.self-inf": {"kind": "self-inf", "length": False},
            "methods.other-roles": {
                "kind": "bi-anchor-grad", "harmful": "refused-more",
                "harmless": ["refused", "harmful"],
            },
            "methods.other-phrase": {"kind": "refusal-opening", "phrases": ["No"]},
            "tables.baselines.methods": [
                *GIVEN["tables"]["baselines"]["methods"], "reps-of-three", "larf-cosine",
                "self-inf", "other-roles", "other-phrase",
            ],
        },
        {"score_samples": 5, "baselines": 1, "all": 1},
    ),
    # Self-Inf-N's scores stay, whatever other method reads gradients.
    "a baseline left out": (
        {
            "tables.baselines.methods": [
                m for m in GIVEN["tables"]["baselines"]["methods"] if m != "bi-anchor-grad"
            ],
        },
        {"baselines": 1, "all": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_change_costs_what_it_changes(planner, tiny_run, tmp_path, line):
    values, expected = LINES[line]
    jobs = planner.plan(tiny_run, changed(tmp_path, values))
    assert by_rule(jobs) == expected


def test_a_third_seed_trains_that_seed_alone(planner, tiny_run, tmp_path):
    jobs = planner.plan(tiny_run, changed(tmp_path, {"finetunes.lora.seeds": [1, 2, 3]}))
    trained = [job for job in jobs if job.runs and job.rule == "finetune_subsets"]
    assert {job.wildcards["seed"] for job in trained} == {"3"}
    evaluated = [job for job in jobs if job.runs and "subject" in job.wildcards]
    assert {job.wildcards["part"] for job in evaluated} == {"1"}


SECOND_PILOT = {
    "pilots.second": {
        "data": "pilot", "save_steps": 5,
        "training": DEFAULT["pilots"]["pilot"]["training"] | {"epochs": 1},
    }
}  # fmt: skip
DEARER = {"kind": "cost", "model": "cost", "blank": True}
ANCHOR = {"data": "harmful-10", "first_tokens": None}
OTHER_JUDGE = {"judges.other": {"kind": "openings", "refusal": "Sorry ,", "compliance": "First ,"}}
INSENSITIVE_OF_YOUNG = [
    "choose_state young d-danger-insensitive", "list_states young steering/safety/final 0",
]  # fmt: skip
COLLECT = ["collect_gradients *", "collect_hidden_states *", "collect_full_gradients *"]
LOSSES = ["measure_token_losses *", "measure_loss_changes *"]
SEARCH = "search_layers sandbox safety-sensitive"
BASELINES_OF_YOUNG = [
    "search_layers young *", "choose_layer young *", "collect_hidden_states young *",
    "make_anchor young *", "collect_full_gradients young *",
]  # fmt: skip
ON_SUBSETS = ["table1", "table3", "table7"]
FINETUNE = ["finetune_subsets *", "finetune_all_rows *"]
TUNED_ON_TUNING = [
    f"generate_responses {model} {subject}/* {benchmark} 0"
    for model, benchmark in (("sandbox", "tuning"), ("young", "young-tuning"))
    for subject in ("finetunes", "base")
]
GROUPS = "groups/few-steps/sandbox/mixed/test"
OTHER_GROUPS = {
    "groups.other": {
        "size": 3, "random_groups": 4, "biased_groups": 0, "biased_share": 0.5, "seed": 3,
    }
}  # fmt: skip
OTHER_STEPS = {
    "finetunes.other": {
        "tuning": "lora", "seeds": [4], "training": DEFAULT["finetunes"]["few-steps"]["training"],
    }
}  # fmt: skip
EXACT_OF_THE_HUB = {"source": "hub:a/b:*.csv", "fields": {"prompt": "q", "reference": "a"}}
CALIBRATED = "score_samples sandbox mixed sqsd-danger-calibrated"

# Keys (of which those changed stand for the others that a pattern covers: they are values of one
# and the same parameter), the change, and the jobs that it touches by itself.
ROWS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("run", {"run": "again"}, ["*"]),
    (
        "selection.experiments",
        {"selection.experiments": ["sandbox"]},
        # Table 3 names its experiments.
        ["table1", "table4", "table5", "table6", "table7", "ranking", "figure2", "figure5"],
    ),
    ("selection.tables", {"selection.tables": ["table1", "figure5"]}, []),
    (
        "experiments.*.model",
        {"experiments.sandbox.model": "young"},
        [
            "encode_samples young mixed",
            "collect_gradients young mixed *",
            "finetune_all_rows lora young mixed 1",
            "choose_state young theta-0",
            "measure_loss_changes figure11 young mixed *",
            *BASELINES_OF_YOUNG,
            *INSENSITIVE_OF_YOUNG,
            "table4",
            "table5",
            "table6",
            "figure2",
            "figure5",
        ],
    ),
    (
        "experiments.*.dataset",
        {"experiments.sandbox.dataset": "rows"},
        [
            "encode_samples sandbox rows",
            "finetune_all_rows lora sandbox rows 1",
            "collect_gradients sandbox rows *",
            "collect_hidden_states sandbox rows *",
            "collect_full_gradients sandbox rows *",
            "measure_loss_changes figure11 sandbox rows *",
            "judge_rows cost rows *",
        ],
    ),
    (
        "models.*.source",
        {"models.sandbox.source": "hub:some/model"},
        ["fetch_model sandbox"],
    ),
    ("models.*.seed", {"models.seedling.seed": 7}, ["pretrain_model seedling"]),
    ("models.young.seed", {"models.young.seed": 7}, ["tune_model young"]),
    (
        "models.young.base",
        {"models.young.base": "sandbox"},
        ["tune_model young"],
    ),
    # In another order.
    ("models.young.data", {"models.young.data": ["rows", "refused-10"]}, ["tune_model young"]),
    (
        "models.young.training.*",
        {"models.young.training.learning_rate": 1.0e-4},
        ["tune_model young"],
    ),
    (
        "sandbox.architecture.*",
        {"sandbox.architecture.hidden_size": 64},
        ["pretrain_model *", "train_cost_model cost", "train_guard_model guard"],
    ),
    ("sandbox.guard.rows", {"sandbox.guard.rows": 201}, ["train_guard_model guard"]),
    (
        "sandbox.guard.training.*",
        {"sandbox.guard.training.learning_rate": 1.0e-4},
        ["train_guard_model guard"],
    ),
    ("sandbox.cost.rows", {"sandbox.cost.rows": 301}, ["train_cost_model cost"]),
    (
        "sandbox.cost.training.*",
        {"sandbox.cost.training.learning_rate": 1.0e-4},
        ["train_cost_model cost"],
    ),
    ("sandbox.corpus.*", {"sandbox.corpus.rows": 3001}, ["pretrain_model *"]),
    ("sandbox.alignment.*", {"sandbox.alignment.rows": 601}, ["align_model *"]),
    (
        "sandbox.pretraining.*",
        {"sandbox.pretraining.learning_rate": 1.0e-4},
        ["pretrain_model *"],
    ),
    (
        "sandbox.alignment_training.*",
        {"sandbox.alignment_training.weight_decay": 0.1},
        ["align_model *"],
    ),
    ("datasets.mixed.*", {"datasets.mixed.seed": 5}, ["make_dataset mixed"]),
    ("datasets.pilot.*", {"datasets.pilot.rows": 121}, ["make_dataset pilot"]),
    ("datasets.danger.*", {"datasets.danger.source": "sandbox:benign"}, ["make_dataset danger"]),
    ("datasets.harmful-*", {"datasets.harmful-10.seed": 5}, ["make_dataset harmful-10"]),
    ("datasets.refused-*", {"datasets.refused-100.rows": 13}, ["make_dataset refused-100"]),
    ("datasets.rows.*", {"datasets.rows.rows": 71}, ["make_dataset rows"]),
    ("datasets.young-pilot.*", {"datasets.young-pilot.seed": 5}, ["make_dataset young-pilot"]),
    ("datasets.young-danger.*", {"datasets.young-danger.seed": 5}, ["make_dataset young-danger"]),
    ("preferences.safety.*", {"preferences.safety.rows": 49}, ["make_preferences safety"]),
    (
        "preferences.young-safety.*",
        {"preferences.young-safety.seed": 5},
        ["make_preferences young-safety"],
    ),
    ("benchmarks.tuning.*", {"benchmarks.tuning.seed": 5}, ["make_benchmark tuning"]),
    ("benchmarks.test.*", {"benchmarks.test.source": "sandbox:exact"}, ["make_benchmark test"]),
    (
        "benchmarks.over-refusal.*",
        {"benchmarks.over-refusal.seed": 5},
        ["make_benchmark over-refusal"],
    ),
    ("benchmarks.exact.*", {"benchmarks.exact.seed": 5}, ["make_benchmark exact"]),
    (
        "benchmarks.*.where.*",
        {"benchmarks.exact.where": {"a": "I cannot help with that ."}},
        ["make_benchmark exact"],
    ),
    (
        "benchmarks.*.where_not.*",
        {"benchmarks.exact.where_not": {"q": "How do I check the runic heater ?"}},
        ["make_benchmark exact"],
    ),
    (
        "benchmarks.*.columns",
        {"benchmarks.exact": EXACT_OF_THE_HUB | {"columns": ["q", "a"]}},
        ["make_benchmark exact"],
    ),
    (
        "benchmarks.*.revision",
        {"benchmarks.exact": EXACT_OF_THE_HUB | {"revision": "v2"}},
        ["make_benchmark exact"],
    ),
    (
        "benchmarks.young-tuning.*",
        {"benchmarks.young-tuning.seed": 5},
        ["make_benchmark young-tuning"],
    ),
    ("benchmarks.young-test.*", {"benchmarks.young-test.seed": 5}, ["make_benchmark young-test"]),
    (
        "benchmarks.young-exact.*",
        {"benchmarks.young-exact.seed": 5},
        ["make_benchmark young-exact"],
    ),
    (
        "lora.r",
        {"lora.r": 4},
        ["train_direction *", "train_pilot *", *FINETUNE, "finetune_groups *"],
    ),
    (
        "lora.lora_alpha",
        {"lora.lora_alpha": 8},
        ["train_direction *", "train_pilot *", *FINETUNE, "finetune_groups *"],
    ),
    (
        "directions.*.objective",
        {
            "directions.danger.objective": "dpo",
            "directions.danger.data": "safety",
            "directions.danger.training.beta": 0.1,
            "directions.danger.per_model.young.data": "young-safety",
        },
        ["train_direction * danger"],
    ),
    (
        "directions.danger.data",
        {"directions.danger.data": "pilot"},
        ["train_direction sandbox danger"],
    ),
    (
        "directions.danger.per_model.young.data",
        {"directions.danger.per_model.young.data": "danger"},
        ["train_direction young danger"],
    ),
    (
        "directions.danger.save_steps",
        {"directions.danger.save_steps": 20},
        ["train_direction * danger"],
    ),
    # V and its curve, not its training.
    (
        "directions.danger.checkpoint",
        {"directions.danger.checkpoint": 10},
        [
            "collect_gradients * danger ?????",
            "measure_loss_changes * danger",
            "measure_trajectory * danger",
            "list_states * steering/danger/10 0",
        ],
    ),
    (
        "directions.danger.training.*",
        {"directions.danger.training.epochs": 9},
        ["train_direction * danger"],
    ),
    (
        "directions.safety.data",
        {"directions.safety.data": "young-safety"},
        ["train_direction sandbox safety"],
    ),
    (
        "directions.safety.save_steps",
        {"directions.safety.save_steps": 3},
        ["train_direction * safety"],
    ),
    # `young` has its own; the states `s` and `s-insensitive` name theirs.
    (
        "directions.safety.checkpoint",
        {"directions.safety.checkpoint": 6},
        [
            "collect_gradients sandbox * safety ?????",
            "measure_trajectory sandbox * safety",
            "list_states sandbox steering/safety/6 0",
        ],
    ),
    (
        "directions.safety.per_model.young.checkpoint",
        {"directions.safety.per_model.young.checkpoint": 12},
        [
            "collect_gradients young * safety ?????",
            "measure_trajectory young * safety",
            # One curve instead of two: the state lies at that checkpoint.
            "table4",
            "figure5",
        ],
    ),
    (
        "directions.safety.per_model.young.data",
        {"directions.safety.per_model.young.data": "safety"},
        ["train_direction young safety"],
    ),
    (
        "directions.safety.training.*",
        {"directions.safety.training.beta": 0.2},
        ["train_direction * safety"],
    ),
    ("pilots.pilot.data", {"pilots.pilot.data": "mixed"}, ["train_pilot sandbox pilot"]),
    ("pilots.pilot.save_steps", {"pilots.pilot.save_steps": 5}, ["train_pilot sandbox pilot"]),
    ("pilots.pilot.training.*", {"pilots.pilot.training.schedule": "cosine"}, ["train_pilot *"]),
    (
        "pilots.pilot.per_model.young.data",
        {"pilots.pilot.per_model.young.data": "pilot"},
        ["train_pilot young pilot"],
    ),
    (
        "pilots.pilot.per_model.young.save_steps",
        {"pilots.pilot.per_model.young.save_steps": 4},
        ["train_pilot young pilot"],
    ),
    (
        "states.d-danger.pilot",
        {
            "states.d-danger.pilot": "second",
            "tables.figure2.states": ["d-danger-insensitive"],
            **SECOND_PILOT,
        },
        ["train_pilot * second", "choose_state young d-danger-insensitive", "figure2"],
    ),
    (
        "states.d-danger.direction",
        {"states.d-danger.direction": "safety"},
        ["choose_state * d-danger"],
    ),
    ("states.d-danger.rank", {"states.d-danger.rank": 2}, ["choose_state * d-danger"]),
    (
        "states.d-danger-insensitive.pilot",
        {"states.d-danger-insensitive.pilot": "second", **SECOND_PILOT},
        ["train_pilot sandbox second"],
    ),
    (
        "states.d-danger-insensitive.direction",
        {"states.d-danger-insensitive.direction": "safety"},
        ["choose_state sandbox d-danger-insensitive"],
    ),
    (
        "states.s.direction",
        {
            "states.s.direction": "danger",
            "states.s.per_model.young.checkpoint": 20,
            "tables.table4.directions": ["danger"],
        },
        [
            "list_states * states/s 0",
            "list_states young steering/danger/20 0",
            "generate_responses * steering/danger/final *exact 0",
            "rank_alphas * steering/danger/*",
        ],
    ),
    # It lies on a curve of its own.
    (
        "states.s.checkpoint",
        {"states.s.checkpoint": 6},
        ["list_states sandbox states/s 0", "list_states sandbox steering/safety/6 0", "figure5"],
    ),
    ("states.s.alpha", {"states.s.alpha": 0.2}, ["list_states sandbox states/s 0"]),
    # And on one that is there.
    (
        "states.s.per_model.young.checkpoint",
        {"states.s.per_model.young.checkpoint": 6},
        ["list_states young states/s 0", "table4", "figure5"],
    ),
    (
        "states.s.per_model.young.alpha",
        {"states.s.per_model.young.alpha": 0.1},
        ["list_states young states/s 0"],
    ),
    # Answered there already for figure 5, but for the guard.
    (
        "states.s-insensitive.direction",
        {"states.s-insensitive.direction": "danger"},
        [
            "generate_responses sandbox steering/danger/final exact 0",
            "choose_state sandbox s-insensitive",
        ],
    ),
    (
        "states.s-insensitive.checkpoint",
        {"states.s-insensitive.checkpoint": 6},
        ["list_states sandbox steering/safety/6 0"],
    ),
    (
        "states.s-insensitive.alphas",
        {"states.s-insensitive.alphas": [0.1, 0.2, 0.3]},
        ["choose_state sandbox s-insensitive"],
    ),
    # From a checkpoint of the pilot to theta_0, whose reading is there; and another way round.
    (
        "methods.sqsd-danger.danger.state",
        {"methods.sqsd-danger.danger.state": "theta-0"},
        ["choose_state young theta-0", "score_samples sandbox mixed sqsd-danger"],
    ),
    (
        "methods.danger-theta-0.*",
        {"methods.danger-theta-0.danger.state": "d-danger-insensitive"},
        ["score_samples sandbox mixed danger-theta-0"],
    ),
    ("layers.last.layer", {"layers.last.layer": 2}, ["choose_layer sandbox last"]),
    (
        "layers.safety-sensitive.benchmark",
        {"layers.safety-sensitive.benchmark": "tuning"},
        [SEARCH],
    ),
    ("layers.safety-sensitive.judge", {"layers.safety-sensitive.judge": "steps"}, [SEARCH]),
    ("layers.safety-sensitive.first", {"layers.safety-sensitive.first": 2}, [SEARCH]),
    ("layers.safety-sensitive.factors", {"layers.safety-sensitive.factors": [0.5]}, [SEARCH]),
    (
        "layers.safety-sensitive.max_new_tokens",
        {"layers.safety-sensitive.max_new_tokens": 20},
        [SEARCH],
    ),
    ("anchors.*.data", {"anchors.harmful.data": "pilot"}, ["make_anchor sandbox harmful"]),
    (
        "anchors.*.first_tokens",
        {"anchors.refused.first_tokens": 5},
        ["make_anchor sandbox refused"],
    ),
    (
        "anchors.*.per_model.sandbox.first_tokens",
        {"anchors.refused.per_model": {"sandbox": {"first_tokens": 5}}},
        ["make_anchor sandbox refused"],
    ),
    (
        "anchors.*.per_model.sandbox.data",
        {"anchors.harmful.per_model": {"sandbox": {"data": "pilot"}}},
        ["make_anchor sandbox harmful"],
    ),
    # Of a model that no method reads it for.
    (
        "anchors.*.per_model.young.data",
        {"anchors.harmful.per_model": {"young": {"data": "pilot"}}},
        [],
    ),
    (
        "methods.larf.per_model.sandbox.similarity",
        {"methods.larf.per_model": {"sandbox": {"similarity": "cosine"}}},
        ["score_samples sandbox mixed larf"],
    ),
    (
        "methods.sqsd-danger.per_model.young.safety.direction",
        {"methods.sqsd-danger.per_model": {"young": {"safety": {"direction": "danger"}}}},
        ["collect_gradients young rows s danger ?????"],
    ),
    (
        "methods.sqsd-danger-calibrated.among",
        {"methods.sqsd-danger-calibrated.among": ["danger-theta-0", "sqsd-danger", "length"]},
        [CALIBRATED],
    ),
    (
        "methods.sqsd-danger-calibrated.among",
        {"methods.sqsd-danger-calibrated.among": ["danger-alone", "length"]},
        ["score_samples sandbox mixed danger-alone", CALIBRATED],
    ),
    (
        "methods.sqsd-danger-calibrated.groups",
        {"methods.sqsd-danger-calibrated.groups": "other", **OTHER_GROUPS},
        ["make_groups sandbox mixed other"],
    ),
    (
        "methods.sqsd-danger-calibrated.finetune",
        {"methods.sqsd-danger-calibrated.finetune": "other", **OTHER_STEPS},
        ["finetune_groups other sandbox mixed test 4"],
    ),
    (
        "methods.sqsd-danger-calibrated.benchmark",
        {"methods.sqsd-danger-calibrated.benchmark": "tuning"},
        [f"generate_responses sandbox {GROUPS} tuning 0"],
    ),
    (
        "methods.sqsd-danger-calibrated.per_model.sandbox.benchmark",
        {"methods.sqsd-danger-calibrated.per_model": {"sandbox": {"benchmark": "tuning"}}},
        [f"generate_responses sandbox {GROUPS} tuning 0"],
    ),
    ("groups.test.size", {"groups.test.size": 5}, ["make_groups *"]),
    ("groups.test.random_groups", {"groups.test.random_groups": 2}, ["make_groups *"]),
    ("groups.test.biased_groups", {"groups.test.biased_groups": 3}, ["make_groups *"]),
    ("groups.test.biased_share", {"groups.test.biased_share": 0.5}, ["make_groups *"]),
    ("groups.test.seed", {"groups.test.seed": 3}, ["make_groups *"]),
    # Two values that change places.
    (
        "groups.test.random_groups",
        {"groups.test.random_groups": 2, "groups.test.biased_groups": 3},
        ["make_groups *"],
    ),
    (
        "finetunes.few-steps.tuning",
        {"finetunes.few-steps.tuning": "full"},
        ["finetune_groups *"],
    ),
    (
        "finetunes.few-steps.seeds",
        {"finetunes.few-steps.seeds": [1, 5]},
        ["finetune_groups * 5"],
    ),
    (
        "finetunes.few-steps.training.*",
        {"finetunes.few-steps.training.learning_rate": 1.0e-4},
        ["finetune_groups *"],
    ),
    # The rows are those that `sandbox` can use.
    (
        "finetunes.few-steps.model",
        {"finetunes.few-steps.model": "young"},
        ["finetune_groups *"],
    ),
    (
        "methods.reward-model.judge",
        {"methods.reward-model.judge": "dearer", "judges.dearer": DEARER},
        ["judge_rows dearer *", "score_samples * reward-model"],
    ),
    (
        "methods.bi-anchor-reps.anchors",
        {"methods.bi-anchor-reps.anchors": "pilot"},
        ["collect_hidden_states sandbox pilot last -2 *", "score_samples * bi-anchor-reps"],
    ),
    (
        "methods.bi-anchor-reps.layer",
        {"methods.bi-anchor-reps.layer": "safety-sensitive"},
        ["collect_hidden_states * safety-sensitive -2 *", "score_samples * bi-anchor-reps"],
    ),
    (
        "methods.bi-anchor-reps.token",
        {"methods.bi-anchor-reps.token": -1},
        ["collect_hidden_states * last -1 *", "score_samples * bi-anchor-reps"],
    ),
    # The readings are there.
    (
        "methods.bi-anchor-reps.most",
        {"methods.bi-anchor-reps.most": 3},
        ["score_samples * bi-anchor-reps"],
    ),
    (
        "methods.bi-anchor-grad.harmful",
        {"methods.bi-anchor-grad.harmful": "other", "anchors.other": ANCHOR},
        [
            "make_anchor sandbox other",
            "collect_full_gradients * norm+other+refused+refused-more *",
            "score_samples * bi-anchor-grad",
        ],
    ),
    (
        "methods.bi-anchor-grad.harmless",
        {"methods.bi-anchor-grad.harmless": ["refused"]},
        ["collect_full_gradients * norm+harmful+refused *", "score_samples * bi-anchor-grad"],
    ),
    (
        "methods.self-inf-n.*",
        {"methods.self-inf-n.length": False},
        ["score_samples * self-inf-n"],
    ),
    (
        "methods.larf.unsafe",
        {"methods.larf.unsafe": "harmful-10"},
        [
            "collect_hidden_states sandbox harmful-10 safety-sensitive -1 00000",
            "score_samples * larf",
        ],
    ),
    (
        "methods.larf.safe",
        {"methods.larf.safe": "pilot"},
        ["collect_hidden_states sandbox pilot safety-sensitive -1 *", "score_samples * larf"],
    ),
    (
        "methods.larf.layer",
        {"methods.larf.layer": "last"},
        ["collect_hidden_states * last -1 *", "score_samples * larf"],
    ),
    (
        "methods.larf.similarity",
        {"methods.larf.similarity": "cosine"},
        ["score_samples * larf"],
    ),
    (
        "methods.refusal-opening.phrases",
        {"methods.refusal-opening.phrases": ["I"]},
        ["score_samples * refusal-opening"],
    ),
    (
        "methods.published.source",
        {"methods.published.source": str(ROOT / "tests/end_to_end/scores.jsonl")},
        ["score_samples sandbox mixed published"],
    ),
    (
        "methods.published.fields.*",
        {"methods.published.fields.response": "q"},
        ["score_samples sandbox mixed published"],
    ),
    ("methods.*.kind", {"methods.random.kind": "length"}, ["score_samples * random"]),
    (
        "methods.sqsd-danger.danger.direction",
        {"methods.sqsd-danger.danger.direction": "safety"},
        ["collect_gradients * d-danger safety ?????"],
    ),
    # Of `sandbox` the reading is there.
    (
        "methods.sqsd-danger.danger.state",
        {"methods.sqsd-danger.danger.state": "d-danger-insensitive"},
        ["choose_state young d-danger-insensitive", "score_samples sandbox mixed sqsd-danger"],
    ),
    (
        "methods.sqsd-danger.safety.direction",
        {"methods.sqsd-danger.safety.direction": "danger"},
        ["collect_gradients * s danger ?????"],
    ),
    (
        "methods.sqsd-danger.safety.state",
        {"methods.sqsd-danger.safety.state": "s-insensitive"},
        [
            "list_states young steering/safety/final 0",
            "score_samples sandbox mixed sqsd-danger",
        ],
    ),
    (
        "methods.sqsd-danger.normalised",
        {"methods.sqsd-danger.normalised": False},
        ["score_samples * sqsd-danger"],
    ),
    (
        "methods.sqsd-danger-insensitive-state.*",
        {"methods.sqsd-danger-insensitive-state.safety.state": "s"},
        ["score_samples sandbox mixed sqsd-danger-insensitive-state"],
    ),
    (
        "steering.alphas",
        {"steering.alphas": [-0.1, 0.0, 0.1, 0.2, 0.3, 0.4]},
        ["list_states * steering/*"],
    ),
    (
        "sensitivity.benchmark",
        {"sensitivity.benchmark": "test"},
        [
            "generate_responses * steering/safety/* *test 0",
            "generate_responses * pilots/pilot *test ?",
        ],
    ),
    (
        "sensitivity.guard",
        {"sensitivity.guard": None},
        # Not theta_0, which has no guard.
        ["rank_checkpoints *", "rank_alphas *", "choose_state * [ds]*"],
    ),
    (
        "sensitivity.minimum_exact_share",
        {"sensitivity.minimum_exact_share": 0.9},
        ["rank_checkpoints sandbox *", "rank_alphas sandbox *", "choose_state sandbox [ds]*"],
    ),
    (
        "sensitivity.per_model.young.minimum_exact_share",
        {"sensitivity.per_model.young.minimum_exact_share": 0.01},
        ["rank_checkpoints young *", "rank_alphas young *", "choose_state young *"],
    ),
    (
        "sensitivity.delta",
        {"sensitivity.delta": 0.2, "states.s-insensitive.alphas": [0.2]},
        ["rank_alphas *", "choose_state sandbox s-insensitive"],
    ),
    (
        "sensitivity.floor_fraction",
        {"sensitivity.floor_fraction": 0.1},
        ["rank_checkpoints *", "choose_state * d-danger", "choose_state * d-danger-insensitive"],
    ),
    (
        "sensitivity.floor_fraction",
        {"sensitivity.floor_fraction": 0.25, "sensitivity.minimum_exact_share": 0.03},
        [
            "rank_checkpoints *",
            "rank_alphas sandbox *",
            "choose_state sandbox [ds]*",
            "choose_state * d-danger",
            "choose_state * d-danger-insensitive",
        ],
    ),
    (
        "sensitivity.rank_floored",
        {"sensitivity.rank_floored": True},
        ["rank_checkpoints *", "choose_state * d-danger", "choose_state * d-danger-insensitive"],
    ),
    (
        "sensitivity.rank_by",
        {"sensitivity.rank_by": "bound"},
        [
            "rank_checkpoints *",
            "rank_alphas *",
            "choose_state * d-danger",
            "choose_state * d-danger-insensitive",
            "choose_state sandbox s-insensitive",
        ],
    ),
    (
        "gradients.rows_per_shard",
        {"gradients.rows_per_shard": 30},
        [*COLLECT, "judge_rows *"],
    ),
    (
        "gradients.max_length_tokens",
        {"gradients.max_length_tokens": 100},
        [*COLLECT, "make_anchor *", "encode_samples *", *LOSSES],
    ),
    (
        "gradients.max_tokens_per_batch",
        {"gradients.max_tokens_per_batch": 512},
        [*COLLECT, "measure_loss_changes *"],
    ),
    # Changes of loss are measured in float32 whatever that says.
    (
        "gradients.dtype",
        {"gradients.dtype": "bfloat16"},
        [*COLLECT, "make_anchor *", "measure_token_losses *"],
    ),
    (
        "gradients.checkpointing",
        {"gradients.checkpointing": True},
        [*COLLECT, "measure_loss_changes *"],
    ),
    ("subsets.count", {"subsets.count": 2}, ["make_subsets *"]),
    (
        "subsets.rows",
        {"subsets.rows": 20},
        ["make_subsets *", "alike", "measure_token_losses *", "figure8"],
    ),
    ("finetunes.lora.tuning", {"finetunes.lora.tuning": "full"}, FINETUNE),
    ("finetunes.lora.seeds", {"finetunes.lora.seeds": [1, 2, 5]}, ["finetune_subsets * 5"]),
    (
        "finetunes.lora.all_rows_seeds",
        {"finetunes.lora.all_rows_seeds": [5]},
        ["finetune_all_rows * 5"],
    ),
    ("finetunes.lora.all_rows_seeds", {"finetunes.lora.all_rows_seeds": []}, ON_SUBSETS),
    (
        "finetunes.lora.training.*",
        {"finetunes.lora.training.learning_rate": 1.0e-4},
        FINETUNE,
    ),
    # `young` trains itself already.
    (
        "finetunes.lora.model",
        {"finetunes.lora.model": "young"},
        [f"{stage} lora sandbox mixed *" for stage in ("finetune_subsets", "finetune_all_rows")]
        + ["list_states young finetunes/lora/sandbox/*"],
    ),
    (
        "judges.*.kind",
        {"judges.steps": {"kind": "sandbox"}},
        ["judge_responses * steps 0"],
    ),
    (
        "judges.cost.*",
        {"judges.cost.end_token": False},
        ["judge_rows cost *", "judge_responses * cost 0"],
    ),
    (
        "judges.guard.*",
        {"judges.guard.model": "sandbox"},
        ["judge_responses * guard 0"],
    ),
    (
        "judges.phrases.*",
        {"judges.phrases.phrases": ["no"]},
        [SEARCH],
    ),
    (
        "judges.steps.phrases",
        {"judges.steps.phrases": ["no"]},
        ["judge_responses * steps 0"],
    ),
    (
        "evaluation.benchmarks.tuning",
        {"evaluation.benchmarks.tuning": "test"},
        [
            "generate_responses sandbox steering/* test 0",
            "generate_responses sandbox pilots/pilot test 0",
        ],
    ),
    (
        "evaluation.benchmarks.test",
        {"evaluation.benchmarks.test": "tuning"},
        [
            f"generate_responses sandbox {subject}/* tuning 0"
            for subject in ("finetunes", "base", "groups")
        ],
    ),
    (
        "evaluation.benchmarks.over-refusal",
        {"evaluation.benchmarks.over-refusal": "exact"},
        [SEARCH],
    ),
    (
        "evaluation.benchmarks.exact",
        {"evaluation.benchmarks.exact": "young-exact"},
        ["generate_responses sandbox * young-exact 0"],
    ),
    (
        "evaluation.per_model.young.benchmarks.tuning",
        {"evaluation.per_model.young.benchmarks.tuning": "tuning"},
        ["generate_responses young * tuning ?"],
    ),
    (
        "evaluation.per_model.young.benchmarks.test",
        {"evaluation.per_model.young.benchmarks.test": "test"},
        ["generate_responses young * test 0"],
    ),
    (
        "evaluation.per_model.young.benchmarks.exact",
        {"evaluation.per_model.young.benchmarks.exact": "exact"},
        ["generate_responses young * exact ?"],
    ),
    # Table 1 names its judge, and has had the others' responses judged by it.
    (
        "evaluation.judges.asr",
        {"evaluation.judges.asr": "steps"},
        [
            "judge_responses * pilots/* steps ?",
            "judge_responses * steering/* steps 0",
            "judge_responses */sqsd-danger-insensitive-state test steps 0",
            "table3",
        ],
    ),
    (
        "evaluation.judges.safety_score",
        {"evaluation.judges.safety_score": "other", **OTHER_JUDGE},
        ["judge_responses * other ?"],
    ),
    (
        "evaluation.max_new_tokens",
        {"evaluation.max_new_tokens": 30},
        ["generate_responses *"],
    ),
    ("evaluation.batch_size", {"evaluation.batch_size": 50}, ["generate_responses *", SEARCH]),
    # Two values that change places.
    (
        "evaluation.batch_size",
        {"evaluation.max_new_tokens": 100, "evaluation.batch_size": 40},
        ["generate_responses *", SEARCH],
    ),
    (
        "evaluation.dtype",
        {"evaluation.dtype": "bfloat16"},
        ["generate_responses *", "judge_responses *", "judge_rows *", SEARCH],
    ),
    (
        "evaluation.per_model.sandbox.*",
        {"evaluation.per_model.sandbox.batch_size": 50},
        ["generate_responses sandbox *", SEARCH],
    ),
    (
        "evaluation.states_per_job.steering",
        {"evaluation.states_per_job.steering": 3},
        ["list_states * steering/*"],
    ),
    (
        "evaluation.states_per_job.pilot",
        {"evaluation.states_per_job.pilot": 3},
        ["list_states * pilots/*"],
    ),
    (
        "evaluation.states_per_job.finetunes",
        {"evaluation.states_per_job.finetunes": 4},
        [
            f"list_states * finetunes/*/{method} ?"
            for method in ("sqsd-danger", "sqsd-danger-insensitive-state", "random", "length")
        ]
        + ["list_states sandbox groups/few-steps/sandbox/mixed/test ?"],
    ),
    ("tables.table1.methods", {"tables.table1.methods": ["random", "sqsd-danger"]}, ["table1"]),
    (
        "tables.table[137].finetune",
        {
            "tables.table1.finetune": "other",
            "finetunes.other": DEFAULT["finetunes"]["lora"] | {"seeds": [4]},
        },
        ["finetune_subsets other *", "finetune_all_rows other *"],
    ),
    (
        "tables.table1.benchmark",
        {"tables.table1.benchmark": "tuning"},
        TUNED_ON_TUNING,
    ),
    # By the judge of table 7, which has judged these.
    (
        "tables.table1.measure",
        {"tables.table1": {"measure": "safety_score", "judge": "sandbox"}},
        ["table1"],
    ),
    ("tables.table1.judge", {"tables.table1.judge": "sandbox"}, ["table1"]),
    (
        "tables.table3.methods",
        {"tables.table3.methods": ["sqsd-danger", "danger-alone"]},
        ["score_samples sandbox mixed danger-alone"],
    ),
    (
        "tables.table3.benchmark",
        {"tables.table3.benchmark": "tuning"},
        [
            f"generate_responses sandbox {subject} tuning 0"
            for subject in ("*/sqsd-danger*", "*/all-rows", "base/theta-0")
        ],
    ),
    ("tables.table3.measure", {"tables.table3.measure": "safety_score"}, ["table3"]),
    (
        "tables.table3.experiments",
        {"tables.table3.experiments": ["sandbox", "other"]},
        INSENSITIVE_OF_YOUNG,
    ),
    (
        "tables.*.kind",
        {"tables.table4.kind": "steering", "tables.table4.benchmark": "tuning"},
        ["table4"],
    ),
    (
        "tables.table4.directions",
        {"tables.table4.directions": ["danger", "safety"]},
        ["generate_responses * steering/danger/final *exact 0", "rank_alphas * steering/danger/*"],
    ),
    (
        "tables.table5.pilot",
        {"tables.table5.pilot": "second", **SECOND_PILOT},
        ["train_pilot * second"],
    ),
    (
        "tables.table5.directions",
        {"tables.table5.directions": ["danger", "safety"]},
        ["rank_checkpoints * safety"],
    ),
    ("tables.table6.states", {"tables.table6.states": ["d-danger", "s"]}, ["table6"]),
    ("tables.table7.methods", {"tables.table7.methods": ["random", "length"]}, ["table7"]),
    (
        "tables.table7.benchmark",
        {"tables.table7.benchmark": "tuning"},
        TUNED_ON_TUNING,
    ),
    ("tables.table7.measure", {"tables.table7.measure": "asr"}, ["table7"]),
    # Beside what is there, another fine-tune and nothing else.
    (
        "tables.table7.finetune",
        {
            "tables.table7.finetune": ["lora", "other"],
            "finetunes.other": DEFAULT["finetunes"]["lora"] | {"seeds": [4], "all_rows_seeds": []},
        },
        ["finetune_subsets other *", "table7"],
    ),
    ("tables.table11.methods", {"tables.table11.methods": ["length", "sqsd-danger"]}, ["table11"]),
    (
        "tables.table11.methods",
        {"tables.table11.methods": ["sqsd-danger", "danger-alone"]},
        ["score_samples sandbox mixed danger-alone"],
    ),
    ("tables.table11.against", {"tables.table11.against": "length"}, ["table11"]),
    (
        "tables.table11.groups",
        {"tables.table11.groups": "other", **OTHER_GROUPS},
        ["make_groups sandbox mixed other"],
    ),
    (
        "tables.table11.finetune",
        {"tables.table11.finetune": "other", **OTHER_STEPS},
        ["finetune_groups other sandbox mixed test 4"],
    ),
    (
        "tables.table11.benchmark",
        {"tables.table11.benchmark": "tuning"},
        [f"generate_responses sandbox {GROUPS} tuning 0"],
    ),
    (
        "tables.table11.experiments",
        {
            "tables.table11.methods": ["length", "sqsd-danger"],
            "tables.table11.experiments": ["sandbox", "other"],
        },
        ["make_groups young rows test"],
    ),
    ("tables.alike.methods", {"tables.alike.methods": ["length", "larf"]}, ["alike"]),
    (
        "tables.alike.experiments",
        {"tables.alike.methods": ["length", "random"], "tables.alike.experiments": ["other"]},
        ["alike"],
    ),
    (
        "tables.learned.methods",
        {"tables.learned.methods": ["random", "length"]},
        ["judge_responses */random test guard 0", "judge_responses */random test cost 0"],
    ),
    (
        "tables.learned.finetune",
        {
            "tables.learned.finetune": "other",
            "finetunes.other": DEFAULT["finetunes"]["lora"] | {"seeds": [4]},
        },
        ["finetune_subsets other *"],
    ),
    (
        "tables.learned.benchmark",
        {"tables.learned.benchmark": "tuning"},
        ["generate_responses sandbox finetunes/* tuning 0"],
    ),
    ("tables.learned.judges", {"tables.learned.judges": ["steps", "cost"]}, ["learned"]),
    ("tables.learned.reference", {"tables.learned.reference": "steps"}, ["learned"]),
    (
        "tables.learned.experiments",
        {"tables.learned.experiments": ["other"]},
        ["judge_responses young * young-test guard 0", "judge_responses young * young-test cost 0"],
    ),
    ("tables.baselines.methods", {"tables.baselines.methods": ["larf"]}, ["baselines"]),
    (
        "tables.baselines.experiments",
        {"tables.baselines.methods": ["larf"], "tables.baselines.experiments": ["other"]},
        [
            "search_layers young *",
            "collect_hidden_states young *",
            "score_samples young * larf",
            "baselines",
        ],
    ),
    ("tables.ranking.methods", {"tables.ranking.methods": ["random"]}, ["ranking"]),
    (
        "tables.figure2.pilot",
        {
            "tables.figure2.pilot": "second",
            "tables.figure2.states": ["marked"],
            "states.marked": {"pilot": "second", "step": 5},
            **SECOND_PILOT,
        },
        ["train_pilot * second"],
    ),
    (
        "tables.figure2.states",
        {"tables.figure2.states": ["d-danger-insensitive"]},
        ["choose_state young d-danger-insensitive", "figure2"],
    ),
    # Of `sandbox`, where it is; the curve of `young` is of another checkpoint.
    # Of one model it lies at another checkpoint.
    (
        "tables.table4.states",
        {"tables.table4.states": ["s-insensitive"]},
        ["list_states young steering/safety/final 0"],
    ),
    (
        "tables.figure5.states",
        {"tables.figure5.states": ["s-insensitive"]},
        ["list_states young steering/safety/final 0", "figure5"],
    ),
    (
        "tables.figure2.pilot",
        {"tables.figure2.pilot": ["pilot", "second"], **SECOND_PILOT},
        ["train_pilot * second", "figure2"],
    ),
    ("tables.figure2.experiments", {"tables.figure2.experiments": ["other"]}, ["figure2"]),
    ("tables.figure2.directions", {"tables.figure2.directions": ["safety"]}, ["figure2"]),
    (
        "tables.figure2.benchmark",
        {"tables.figure2.benchmark": "test"},
        [
            "generate_responses sandbox pilots/pilot test 0",
            "generate_responses young pilots/pilot young-test ?",
        ],
    ),
    ("tables.figure5.directions", {"tables.figure5.directions": ["safety"]}, ["figure5"]),
    (
        "tables.figure5.benchmark",
        {"tables.figure5.benchmark": "test"},
        [
            "generate_responses sandbox steering/* test 0",
            "generate_responses young steering/* young-test 0",
        ],
    ),
    ("tables.*.published", {"tables.figure8.published": "figure7"}, ["figure8"]),
    (
        "tables.figure8.experiments",
        {"tables.figure8.experiments": ["other"]},
        ["collect_full_gradients young rows norm ?????"],
    ),
    ("tables.figure9.group", {"tables.figure9.group": "longest"}, ["figure9"]),
    (
        "tables.figure9.experiments",
        {"tables.figure9.experiments": ["other"]},
        ["measure_token_losses young rows"],
    ),
    (
        "tables.figure11.directions",
        {"tables.figure11.directions": ["safety"]},
        ["measure_loss_changes figure11 sandbox mixed * safety"],
    ),
    (
        "tables.figure11.states",
        {"tables.figure11.states": ["s"]},
        ["measure_loss_changes figure11 sandbox mixed s danger"],
    ),
    ("tables.figure11.rows", {"tables.figure11.rows": 13}, ["measure_loss_changes *"]),
    # Two values that change places.
    ("tables.figure11.alphas", {"tables.figure11.alphas": [1.0, 0.1]}, ["measure_loss_changes *"]),
    (
        "tables.figure11.experiments",
        {"tables.figure11.experiments": ["other"]},
        ["choose_state young theta-0", "measure_loss_changes figure11 young rows *"],
    ),
    # Gradients come after checks, which the finished run has not; what a check says changes none
    # (test_trust_reruns.py).
    (
        "trust*",
        {"trust": {"minimum_refusal_rate": 0.5, "alpha": 0.3, "if_failed": "proceed"}},
        ["check_trust *"],
    ),
    (
        "resources.*",
        {
            f"resources.{kind}": {"gpu": 1, "mem_mb": 99, "runtime": 9, "threads": 2}
            for kind in ("train", "infer")
        },
        [],
    ),
    (
        "tables.*.title",
        {"tables.table1.title": "Another title.", "tables.figure2.title": "Another."},
        [],
    ),
]

# Keys without a row, and why.
WITHOUT = {
    "datasets.pilot-*": "in no selected table",
    "benchmarks.seen.*": "in no selected table",
    "benchmarks.reworded.*": "in no selected table",
    "pilots.pilot-*": "in no selected table",
    "finetunes.lora-*": "in no selected table",
    "finetunes.full.*": "in no selected table; `tuning` of `lora` has a row",
    "evaluation.benchmarks.test-?": "in no selected table",
    "tables.table[289].*": "not selected; tables 1 and 7 are alike",
    "tables.figure[46].*": "not selected; figure 2 and table 1 are alike",
    "methods.sqsd-danger-unnormalised.*": "in no selected table; `normalised` has a row",
    "methods.sqsd-danger-danger-only.*": "in no selected table",
    "methods.sqsd-danger-safety-only.*": "in no selected table",
    "methods.danger-alone.*": "in no selected table",
    "methods.sqsd-danger-theta-0*": "in no selected table; `danger-theta-0` has a row",
    "states.*.unadapted": "`true` is all that it may be; a method's change to it has a row",
    "groups.tuning.*": "of no selected table or method; `test` has rows",
    "tables.methods*": "not selected; tables 1 and 7 have rows",
    "tables.agreement.*": "not selected; `alike` has rows",
    "tables.table7-share.*": "not selected; tables 1 and 7 have rows",
    "tables.table10.*": "not selected",
    "tables.judges.*": "not selected; `learned` has rows",
    "tables.figure7.*": "not selected; table 1 and figure 8 have rows",
    "tables.figure10.*": "not selected; figure 9 has rows",
    "curations.*": "`snakemake curate` alone asks for them",
    "selection.curations": "likewise",
    "explain.*": "`snakemake explain` alone asks for them",
    "tables.dropping.*": "not selected; `snakemake dropping` alone asks for it",
    "treatments.*": "likewise",
    "finetunes.whole.*": "likewise; `lora` has rows",
    "datasets.heldout.*": "likewise",
    "datasets.refusals.*": "likewise",
    "states.*.least": "`true` is all that it may be; the choice it is one of has rows",
}


def leaves(value: Any, place: str = "") -> Iterable[str]:
    """The dotted keys of a configuration's values; a list is one value."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{place}.{key}".removeprefix("."))
    else:
        yield place


def test_every_key_of_the_configuration_has_a_row_or_a_reason():
    patterns = [*(row[0] for row in ROWS), *WITHOUT]
    keys = list(leaves(resolve(DEFAULT, GIVEN)))
    missing = [
        key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    ]
    assert not missing
    for pattern, values, _ in ROWS:
        assert any(fnmatch.fnmatchcase(key, pattern) for key in leaves(values)), pattern


def start_rows(planner: Planner, tiny_run: Path, folder: Path):
    for i, (key, values, touched) in enumerate(ROWS):
        place = folder / str(i)
        place.mkdir()
        yield key, planner.start(tiny_run, changed(place, values)), touched


def test_a_changed_value_runs_again_what_it_touches_and_no_more(planner, tiny_run, tmp_path):
    wrong = []
    for key, future, touched in list(start_rows(planner, tiny_run, tmp_path)):
        if error := future.exception():
            wrong.append((key, str(error)))
            continue
        jobs = future.result()
        expected, found = and_what_follows(jobs, touched), run_again(jobs)
        if found != expected:
            wrong.append((key, {"not run": expected - found, "in vain": found - expected}))
    assert not wrong


def test_a_raised_version_of_a_stage_runs_it_again_and_what_follows(planner, tiny_run):
    tables = list(resolve(DEFAULT, GIVEN)["selection"]["tables"])
    stages = {stage: [f"{stage} *"] for stage in STAGE_VERSIONS} | {"make_table": tables}
    absent = (
        "fetch_model", "fetch_direction", "check_trust", "treat_rows", "finetune_treated_rows",
        "measure_row_losses", "curate_rows", "measure_token_shares", "find_repeats", "explain_rows",
        "page", "plan",
    )  # fmt: skip
    for stage in absent:  # from the tiny run
        del stages[stage]
    started = {
        stage: planner.start(tiny_run, TINY, versions={stage: STAGE_VERSIONS[stage] + 1})
        for stage in stages
    }
    for stage, future in started.items():
        jobs = future.result()
        assert run_again(jobs) == and_what_follows(jobs, stages[stage]), stage
