"""What a result was made from and by: its inputs' hashes, settings, versions, device, time."""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet as parquet
from safetensors import SafetensorError, safe_open

import sqsd
from sqsd.errors import AGAIN, DataError

# Raised when the meaning of a stage's output changes: what came of an older version is made
# again. A stage is a rule with a script.
STAGE_VERSIONS = {
    "make_dataset": 1,
    "make_preferences": 1,
    "make_benchmark": 1,
    "fetch_model": 1,
    "pretrain_model": 1,
    "align_model": 1,
    "tune_model": 1,
    "train_direction": 2,
    "fetch_direction": 1,
    "train_pilot": 1,
    "measure_trajectory": 1,
    "rank_checkpoints": 3,
    "rank_alphas": 3,
    "choose_state": 3,
    "check_trust": 1,
    "judge_rows": 1,
    "train_cost_model": 1,
    "train_guard_model": 1,
    "encode_samples": 1,
    "collect_gradients": 1,
    "search_layers": 1,
    "choose_layer": 2,
    "collect_hidden_states": 1,
    "make_anchor": 1,
    "collect_full_gradients": 1,
    "measure_token_losses": 1,
    "measure_loss_changes": 1,
    "measure_row_losses": 1,
    "score_samples": 1,
    "make_subsets": 1,
    "curate_rows": 1,
    "measure_token_shares": 1,
    "find_repeats": 1,
    "explain_rows": 1,
    "finetune_subsets": 1,
    "finetune_all_rows": 1,
    "treat_rows": 1,
    "finetune_treated_rows": 1,
    "make_groups": 1,
    "finetune_groups": 1,
    "list_states": 2,
    "generate_responses": 1,
    "judge_responses": 2,
    "make_table": 4,
    "page": 1,
    "plan": 1,
}


class StageVersion(int):
    """A version that shows what it is: Snakemake compares a rule's params as a set of texts.

    Version 2 beside a seed of 2 would be one text, and a raised version go unnoticed.
    """

    def __repr__(self) -> str:
        return f"stage version {int(self)}"


# Of a larger file only so many bytes at its beginning and end are hashed, with its size: weights
# of 16 GB would take longer to hash than to use.
WHOLE_BYTES = 2**26
# Of a folder, beside what was made; of a file, the key in its metadata.
FILE, KEY = "provenance.json", "sqsd"
PACKAGES = ("torch", "transformers", "peft", "trl", "numpy", "pandas")
# Params that change nothing of what is made: where a run resumes from, and what has its own field.
NOT_SETTINGS = ("work", "version")
# The name of inputs that a job only comes after.
ORDER = "after"


class Job(Protocol):
    """What a rule's script knows of its job, as `snakemake`."""

    input: Any
    params: Any


def made_from(job: Job, stage: str) -> dict[str, Any]:
    """Provenance of a job's output.

    Returns versions of the package, the stage and the packages in use; the hash of the job's
    params, and its seed where it has one; the device, the time (UTC); and the hash of every input
    by its path, but of those that it only comes after.
    Raises DataError for an input that an earlier version of its stage made, or that is cut short.
    """
    settings = {name: value for name, value in job.params.items() if name not in NOT_SETTINGS}
    inputs = sorted({*map(str, job.input)} - {*map(str, getattr(job.input, ORDER, []))})
    for path in inputs:
        check_stage(path)
    return {
        "version": sqsd.__version__,
        "stage": stage,
        "stage_version": int(job.params.version),
        "settings": digest(json.dumps(settings, sort_keys=True, default=list)),
        "seed": next(seeds(settings), None),
        "packages": {package: version(package) for package in PACKAGES},
        "device": device(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": {path: content_hash(path) for path in inputs},
    }


def seeds(settings: Any) -> Iterator[int]:
    """The seeds in a job's params, the outermost first."""
    if isinstance(settings, Mapping):
        yield from (value for key, value in settings.items() if key == "seed")
        for below in settings.values():
            yield from seeds(below)


def device() -> str:
    """The GPU where a job could compute on one, else the processor, as the system names it."""
    # What a job has not imported, it has not computed with: importing it here takes seconds.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def check_stage(path: str) -> None:
    """Raises DataError where an earlier version of its stage made what is at a path."""
    found = provenance_of(path)
    if found is None or "stage" not in found:
        return
    stage, made_by = found["stage"], found["stage_version"]
    now = STAGE_VERSIONS.get(stage)
    if made_by != now:
        known = f"that stage has version {now} now" if now else "there is no such stage now"
        raise DataError(
            f"{path}: made by version {made_by} of {stage}, and {known}: what it says may mean "
            f"something else; {AGAIN}"
        )


def write_provenance(folder: str | Path, provenance: Mapping[str, Any]) -> None:
    """Say in a folder what it was made from."""
    (Path(folder) / FILE).write_text(json.dumps(provenance, indent=2) + "\n")


def provenance_of(path: str | Path) -> dict[str, Any] | None:
    """What a file or folder says it was made from; None where it says nothing.

    Of Parquet and safetensors files that is in their metadata, of JSON files under `made_from`.
    Raises DataError for a file of these kinds that cannot be read, as one that was cut short.
    """
    path = Path(path)
    try:
        if path.is_dir():
            file = path / FILE
            return json.loads(file.read_text()) if file.is_file() else None
        if path.suffix == ".parquet":
            said = (parquet.read_schema(path).metadata or {}).get(KEY.encode())
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                said = (file.metadata() or {}).get(KEY)
        elif path.suffix == ".json":
            content = json.loads(path.read_text())
            return content.get("made_from") if isinstance(content, dict) else None
        else:
            return None
        return None if said is None else json.loads(said)
    except (OSError, ValueError, pyarrow.ArrowException, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {AGAIN}") from error


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's content, or of names and contents of all files in a folder, 16 digits.

    A folder's own provenance is no content: what was made twice alike has one hash. Of a file above
    `WHOLE_BYTES` size, beginning and end stand for the content.
    """
    path = Path(path)
    below = (p for p in path.rglob("*") if p.is_file() and p != path / FILE)
    files = sorted(below) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        found.update(f"{file.relative_to(path) if path.is_dir() else ''}\0{size}\0".encode())
        with file.open("rb") as content:
            if size > WHOLE_BYTES:
                found.update(content.read(WHOLE_BYTES // 2))
                content.seek(-WHOLE_BYTES // 2, 2)
            for block in iter(partial(content.read, 2**20), b""):
                found.update(block)
    return found.hexdigest()[:16]
