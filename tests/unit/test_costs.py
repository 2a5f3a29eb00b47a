"""What jobs cost, counted by hand for a model of a thousand parameters."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from planner import TWO

from sqsd import costs, evaluation, gradients, shards
from sqsd.config import resolve
from sqsd.costs import Costs, Job, Lengths, Machine, Model, Work, seconds
from sqsd.plan import Plan

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PLAN = Plan(resolve(DEFAULT, yaml.safe_load(TWO.read_text())))
SIZE = Model(parameters=1000, layers=2, width=10, inner=20, kv=5, vocabulary=30)
# Of grain 70 rows, of fruit 100, in shards of 40.
ROWS = {"grain": 70, "fruit": 100, "grain-harm": 32, "grain-calm": 24, "elm-try": 100}


class Fixed:
    """Rows of 6 tokens, the longest of 9; responses of 3."""

    def model(self, name: str) -> Model:
        return SIZE

    def lengths(self, registry: str, name: str, model: str, most_tokens: int | None) -> Lengths:
        return Lengths(ROWS.get(name, 48), 6.0, 9)

    def response_tokens(self, model: str) -> float:
        return 3.0


def work(rule: str, **wildcards: str) -> Work:
    found = Costs(PLAN, Fixed()).work(Job(rule, wildcards))
    assert found is not None
    return found


def test_what_is_written_twice_is_the_same():
    assert costs.PROMPTS_PER_BATCH == evaluation.PROMPTS_PER_BATCH
    assert costs.CPU_TOKENS == shards.CPU_TOKENS
    assert costs.LOGITS_AT_ONCE == gradients.LOGITS_AT_ONCE


def test_a_rule_without_a_model_has_no_work():
    assert Costs(PLAN, Fixed()).work(Job("score_samples", {"model": "elm"})) is None


@pytest.mark.parametrize(("shard", "rows"), [("00000", 40), ("00001", 30)])
def test_gradients_are_a_forward_and_a_backward_pass_over_the_rows_of_a_shard(shard, rows):
    found = work("collect_gradients", model="elm", dataset="grain", shard=shard)
    assert found.learning == 4 * 1000 * 6 * rows
    assert found.forward == found.steps == found.updates == 0
    assert found.loaded == 1000
    assert found.kept == rows * 250 * 2 * 4
    # float32; all tokens of the shard fit a batch of 999.
    assert found.weights == 4000
    tokens = 6 * rows
    assert found.activations == tokens * 2 * (12 * 10 + 3 * 20) * 4 + 3 * tokens * 30 * 4


def test_hidden_states_are_a_forward_pass_of_one_layer_at_a_time():
    found = work("collect_hidden_states", model="oak", dataset="fruit", shard="00002")
    assert found.forward == 2 * 1000 * 6 * 20
    assert found.learning == 0
    assert found.activations == 120 * (6 * 10 + 3 * 20) * 4 + 3 * 120 * 30 * 4


def test_anchors_lie_in_memory_beside_the_model():
    reading = next(name for name, anchors in PLAN.gradient_anchors.items() if len(anchors) > 1)
    several = work("collect_full_gradients", model="oak", dataset="fruit", reading=reading,
                   shard="00000")  # fmt: skip
    none = work("collect_full_gradients", model="oak", dataset="fruit", reading="norm",
                shard="00000")  # fmt: skip
    assert none.learning == several.learning == 6 * 1000 * 6 * 40
    assert none.weights == 4000
    assert several.weights == 4000 * (1 + len(PLAN.gradient_anchors[reading]))


def test_token_shares_are_a_pass_per_term_over_a_few_rows():
    rows = 7 + 3 + 6
    assert rows < ROWS["grain"]
    found = work("measure_token_shares", model="elm", dataset="grain", method="sqsd-north")
    assert found.learning == 2 * 4 * 1000 * 6 * rows
    assert found.loaded == 1000
    one = work("measure_token_shares", model="elm", dataset="grain", method="bare-north")
    assert one.learning == found.learning / 2


def test_losses_of_rows_are_a_forward_pass_of_a_row_at_every_state():
    subject, runs = next(
        (name, found.runs[0])
        for (model, name), found in PLAN.subjects.items()
        if model == "elm" and name.endswith("/less")
    )
    found = work("measure_row_losses", model="elm", subject=subject, dataset="fruit", part="0")
    assert found.forward == 2 * 1000 * 6 * 100 * len(runs)
    # All weights, and those of the layers again, in the evaluation's dtype.
    size = costs.BYTES[PLAN.setting("evaluation", "elm")["dtype"]]
    assert found.weights == (1000 + 1000 - 30 * 10) * size
    assert found.activations == 9 * (6 * 10 + 3 * 20) * size + 3 * 9 * 30 * 4


def test_treated_rows_are_trained_on_as_often_as_they_are_drawn():
    def learned(treatment: str) -> float:
        found = work("finetune_treated_rows", finetune=finetune, model="elm", dataset="grain",
                     method="all-rows", seed="1", treatment=treatment)  # fmt: skip
        return found.learning

    finetune = next(iter(PLAN.config["finetunes"]))
    kinds = {entry["kind"]: (name, entry) for name, entry in PLAN.config["treatments"].items()}
    whole = work("finetune_all_rows", finetune=finetune, model="elm", dataset="grain", seed="1")
    a_row = whole.learning / ROWS["grain"]
    assert learned(kinds["weights"][0]) == whole.learning
    name, drop = kinds["drop"]
    assert learned(name) == pytest.approx(a_row * (70 - round(70 * drop["share"])))
    name, mix = kinds["mix"]
    assert learned(name) == pytest.approx(a_row * (70 + ROWS.get(mix["data"], 48)))


def test_a_tuned_model_is_trained_whole_on_all_its_data():
    spec = PLAN.config["models"]["fir"]
    rows = sum(ROWS.get(name, 48) for name in spec["data"])
    found = work("tune_model", model="fir")
    assert found.learning == pytest.approx(6 * 1000 * 6 * rows * spec["training"]["epochs"])
    # A gradient and two moments of each weight, in bfloat16.
    assert found.weights == 4 * 1000 * 2
    assert (found.gpus, found.loaded) == (1, 1000)


def test_a_direction_of_others_reads_the_model_and_trains_nothing():
    found = work("fetch_direction", model="elm", direction="lent")
    assert (found.learning, found.forward, found.gpus) == (0, 0, 0)
    assert found.loaded == 1000


@pytest.mark.parametrize(
    ("source", "loads"),
    [("hub:wood/oak", 1), ("oak.gguf", 80), ("wheel:oak==1.0:oak/oak.gguf", 80)],
)
def test_a_gguf_file_is_unpacked_before_it_is_saved(source, loads):
    plan = SimpleNamespace(config={"models": {"oak": {"source": source}}})
    found: Any = Costs(plan, Fixed()).work(Job("fetch_model", {"model": "oak"}))  # pyright: ignore
    assert (found.loaded, found.weights, found.kept) == (loads * 1000, 4000, 2000)


def test_dpo_has_two_sequences_a_row_and_a_pass_of_the_model_as_it_was():
    sft = PLAN.entry("directions", "ill", "elm")
    dpo = next(
        name for name in PLAN.config["directions"]
        if PLAN.entry("directions", name, "elm")["objective"] == "dpo"
    )  # fmt: skip
    entry = PLAN.entry("directions", dpo, "elm")
    found = work("train_direction", model="elm", direction="ill")
    epochs = sft["training"]["epochs"]
    assert found.learning == 4 * 1000 * 6 * 32 * epochs
    assert found.updates == math.ceil(epochs * math.ceil(32 / sft["training"]["batch_size"]))
    pairs = ROWS.get(entry["data"], 48)
    found = work("train_direction", model="elm", direction=dpo)
    assert found.learning == 2 * (4 + 2) * 1000 * 6 * pairs * entry["training"]["epochs"]
    at_once = 2 * entry["training"]["batch_size"] * 9
    assert found.activations == at_once * (3 * 30 + 2 * (16 * 10 + 8 * 20)) * 4


def test_all_weights_have_a_gradient_and_two_moments():
    entry = {"tuning": "full", "training": {"epochs": 1, "batch_size": 8, "dtype": "bfloat16"}}
    count = Costs(PLAN, Fixed())
    full = count.training("oak", Lengths(16, 6.0, 9), entry, runs=5)
    lora = count.training("oak", Lengths(16, 6.0, 9), entry | {"tuning": "lora"}, runs=5)
    assert full.weights == 4 * 1000 * 2
    assert lora.weights == 1000 * 2
    assert full.learning == 6 * 1000 * 6 * 16 * 5
    assert lora.learning == 4 * 1000 * 6 * 16 * 5
    assert full.updates == lora.updates == 5 * 2
    assert (full.sharded, lora.sharded) == (True, False)


def test_responses_are_read_once_and_written_token_by_token():
    subject = "steering/ill/" + str(PLAN.entry("directions", "ill", "elm")["checkpoint"])
    found = work("generate_responses", model="elm", subject=subject, benchmark="elm-try", part="0")
    settings = PLAN.setting("evaluation", "elm")
    states = len(PLAN.subjects["elm", subject].parts[0]["alphas"])
    batches = math.ceil(100 / settings["batch_size"])
    assert found.forward == 2 * 1000 * 6 * 100 * states
    assert found.steps == states * batches * settings["max_new_tokens"]
    assert found.step_operations == 2 * 1000 * 100 / batches


def test_a_judge_of_texts_alone_asks_for_no_gpu():
    rule = next(n for n, j in PLAN.config["judges"].items() if j["kind"] == "phrases")
    found = Costs(PLAN, Fixed()).judging(rule, "elm", Lengths(100, 6.0, 9), 2)
    assert (found.gpus, found.forward, found.loaded) == (0, 0, 0)


def test_a_sandbox_judge_asks_for_four_refusals_behind_each_prompt():
    found = Costs(PLAN, Fixed()).judging("sandbox", "elm", Lengths(100, 6.0, 9), 2)
    assert found.forward == 2 * 1000 * (6 + 4 * 10) * 200


@given(st.floats(1, 1e6), st.floats(1, 1e3), st.integers(0, 50))
def test_seconds_are_work_over_rates(learning, rate, updates):
    machine = Machine(
        rate, bandwidth=10.0, learning=0.5, forward=0.25, reading=0.5, load=0.1,
        start={"train": 3.0}, update=0.2, step=0.01,
    )  # fmt: skip
    done = Work("m", "train", learning=learning, updates=updates, loaded=20)
    assert seconds(done, machine) == pytest.approx(3 + 2 + 0.2 * updates + learning / rate / 0.5)
    assert seconds(Work("m", "infer", forward=rate), machine) == pytest.approx(4)


@pytest.mark.parametrize(("operations", "read", "each"), [(5.0, 100.0, 20.0), (500.0, 1.0, 21.0)])
def test_a_token_takes_the_longer_of_reading_and_computing(operations, read, each):
    machine = Machine(100.0, 10.0, 0.5, 0.25, reading=0.5, load=0.0, step=1.0)
    made = Work("m", "infer", steps=3, step_operations=operations, step_bytes=read)
    assert seconds(made, machine) == pytest.approx(3 * each)


def test_a_job_uses_no_more_gpus_than_it_can():
    resource: Any = {"gpu": 4, "mem_mb": 7, "threads": 2}
    plan: Any = SimpleNamespace(
        config={}, resource=lambda kind, name, model: resource[name],
        gpu_model=lambda kind, model: "h100",
    )  # fmt: skip
    found = Costs(plan, Fixed()).resources("any", Work("m", "infer", gpus=1))
    assert found == {"gpu": 1, "gpu_model": "h100", "mem_mb": 7, "threads": 2}
    assert Costs(plan, Fixed()).resources("any", Work("m", "infer", gpus=0))["gpu_model"] == ""
