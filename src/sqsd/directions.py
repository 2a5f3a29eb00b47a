"""Directions that others have trained: taken where they are of the model at hand, else refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sqsd.drift import load_adapter
from sqsd.errors import DataError, ShapeMismatch
from sqsd.files import written_whole
from sqsd.models import adapted_weights, load_on_cpu
from sqsd.states import checkpoints
from sqsd.training import ADAPTER_FILES, RECORD, fingerprint

TRAIN = "or take `source` out and train it here"


def fetch_direction(source: str, model_folder: str, version: int, out: Path) -> None:
    """Put a direction that others have trained into folder `out`, whole or not at all.

    source: a folder as `train_direction` makes it. model_folder: of the model that it is to be used
    at; version: of the stage `train_direction`. Raises DataError naming the folder for a record
    that cannot be read, that is of another version, or of other weights than the model's, and
    where the adapter changes other modules than an adapter of ours; ShapeMismatch naming the module
    that does not fit.
    """
    record = read_record(source)
    if record["version"] != version:
        raise DataError(
            f"{source}: trained by version {record['version']} of train_direction, and this is "
            f"version {version}, to which it may mean something else; ask for one of this version, "
            f"{TRAIN}"
        )
    model = load_on_cpu(model_folder, record["dtype"])
    check_model(source, record["model"], model, model_folder)
    folders = [Path(source), *(folder for _, folder in checkpoints(source))]
    for folder in folders:
        check_modules(folder, model, model_folder)
    with written_whole(out) as temporary:
        for folder in folders:
            target = temporary / folder.relative_to(source)
            target.mkdir()
            for name in ADAPTER_FILES:
                shutil.copyfile(folder / name, target / name)
        shutil.copyfile(Path(source) / RECORD, temporary / RECORD)
    print(f"{out}: {source}, {record['objective']} of {record['rows']} rows, as it was trained")


def read_record(source: str) -> Mapping[str, Any]:
    """What a direction was trained on and in (`training.training_record`)."""
    try:
        record = json.loads((Path(source) / RECORD).read_text())
        dtype = record["training"]["dtype"]
        return {key: record[key] for key in ("version", "model", "objective", "rows")} | {
            "dtype": dtype
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{source}: {RECORD} cannot be read ({error!r}), so nothing says which model the "
            f"direction is of; copy the folder anew, {TRAIN}"
        ) from error


def check_model(source: str, trained_on: str, model, model_folder: str) -> None:
    """Raises DataError where a direction was trained on other weights than the model's."""
    found = fingerprint(model)
    if found != trained_on:
        raise DataError(
            f"{source}: a direction of another model: trained on weights with hash "
            f"{trained_on[:12]}, while {model_folder} has {found[:12]}; give one that was trained "
            f"on this model and revision, {TRAIN}"
        )


def check_modules(folder: Path, model, model_folder: str) -> None:
    """Raises DataError where an adapter is not one of every linear layer but the head."""
    adapter = load_adapter(folder)
    try:
        adapted_weights(model, adapter)
    except ShapeMismatch as error:
        raise ShapeMismatch(f"{folder}: {error}; give a direction of {model_folder}") from error
    head = model.get_output_embeddings()
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if lacking := sorted(linear - adapter.keys()):
        raise DataError(
            f"{folder}: no adapter of {lacking[0]} (and {len(lacking) - 1} more); directions of "
            f"this run have one of every linear layer but the head: give such a one, {TRAIN}"
        )
