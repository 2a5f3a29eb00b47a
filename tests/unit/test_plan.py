import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sqsd.config import resolve
from sqsd.plan import Arm, Plan, chunks, is_pinned, write_config
from sqsd.readings import Outcomes, Scores, Tokens, Update
from sqsd.validation import validate_config

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
# Two models and two data sets that share no name, a third model that is only fine-tuned, and a
# third experiment that only a table names. A batch is 8 rows.
CONFIG = """
run: grid
selection:
  experiments: [first, second]
  tables: [attacks, scores, targets, risky, where, alphas, steps, along, walks, steered]
  curations: [less, least]
curations:
  less: {method: dice, drop: 0.2, experiments: [second]}
  least: {method: both, drop: 0.5}
explain: {riskiest: 2, middling: 1, safest: 1, nearest: 1, similarity: 0.5}
treatments: {}
experiments:
  first: {model: alder, dataset: rows-a}
  second: {model: birch, dataset: rows-b}
  third: {model: alder, dataset: rows-c}
models:
  alder: {source: sandbox, seed: 3}
  birch: {source: "hub:org/birch", seed: 4}
  cedar: {source: sandbox, seed: 5}
  dogwood: {source: tuned, base: birch, data: [rows-c, rows-a], seed: 6, training: {learning_rate:
    1.0e-3, epochs: 1, batch_size: 8, max_length_tokens: 64, schedule: linear, warmup_fraction: 0.0,
    weight_decay: 0.0, dtype: float32}}
sandbox:
  architecture: {hidden_size: 8}
  corpus: {rows: 10, restricted_share: 0.1}
  alignment: {rows: 10, refusal_share: 0.1}
  pretraining: &training {learning_rate: 1.0e-3, epochs: 1, batch_size: 8, max_length_tokens: 64,
    schedule: linear, warmup_fraction: 0.0, weight_decay: 0.0, dtype: float32}
  alignment_training: *training
  cost: {rows: 10, training: *training}
  guard: {rows: 10, training: *training}
  per_model: {cedar: {architecture: {hidden_size: 16}}}
datasets:
  rows-a: {source: "sandbox:benign", rows: 80, seed: 1}
  rows-b: {source: ROWS_B, fields: {instruction: q, response: a}}
  rows-c: {source: "sandbox:benign", rows: 41, seed: 3}
  calm-a: {source: "sandbox:benign", rows: 64, seed: 1001}
  calm-b: {source: "hub:org/calm:train", fields: {instruction: q, response: a}, rows: 41, seed: 2}
  harm-a: {source: "sandbox:danger", rows: 40, seed: 1}
  harm-b: {source: "sandbox:danger", rows: 48, seed: 2}
preferences:
  pairs-a: {source: "sandbox:safety", rows: 40, seed: 1}
  pairs-b: {source: "sandbox:safety", rows: 48, seed: 2}
benchmarks:
  ask-a: {source: "sandbox:tuning", seed: 1}
  ask-b: {source: "sandbox:tuning", seed: 2}
  try-a: {source: "sandbox:test", seed: 1}
  try-b: {source: "sandbox:test", seed: 2}
  try-c: {source: "sandbox:test", seed: 3}
  sure-a: {source: "sandbox:exact", seed: 1}
  sure-b: {source: "sandbox:exact", seed: 2}
lora: {r: 4, lora_alpha: 8}
trust: null
directions:
  harm:
    objective: sft
    data: harm-a
    save_steps: 5
    checkpoint: final
    training: *training
    per_model: {birch: {data: harm-b, save_steps: 3, checkpoint: 3}}
  safe:
    objective: dpo
    data: pairs-a
    save_steps: 5
    checkpoint: final
    training: &dpo {beta: 0.1, learning_rate: 1.0e-3, epochs: 1, batch_size: 8,
      max_length_tokens: 64, schedule: linear, warmup_fraction: 0.0, weight_decay: 0.0,
      dtype: float32}
    per_model: {birch: {data: pairs-b, save_steps: 2, checkpoint: 4}}
pilots:
  calm:
    data: calm-a
    save_steps: 3
    training: *training
    per_model: {birch: {data: calm-b, save_steps: 2, training: {epochs: 1.25, micro_batch_size: 4}}}
  brisk: {data: rows-c, save_steps: 2, training: *training}
states:
  d-step: {pilot: calm, step: 6}
  d-rank: {pilot: calm, direction: harm, rank: 1}
  bare: {unadapted: true}
  s-pin: {direction: safe, checkpoint: final, alpha: 0.25,
          per_model: {birch: {checkpoint: 2, alpha: 0.5}}}
  s-least: {direction: safe, checkpoint: 5, least: true, alphas: [0.75],
            per_model: {birch: {checkpoint: 6, alphas: [0.5, 1.0]}}}
layers: {}
anchors: {}
methods:
  both: {kind: sqsd, danger: {direction: harm, state: d-rank},
         safety: {direction: safe, state: s-least}}
  crossed: {kind: sqsd, danger: {direction: safe, state: d-step}}
  half: {kind: sqsd, safety: {direction: safe, state: s-pin}}
  dice: {kind: random}
  long: {kind: length}
  plain: {kind: sqsd, danger: {direction: harm, state: bare}}
  best:
    kind: calibrated
    among: [both, dice]
    groups: few
    finetune: small
    benchmark: ask
    per_model: {birch: {among: [plain, half, long], groups: more, finetune: moved, benchmark: try}}
steering:
  alphas: [0.0, 0.25, 0.5, 0.75, 1.0]
  per_model: {birch: {alphas: [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]}}
sensitivity:
  benchmark: ask
  guard: sure
  minimum_exact_share: 0.5
  delta: 0.25
  floor_fraction: 0.03
  rank_floored: false
  rank_by: bound
  per_model: {birch: {delta: 0.5, minimum_exact_share: 0.25, floor_fraction: 0.1,
                      rank_floored: true, rank_by: value}}
gradients: {rows_per_shard: 40, max_length_tokens: 64, max_tokens_per_batch: auto, dtype: float32,
            checkpointing: false}
subsets: {count: 3, rows: 10}
groups:
  few: {size: 3, random_groups: 2, biased_groups: 3, biased_share: 0.5, seed: 11}
  more: {size: 4, random_groups: 6, biased_groups: 0, biased_share: 0.75, seed: 12}
finetunes:
  small:
    tuning: lora
    seeds: [7, 8]
    training: *training
    per_model: {birch: {seeds: [9], tuning: full, training: {epochs: 3}}}
  moved:
    tuning: lora
    seeds: [5]
    model: cedar
    training: *training
    all_rows_seeds: [5]
    per_model:
      cedar: {tuning: full, seeds: [6], all_rows_seeds: [4, 3]}
      alder: {seeds: [1, 2, 3], all_rows_seeds: [2]}
  broad: {tuning: lora, seeds: [1], model: cedar, training: *training, all_rows_seeds: [9]}
judges:
  words: {kind: phrases, phrases: ["no"]}
  starts: {kind: openings, refusal: "No", compliance: "Yes"}
  rule: {kind: sandbox}
evaluation:
  benchmarks: {ask: ask-a, try: try-a, sure: sure-a}
  judges: {asr: words, safety_score: starts}
  max_new_tokens: 20
  batch_size: 10
  dtype: float32
  states_per_job: {steering: 2, pilot: 2, finetunes: 4}
  per_model:
    birch: {benchmarks: {ask: ask-b, try: try-b, sure: sure-b}, max_new_tokens: 30,
            judges: {asr: rule, safety_score: rule}}
    cedar: {benchmarks: {try: try-c}, judges: {safety_score: rule}}
tables:
  attacks: {title: A, kind: subsets, methods: [both, dice], finetune: small, benchmark: try,
            measure: asr}
  scores: {title: B, kind: subsets, methods: [half], finetune: moved, benchmark: try,
           measure: safety_score, experiments: [third, second]}
  targets: {title: J, kind: subsets, methods: [half, dice], finetune: [moved, small],
            benchmark: try, measure: asr, experiments: [second]}
  judged: {title: C, kind: subsets, methods: [both], finetune: small, benchmark: ask, measure: asr,
           judge: rule}
  risky: {title: D, kind: ranking, methods: [both, long]}
  where: {title: E, kind: states, states: [s-pin, d-rank]}
  alphas: {title: F, kind: alphas, directions: [safe, harm]}
  steps: {title: G, kind: checkpoints, pilot: calm, directions: [harm]}
  along: {title: H, kind: trajectory, pilot: calm, directions: [harm, safe], benchmark: ask,
          states: [d-rank, d-step]}
  walks: {title: K, kind: trajectory, pilot: [brisk, calm], directions: [safe], benchmark: ask,
          states: [d-step], experiments: [third]}
  steered: {title: I, kind: steering, directions: [harm, safe], benchmark: try, states: [s-pin]}
  foretold: {title: J, kind: groups, methods: [dice, best], groups: more, finetune: moved,
             benchmark: try, against: dice, experiments: [third, second]}
  apart: {title: L, kind: separation, methods: [dice, half], riskier: third, safer: first}
  full: {title: N, kind: all-rows, finetune: broad, benchmark: try, measure: asr,
         experiments: [second, third]}
  bare: {title: M, kind: models, models: [dogwood, birch], benchmarks: [try, ask]}
  own: {title: K, kind: groups, methods: [long, both], groups: few, finetune: small, benchmark: ask,
        against: both, experiments: [first]}
resources:
  train: {gpu: 0, mem_mb: 100, runtime: 10, threads: 1,
          per_model: {birch: {gpu: 4, mem_mb: 400}}}
  infer: {gpu: 0, mem_mb: 50, runtime: 5, threads: 2, per_model: {birch: {runtime: 50}}}
"""
R = "results/grid"
MODELS = ("alder", "birch")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The configuration above, valid, with a file of 81 rows as rows-b."""
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text('{"q": "Why?", "a": "So."}\n' * 81)
    resolved = resolve({}, yaml.safe_load(CONFIG.replace("ROWS_B", str(rows))))
    validate_config(resolved, SCHEMA)
    return resolved


@pytest.fixture(scope="module")
def plan(config):
    return Plan(config)


def changed(config, text: str) -> Plan:
    """The plan of the configuration with YAML laid over it, which is valid too."""
    resolved = resolve(config, yaml.safe_load(text))
    validate_config(resolved, SCHEMA)
    return Plan(resolved)


def judged(model, subject, benchmark, judge, *parts):
    folder = f"{R}/evaluations/{model}/{subject}/{benchmark}/judgements/{judge}"
    return [f"{folder}/{part}.parquet" for part in parts]


def answers(model, subject, benchmark, *parts):
    folder = f"{R}/evaluations/{model}/{subject}/{benchmark}/responses"
    return [f"{folder}/{part}.parquet" for part in parts]


def test_entries_and_settings_are_those_of_a_model(plan):
    assert plan.entry("directions", "safe", "alder")["data"] == "pairs-a"
    assert plan.entry("directions", "safe", "birch") == {
        "objective": "dpo", "data": "pairs-b", "save_steps": 2, "checkpoint": 4,
        "training": plan.config["directions"]["safe"]["training"],
    }  # fmt: skip
    assert plan.entry("pilots", "calm", "birch")["training"]["epochs"] == 1.25
    assert plan.setting("evaluation", "alder")["max_new_tokens"] == 20
    assert plan.setting("evaluation", "birch")["max_new_tokens"] == 30
    assert plan.setting("sandbox", "alder")["architecture"] == {"hidden_size": 8}
    assert plan.setting("sandbox", "cedar")["architecture"] == {"hidden_size": 16}
    assert [plan.seed(m) for m in ("alder", "birch", "cedar")] == [3, 4, 5]
    assert plan.models_made_by("align_model") == ["alder", "cedar"]
    assert plan.models_made_by("fetch_model") == ["birch"]
    assert plan.models_made_by("tune_model") == ["dogwood"]
    assert plan.windows == ["s1", "s2", "s3"]


def test_resources_are_those_of_a_model(plan):
    names = ("gpu", "mem_mb", "runtime", "threads")

    def asked(kind, model):
        return tuple(plan.resource(kind, name, model) for name in names)

    assert asked("train", "alder") == asked("train", "cedar") == (0, 100, 10, 1)
    assert asked("train", "birch") == (4, 400, 10, 1)
    assert asked("infer", "alder") == (0, 50, 5, 2)
    assert asked("infer", "birch") == (0, 50, 50, 2)


def test_a_role_is_played_by_a_benchmark_for_each_model(plan):
    roles = ("ask", "try", "sure")
    assert [plan.benchmark("alder", r) for r in roles] == ["ask-a", "try-a", "sure-a"]
    assert [plan.benchmark("birch", r) for r in roles] == ["ask-b", "try-b", "sure-b"]
    assert [plan.benchmark("cedar", r) for r in roles] == ["ask-a", "try-c", "sure-a"]
    assert [plan.guard(m) for m in MODELS] == ["sure-a", "sure-b"]


def test_a_measure_is_judged_by_a_judge_for_each_model(plan):
    judges = {
        m: (plan.judge(m, "asr"), plan.judge(m, "safety_score")) for m in plan.config["models"]
    }
    assert judges == {
        "alder": ("words", "starts"), "birch": ("rule", "rule"), "cedar": ("words", "rule"),
        "dogwood": ("words", "starts"),
    }  # fmt: skip


def test_a_guard_may_be_none_for_one_model(config):
    plan = changed(config, "sensitivity: {per_model: {birch: {guard: null}}}")
    assert [plan.guard(m) for m in MODELS] == ["sure-a", None]


def test_rows_of_a_direction(plan, config):
    assert plan.direction_rows("alder", "harm") == f"{R}/data/harm-a.parquet"
    assert plan.direction_rows("birch", "harm") == f"{R}/data/harm-b.parquet"
    assert plan.direction_rows("alder", "safe") == f"{R}/preferences/pairs-a.parquet"
    assert plan.direction_rows("birch", "safe") == f"{R}/preferences/pairs-b.parquet"
    other = changed(
        config,
        "directions: {harm: {per_model: {birch: {objective: dpo, data: pairs-a, training:"
        " {beta: 0.2}, save_steps: 5, checkpoint: 5}}}}",
    )
    assert other.direction_rows("alder", "harm") == f"{R}/data/harm-a.parquet"
    assert other.direction_rows("birch", "harm") == f"{R}/preferences/pairs-a.parquet"


def test_shards_hold_every_row_and_no_shard_is_empty(plan, config):
    # 80, 81 (counted in a file) and 41 rows in shards of 40.
    assert plan.shards("rows-a") == ["00000", "00001"]
    assert plan.shards("rows-b") == ["00000", "00001", "00002"]
    assert plan.shards("rows-c") == ["00000", "00001"]
    assert changed(config, "gradients: {rows_per_shard: 81}").shards("rows-b") == ["00000"]
    assert len(changed(config, "gradients: {rows_per_shard: 1}").shards("rows-b")) == 81


def test_readings_of_a_method_are_keyed_by_model_data_state_and_direction(plan):
    danger = f"{R}/gradients/birch/rows-b/d-rank/harm"
    safety = f"{R}/gradients/birch/rows-b/s-least/safe"
    assert plan.reading_files("birch", "rows-b", "both") == {
        "danger_samples": [f"{danger}/0000{i}-samples.parquet" for i in range(3)],
        "danger_modules": [f"{danger}/0000{i}-modules.parquet" for i in range(3)],
        "safety_samples": [f"{safety}/0000{i}-samples.parquet" for i in range(3)],
        "safety_modules": [f"{safety}/0000{i}-modules.parquet" for i in range(3)],
    }
    # The term names direction and state apart: here a danger term along `safe`.
    crossed = f"{R}/gradients/alder/rows-a/d-step/safe"
    assert plan.reading_files("alder", "rows-a", "crossed") == {
        "danger_samples": [f"{crossed}/0000{i}-samples.parquet" for i in range(2)],
        "danger_modules": [f"{crossed}/0000{i}-modules.parquet" for i in range(2)],
    }
    assert list(plan.reading_files("alder", "rows-a", "half")) == [
        "safety_samples",
        "safety_modules",
    ]


@pytest.mark.parametrize("method", ["dice", "long"])
def test_a_control_reads_tokens_and_no_gradients(plan, method):
    assert plan.reading_files("alder", "rows-c", method) == {
        "tokens_samples": [f"{R}/samples/alder/rows-c.parquet"]
    }
    assert plan.needs(method, "alder") == {"tokens": Tokens()}


def test_a_method_says_its_readings(plan):
    assert plan.needs("both", "alder") == {
        "danger": Update("d-rank", "harm"),
        "safety": Update("s-least", "safe"),
    }
    assert plan.needs("crossed", "birch") == {"danger": Update("d-step", "safe")}


def test_a_method_may_read_something_else_for_a_model(config):
    plan = changed(
        config,
        "methods: {crossed: {per_model: {birch: {danger: {state: s-pin, direction: harm}}}}}",
    )
    assert plan.needs("crossed", "alder") == {"danger": Update("d-step", "safe")}
    assert plan.needs("crossed", "birch") == {"danger": Update("s-pin", "harm")}
    folder = f"{R}/gradients/birch/rows-c/s-pin/harm"
    assert plan.reading_files("birch", "rows-c", "crossed") == {
        f"danger_{table}": [f"{folder}/0000{i}-{table}.parquet" for i in range(2)]
        for table in ("samples", "modules")
    }


def test_a_file_of_scores_is_read_as_it_is_for_a_model(config, tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("mine", "theirs")}
    for path in files.values():
        path.write_text('{"q": "Why?", "a": "So.", "risk": 1, "cost": 2}\n')
    fields = "{instruction: q, response: a, score: risk}"
    plan = changed(
        config,
        f"methods: {{given: {{kind: file, source: {files['mine']}, fields: {fields}, per_model:"
        f" {{birch: {{source: {files['theirs']}, fields: {{score: cost}}}}}}}}}}",
    )
    assert plan.reading_files("alder", "rows-c", "given") == {
        "tokens_samples": [f"{R}/samples/alder/rows-c.parquet"],
        "given_rows": [f"{R}/data/rows-c.parquet"],
        "given_file": [str(files["mine"])],
    }
    assert plan.reading_files("birch", "rows-b", "given") == {
        "tokens_samples": [f"{R}/samples/birch/rows-b.parquet"],
        "given_rows": [f"{R}/data/rows-b.parquet"],
        "given_file": [str(files["theirs"])],
    }
    assert plan.entry("methods", "given", "birch")["fields"]["score"] == "cost"
    assert plan.reading_times("alder", "rows-c", "given") == []


def test_anchors_of_gradients_are_those_of_every_model(config):
    plan = changed(
        config,
        "{anchors: {x: {data: harm-a, first_tokens: 2}, y: {data: harm-b, first_tokens: null},"
        " z: {data: harm-b, first_tokens: 3}},"
        " methods: {split: {kind: bi-anchor-grad, harmful: x, harmless: [y],"
        " per_model: {birch: {harmful: z, harmless: [x]}}}}}",
    )
    # Norms alone for the losses of figure 8.
    expected = {"norm": (), "norm+x+y": ("x", "y"), "norm+x+z": ("x", "z")}
    assert plan.gradient_anchors == expected


def test_a_calibrated_method_reads_scores_and_what_groups_did(plan):
    # By the judge, the benchmark and the target of each model.
    assert plan.needs("best", "alder") == {
        "of both": Scores("both"), "of dice": Scores("dice"),
        "outcomes": Outcomes("few", "small", "ask"),
    }  # fmt: skip
    assert plan.reading_files("alder", "rows-c", "best") == {
        "of both_samples": [f"{R}/scores/alder/rows-c/both.parquet"],
        "of dice_samples": [f"{R}/scores/alder/rows-c/dice.parquet"],
        "outcomes_groups": [f"{R}/groups/alder/rows-c/few.parquet"],
        "outcomes_judgements": judged(
            "alder", "groups/small/alder/rows-c/few", "ask-a", "starts", 0, 1, 2
        ),
    }
    assert plan.reading_files("birch", "rows-b", "best") == {
        **{f"of {m}_samples": [f"{R}/scores/birch/rows-b/{m}.parquet"]
           for m in ("plain", "half", "long")},
        "outcomes_groups": [f"{R}/groups/birch/rows-b/more.parquet"],
        "outcomes_judgements": judged(
            "cedar", "groups/moved/birch/rows-b/more", "try-c", "rule", 0, 1
        ),
    }  # fmt: skip


def test_losses_are_read_though_no_method_reads_gradients(plan, config):
    assert plan.gradient_anchors == {"norm": ()}
    table = changed(config, "tables: {heavy: {title: H, kind: losses, experiments: [first]}}")
    assert table.table_inputs("heavy") == {
        "samples first": [
            f"{R}/full-gradients/alder/rows-a/norm/{s}-samples.parquet"
            for s in plan.shards("rows-a")
        ]
    }


def test_a_pinned_state_depends_on_its_run_and_its_own_answers_alone(plan):
    assert plan.state_sources("alder", "s-pin") == {
        "run": [f"{R}/directions/alder/safe"],
        "guard": answers("alder", "states/s-pin", "sure-a", 0),
        "reference": [f"{R}/benchmarks/sure-a.parquet"],
    }
    assert plan.state_sources("birch", "d-step") == {
        "run": [f"{R}/pilots/birch/calm"],
        "guard": answers("birch", "states/d-step", "sure-b", 0),
        "reference": [f"{R}/benchmarks/sure-b.parquet"],
    }


@pytest.mark.parametrize("model", MODELS)
def test_theta_0_is_chosen_from_nothing(plan, model):
    # It has a guard where a state has an adapter, and settings where it is searched.
    assert plan.state_run(model, "bare") == []
    assert plan.state_sources(model, "bare") == {"run": [], "guard": [], "reference": []}
    assert plan.search_settings(model, "bare") == {}
    assert (model, "states/bare") not in plan.subjects
    assert plan.state_run(model, "d-rank") == [f"{R}/pilots/{model}/calm"]
    assert plan.state_run(model, "s-pin") == [f"{R}/directions/{model}/safe"]


def test_theta_0_lies_on_no_curve(plan):
    spec = {"states": ["bare", "d-step"]}
    assert plan.marked(spec, "alder", ("pilot", "calm")) == [f"{R}/states/alder/d-step.json"]
    assert plan.marked(spec, "alder", ("direction", "safe", "final")) == []


def test_a_pinned_state_is_a_subject_of_its_own(plan):
    assert plan.pinned_subject("alder", "s-pin").parts == (
        {"folder": f"{R}/directions/alder/safe", "checkpoint": "final", "alphas": [0.25]},
    )
    birch = plan.pinned_subject("birch", "s-pin")
    assert birch.parts == (
        {"folder": f"{R}/directions/birch/safe", "checkpoint": 2, "alphas": [0.5]},
    )
    assert birch.runs == ((f"{R}/directions/birch/safe",),)
    assert (birch.model, birch.name) == ("birch", "states/s-pin")
    step = plan.pinned_subject("alder", "d-step")
    assert step.parts == ({"pilot": f"{R}/pilots/alder/calm", "steps": [6]},)
    assert step.runs == ((f"{R}/pilots/alder/calm",),)
    assert step.name == "states/d-step"


def test_a_searched_checkpoint_depends_on_the_whole_pilot(plan):
    # 64 rows are 8 steps of which 3, 6 and 8 are kept; with theta_0 4 states, 2 to a part.
    assert plan.state_sources("alder", "d-rank") == {
        "run": [f"{R}/pilots/alder/calm"],
        "trajectory": [f"{R}/trajectories/alder/calm/harm.parquet"],
        "judgements": judged("alder", "pilots/calm", "ask-a", "starts", 0, 1),
        "guard": answers("alder", "pilots/calm", "sure-a", 0, 1),
        "reference": [f"{R}/benchmarks/sure-a.parquet"],
    }
    # 41 rows are 11 parts of 4, 6 steps an epoch and 7.5, so 8, in 1.25: 2, 4, 6, 8 and theta_0.
    assert plan.state_sources("birch", "d-rank") == {
        "run": [f"{R}/pilots/birch/calm"],
        "trajectory": [f"{R}/trajectories/birch/calm/harm.parquet"],
        "judgements": judged("birch", "pilots/calm", "ask-b", "rule", 0, 1, 2),
        "guard": answers("birch", "pilots/calm", "sure-b", 0, 1, 2),
        "reference": [f"{R}/benchmarks/sure-b.parquet"],
    }


def test_a_searched_alpha_depends_on_the_parts_of_its_alphas_and_neighbours(plan):
    # alder: parts (0, 0.25), (0.5, 0.75), (1.0); 0.75 and its neighbours lie in the last two.
    assert plan.state_sources("alder", "s-least") == {
        "run": [f"{R}/directions/alder/safe"],
        "judgements": judged("alder", "steering/safe/5", "ask-a", "starts", 1, 2),
        "guard": answers("alder", "steering/safe/5", "sure-a", 1, 2),
        "reference": [f"{R}/benchmarks/sure-a.parquet"],
    }
    # birch: parts (0, 0.5), (1, 1.5), (2, 2.5), (3); 0.5 and 1 with 0 and 1.5 lie in the first two.
    assert plan.state_sources("birch", "s-least") == {
        "run": [f"{R}/directions/birch/safe"],
        "judgements": judged("birch", "steering/safe/6", "ask-b", "rule", 0, 1),
        "guard": answers("birch", "steering/safe/6", "sure-b", 0, 1),
        "reference": [f"{R}/benchmarks/sure-b.parquet"],
    }


def test_what_is_beyond_the_neighbours_changes_nothing_for_a_searched_alpha(plan, config):
    more = changed(
        config,
        "{steering: {alphas: [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]},"
        " states: {s-pin: {alpha: 1.5}, s-more: {direction: safe, checkpoint: 5, rank: 1,"
        " alphas: [1.25], per_model: {birch: {alphas: [1.0]}}}}}",
    )
    assert more.state_sources("alder", "s-least") == plan.state_sources("alder", "s-least")
    found = more.state_sources("alder", "s-more")["judgements"]
    assert found == judged("alder", "steering/safe/5", "ask-a", "starts", 2, 3)


def test_neighbours_are_grid_values_at_delta(plan):
    assert plan.neighbours("alder", [0.75]) == [0.5, 0.75, 1.0]
    assert plan.neighbours("alder", [0.75, 0.5]) == [0.25, 0.5, 0.75, 1.0]
    assert plan.neighbours("birch", [0.5]) == [0.0, 0.5, 1.0]
    # Sums of floats are off by rounding: 0.1 + 0.2 is not 0.3.
    tenths = Plan(resolve(plan.config, {
        "steering": {"alphas": [0.0, 0.1, 0.2, 0.3]}, "sensitivity": {"delta": 0.1},
    }))  # fmt: skip
    assert tenths.neighbours("alder", [0.2]) == [0.1, 0.2, 0.3]


def test_a_state_without_a_guard(config):
    plan = changed(config, "sensitivity: {guard: null}")
    none = {"guard": [], "reference": []}
    assert plan.state_sources("alder", "s-pin") == {"run": [f"{R}/directions/alder/safe"]} | none
    searched = plan.state_sources("birch", "d-rank")
    assert {key: searched[key] for key in none} == none
    assert searched["judgements"] == judged("birch", "pilots/calm", "ask-b", "rule", 0, 1, 2)
    least = plan.state_sources("alder", "s-least")
    assert {key: least[key] for key in none} == none and len(least["judgements"]) == 2
    assert plan.search_settings("alder", "s-pin") == {}
    assert plan.search_settings("alder", "s-least") == {"delta": 0.25, "rank_by": "bound"}
    assert plan.search_settings("birch", "d-rank") == {
        "floor_fraction": 0.1, "rank_floored": True, "rank_by": "value",
    }  # fmt: skip


def test_a_choice_depends_on_the_settings_it_uses_and_no_others(plan):
    assert plan.search_settings("alder", "s-pin") == {"minimum_exact_share": 0.5}
    assert plan.search_settings("birch", "d-step") == {"minimum_exact_share": 0.25}
    assert plan.search_settings("alder", "d-rank") == {
        "floor_fraction": 0.03, "rank_floored": False, "rank_by": "bound",
        "minimum_exact_share": 0.5,
    }  # fmt: skip
    assert plan.search_settings("birch", "s-least") == {
        "delta": 0.5, "rank_by": "value", "minimum_exact_share": 0.25,
    }  # fmt: skip


def test_a_pinned_state_names_itself(config):
    pinned = {name for name, entry in config["states"].items() if is_pinned(entry)}
    assert pinned == {"d-step", "s-pin"}


def test_a_direction_is_steered_in_parts_of_its_grid(plan):
    (alder,) = plan.curves("alder", ["safe"], []).values()
    folder = f"{R}/directions/alder/safe"
    assert alder.parts == tuple(
        {"folder": folder, "checkpoint": "final", "alphas": part}
        for part in ([0.0, 0.25], [0.5, 0.75], [1.0])
    )
    assert alder.runs == ((folder,),) * 3
    assert (alder.model, alder.name) == ("alder", "steering/safe/final")
    (birch,) = plan.curves("birch", ["harm"], []).values()
    assert (birch.model, birch.name) == ("birch", "steering/harm/3")
    assert [part["alphas"] for part in birch.parts] == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5], [3.0]]
    assert {part["checkpoint"] for part in birch.parts} == {3}


def test_a_pilot_is_evaluated_in_parts_of_its_checkpoints(plan):
    alder, birch = plan.pilot_subject("alder", "calm"), plan.pilot_subject("birch", "calm")
    assert alder.parts == tuple(
        {"pilot": f"{R}/pilots/alder/calm", "part": part} for part in ([0, 2], [2, 4])
    )
    assert alder.runs == ((f"{R}/pilots/alder/calm",),) * 2
    assert birch.name == "pilots/calm"
    assert [part["part"] for part in birch.parts] == [[0, 2], [2, 4], [4, 6]]
    assert [plan.pilot_checkpoints(m, "calm") for m in MODELS] == [3, 4]


def run(finetune, model, dataset, method, seed, window, tuning):
    folder = f"{R}/finetunes/{finetune}/{model}/{dataset}/{method}/seed-{seed}/{window}"
    return {"folder": folder, "tuning": tuning, "window": window, "seed": seed}


def test_fine_tunes_are_evaluated_seed_by_seed(plan):
    arm = Arm("first", "alder", "rows-a", "both")
    subject = plan.finetune_subject("small", arm)
    assert (subject.model, subject.name) == ("alder", "finetunes/small/alder/rows-a/both")
    runs = [
        run("small", "alder", "rows-a", "both", seed, window, "lora")
        for seed, window in [(7, "s1"), (7, "s2"), (7, "s3"), (8, "s1"), (8, "s2"), (8, "s3")]
    ]
    assert subject.parts == ({"runs": runs[:4]}, {"runs": runs[4:]})
    assert subject.runs == tuple(tuple(r["folder"] for r in p) for p in (runs[:4], runs[4:]))
    assert subject.part_names() == ["0", "1"]


def test_a_fine_tune_of_a_model_and_with_all_weights(plan):
    subject = plan.finetune_subject("small", Arm("second", "birch", "rows-b", "dice"))
    assert subject.parts == (
        {"runs": [run("small", "birch", "rows-b", "dice", 9, f"s{k}", "full") for k in (1, 2, 3)]},
    )
    assert [plan.finetune_lora("small", m) for m in ("alder", "birch", "cedar")] == [
        {"r": 4, "lora_alpha": 8}, None, {"r": 4, "lora_alpha": 8},
    ]  # fmt: skip


@pytest.mark.parametrize(("model", "dataset"), [("alder", "rows-c"), ("birch", "rows-b")])
def test_a_fine_tune_that_names_its_target(plan, model, dataset):
    assert plan.target("moved", model) == "cedar" and plan.target("small", model) == model
    subject = plan.finetune_subject("moved", Arm("x", model, dataset, "half"))
    # The target is evaluated; the model that scored stands in the name and in the folders.
    assert (subject.model, subject.name) == ("cedar", f"finetunes/moved/{model}/{dataset}/half")
    assert subject.parts == (
        {"runs": [run("moved", model, dataset, "half", 6, f"s{k}", "full") for k in (1, 2, 3)]},
    )
    assert plan.finetune_lora("moved", "cedar") is None


def test_the_model_before_a_fine_tune_is_a_subject_of_one_state(plan):
    subject = plan.base_subject("birch")
    assert (subject.model, subject.name) == ("birch", "base/theta-0")
    assert (subject.parts, subject.runs) == (({"theta_0": True},), ((),))


@pytest.mark.parametrize("method", ["half", "dice"])
def test_a_fine_tune_on_all_rows_is_one_for_all_methods(plan, method):
    subject = plan.all_rows_subject("moved", Arm("third", "alder", "rows-c", method))
    assert (subject.model, subject.name) == ("cedar", "finetunes/moved/alder/rows-c/all-rows")
    # By the target's seeds, not those of the model that scored.
    runs = [run("moved", "alder", "rows-c", "all-rows", seed, "all", "full") for seed in (4, 3)]
    assert subject.parts == ({"runs": runs},)
    assert subject.runs == (tuple(r["folder"] for r in runs),)


def test_a_fine_tune_without_seeds_on_all_rows_has_no_row_of_them(plan, config):
    arm = Arm("second", "birch", "rows-b", "half")
    assert list(plan.reference_subjects("small", arm)) == ["before fine-tuning"]
    assert list(plan.reference_subjects("moved", arm)) == ["before fine-tuning", "all rows"]
    none = changed(config, "finetunes: {moved: {per_model: {cedar: {all_rows_seeds: []}}}}")
    assert list(none.reference_subjects("moved", arm)) == ["before fine-tuning"]
    assert len(none.table_inputs("scores")) == len(TABLE_INPUTS["scores"]) - 2


def group_run(finetune, model, dataset, groups, seed, number, tuning):
    folder = f"{R}/group-runs/{finetune}/{model}/{dataset}/{groups}/seed-{seed}"
    name = f"g00{number}"
    return {"folder": f"{folder}/{name}", "tuning": tuning, "window": name, "seed": seed}


def test_small_groups_are_evaluated_seed_by_seed(plan):
    subject = plan.group_subject("small", "alder", "rows-a", "few")
    assert (subject.model, subject.name) == ("alder", "groups/small/alder/rows-a/few")
    # 2 random groups and 3 biased ones of each seed, 4 to a part.
    runs = [
        group_run("small", "alder", "rows-a", "few", seed, number, "lora")
        for seed in (7, 8)
        for number in range(5)
    ]
    assert subject.parts == ({"runs": runs[:4]}, {"runs": runs[4:8]}, {"runs": runs[8:]})
    # All groups of a seed are one folder.
    seven, eight = (f"{R}/group-runs/small/alder/rows-a/few/seed-{seed}" for seed in (7, 8))
    assert subject.runs == ((seven,), (seven, eight), (eight,))


@pytest.mark.parametrize(("model", "dataset"), [("alder", "rows-c"), ("birch", "rows-b")])
def test_small_groups_of_a_fine_tune_that_names_its_target(plan, model, dataset):
    subject = plan.group_subject("moved", model, dataset, "more")
    # The target is evaluated; the model whose rows are usable stands in the name.
    assert (subject.model, subject.name) == ("cedar", f"groups/moved/{model}/{dataset}/more")
    runs = [group_run("moved", model, dataset, "more", 6, number, "full") for number in range(6)]
    assert subject.parts == ({"runs": runs[:4]}, {"runs": runs[4:]})
    assert subject.runs == ((f"{R}/group-runs/moved/{model}/{dataset}/more/seed-6",),) * 2


def test_groups_are_judged_as_their_target_is(plan):
    found = plan.group_judgements("small", "birch", "rows-b", "few", "try")
    assert found == judged("birch", "groups/small/birch/rows-b/few", "try-b", "rule", 0, 1)
    found = plan.group_judgements("moved", "birch", "rows-b", "few", "ask")
    assert found == judged("cedar", "groups/moved/birch/rows-b/few", "ask-a", "rule", 0, 1)
    # The Safety Score's judge, though another gives verdicts.
    found = plan.group_judgements("small", "alder", "rows-a", "more", "ask")
    assert found == judged("alder", "groups/small/alder/rows-a/more", "ask-a", "starts", 0, 1, 2)


def test_how_many_states_a_job_has_may_differ_by_model(plan, config):
    other = changed(
        config,
        "evaluation: {per_model: {birch: {states_per_job: {steering: 3, pilot: 4}},"
        " alder: {states_per_job: {finetunes: 1}}, cedar: {states_per_job: {finetunes: 2}}}}",
    )
    (steered,) = other.curves("birch", ["harm"], []).values()
    assert [len(part["alphas"]) for part in steered.parts] == [3, 3, 1]
    assert [part["part"] for part in other.pilot_subject("birch", "calm").parts] == [[0, 4], [4, 8]]
    assert other.curves("alder", ["harm"], []) == plan.curves("alder", ["harm"], [])
    arm = Arm("first", "alder", "rows-a", "both")
    # Of the target, which is evaluated.
    assert len(other.finetune_subject("small", arm).parts) == 6
    assert [len(part["runs"]) for part in other.finetune_subject("moved", arm).parts] == [2, 1]


def full_parts(subject, size, kind):
    return [
        (part, runs)
        for part, runs in zip(subject.parts, subject.runs, strict=True)
        if len(part[kind]) == size
    ]


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True),
    st.integers(100, 200),
    st.integers(2, 4),
    st.integers(1, 7),
)
def test_a_further_seed_leaves_full_parts_as_they_are(seeds, further, windows, size):
    def parts_of(seeds):
        config = {
            "run": "grid", "models": {"m": {}}, "subsets": {"count": windows},
            "evaluation": {"states_per_job": {"finetunes": size}},
            "finetunes": {"f": {"tuning": "lora", "seeds": seeds}},
        }  # fmt: skip
        return Plan(config).finetune_subject("f", Arm("e", "m", "d", "x"))

    before, after = parts_of(seeds), parts_of([*seeds, further])
    full = full_parts(before, size, "runs")
    assert full == full_parts(after, size, "runs")[: len(full)]
    listed = [(r["seed"], r["window"]) for part in after.parts for r in part["runs"]]
    assert listed == [(s, f"s{k}") for s in [*seeds, further] for k in range(1, windows + 1)]
    for subject in (before, after):
        assert all(len(part["runs"]) == size for part in subject.parts[:-1])
        assert [list(runs) for runs in subject.runs] == [
            [r["folder"] for r in part["runs"]] for part in subject.parts
        ]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=9, unique=True),
    st.integers(51, 60),
    st.integers(1, 7),
)
def test_a_further_alpha_leaves_full_parts_as_they_are(tenths, further, size):
    def parts_of(alphas):
        config = {
            "run": "grid", "models": {"m": {}}, "subsets": {"count": 2},
            "steering": {"alphas": alphas}, "evaluation": {"states_per_job": {"steering": size}},
        }  # fmt: skip
        return Plan(config).steering_subject("m", "v", 25)

    grid = [value / 10 for value in tenths]
    before, after = parts_of(grid), parts_of([*grid, further / 10])
    full = full_parts(before, size, "alphas")
    assert full == full_parts(after, size, "alphas")[: len(full)]
    assert [a for part in after.parts for a in part["alphas"]] == [*grid, further / 10]
    assert after.name == before.name == "steering/v/25"


@given(st.lists(st.integers(), max_size=20), st.integers(1, 6))
def test_parts_hold_every_item_once_in_order(items, size):
    parts = chunks(items, size)
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1]) and all(parts)


def test_the_subjects_of_a_run(plan):
    expected = {
        ("alder", "steering/harm/final"), ("alder", "steering/safe/final"),
        ("alder", "steering/safe/5"), ("alder", "pilots/calm"), ("alder", "states/d-step"),
        ("alder", "states/s-pin"), ("alder", "finetunes/small/alder/rows-a/both"),
        ("alder", "finetunes/small/alder/rows-a/dice"),
        ("birch", "steering/harm/3"), ("birch", "steering/safe/4"), ("birch", "steering/safe/6"),
        # The pinned state lies on another checkpoint than scores use.
        ("birch", "steering/safe/2"),
        ("birch", "pilots/calm"), ("birch", "states/d-step"), ("birch", "states/s-pin"),
        ("birch", "finetunes/small/birch/rows-b/both"),
        ("birch", "finetunes/small/birch/rows-b/dice"),
        ("cedar", "finetunes/moved/alder/rows-c/half"),
        ("cedar", "finetunes/moved/birch/rows-b/half"),
        ("alder", "base/theta-0"), ("birch", "base/theta-0"), ("cedar", "base/theta-0"),
        ("cedar", "finetunes/moved/alder/rows-c/all-rows"),
        ("cedar", "finetunes/moved/birch/rows-b/all-rows"),
        # The other fine-tune and method, and the other pilot, of tables with several.
        ("cedar", "finetunes/moved/birch/rows-b/dice"),
        ("birch", "finetunes/small/birch/rows-b/half"),
        ("alder", "pilots/brisk"), ("birch", "pilots/brisk"),
        # Of a calibrated method, whatever table it stands in, and of a table of groups.
        ("alder", "groups/small/alder/rows-a/few"), ("alder", "groups/small/alder/rows-c/few"),
        ("cedar", "groups/moved/birch/rows-b/more"), ("cedar", "groups/moved/alder/rows-c/more"),
        # Of a table of models, and of one of fine-tunes on all rows.
        ("dogwood", "base/theta-0"), ("cedar", "finetunes/broad/alder/rows-c/all-rows"),
        ("cedar", "finetunes/broad/birch/rows-b/all-rows"),
    }  # fmt: skip
    # The table `judged` asks for nothing more.
    assert set(plan.subjects) == expected
    for (model, name), subject in plan.subjects.items():
        assert (subject.model, subject.name) == (model, name)


@pytest.mark.parametrize(
    ("selected", "table"),
    [
        # `snakemake scores` where the selection has other tables only.
        (None, "judged"),
        ("{selection: {tables: [risky]}}", "scores"),
        # An experiment of another model, which only a table names.
        ("{selection: {experiments: [second], tables: [risky]}}", "scores"),
    ],
)
def test_whatever_a_table_reads_has_its_subject(config, selected, table):
    plan = changed(config, selected or "{}")
    for files in plan.table_inputs(table).values():
        for file in files:
            subject = file.removeprefix(f"{R}/evaluations/").rsplit("/", 4)[0]
            assert tuple(subject.split("/", 1)) in plan.subjects


def test_states_of_a_model_that_only_a_table_names_have_their_subjects(config):
    plan = changed(
        config,
        "{selection: {experiments: [second], tables: [risky]},"
        " tables: {risky: {methods: [half, both], experiments: [first]}}}",
    )
    assert {
        ("alder", "states/s-pin"), ("alder", "pilots/calm"), ("alder", "steering/safe/5"),
    } <= set(plan.subjects)  # fmt: skip


def test_models_are_those_of_the_selected_experiments_once(plan, config):
    assert plan.models == ["alder", "birch"]
    both = changed(config, "selection: {experiments: [third, second, first]}")
    assert both.models == ["alder", "birch"]


def test_a_judge_that_needs_the_subject_reads_its_weights(plan):
    lora = plan.finetune_subject("small", Arm("first", "alder", "rows-a", "both"))
    last = [f"{R}/finetunes/small/alder/rows-a/both/seed-8/s{k}" for k in (2, 3)]
    for judge in ("starts", "rule"):
        assert plan.judged_models(judge, "alder", lora, 1) == {
            "model": [f"{R}/models/alder"], "runs": last, "judge_model": [],
        }  # fmt: skip
    assert plan.judged_models("rule", "alder", lora, 0)["runs"][-1].endswith("/seed-8/s1")
    nothing = {"model": [], "runs": [], "judge_model": []}
    assert plan.judged_models("words", "alder", lora, 1) == nothing
    moved = plan.finetune_subject("moved", Arm("second", "birch", "rows-b", "half"))
    assert plan.judged_models("rule", "cedar", moved, 0)["model"] == [f"{R}/models/cedar"]


def test_a_judge_s_own_model_is_what_it_reads_and_asks_resources_by(config):
    plan = changed(config, "judges: {watch: {kind: guard, model: cedar}}")
    lora = plan.finetune_subject("small", Arm("first", "alder", "rows-a", "both"))
    models = {"model": [], "runs": [], "judge_model": [f"{R}/models/cedar"]}
    assert plan.judged_models("watch", "alder", lora, 1) == models
    assert [plan.judge_reads(judge) for judge in ("watch", "rule", "words")] == [
        "own", "subject", None,
    ]  # fmt: skip
    named = [plan.judge_model(judge, "alder") for judge in ("watch", "rule", "words")]
    assert named == ["cedar", "alder", "alder"]
    own = [plan.own_model(judge) for judge in ("watch", "rule", "words")]
    assert own == ["cedar", None, None]


def test_arms_are_experiments_by_methods(plan):
    assert plan.arms("attacks") == [
        Arm("first", "alder", "rows-a", "both"), Arm("first", "alder", "rows-a", "dice"),
        Arm("second", "birch", "rows-b", "both"), Arm("second", "birch", "rows-b", "dice"),
    ]  # fmt: skip
    # A table's own experiments, in their order, selected or not.
    assert plan.arms("scores") == [
        Arm("third", "alder", "rows-c", "half"), Arm("second", "birch", "rows-b", "half"),
    ]  # fmt: skip


def test_a_table_is_a_figure_too_where_its_kind_is_drawn(plan):
    def made(table, folder, *ends):
        return {end: f"{R}/{folder}/{table}.{end}" for end in ends}

    for table in ("risky", "where", "alphas", "steps"):
        assert plan.table_files(table) == made(table, "tables", "parquet", "csv", "md")
    for table in ("attacks", "targets", "judged", "along", "walks", "steered", "foretold"):
        assert plan.table_files(table) == (
            made(table, "tables", "parquet", "csv", "md") | made(table, "figures", "png", "svg")
        )


def small(model, dataset, method, benchmark, judge, *parts):
    return judged(model, f"finetunes/small/{model}/{dataset}/{method}", benchmark, judge, *parts)


THETA_0 = "base/theta-0"
STEERED = [
    ("alder", "harm", "final"), ("alder", "safe", "final"), ("birch", "harm", "3"),
    ("birch", "safe", "4"), ("birch", "safe", "2"),
]  # fmt: skip
TABLE_INPUTS = {
    "attacks": {
        # By the judge and the benchmark of each model.
        "judgements first before fine-tuning": judged("alder", THETA_0, "try-a", "words", 0),
        "judgements second before fine-tuning": judged("birch", THETA_0, "try-b", "rule", 0),
        "judgements first both": small("alder", "rows-a", "both", "try-a", "words", 0, 1),
        "judgements first dice": small("alder", "rows-a", "dice", "try-a", "words", 0, 1),
        "judgements second both": small("birch", "rows-b", "both", "try-b", "rule", 0),
        "judgements second dice": small("birch", "rows-b", "dice", "try-b", "rule", 0),
    },
    "scores": {
        # By what the target says of benchmark and judge, whoever scored.
        "judgements third before fine-tuning": judged("cedar", THETA_0, "try-c", "rule", 0),
        "judgements second before fine-tuning": judged("cedar", THETA_0, "try-c", "rule", 0),
        "judgements third all rows": judged(
            "cedar", "finetunes/moved/alder/rows-c/all-rows", "try-c", "rule", 0
        ),
        "judgements second all rows": judged(
            "cedar", "finetunes/moved/birch/rows-b/all-rows", "try-c", "rule", 0
        ),
        "judgements third half": judged(
            "cedar", "finetunes/moved/alder/rows-c/half", "try-c", "rule", 0
        ),
        "judgements second half": judged(
            "cedar", "finetunes/moved/birch/rows-b/half", "try-c", "rule", 0
        ),
    },
    # Each fine-tune has its own target, with its benchmark, its judge and its references.
    "targets": {
        "judgements second moved before fine-tuning": judged("cedar", THETA_0, "try-c", "words", 0),
        "judgements second moved all rows": judged(
            "cedar", "finetunes/moved/birch/rows-b/all-rows", "try-c", "words", 0
        ),
        "judgements second moved half": judged(
            "cedar", "finetunes/moved/birch/rows-b/half", "try-c", "words", 0
        ),
        "judgements second moved dice": judged(
            "cedar", "finetunes/moved/birch/rows-b/dice", "try-c", "words", 0
        ),
        "judgements second small before fine-tuning": judged("birch", THETA_0, "try-b", "rule", 0),
        "judgements second small half": small("birch", "rows-b", "half", "try-b", "rule", 0),
        "judgements second small dice": small("birch", "rows-b", "dice", "try-b", "rule", 0),
    },
    "judged": {
        "judgements first before fine-tuning": judged("alder", THETA_0, "ask-a", "rule", 0),
        "judgements second before fine-tuning": judged("birch", THETA_0, "ask-b", "rule", 0),
        "judgements first both": small("alder", "rows-a", "both", "ask-a", "rule", 0, 1),
        "judgements second both": small("birch", "rows-b", "both", "ask-b", "rule", 0),
    },
    "risky": {
        "scores first both": [f"{R}/scores/alder/rows-a/both.parquet"],
        "rows first both": [f"{R}/data/rows-a.parquet"],
        "scores first long": [f"{R}/scores/alder/rows-a/long.parquet"],
        "rows first long": [f"{R}/data/rows-a.parquet"],
        "scores second both": [f"{R}/scores/birch/rows-b/both.parquet"],
        "rows second both": [f"{R}/data/rows-b.parquet"],
        "scores second long": [f"{R}/scores/birch/rows-b/long.parquet"],
        "rows second long": [f"{R}/data/rows-b.parquet"],
    },
    "where": {
        "state alder s-pin": [f"{R}/states/alder/s-pin.json"],
        "state alder d-rank": [f"{R}/states/alder/d-rank.json"],
        "state birch s-pin": [f"{R}/states/birch/s-pin.json"],
        "state birch d-rank": [f"{R}/states/birch/d-rank.json"],
    },
    "alphas": {
        "ranking alder safe": [f"{R}/sensitivity/alder/alphas/steering/safe/final.parquet"],
        "ranking alder harm": [f"{R}/sensitivity/alder/alphas/steering/harm/final.parquet"],
        "ranking birch safe": [f"{R}/sensitivity/birch/alphas/steering/safe/4.parquet"],
        "ranking birch harm": [f"{R}/sensitivity/birch/alphas/steering/harm/3.parquet"],
    },
    "steps": {
        "ranking alder harm": [f"{R}/sensitivity/alder/checkpoints/calm/harm.parquet"],
        "ranking birch harm": [f"{R}/sensitivity/birch/checkpoints/calm/harm.parquet"],
    },
    "along": {
        f"{role} {model} {direction}": files
        for model, benchmark, asr, score, parts in (
            ("alder", "ask-a", "words", "starts", (0, 1)),
            ("birch", "ask-b", "rule", "rule", (0, 1, 2)),
        )
        for direction in ("harm", "safe")
        for role, files in (
            ("trajectory", [f"{R}/trajectories/{model}/calm/{direction}.parquet"]),
            ("asr", judged(model, "pilots/calm", benchmark, asr, *parts)),
            ("safety_score", judged(model, "pilots/calm", benchmark, score, *parts)),
            ("states", [f"{R}/states/{model}/d-rank.json", f"{R}/states/{model}/d-step.json"]),
        )
    },
    # 41 rows: theta_0 and checkpoints 2, 4 and 6 of one; and 3, 6 and 8 of 64 rows of the other.
    "walks": {
        f"{role} alder {pilot} safe": files
        for pilot, states in (("brisk", []), ("calm", [f"{R}/states/alder/d-step.json"]))
        for role, files in (
            ("trajectory", [f"{R}/trajectories/alder/{pilot}/safe.parquet"]),
            ("asr", judged("alder", f"pilots/{pilot}", "ask-a", "words", 0, 1)),
            ("safety_score", judged("alder", f"pilots/{pilot}", "ask-a", "starts", 0, 1)),
            ("states", states),
        )
    },
    "steered": {
        f"{measure} {model} {direction} {checkpoint}": judged(
            model, f"steering/{direction}/{checkpoint}", benchmark, judge, *parts
        )
        for model, direction, checkpoint, benchmark, judges, parts in (
            ("alder", "harm", "final", "try-a", ("words", "starts"), (0, 1, 2)),
            ("alder", "safe", "final", "try-a", ("words", "starts"), (0, 1, 2)),
            ("birch", "harm", 3, "try-b", ("rule", "rule"), (0, 1, 2, 3)),
            ("birch", "safe", 4, "try-b", ("rule", "rule"), (0, 1, 2, 3)),
            ("birch", "safe", 2, "try-b", ("rule", "rule"), (0, 1, 2, 3)),
        )
        for measure, judge in zip(("asr", "safety_score"), judges, strict=True)
    }
    # The state is steered along `safe`, from the checkpoint that scores use for one model alone.
    | {f"states {' '.join(names)}": [] for names in STEERED}
    | {f"states {m} safe {c}": [f"{R}/states/{m}/s-pin.json"] for m, c in (("alder", "final"),
                                                                         ("birch", 2))},
    "foretold": {
        f"{role} {experiment} {method}": files
        for experiment, model, dataset in (
            ("third", "alder", "rows-c"), ("second", "birch", "rows-b"),
        )
        for method in ("dice", "best")
        for role, files in (
            ("scores", [f"{R}/scores/{model}/{dataset}/{method}.parquet"]),
            ("groups", [f"{R}/groups/{model}/{dataset}/more.parquet"]),
            # By the benchmark and the judge of the target.
            ("judgements", judged(
                "cedar", f"groups/moved/{model}/{dataset}/more", "try-c", "rule", 0, 1
            )),
        )
    },
    "full": {
        f"judgements {experiment} {name}": judged("cedar", subject, "try-c", "words", 0)
        for experiment, rows in (("second", "birch/rows-b"), ("third", "alder/rows-c"))
        for name, subject in (
            ("before fine-tuning", THETA_0),
            ("all rows", f"finetunes/broad/{rows}/all-rows"),
        )
    },
    "apart": {
        f"{side} third first {method}": [f"{R}/scores/alder/{rows}/{method}.parquet"]
        for method in ("dice", "half")
        for side, rows in (("riskier", "rows-c"), ("safer", "rows-a"))
    },
    # By the benchmarks and the judges of each model.
    "bare": {
        f"{measure} {model} {role}": judged(model, THETA_0, benchmark, judge, 0)
        for model, judges, roles in (
            ("dogwood", ("words", "starts"), {"try": "try-a", "ask": "ask-a"}),
            ("birch", ("rule", "rule"), {"try": "try-b", "ask": "ask-b"}),
        )
        for role, benchmark in roles.items()
        for measure, judge in zip(("asr", "safety_score"), judges, strict=True)
    },
    "own": {
        f"{role} first {method}": files
        for method in ("long", "both")
        for role, files in (
            ("scores", [f"{R}/scores/alder/rows-a/{method}.parquet"]),
            ("groups", [f"{R}/groups/alder/rows-a/few.parquet"]),
            ("judgements", judged(
                "alder", "groups/small/alder/rows-a/few", "ask-a", "starts", 0, 1, 2
            )),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("table", TABLE_INPUTS)
def test_what_a_table_is_made_of(plan, table):
    assert plan.table_inputs(table) == TABLE_INPUTS[table]


BEFORE = "before fine-tuning"
NAMES = {
    "attacks": [(e, m) for e in ("first", "second") for m in (BEFORE, "both", "dice")],
    "scores": [(e, m) for e in ("third", "second") for m in (BEFORE, "all rows", "half")],
    "targets": [("second", "moved", m) for m in (BEFORE, "all rows", "half", "dice")]
    + [("second", "small", m) for m in (BEFORE, "half", "dice")],
    "judged": [(e, m) for e in ("first", "second") for m in (BEFORE, "both")],
    "risky": [("first", "both"), ("first", "long"), ("second", "both"), ("second", "long")],
    "where": [(m, s) for m in MODELS for s in ("s-pin", "d-rank")],
    "alphas": [(m, d) for m in MODELS for d in ("safe", "harm")],
    "steps": [(m, "harm") for m in MODELS],
    "along": [(m, d) for m in MODELS for d in ("harm", "safe")],
    "walks": [("alder", "brisk", "safe"), ("alder", "calm", "safe")],
    "steered": STEERED,
    "foretold": [(e, m) for e in ("third", "second") for m in ("dice", "best")],
    "own": [("first", "long"), ("first", "both")],
    "apart": [("third", "first", m) for m in ("dice", "half")],
    "full": [(e, m) for e in ("second", "third") for m in (BEFORE, "all rows")],
    "bare": [(m, r) for m in ("dogwood", "birch") for r in ("try", "ask")],
}
OF_EXPERIMENTS = ("attacks", "scores", "judged", "full", "risky", "foretold", "own")
KEYS = {
    **dict.fromkeys(OF_EXPERIMENTS, ("experiment", "method")),
    "targets": ("experiment", "finetune", "method"),
    "where": ("model", "state"),
    "walks": ("model", "pilot", "direction"),
    "steered": ("model", "direction", "checkpoint"),
    "apart": ("riskier", "safer", "method"),
    "bare": ("model", "benchmark"),
    **dict.fromkeys(("alphas", "steps", "along"), ("model", "direction")),
}
ROLES = {
    **dict.fromkeys(("attacks", "scores", "targets", "judged", "full"), ("judgements",)),
    "risky": ("scores", "rows"),
    "where": ("state",), "alphas": ("ranking",), "steps": ("ranking",),
    **dict.fromkeys(("along", "walks"), ("trajectory", "asr", "safety_score", "states")),
    "steered": ("asr", "safety_score", "states"),
    "apart": ("riskier", "safer"),
    "bare": ("asr", "safety_score"),
    **dict.fromkeys(("foretold", "own"), ("scores", "groups", "judgements")),
}  # fmt: skip
# By a row's names but the last.
SEEDS = {
    ("attacks", "first"): [7, 8], ("attacks", "second"): [9], ("scores", "third"): [6],
    ("scores", "second"): [6], ("judged", "first"): [7, 8], ("judged", "second"): [9],
    ("targets", "second", "moved"): [6], ("targets", "second", "small"): [9],
}  # fmt: skip


# alder's scores are of the judge `starts`, birch's of `rule`.
UNITS = {
    "alder": "log-odds of a refusal against a compliant opening",
    "birch": "log-odds of a refusal",
}


def options(table, *names):
    """Of the row of a table with these names."""
    if names[-1] in (BEFORE, "all rows"):
        return {"reference": True}
    if table in ("along", "walks", "steered"):
        return {"unit": UNITS[names[0]]}
    seeds = SEEDS.get((table, *names[:-1]))
    return {"seeds": seeds, "random": names[-1] == "dice"} if seeds else {}


@pytest.mark.parametrize("table", NAMES)
def test_the_rows_and_curves_of_a_table(plan, table):
    assert plan.table_params(table) == [
        {
            "names": dict(zip(KEYS[table], names, strict=True)),
            "options": options(table, *names),
            "inputs": {role: " ".join([role, *names]) for role in ROLES[table]},
        }
        for names in NAMES[table]
    ]


def test_settings_of_a_table(plan):
    windows = ["s1", "s2", "s3"]
    assert plan.table_settings("attacks") == {"windows": windows, "measure": "asr"}
    assert plan.table_settings("scores") == {"windows": windows, "measure": "safety_score"}
    assert plan.table_settings("full") == {"measure": "asr"}
    assert plan.table_settings("apart") == plan.table_settings("bare") == {}
    assert plan.table_settings("steered") == plan.table_settings("where") == {}
    assert plan.table_settings("foretold") == {"against": "dice"}
    assert plan.table_settings("own") == {"against": "both"}


def test_a_deselected_method_takes_its_row_and_nothing_else(plan, config):
    fewer = changed(config, "tables: {attacks: {methods: [both]}}")
    left = {k: v for k, v in TABLE_INPUTS["attacks"].items() if not k.endswith("dice")}
    assert fewer.table_inputs("attacks") == left
    for table in set(TABLE_INPUTS) - {"attacks"}:
        assert fewer.table_inputs(table) == TABLE_INPUTS[table]
    gone = set(plan.subjects) - set(fewer.subjects)
    assert {name.rsplit("/", 1)[1] for _, name in gone} <= {"dice"}
    assert all(fewer.subjects[key] == plan.subjects[key] for key in fewer.subjects)


def test_another_test_benchmark_changes_no_state_and_no_reading(plan, config):
    other = changed(config, "evaluation: {benchmarks: {try: try-c}}")
    for model in MODELS:
        for state in config["states"]:
            assert other.state_sources(model, state) == plan.state_sources(model, state)
    assert other.subjects == plan.subjects
    assert other.table_inputs("steered") != plan.table_inputs("steered")
    assert other.table_inputs("along") == plan.table_inputs("along")


def test_another_alpha_of_a_pinned_state_changes_its_own_subject_alone(plan, config):
    other = changed(config, "states: {s-pin: {alpha: 0.5}}")
    assert {k for k in plan.subjects if other.subjects[k] != plan.subjects[k]} == {
        ("alder", "states/s-pin")
    }


def test_the_resolved_configuration_lies_beside_its_results(plan, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = deepcopy(config)
    write_config(plan)
    write_config(plan)
    assert os.listdir(R) == ["config.yaml"]
    text = Path(R, "config.yaml").read_text()
    assert yaml.safe_load(text) == config == before
    assert list(yaml.safe_load(text)) == list(config)
    # It can be given again, and means the same.
    assert resolve({}, yaml.safe_load(text)) == config


def test_a_configuration_is_written_whole_or_not_at_all(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(plan)
    before = Path(R, "config.yaml").read_text()

    def torn(path, text):
        with open(path, "w") as file:
            file.write(text[:10])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(OSError, match="no space left"):
        write_config(plan)
    assert Path(R, "config.yaml").read_text() == before
    assert os.listdir(R) == ["config.yaml"]


def test_curations_are_made_for_their_experiments(plan):
    source = plan.config["datasets"]["rows-b"]["source"]
    assert plan.curated() == [
        f"{R}/curated/less/birch/rows-b",
        f"{R}/curated/least/alder/rows-a",
        f"{R}/curated/least/birch/rows-b",
    ]
    assert plan.curation("less", "birch", "rows-b") == {
        "source": source, "dataset": "rows-b", "model": "birch", "method": "dice", "drop": 0.2,
        "model_source": plan.config["models"]["birch"],
    }  # fmt: skip


def test_own_files_are_those_of_the_user(plan):
    assert plan.own_files("datasets", "rows-b") == [plan.config["datasets"]["rows-b"]["source"]]
    assert plan.own_files("datasets", "rows-a") == plan.own_files("models", "birch") == []


def test_a_plan_is_made_without_what_trains_and_draws():
    """It is read at every call of snakemake, and in every job on a cluster."""
    heavy = ("torch", "transformers", "trl", "peft", "statsmodels", "matplotlib")
    code = f"import sqsd.plan, sqsd.validation, sys; print({{*sys.modules}} & {{*{heavy}}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
