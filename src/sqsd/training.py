"""SFT, DPO and reward runs through TRL and PEFT: models, directions, pilots, subset fine-tunes."""

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, disable_progress_bars
from huggingface_hub import constants
from peft import LoraConfig
from transformers import TrainerCallback, TrainingArguments
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from sqsd.chat import encode_pair, encode_rows, tell_markup
from sqsd.config import rows_at_once
from sqsd.cost_models import encode, from_sequence_classifier
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError, TrainingError
from sqsd.logs import progress
from sqsd.states import checkpoints
from sqsd.termination import Notice, Terminated

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Columns of a table that training reads.
TRAINED_ON = ("prompt", "response", "problem", "conversation", "chosen", "rejected")
# What a run depended on, beside its result.
RECORD = "training.json"
SECONDS_BETWEEN_SAVES = 600

# Its bars would fill the log between the lines of `progress`.
disable_progress_bars()
# TRL would tell the hub of every training: its trainer, architecture and GPU.
constants.HF_HUB_DISABLE_TELEMETRY = True


class StopOnNonFiniteLoss(TrainerCallback):
    """Ends a run whose loss is not finite, with the step and what to try."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(non_finite_message(args.output_dir, loss, state.global_step))


def callbacks(save_steps: int | None) -> list[TrainerCallback]:
    found = [StopOnNonFiniteLoss(), ProgressCallback()]
    return found if save_steps else [*found, SaveCallback()]


def non_finite_message(place: str | Path, loss: float, step: int) -> str:
    return (
        f"{place}: the loss is {loss} at step {step}; "
        "lower learning_rate or check the rows of the data set"
    )


class SaveCallback(TrainerCallback):
    """Something to resume from every `SECONDS_BETWEEN_SAVES` of a run without save_steps.

    At every epoch, as is usual, a run of seconds would spend a tenth of its time on saving.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        # By the clock of the first process: all of them save a sharded model together.
        due = time.monotonic() - self.saved >= SECONDS_BETWEEN_SAVES
        if broadcast_object_list([due])[0]:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.saved = time.monotonic()


class SaveWhenTerminated(TrainerCallback):
    """At SIGTERM, a checkpoint at the end of the step, and out.

    transformers has one of its own (enable_jit_checkpoint). It saves in the middle of a step, each
    process when its own timer is up, and then returns as from a training that is done.
    """

    def __init__(self, notice: Notice):
        self.notice = notice
        self.leaving = False

    def on_step_end(self, args, state, control, **kwargs):
        # By the notice of the first process: all of them save a sharded model together.
        self.leaving = broadcast_object_list([self.notice.given])[0]
        control.should_save = control.should_save or self.leaving

    def on_save(self, args, state, control, **kwargs):
        if self.leaving:
            print(f"SIGTERM: saved at step {state.global_step}, to be gone on from")
            raise Terminated


class ProgressCallback(TrainerCallback):
    """Training progress as of every other long step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.stack, self.advance = ExitStack(), lambda: None
        if state.is_world_process_zero:
            self.advance = self.stack.enter_context(
                progress("training", state.max_steps, "step", done=state.global_step)
            )

    def on_step_end(self, args, state, control, **kwargs):
        self.advance()

    def on_train_end(self, args, state, control, **kwargs):
        self.stack.close()


def sft_dataset(rows: pd.DataFrame, tokenizer, max_length_tokens: int) -> Dataset:
    """Token ids and completion masks of the usable rows. Raises DataError when none is usable."""
    samples = encode_rows(rows, tokenizer, max_length_tokens)
    usable = [sample for sample in samples if sample.reason is None]
    columns = {
        "input_ids": [s.input_ids for s in usable],
        "completion_mask": [label_mask(sample) for sample in usable],
    }
    if not usable:
        raise DataError(
            f"none of the {len(rows)} rows can be trained on at {max_length_tokens} tokens; "
            "look at the data set's `problem` column, or raise max_length_tokens"
        )
    print(f"{len(usable)} of {len(rows)} rows are trained on")
    return Dataset.from_dict(columns)


def label_mask(sample: EncodedSample) -> list[int]:
    """1 for each token that is a label, 0 for the others."""
    labels = set(sample.label_places)
    return [int(place in labels) for place in range(len(sample.input_ids))]


def dpo_dataset(preferences: pd.DataFrame, tokenizer, max_length_tokens: int) -> Dataset:
    """Token ids of the usable rows' prompts, and of both answers as `encode_pair` has them.

    A row is left out where an answer is blank or cut off entirely. Raises DataError when none is
    usable.
    """
    texts = preferences[["prompt", "chosen", "rejected"]].to_numpy()
    tell_markup(tokenizer, texts.ravel())
    pairs = [
        [encode_pair(tokenizer, prompt, answer, max_length_tokens) for answer in answers]
        for prompt, *answers in texts
    ]
    usable = [pair for pair in pairs if all(sample.reason is None for sample in pair)]
    if not usable:
        raise DataError(
            f"none of the {len(pairs)} preferences can be trained on at {max_length_tokens} "
            "tokens; raise max_length_tokens, or look for blank answers"
        )
    print(f"{len(usable)} of {len(pairs)} preferences are trained on")
    return Dataset.from_dict(
        {
            "prompt_ids": [c.input_ids[: c.prompt_tokens] for c, _ in usable],
            "chosen_ids": [c.input_ids[c.prompt_tokens :] for c, _ in usable],
            "rejected_ids": [r.input_ids[r.prompt_tokens :] for _, r in usable],
        }
    )


class PreferenceTrainer(DPOTrainer):
    """TRL's, for preferences that are token ids already.

    Its own tokens would have what a template appends after the end token, and chat markup of a
    row as control tokens.
    """

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def train_sft(
    model,
    tokenizer,
    rows: pd.DataFrame,
    out: Path,
    work: Path,
    training: dict,
    lora: dict | None,
    seed: int,
    version: int,
    save_steps: int | None = None,
) -> None:
    """Supervised fine-tuning on the responses (Eq. 4), an adapter with `lora`, else all weights.

    training: the configuration's entry; version: of the stage. `out` gets the trained model, a
    record of what it was trained on and, with `save_steps`, a checkpoint every so many steps.
    `work` holds what a killed run resumes from, and afterwards the result, by its stamp: a run
    whose stamp is known is put in place, not run.
    Raises TrainingError on a loss that is not finite, DataError when no row can be trained on.
    """

    def run(work: Path) -> None:
        arguments = common_arguments(work, training, seed, save_steps)
        train(sft_trainer(model, tokenizer, rows, arguments, lora, callbacks(save_steps)), work)

    record = training_record("sft", version, model, training, lora, seed, save_steps, rows)
    train_once(run, record, out, work)


def sft_trainer(
    model, tokenizer, rows: pd.DataFrame, arguments: dict, lora: dict | None, callbacks: list
) -> SFTTrainer:
    """arguments: as `common_arguments`."""
    return SFTTrainer(
        model=model,
        args=without_replicas(SFTConfig(**arguments, completion_only_loss=True)),
        train_dataset=sft_dataset(rows, tokenizer, arguments["max_length"]),
        processing_class=tokenizer,
        peft_config=lora_config(lora),  # pyright: ignore[reportArgumentType]
        callbacks=callbacks,
    )


def train_dpo(
    model,
    tokenizer,
    preferences: pd.DataFrame,
    out: Path,
    work: Path,
    training: dict,
    lora: dict,
    seed: int,
    version: int,
    save_steps: int | None = None,
) -> None:
    """Direct preference optimisation (Eq. 3) of a LoRA adapter; `training` also has beta.

    Prompts and answers have the tokens that scoring gives them (`dpo_dataset`). Everything else as
    in `train_sft`.
    """

    def run(work: Path) -> None:
        arguments = common_arguments(work, training, seed, save_steps)
        trainer = PreferenceTrainer(
            model=model,
            args=without_replicas(DPOConfig(**arguments, beta=training["beta"])),
            train_dataset=dpo_dataset(preferences, tokenizer, training["max_length_tokens"]),
            processing_class=tokenizer,
            peft_config=lora_config(lora),
            callbacks=callbacks(save_steps),
        )
        train(trainer, work)

    record = training_record("dpo", version, model, training, lora, seed, save_steps, preferences)
    train_once(run, record, out, work)


def train_reward(
    model,
    tokenizer,
    pairs: pd.DataFrame,
    out: Path,
    work: Path,
    training: dict,
    seed: int,
    version: int,
) -> None:
    """A cost model by pairwise comparison: the cost of `chosen` above that of `rejected`.

    model: a sequence classifier of one label; pairs: a `preferences` table whose chosen responses
    are the worse ones. `out` gets a cost model (`cost_models`). Everything else as in `train_sft`.
    """

    def run(work: Path) -> None:
        columns = {
            f"{key}_ids": [
                encode(tokenizer, p, r, end_token=True, blank=False)
                for p, r in zip(pairs["prompt"], pairs[key], strict=True)
            ]
            for key in ("chosen", "rejected")
        }
        arguments = common_arguments(work, training, seed, None)
        trainer = RewardTrainer(
            model=model,
            # Costs are comparable, and 0 is between the two.
            args=without_replicas(RewardConfig(**arguments, center_rewards_coefficient=0.01)),
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            callbacks=callbacks(None),
        )
        train(trainer, work)

    record = training_record("reward", version, model, training, None, seed, None, pairs)
    train_once(run, record, out, work, finish=from_sequence_classifier)


def without_replicas(args: TrainingArguments) -> Any:
    """args of a Trainer that leaves a process one GPU, or those its model is spread over.

    It would wrap the model in nn.DataParallel for every GPU that the process sees, and take so many
    times the rows a step (TRL's refuse to). This is how it leaves that itself for a spread model;
    hiding GPUs by CUDA_VISIBLE_DEVICES would come too late where CUDA has started.
    """
    args._n_gpu = min(args.n_gpu, 1)
    return args


def train_once(
    run: Callable[[Path], None],
    record: dict[str, Any],
    out: Path,
    work: Path,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Put a run's result into `out`, trained in the folder of its stamp unless it is there already.

    run: trains to a `final` folder in that one. finish: changes the trained model's folder in
    place; it is called again for a run that was killed in it, or after it.
    """
    work /= record["stamp"]
    with only_one(work):
        if not is_trained(work):
            run(work)
        if finish is not None:
            finish(work / "final")
        publish(work, out, record)


@contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Wait until no other process trains in a folder: one that was told to leave may still save."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that trains in {work}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some shared file systems have none
            print(f"{work}: cannot be locked ({error})")
        yield


def lora_config(lora: dict | None) -> LoraConfig | None:
    """LoRA on every linear layer but the head (the paper's q, k, v, o, gate, up, down)."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora["r"],
        lora_alpha=lora["lora_alpha"],
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def common_arguments(
    work: Path, training: dict, seed: int, save_steps: int | None, processes: int = 1
) -> dict:
    """What all trainings share; a batch is accumulated from parts of micro_batch_size rows.

    Raises ConfigurationError as `rows_at_once`.
    """
    micro = rows_at_once(training, processes)
    return {
        "output_dir": str(work),
        "max_length": training["max_length_tokens"],
        "learning_rate": training["learning_rate"],
        "num_train_epochs": training["epochs"],
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training["batch_size"] // (micro * processes),
        "lr_scheduler_type": training["schedule"],
        "warmup_steps": training["warmup_fraction"],
        "weight_decay": training.get("weight_decay", 0.0),
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps" if save_steps else "no",
        "save_steps": save_steps or 500,
        "save_total_limit": None if save_steps else 1,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # it would hide what StopOnNonFiniteLoss looks for
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": training["dtype"] == "bfloat16",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def training_record(
    objective: str,
    version: int,
    model,
    training: dict,
    lora: dict | None,
    seed: int,
    save_steps: int | None,
    rows: pd.DataFrame,
) -> dict[str, Any]:
    """What a run depends on, kept beside its result; `stamp` is its hash, in 12 characters.

    Another setting has another stamp, and so never resumes this run's state.
    """
    record = {
        "objective": objective, "version": version, "model": fingerprint(model),
        "training": training, "lora": lora, "seed": seed, "save_steps": save_steps,
        "rows": len(rows), "rows_hash": rows_hash(rows),
    }  # fmt: skip
    stamp = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    return record | {"stamp": stamp}


def rows_hash(rows: pd.DataFrame) -> str:
    """SHA-256 of the rows' texts as CSV: what training reads, whatever else is known of them."""
    texts = rows[[column for column in TRAINED_ON if column in rows]]
    return hashlib.sha256(texts.to_csv(index=False).encode()).hexdigest()


def fingerprint(model, values: int = 16) -> str:
    """Tells one base model from another by names, shapes and the first and last few weights."""
    found = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        ends = torch.cat([flat[:values], flat[-values:]]).double().cpu().numpy()
        found.update(f"{name} {tuple(weight.shape)}".encode() + ends.tobytes())
    return found.hexdigest()


def last_whole_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end; a killed run may leave a torn one.

    transformers writes trainer_state.json last, so a checkpoint without a readable one is torn.
    """
    for _, folder in reversed(checkpoints(work)):
        try:
            json.loads((folder / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(folder)
            continue
        return str(folder)
    return None


def train(trainer, work: Path) -> None:
    """Train, or resume, to a whole `final` folder in `work`; in every process of a sharded run.

    A run whose loss is not finite leaves nothing to resume: its last checkpoint may already hold
    weights that are no numbers.
    """
    try:
        folder = Path(trainer.args.output_dir)
        with Notice() as notice:
            trainer.add_callback(SaveWhenTerminated(notice))
            result = trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
        # The last few steps are in no log line, so a loss that left the rails there shows here;
        # each process has its own.
        for loss in gather_object([result.training_loss]):
            if not math.isfinite(loss):
                raise TrainingError(non_finite_message(work, loss, result.global_step))
    except TrainingError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    unfinished = work / "final.unfinished"
    trainer.save_model(str(unfinished))
    if trainer.is_world_process_zero():
        unfinished.rename(work / "final")
    if notice.given:  # too late for a step to end with it
        raise Terminated


def is_trained(work: Path) -> bool:
    return (work / "final").is_dir()


def publish(work: Path, out: Path, record: dict[str, Any]) -> None:
    """Put the trained model, and the adapters of its checkpoints, from `work` into `out`.

    Files are linked, so that what stays in `work` takes no more room; what a run would resume
    from is removed there, and so is what another stamp has left beside it.
    """
    shutil.copytree(
        work / "final", out, dirs_exist_ok=True, copy_function=link_or_copy,
        ignore=shutil.ignore_patterns("training_args.bin"),
    )  # fmt: skip
    saved = checkpoints(work)
    for step, folder in saved:
        kept = ADAPTER_FILES if is_planned(step, saved[-1][0], record["save_steps"]) else ()
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kept:
            (out / folder.name).mkdir(exist_ok=True)
            for name in kept:
                link_or_copy(folder / name, out / folder.name / name)
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    for other in work.parent.iterdir():
        if other != work and other.is_dir():
            shutil.rmtree(other)


def is_planned(step: int, last_step: int, save_steps: int | None) -> bool:
    """Whether a checkpoint is one that was asked for, or was saved at a SIGTERM or by the clock."""
    return save_steps is not None and (step % save_steps == 0 or step == last_step)


def link_or_copy(source, target) -> None:
    """A hard link, or a copy where the file system has none."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
