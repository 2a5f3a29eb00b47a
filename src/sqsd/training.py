"""SFT and DPO runs through TRL and PEFT: base models, directions, pilots, subset fine-tunes."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pandas as pd
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from sqsd.chat import encode_pair
from sqsd.errors import DataError, TrainingError
from sqsd.logs import ProgressCallback


class StopOnNonFiniteLoss(TrainerCallback):
    """Ends a run whose loss is not finite, with the step and what to try."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"{args.output_dir}: the loss is {loss} at step {state.global_step}; "
                "lower learning_rate or check the rows of the data set"
            )


def sft_dataset(rows: pd.DataFrame, tokenizer, max_length_tokens: int) -> Dataset:
    """Token ids and completion masks of the usable rows. Raises DataError when none is usable."""
    columns = {"input_ids": [], "completion_mask": []}
    for row in rows.itertuples():
        if pd.notna(getattr(row, "problem", None)):
            continue
        pair = encode_pair(tokenizer, str(row.prompt), str(row.response), max_length_tokens)
        if pair.reason is None:
            columns["input_ids"].append(pair.input_ids)
            mask = [0] * pair.prompt_tokens + [1] * pair.response_tokens
            columns["completion_mask"].append(mask)
    if not columns["input_ids"]:
        raise DataError(
            f"none of the {len(rows)} rows can be trained on at {max_length_tokens} tokens"
        )
    return Dataset.from_dict(columns)


def train_sft(
    model,
    tokenizer,
    rows: pd.DataFrame,
    out: Path,
    training: dict,
    lora: dict | None,
    seed: int,
    save_steps: int | None = None,
) -> None:
    """Supervised fine-tuning on the responses (Eq. 4), an adapter with `lora`, else all weights.

    training: learning_rate, epochs, batch_size, max_length_tokens, schedule, warmup_fraction,
    weight_decay. Checkpoints every `save_steps`. Resumes from the work folder beside `out`.
    Raises TrainingError on a loss that is not finite.
    """
    dataset = sft_dataset(rows, tokenizer, training["max_length_tokens"])
    work = work_folder(out, ["sft", training, lora, seed, save_steps, content_hash(rows)])
    arguments = SFTConfig(
        **common_arguments(work, training, seed, save_steps),
        max_length=training["max_length_tokens"],
        completion_only_loss=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(lora),  # pyright: ignore[reportArgumentType]
        callbacks=[StopOnNonFiniteLoss(), ProgressCallback()],
    )
    run(trainer, work, out)


def train_dpo(
    model,
    tokenizer,
    preferences: pd.DataFrame,
    out: Path,
    training: dict,
    lora: dict,
    seed: int,
    save_steps: int | None = None,
) -> None:
    """Direct preference optimisation (Eq. 3) of a LoRA adapter; `training` also has beta."""
    columns = {
        "prompt": [[{"role": "user", "content": p}] for p in preferences["prompt"]],
        **{
            key: [[{"role": "assistant", "content": r}] for r in preferences[key]]
            for key in ("chosen", "rejected")
        },
    }
    work = work_folder(out, ["dpo", training, lora, seed, save_steps, content_hash(preferences)])
    arguments = DPOConfig(
        **common_arguments(work, training, seed, save_steps),
        max_length=training["max_length_tokens"],
        beta=training["beta"],
    )
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        peft_config=lora_config(lora),
        callbacks=[StopOnNonFiniteLoss(), ProgressCallback()],
    )
    run(trainer, work, out)


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


def common_arguments(work: Path, training: dict, seed: int, save_steps: int | None) -> dict:
    return {
        "output_dir": str(work),
        "learning_rate": training["learning_rate"],
        "num_train_epochs": training["epochs"],
        "per_device_train_batch_size": training["batch_size"],
        "lr_scheduler_type": training["schedule"],
        "warmup_steps": training["warmup_fraction"],
        "weight_decay": training.get("weight_decay", 0.0),
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps" if save_steps else "epoch",
        "save_steps": save_steps or 500,
        "save_total_limit": None if save_steps else 1,
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": training["dtype"] == "bfloat16",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def work_folder(out: Path, stamp: list) -> Path:
    """Where a run keeps what it resumes from: beside `out`, named by what the run depends on."""
    digest = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:12]
    return out.parent / f".{out.name}-{digest}"


def content_hash(rows: pd.DataFrame) -> str:
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def run(trainer, work: Path, out: Path) -> None:
    """Train (or resume), then move checkpoints and the final model to `out`."""
    last = get_last_checkpoint(str(work)) if work.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    out.mkdir(parents=True, exist_ok=True)
    trainer.save_model(str(out))
    keep = trainer.args.save_strategy == "steps"
    for checkpoint in work.glob("checkpoint-*") if keep else []:
        target = out / checkpoint.name
        target.mkdir(exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(checkpoint / name, target / name)
    shutil.rmtree(work, ignore_errors=True)
