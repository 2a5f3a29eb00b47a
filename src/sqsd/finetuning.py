"""Fine-tunes of a model in a folder, on one GPU or several."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from sqsd.config import rows_at_once
from sqsd.errors import SqsdError, TrainingError
from sqsd.models import check_gpus, load_model, load_on_cpu, load_tokenizer
from sqsd.termination import Terminated
from sqsd.training import (
    callbacks,
    common_arguments,
    last_whole_checkpoint,
    sft_trainer,
    train,
    train_once,
    train_sft,
    training_record,
)

# The module that each process of a sharded run runs, and the files that it is given and leaves.
MODULE = "sqsd.finetuning"
SETTINGS, ROWS, ERROR = "settings.json", "rows.parquet", "error.txt"


def finetune(
    model: str,
    rows: pd.DataFrame,
    out: Path,
    work: Path,
    training: dict,
    lora: dict | None,
    seed: int,
    version: int,
    gpus: int,
) -> None:
    """Supervised fine-tuning of the model in a folder; everything else as in `train_sft`.

    gpus: of the job. For an adapter the model is spread over them (`load_model`). All weights are
    trained on 2 or more by FSDP2, a process each, which share every batch: the record and, up to
    rounding, the weights are those of one process. Two deviations: where the rows left for the
    last batch of an epoch do not divide among them, it is filled up with rows of the epoch's
    beginning (accelerate's even_batches); bfloat16 weights are computed with without autocast.
    Raises ConfigurationError where fewer GPUs are visible, or they cannot share a batch;
    TrainingError with what a process raised.
    """
    if lora is not None or gpus < 2:
        loaded, tokenizer = load_model(model, training["dtype"], gpus), load_tokenizer(model)
        train_sft(loaded, tokenizer, rows, out, work, training, lora, seed, version)
        return
    check_gpus(gpus)
    rows_at_once(training, gpus)
    record = training_record(
        "sft", version, load_on_cpu(model, training["dtype"]), training, None, seed, None, rows
    )
    settings = {"model": str(model), "training": training, "seed": seed, "gpus": gpus}
    train_once(partial(run_sharded, settings, rows), record, out, work)


def resume_folder(work: Path) -> Path:
    """Where a sharded run has its checkpoints, which no other run can resume from."""
    return work / "sharded"


def run_sharded(settings: dict, rows: pd.DataFrame, work: Path) -> None:
    """Train to a `final` folder in `work` in settings["gpus"] processes of this machine."""
    # Here, since it removes a torn one: the processes would be in each other's way.
    last_whole_checkpoint(resume_folder(work))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows.to_parquet(folder / ROWS)
        (folder / SETTINGS).write_text(json.dumps(settings | {"work": str(work)}))
        status = launch(folder, settings["gpus"])
        error = folder / ERROR
        if error.exists():
            raise TrainingError(error.read_text())
    if status:
        raise TrainingError(
            f"{work}: the {settings['gpus']} processes of the run ended with status {status}; what "
            "they said is above in the log"
        )
    shutil.rmtree(resume_folder(work), ignore_errors=True)


def launch(folder: Path, processes: int) -> int:
    """Run `main` on a folder in so many processes, print what they print; returns the status."""
    options = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", MODULE, str(folder)]
    # Snakemake gives a script the path to this package, but not to the script's own processes.
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
        except Terminated:
            # The processes save, as one of its own does; the launcher ends with the last of them.
            process.terminate()
            print(process.stdout.read(), end="")
            raise
    return process.returncode


def main(folder: Path) -> None:
    """One process of a sharded run; folder: as `run_sharded` fills it."""
    settings = json.loads((folder / SETTINGS).read_text())
    try:
        train_sharded(pd.read_parquet(folder / ROWS), **settings)
    except SqsdError as error:
        (folder / ERROR).write_text(str(error))
        sys.exit(1)
    torch.distributed.destroy_process_group()


def train_sharded(
    rows: pd.DataFrame, model: str, work: str, training: dict, seed: int, gpus: int
) -> None:
    checkpoints = resume_folder(Path(work))
    arguments = common_arguments(checkpoints, training, seed, None, processes=gpus) | {
        # FSDP2 with transformers' own options; accelerate passes it over where there is no GPU.
        "fsdp": True,
        "use_cpu": not torch.cuda.is_available(),
        # Mixed precision would keep, and save, bfloat16 weights as float32.
        "bf16": False,
    }
    weights = load_on_cpu(model, training["dtype"])
    trainer = sft_trainer(weights, load_tokenizer(model), rows, arguments, None, callbacks(None))
    repeated = -len(trainer.train_dataset) % (arguments["per_device_train_batch_size"] * gpus)  # pyright: ignore
    if repeated and trainer.is_world_process_zero():
        print(f"{repeated} rows of each epoch's beginning fill up its last batch")
    train(trainer, Path(work))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
