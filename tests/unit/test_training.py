"""Runs of six steps on a model of one layer, killed and resumed, against runs left alone."""

import gc
import hashlib
import json
import math
import os
import re
import signal
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import ONE_LAYER
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.trainer_callback import TrainerControl, TrainerState

from sqsd import training
from sqsd.errors import DataError, TrainingError
from sqsd.models import load_model, load_tokenizer, make_model, make_word_tokenizer
from sqsd.termination import Terminated
from sqsd.training import (
    DPOTrainer,
    ProgressCallback,
    SaveCallback,
    SaveWhenTerminated,
    SFTTrainer,
    StopOnNonFiniteLoss,
    last_whole_checkpoint,
    link_or_copy,
    only_one,
    rows_hash,
    sft_dataset,
    train_dpo,
    train_sft,
    training_record,
)

ARCHITECTURE = ONE_LAYER
WORDS = ["ash", "birch", "cedar", "elm", "fir"]
USER, ASSISTANT, END = 2, 3, 4  # the ids of the template's tokens; words follow from 5 on
LORA = {"r": 2, "lora_alpha": 4}
# 8 rows, 4 a batch, 3 epochs: 6 steps, of which none is a multiple of logging_steps=10.
TRAINING = {
    "learning_rate": 0.05,
    "epochs": 3,
    "batch_size": 4,
    "max_length_tokens": 12,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "dtype": "float32",
}
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEAR += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def ids(text):
    return [5 + WORDS.index(word) for word in text.split()]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """No search of every imported module for garbage at the start of each run."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model's folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = make_word_tokenizer(WORDS)
    make_model(tokenizer, ARCHITECTURE, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sft_rows(shift=0):
    return pd.DataFrame(
        {
            "sample_id": [f"z{i}" for i in range(8)],
            "prompt": [f"{WORDS[i % 5]} {WORDS[i % 3]}" for i in range(8)],
            "response": [" ".join(WORDS[: 1 + (i + shift) % 4]) for i in range(8)],
            "problem": None,
        }
    )


def dpo_rows(shift=0):
    rows = sft_rows(shift).rename(columns={"response": "chosen"}).drop(columns="problem")
    return rows.assign(rejected=[f"fir {WORDS[i % 4]}" for i in range(8)])


SFT, DPO = "sft", "dpo"
OBJECTIVES = pytest.mark.parametrize("objective", [SFT, DPO])


def run(objective, base, folder, out="out", **changed):
    """Train in folder/work, publish to folder/out; `changed` replaces arguments."""
    dpo = objective == DPO
    model = changed.pop("model", None)
    arguments = {
        "rows": dpo_rows() if dpo else sft_rows(),
        "training": TRAINING | ({"beta": 0.1} if dpo else {}),
        "lora": LORA,
        "seed": 1,
        "version": 1,
        "save_steps": 2,
    } | changed
    (train_dpo if dpo else train_sft)(
        load_model(base) if model is None else model,
        load_tokenizer(base),
        arguments.pop("rows"),
        folder / out,
        folder / "work",
        **arguments,
    )
    return folder / out


def weights(out):
    """Adapter weights of a run's output and of the checkpoints in it, by file."""
    return {str(p.relative_to(out)): load_file(p) for p in sorted(out.rglob("*.safetensors"))}


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].keys() == expected[name].keys()
        different = [k for k, w in expected[name].items() if not torch.equal(found[name][k], w)]
        assert different == [], name


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """Folders of runs that nothing interrupted, by objective; `work` is as such a run leaves it."""
    folders = {objective: tmp_path_factory.mktemp(objective) for objective in (SFT, DPO)}
    for objective, folder in folders.items():
        run(objective, base, folder)
    return folders


@pytest.fixture(scope="module")
def undisturbed(finished):
    """Weights of these runs, by objective."""
    return {objective: weights(folder / "out") for objective, folder in finished.items()}


class Killed(Exception):
    pass


@pytest.fixture
def steps(monkeypatch):
    """The steps that are trained, in order; `steps.kill_at` ends a run after that one.

    At `steps.terminate_at` the process gets a SIGTERM.
    """
    seen = SimpleNamespace(trained=[], kill_at=None, terminate_at=None)
    real = ProgressCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        seen.trained.append(state.global_step)
        if state.global_step == seen.kill_at:
            raise Killed
        if state.global_step == seen.terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProgressCallback, "on_step_end", on_step_end)
    return seen


def killed(steps, at, *arguments, **changed):
    """A run from step 1 that ends after a step, before its checkpoint; then forgets the steps."""
    steps.kill_at = at
    with pytest.raises(Killed):
        run(*arguments, **changed)
    assert steps.trained == list(range(1, at + 1))
    steps.kill_at, steps.trained = None, []


def only_run(folder):
    """The one run's own folder in `work`."""
    (work,) = (folder / "work").iterdir()
    return work


def rows_of(*rows):
    named = [(f"z{i}", *row) for i, row in enumerate(rows)]
    return pd.DataFrame(named, columns=pd.Index(["sample_id", "prompt", "response", "problem"]))


def test_the_rows_that_are_trained_on(base, capsys):
    rows = rows_of(
        ("ash", "elm fir", None),
        ("ash", "elm", "response is not text"),
        ("ash elm fir cedar birch", "ash", None),  # 7 tokens of prompt, none left
        ("ash", " ", None),
        ("ash elm", "fir fir fir fir", None),  # 4 tokens of prompt, the last two are cut
        ("fir", "ash", math.nan),
    )
    dataset = sft_dataset(rows, load_tokenizer(base), 7)
    assert dataset["input_ids"][:] == [
        [USER, *ids("ash"), ASSISTANT, *ids("elm fir"), END],
        [USER, *ids("ash elm"), ASSISTANT, *ids("fir fir fir")],
        [USER, *ids("fir"), ASSISTANT, *ids("ash"), END],
    ]
    masks = [[0] * 3 + [1] * 3, [0] * 4 + [1] * 3, [0] * 3 + [1] * 2]
    assert dataset["completion_mask"][:] == masks
    assert capsys.readouterr().out == "3 of 6 rows are trained on\n"


def test_a_table_without_problems_is_used_whole(base):
    rows = rows_of(("ash", "elm", None), ("elm", "fir", None)).drop(columns="problem")
    assert len(sft_dataset(rows, load_tokenizer(base), 12)) == 2


def test_a_row_without_a_response_is_left_out(base):
    # As `encode_rows` does, which gives it no gradient; "None" and "nan" are no responses.
    rows = rows_of(("ash", "elm", None), ("elm", None, None))
    assert len(sft_dataset(rows, load_tokenizer(base), 12)) == 1


def test_no_row_to_train_on_is_an_error(base):
    rows = rows_of(("ash", "elm", "bad"), ("ash", "", None), ("ash fir fir", "elm", None))
    message = (
        r"none of the 3 rows can be trained on at 4 tokens; look at the data set's `problem` "
        "column, or raise max_length_tokens"
    )
    with pytest.raises(DataError, match=message):
        sft_dataset(rows, load_tokenizer(base), 4)


def test_a_run_without_a_row_is_an_error_and_leaves_no_output(base, tmp_path):
    with pytest.raises(DataError, match="none of the 1 rows can be trained on at 12 tokens"):
        run(SFT, base, tmp_path, rows=rows_of(("ash", "elm", "bad")))
    assert not (tmp_path / "out").exists()


def mean_losses(monkeypatch, trainer):
    """A list that gets the mean loss of every training of the trainer."""
    losses = []
    real = trainer.train

    def train(self, **kwargs):
        result = real(self, **kwargs)
        losses.append(result.training_loss)
        return result

    monkeypatch.setattr(trainer, "train", train)
    return losses


def test_the_loss_is_that_of_the_response_and_its_end(base, tmp_path, monkeypatch):
    # One step on one row: the adapter's drift is still zero, and so the loss is theta_0's.
    losses = mean_losses(monkeypatch, SFTTrainer)
    rows = rows_of(("ash elm", "fir cedar", None))
    run(SFT, base, tmp_path, rows=rows, training=TRAINING | {"epochs": 1})
    sequence = [USER, *ids("ash elm"), ASSISTANT, *ids("fir cedar"), END]
    with torch.no_grad():
        logits = load_model(base)(input_ids=torch.tensor([sequence])).logits[0].double().cpu()
    each = [-float(logits[i - 1].log_softmax(-1)[sequence[i]]) for i in range(4, 7)]
    assert losses == pytest.approx([sum(each) / 3], abs=1e-5)


@torch.no_grad()
def log_probability(model, prompt, response):
    """Sum over the response's tokens and its end, in float64."""
    context = [USER, *ids(prompt), ASSISTANT]
    sequence = [*context, *ids(response), END]
    each = model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(-1).tolist()
    return sum(each[i - 1][sequence[i]] for i in range(len(context), len(sequence)))


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_loss_of_preferences_is_that_of_eq_3(base, tmp_path, monkeypatch, beta):
    # Two steps on one row. First policy and reference are one: -log sigmoid(0) = log 2. Then the
    # policy is the first checkpoint: -log sigmoid(beta * margin) = log(1 + exp(-beta * margin)).
    losses = mean_losses(monkeypatch, DPOTrainer)
    changed = {"epochs": 2, "schedule": "constant", "warmup_fraction": 0.0, "beta": beta}
    rows = pd.DataFrame({"prompt": ["ash elm"], "chosen": ["fir cedar"], "rejected": ["birch"]})
    out = run(DPO, base, tmp_path, rows=rows, training=TRAINING | changed, save_steps=1)
    tensors = load_file(out / "checkpoint-1/adapter_model.safetensors")
    reference, policy = load_model(base).double().cpu(), load_model(base).double().cpu()
    for name in LINEAR:
        key = f"model.layers.0.{name}"
        a, b = (tensors[f"base_model.model.{key}.lora_{part}.weight"].double() for part in "AB")
        policy.get_submodule(key).weight.data += 4 / 2 * b @ a  # lora_alpha / r
    chosen, rejected = (
        log_probability(policy, "ash elm", response)
        - log_probability(reference, "ash elm", response)
        for response in ("fir cedar", "birch")
    )
    assert chosen > rejected
    second = math.log1p(math.exp(-beta * (chosen - rejected)))
    assert losses == pytest.approx([(math.log(2) + second) / 2], abs=1e-5)


# The fall after the warm-up, at a share of the way.
FALLS = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
}


@pytest.mark.parametrize("schedule", FALLS)
def test_the_learning_rate_warms_up_and_falls(base, tmp_path, monkeypatch, schedule):
    rates = []
    real = SFTTrainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        groups = self.optimizer.param_groups
        rates.append(groups[0]["lr"])
        assert {group["weight_decay"] for group in groups} == {0.25, 0.0}  # 0 is for biases
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    changed = {"schedule": schedule, "warmup_fraction": 0.25, "weight_decay": 0.25, "epochs": 4}
    run(SFT, base, tmp_path, training=TRAINING | changed, save_steps=None)
    # 8 steps, a quarter of them up from 0, the other six down to 0.
    shares = [0, 1 / 2, *(FALLS[schedule](step / 6) for step in range(6))]
    assert rates == pytest.approx([0.05 * share for share in shares], abs=1e-9)


@OBJECTIVES
def test_the_seed_decides_the_start_and_the_order_of_rows(base, tmp_path, monkeypatch, objective):
    trainer = DPOTrainer if objective == DPO else SFTTrainer
    orders = []
    real = trainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        orders[-1] += [tuple(row) for row in inputs["input_ids"].tolist()]
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", training_step)
    starts = []
    for seed in (1, 2):
        orders.append([])
        still = TRAINING | {"epochs": 1, "learning_rate": 1e-12, "beta": 0.1}
        out = run(objective, base, tmp_path, f"out-{seed}", training=still, seed=seed)
        starts.append(weights(out)["adapter_model.safetensors"])
    name = f"base_model.model.model.layers.0.{LINEAR[0]}.lora_A.weight"
    assert not torch.allclose(starts[0][name], starts[1][name])
    assert orders[0] != orders[1] and len(orders[0]) == len(orders[1]) > 0


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_is_on_the_seven_linear_layers_and_not_on_the_head(base, tmp_path, tied):
    model = load_model(base)
    if not tied:
        model.config.tie_word_embeddings = False
        model = LlamaForCausalLM(model.config)
        assert model.lm_head.weight is not model.model.embed_tokens.weight
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    out = run(SFT, base, tmp_path, model=model, training=TRAINING | {"epochs": 1}, save_steps=None)
    expected = {
        f"base_model.model.model.layers.0.{name}.lora_{part}.weight"
        for name in LINEAR
        for part in "AB"
    }
    found = load_file(out / "adapter_model.safetensors")
    assert set(found) == expected
    assert all(w.shape[0] == 2 for k, w in found.items() if "lora_A" in k)
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 4, 0)
    # Every module has learnt something: B starts at zero.
    assert all(w.abs().max() > 0 for k, w in found.items() if "lora_B" in k)
    # And nothing else has.
    after = {name.replace("base_layer.", ""): w for name, w in model.state_dict().items()}
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@OBJECTIVES
def test_checkpoints_are_published_with_save_steps(finished, objective):
    out = finished[objective] / "out"
    assert sorted(p.name for p in out.glob("checkpoint-*")) == [
        "checkpoint-2", "checkpoint-4", "checkpoint-6"
    ]  # fmt: skip
    for folder in out.glob("checkpoint-*"):
        files = {"adapter_config.json", "adapter_model.safetensors"}
        assert {path.name for path in folder.iterdir()} == files
    found = weights(out)
    last = found["checkpoint-6/adapter_model.safetensors"]
    assert_same_weights({"": last}, {"": found["adapter_model.safetensors"]})
    key = f"base_model.model.model.layers.0.{LINEAR[0]}.lora_B.weight"
    each = [found[f"checkpoint-{i}/adapter_model.safetensors"][key] for i in (2, 4, 6)]
    assert not torch.equal(each[0], each[1]) and not torch.equal(each[1], each[2])


@OBJECTIVES
def test_without_save_steps_there_are_none_and_the_same_weights(
    base, tmp_path, undisturbed, objective
):
    torch.manual_seed(1234)  # the run's seed decides, and not what ran before
    out = run(objective, base, tmp_path, save_steps=None)
    assert list(out.glob("checkpoint-*")) == []
    name = "adapter_model.safetensors"
    assert_same_weights(weights(out), {name: undisturbed[objective][name]})


@OBJECTIVES
def test_a_killed_run_resumes_to_the_same_weights(base, tmp_path, undisturbed, steps, objective):
    killed(steps, 5, objective, base, tmp_path)
    assert not (tmp_path / "out").exists()
    out = run(objective, base, tmp_path)
    assert steps.trained == [5, 6]
    assert_same_weights(weights(out), undisturbed[objective])


def test_a_run_killed_before_its_first_checkpoint_starts_again(base, tmp_path, undisturbed, steps):
    killed(steps, 1, SFT, base, tmp_path)
    out = run(SFT, base, tmp_path)
    assert steps.trained == [1, 2, 3, 4, 5, 6]
    assert_same_weights(weights(out), undisturbed[SFT])


@OBJECTIVES
def test_a_torn_checkpoint_is_not_resumed_from(base, tmp_path, undisturbed, steps, objective):
    killed(steps, 5, objective, base, tmp_path)
    state = only_run(tmp_path) / "checkpoint-4/trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    out = run(objective, base, tmp_path)
    assert steps.trained == [3, 4, 5, 6]
    assert_same_weights(weights(out), undisturbed[objective])


@OBJECTIVES
@pytest.mark.parametrize(
    ("seconds", "saved"), [(1, [4]), (200, [4]), (201, [3]), (300, [3]), (400, [4]), (401, [])]
)
def test_a_run_without_save_steps_resumes_from_the_last_time_it_saved(
    base, tmp_path, undisturbed, steps, monkeypatch, objective, seconds, saved
):
    # Steps of 100 s, killed in the fifth; only the newest checkpoint is kept. A save counts from
    # the one before it: at 201 s, after the third step and not after the fourth.
    clock = SimpleNamespace(monotonic=lambda: 7.0 + 100 * len(steps.trained))
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", seconds)
    killed(steps, 5, objective, base, tmp_path, save_steps=None)
    found = [p.name for p in only_run(tmp_path).glob("checkpoint-*")]
    assert found == [f"checkpoint-{step}" for step in saved]
    out = run(objective, base, tmp_path, save_steps=None)
    assert steps.trained == list(range(sum(saved) + 1, 7))
    name = "adapter_model.safetensors"
    assert_same_weights(weights(out), {name: undisturbed[objective][name]})


@OBJECTIVES
@pytest.mark.parametrize(("at", "save_steps"), [(1, 2), (3, 2), (4, 2), (6, 2), (3, None)])
def test_a_run_that_sigterm_ends_has_saved_its_last_step(
    base, tmp_path, undisturbed, steps, capsys, objective, at, save_steps
):
    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGALRM)]
    steps.terminate_at = at
    with pytest.raises(SystemExit) as left:
        run(objective, base, tmp_path, save_steps=save_steps)
    assert left.value.code == 128 + 15
    assert f"SIGTERM: saved at step {at}, to be gone on from\n" in capsys.readouterr().out
    assert steps.trained == list(range(1, at + 1)) and not (tmp_path / "out").exists()
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGALRM)] == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    steps.trained, steps.terminate_at = [], None
    out = run(objective, base, tmp_path, save_steps=save_steps)
    assert steps.trained == list(range(at + 1, 7))
    # No checkpoint that was not asked for is among those of the result.
    names = list(undisturbed[objective]) if save_steps else ["adapter_model.safetensors"]
    assert_same_weights(weights(out), {name: undisturbed[objective][name] for name in names})


def test_a_short_run_without_save_steps_saves_its_end_alone(base, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(SFTTrainer, "_save_checkpoint", lambda *args, **kwargs: saved.append(args))
    out = run(SFT, base, tmp_path, save_steps=None)
    assert saved == []
    assert list(weights(out)) == ["adapter_model.safetensors"]


def killed_at_its_end(base, folder, undisturbed, steps, monkeypatch, replaced):
    """Runs that end in `replaced`, which kills, and again: not a step is trained a second time."""
    with monkeypatch.context() as patch:
        patch.setattr(*replaced)
        with pytest.raises(Killed):
            run(SFT, base, folder)
    steps.trained = []
    out = run(SFT, base, folder)
    assert steps.trained == []
    assert_same_weights(weights(out), undisturbed[SFT])
    return out


def test_a_run_killed_while_its_end_is_saved_is_finished(
    base, tmp_path, undisturbed, steps, monkeypatch
):
    real = SFTTrainer.save_model

    def save_model(self, output_dir=None, _internal_call=False):
        if not _internal_call:  # checkpoints are internal calls
            Path(str(output_dir)).mkdir()
            raise Killed
        real(self, output_dir, _internal_call)

    replaced = (SFTTrainer, "save_model", save_model)
    killed_at_its_end(base, tmp_path, undisturbed, steps, monkeypatch, replaced)


@OBJECTIVES
def test_gpus_that_a_job_does_not_use_change_nothing(
    base, tmp_path, undisturbed, monkeypatch, objective
):
    # transformers would take the rows of three batches a step, for nn.DataParallel.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert_same_weights(weights(run(objective, base, tmp_path)), undisturbed[objective])


def test_all_processes_save_when_the_first_one_s_time_has_come(monkeypatch):
    """A process that saves alone waits for the others for ever."""
    for own, first in ((0, 1e9), (1e9, 0)):
        monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", own)
        monkeypatch.setattr(training, "broadcast_object_list", lambda due, first=first: [not first])
        callback: Any = SaveCallback()
        control = TrainerControl()
        callback.on_train_begin(None, None, None)
        callback.on_step_end(None, None, control)
        assert control.should_save == (not first)


def test_sigterm_after_the_last_step_leaves_a_finished_run(
    base, tmp_path, undisturbed, steps, monkeypatch
):
    real = ProgressCallback.on_train_end

    def on_train_end(self, args, state, control, **kwargs):
        real(self, args, state, control, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Terminated):
        patch.setattr(ProgressCallback, "on_train_end", on_train_end)
        run(SFT, base, tmp_path)
    assert steps.trained == [1, 2, 3, 4, 5, 6]
    out = run(SFT, base, tmp_path)
    assert steps.trained == [1, 2, 3, 4, 5, 6]
    assert_same_weights(weights(out), undisturbed[SFT])


def test_two_processes_do_not_train_in_one_folder_at_once(base, tmp_path, capsys):
    work, order = tmp_path / "work", []

    def other():
        with only_one(work):
            order.append("other")

    with only_one(work):
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        order.append("first")
    waiting.join(10)
    assert order == ["first", "other"]
    assert f"waiting for another process that trains in {work}" in capsys.readouterr().out


def test_all_processes_leave_when_the_first_one_has_got_sigterm(monkeypatch):
    for own, first in ((True, False), (False, True)):
        monkeypatch.setattr(training, "broadcast_object_list", lambda given, first=first: [first])
        notice: Any = SimpleNamespace(given=own)
        callback: Any = SaveWhenTerminated(notice)
        control = TrainerControl()
        callback.on_step_end(None, None, control)
        assert control.should_save == first
        leaving = pytest.raises(Terminated) if first else nullcontext()
        with leaving:
            callback.on_save(None, TrainerState(global_step=3), control)


def test_training_all_weights_resumes_too(base, tmp_path, steps, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0)
    changed = {"lora": None, "save_steps": None, "training": TRAINING | {"epochs": 2}}
    whole = run(SFT, base, tmp_path / "whole", **changed)
    steps.trained = []
    killed(steps, 3, SFT, base, tmp_path / "cut", **changed)
    out = run(SFT, base, tmp_path / "cut", **changed)
    assert steps.trained == [3, 4]
    assert_same_weights(weights(out), weights(whole))
    # The output is a model of its own, tokenizer included, whose every weight was trained.
    before, after = load_model(base).state_dict(), load_model(out).state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert load_tokenizer(out)("ash elm").input_ids == ids("ash elm")
    assert not list(out.glob("adapter*"))


@OBJECTIVES
def test_a_finished_run_is_put_in_place_again_without_training(
    base, finished, undisturbed, monkeypatch, objective
):
    def no_trainer(*args, **kwargs):
        raise AssertionError("trained again")

    for name in ("SFTTrainer", "PreferenceTrainer", "train"):
        monkeypatch.setattr(training, name, no_trainer)
    again = run(objective, base, finished[objective], out="again")
    assert_same_weights(weights(again), undisturbed[objective])
    first = {p.relative_to(again.parent / "out") for p in (again.parent / "out").rglob("*")}
    assert {p.relative_to(again) for p in again.rglob("*")} == first
    assert (again / "training.json").read_bytes() == (
        again.parent / "out/training.json"
    ).read_bytes()


def record_of(out):
    return json.loads((out / "training.json").read_text())


@OBJECTIVES
def test_what_a_run_was_trained_on_is_beside_its_result(base, finished, objective):
    record = record_of(finished[objective] / "out")
    rows = dpo_rows() if objective == DPO else sft_rows()
    expected = {
        "objective": objective,
        "version": 1,
        "training": TRAINING | ({"beta": 0.1} if objective == DPO else {}),
        "lora": LORA,
        "seed": 1,
        "save_steps": 2,
        "rows": 8,
        # Of the texts' CSV without an index, which another program can make too.
        "rows_hash": hashlib.sha256(
            rows.drop(columns="sample_id").to_csv(index=False).encode()
        ).hexdigest(),
    }
    assert {name: record[name] for name in expected} == expected
    assert set(record) == {*expected, "model", "stamp"}
    assert only_run(finished[objective]).name == record["stamp"]
    assert re.fullmatch("[0-9a-f]{12}", record["stamp"])


RECORD_CHANGES = {
    "seed": 2, "version": 2, "save_steps": 3, "lora": LORA | {"r": 3}, "objective": DPO,
    "training": TRAINING | {"epochs": 4}, "rows": sft_rows(shift=1),
}  # fmt: skip


def test_a_conversation_is_a_part_of_what_a_run_was_trained_on():
    rows = sft_rows()
    found = [rows_hash(rows.assign(conversation=text)) for text in (None, "{}", "[]")]
    assert len({rows_hash(rows), *found}) == 4


def test_another_setting_or_row_has_another_stamp(base):
    arguments: dict[str, Any] = {
        "objective": SFT, "version": 1, "model": load_model(base), "training": TRAINING,
        "lora": LORA, "seed": 1, "save_steps": 2, "rows": sft_rows(),
    }  # fmt: skip
    first = training_record(**arguments)
    assert training_record(**arguments) == first
    changes: dict[str, Any] = RECORD_CHANGES | {
        "model": make_model(load_tokenizer(base), ARCHITECTURE, seed=4)
    }
    stamps = {
        name: training_record(**arguments | {name: value})["stamp"]
        for name, value in changes.items()
    }
    assert set(stamps) == set(arguments)
    assert len({first["stamp"], *stamps.values()}) == 1 + len(stamps)


@pytest.mark.parametrize("part", ["first", "last"])
def test_a_model_is_told_apart_by_the_ends_of_each_weight(base, part):
    def with_other(name):
        model = load_model(base)
        weight = dict(model.named_parameters())[name].data.view(-1)
        weight[0 if part == "first" else -1] += 1
        return training.fingerprint(model)

    names = [name for name, _ in load_model(base).named_parameters()]
    found = {training.fingerprint(load_model(base)), *map(with_other, names)}
    assert len(found) == 1 + len(names)


def test_the_result_is_linked_and_has_no_file_of_the_trainer(finished):
    for folder in finished.values():
        out, final = folder / "out", only_run(folder) / "final"
        files = {path.name for path in out.iterdir() if path.is_file()}
        assert "training_args.bin" not in files and (final / "training_args.bin").exists()
        for name in files - {"training.json"}:
            assert os.path.samefile(out / name, final / name), name
        for checkpoint in out.glob("checkpoint-*"):
            for path in checkpoint.iterdir():
                assert os.path.samefile(path, only_run(folder) / checkpoint.name / path.name)


def test_a_finished_run_keeps_nothing_to_resume_from(finished):
    for folder in finished.values():
        for checkpoint in only_run(folder).glob("checkpoint-*"):
            files = {"adapter_config.json", "adapter_model.safetensors"}
            assert {path.name for path in checkpoint.iterdir()} == files


def test_without_save_steps_no_checkpoint_keeps_a_file(base, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", 0)
    run(SFT, base, tmp_path, save_steps=None, training=TRAINING | {"epochs": 1})
    work = only_run(tmp_path)
    assert not list(work.glob("checkpoint-*/*"))
    assert (work / "final/adapter_model.safetensors").is_file()


def test_what_another_stamp_left_is_removed(base, tmp_path, steps):
    quickly: dict[str, Any] = {"training": TRAINING | {"epochs": 1}}
    killed(steps, 1, SFT, base, tmp_path, seed=7, **quickly)
    assert len(list((tmp_path / "work").iterdir())) == 1
    first = record_of(run(SFT, base, tmp_path, seed=1, **quickly))
    assert only_run(tmp_path).name == first["stamp"]
    second = record_of(run(SFT, base, tmp_path, seed=2, **quickly))
    assert only_run(tmp_path).name == second["stamp"] != first["stamp"]


def test_the_result_of_another_run_is_replaced_and_not_written_through(base, tmp_path):
    quickly: dict[str, Any] = {"training": TRAINING | {"epochs": 1}, "save_steps": None}
    name = "adapter_model.safetensors"
    first = run(SFT, base, tmp_path, **quickly)
    (tmp_path / "link").mkdir()
    os.link(first / name, tmp_path / "link" / name)
    kept = weights(first)[name]
    second = run(SFT, base, tmp_path, seed=2, **quickly)
    assert second == first and record_of(second)["seed"] == 2
    assert_same_weights(weights(tmp_path / "link"), {name: kept})
    found = weights(second)[name]
    assert [key for key in kept if not torch.equal(found[key], kept[key])] == list(kept)


@pytest.mark.parametrize("at", [1, 3, 8])
def test_a_run_killed_while_it_is_put_in_place_is_put_there_whole(
    base, tmp_path, undisturbed, finished, steps, monkeypatch, at
):
    calls = []

    def link(source, target):
        calls.append(target)
        if len(calls) == at:
            raise Killed
        link_or_copy(source, target)

    replaced = (training, "link_or_copy", link)
    out = killed_at_its_end(base, tmp_path, undisturbed, steps, monkeypatch, replaced)
    whole = finished[SFT] / "out"
    assert {p.relative_to(out) for p in out.rglob("*")} == {
        p.relative_to(whole) for p in whole.rglob("*")
    }


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("no links here")

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(training.os, "link", no_links)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"
    assert not os.path.samefile(tmp_path / "a", tmp_path / "b")


@OBJECTIVES
@pytest.mark.parametrize("micro", [1, 2])
def test_a_batch_in_parts_gives_the_same_adapter(
    base, tmp_path, undisturbed, steps, objective, micro
):
    own = TRAINING | {"micro_batch_size": micro} | ({"beta": 0.1} if objective == DPO else {})
    out = run(objective, base, tmp_path, training=own)
    assert steps.trained == [1, 2, 3, 4, 5, 6]
    assert record_of(out)["training"]["micro_batch_size"] == micro
    found, expected = weights(out), undisturbed[objective]
    for file in expected:
        for name, weight in expected[file].items():
            assert (found[file][name] - weight).norm() <= 1e-3 * weight.norm(), (file, name)


def test_parts_of_a_batch_have_so_many_rows(base, tmp_path, monkeypatch):
    sizes = []
    real = SFTTrainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        sizes.append(len(inputs["input_ids"]))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    own = {"training": TRAINING | {"epochs": 1, "micro_batch_size": 2}, "save_steps": None}
    run(SFT, base, tmp_path, **own)
    assert sizes == [2, 2, 2, 2]


SFT_CHANGES = {
    "seed": {"seed": 2},
    "rows": {"rows": sft_rows(shift=1)},
    "order of the rows": {"rows": sft_rows().iloc[::-1]},
    "training": {"training": TRAINING | {"learning_rate": 0.04}},
    "lora": {"lora": LORA | {"lora_alpha": 6}},
    "save_steps": {"save_steps": 3},
    "version": {"version": 2},
}
DPO_CHANGES = {
    "version": {"version": 2},
    "seed": {"seed": 2},
    "rows": {"rows": dpo_rows(shift=1)},
    "training": {"training": TRAINING | {"beta": 0.2}},
}
CHANGES = [(SFT, what) for what in SFT_CHANGES] + [(DPO, what) for what in DPO_CHANGES]


@pytest.mark.parametrize(("objective", "what"), CHANGES)
def test_another_run_does_not_resume_from_a_finished_one(base, finished, steps, objective, what):
    changed = (SFT_CHANGES if objective == SFT else DPO_CHANGES)[what]
    # `killed` asserts that it begins at step 1, so one step is enough.
    killed(steps, 1, objective, base, finished[objective], out="other", **changed)


def test_another_base_model_does_not_resume(base, finished, steps):
    # A base model made anew under its old name, with what a killed run left in between.
    model = make_model(load_tokenizer(base), ARCHITECTURE, seed=4)
    killed(steps, 1, SFT, base, finished[SFT], out="other", model=model)


def broken(base):
    """A model with a weight that is not a number."""
    model = load_model(base)
    model.model.layers[0].mlp.down_proj.weight.data[1, 2] = math.nan
    return model


def nan_message(folder, step):
    return (
        rf"^{re.escape(str(folder / 'work'))}/\w+: the loss is nan at step {step}; "
        "lower learning_rate or check the rows of the data set$"
    )


@OBJECTIVES
# Of 2 steps an epoch: 12 steps pass logging_steps=10, 4 steps end before anything is logged.
@pytest.mark.parametrize(("epochs", "step"), [(6, 10), (2, 4)])
def test_a_loss_that_is_not_a_number_ends_the_run(base, tmp_path, objective, epochs, step):
    changed = TRAINING | {"epochs": epochs} | ({"beta": 0.1} if objective == DPO else {})
    with pytest.raises(TrainingError, match=nan_message(tmp_path, step)):
        run(objective, base, tmp_path, model=broken(base), training=changed, save_steps=None)
    assert not (tmp_path / "out").exists()


def test_a_run_that_ended_so_ends_so_again(base, tmp_path):
    # Its last checkpoint is at its end, so a second attempt has no step left to see the loss of.
    for _ in range(2):
        with pytest.raises(TrainingError, match="the loss is nan at step 6"):
            run(SFT, base, tmp_path, model=broken(base))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_callback_stops_at_a_logged_loss_that_is_not_finite(loss):
    args, state = SimpleNamespace(output_dir="some/work"), SimpleNamespace(global_step=70)
    message = f"some/work: the loss is {loss} at step 70; lower learning_rate or check the rows"
    with pytest.raises(TrainingError, match=message):
        StopOnNonFiniteLoss().on_log(args, state, None, logs={"loss": loss})


@pytest.mark.parametrize("logs", [{"loss": 1e30}, {"train_runtime": 2.0}, {}, None])
def test_the_callback_lets_other_logs_pass(logs):
    args, state = SimpleNamespace(output_dir="some/work"), SimpleNamespace(global_step=70)
    assert StopOnNonFiniteLoss().on_log(args, state, None, logs=logs) is None


WHOLE, MISSING, HALF, EMPTY = "whole", "missing", "half", "empty"


def make_checkpoint(folder, state):
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    text = json.dumps({"global_step": 4, "log_history": [{"loss": 0.5}]}, indent=2)
    content = {WHOLE: text, HALF: text[: len(text) // 2], EMPTY: ""}.get(state)
    if content is not None:
        (folder / "trainer_state.json").write_text(content)


@settings(deadline=None, max_examples=40)  # it makes folders
@given(
    st.dictionaries(
        st.integers(1, 2000), st.sampled_from([WHOLE, MISSING, HALF, EMPTY]), max_size=5
    )
)
def test_the_last_whole_checkpoint(states):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for step, state in states.items():
            make_checkpoint(work / f"checkpoint-{step}", state)
        whole = [step for step, state in states.items() if state == WHOLE]
        newest = max(whole, default=0)
        expected = str(work / f"checkpoint-{newest}") if whole else None
        assert last_whole_checkpoint(work) == expected
        # Torn ones that are newer are gone, so that nothing later takes them for whole.
        kept = {f"checkpoint-{step}" for step in states if step <= newest}
        assert {path.name for path in work.iterdir()} == kept


def test_no_folder_has_no_checkpoint(tmp_path):
    assert last_whole_checkpoint(tmp_path / "absent") is None
    (tmp_path / "final").mkdir()
    assert last_whole_checkpoint(tmp_path) is None


def test_the_state_is_the_last_file_of_a_checkpoint(base, tmp_path, steps, monkeypatch):
    # `last_whole_checkpoint` takes a checkpoint with a whole trainer_state.json for whole.
    seen = []
    real = TrainerState.save_to_json

    def save_to_json(self, json_path):
        seen.append({path.name for path in Path(json_path).parent.iterdir()})
        real(self, json_path)

    monkeypatch.setattr(TrainerState, "save_to_json", save_to_json)
    with pytest.raises(Killed):
        steps.kill_at = 3
        run(SFT, base, tmp_path)
    folder = only_run(tmp_path) / "checkpoint-2"
    (before,) = seen
    assert before == {path.name for path in folder.iterdir()} - {"trainer_state.json"}
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt"} < before
