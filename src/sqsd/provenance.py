"""What a result was made from: versions of the stage and of the package, hashes of its inputs."""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import sqsd

# Raised when the meaning of a stage's output changes: what came of an older version is made
# again. A stage is a rule with a script.
STAGE_VERSIONS = {
    "make_dataset": 1,
    "make_preferences": 1,
    "make_benchmark": 1,
    "fetch_model": 1,
    "pretrain_model": 1,
    "align_model": 1,
    "train_direction": 2,
    "train_pilot": 1,
    "measure_trajectory": 1,
    "rank_checkpoints": 3,
    "rank_alphas": 3,
    "choose_state": 2,
    "judge_rows": 1,
    "train_cost_model": 1,
    "train_guard_model": 1,
    "encode_samples": 1,
    "collect_gradients": 1,
    "search_layers": 1,
    "choose_layer": 1,
    "collect_hidden_states": 1,
    "make_anchor": 1,
    "collect_full_gradients": 1,
    "measure_token_losses": 1,
    "measure_loss_changes": 1,
    "score_samples": 1,
    "make_subsets": 1,
    "finetune_subsets": 1,
    "finetune_all_rows": 1,
    "make_groups": 1,
    "finetune_groups": 1,
    "list_states": 1,
    "generate_responses": 1,
    "judge_responses": 2,
    "make_table": 4,
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


def made_from(inputs: Iterable[str], stage: str, version: int) -> dict[str, Any]:
    """Provenance of an output, for the metadata of a table.

    Returns package and stage versions and the hash of every input by its path; the same inputs
    give the same, whatever the time and machine.
    """
    hashes = {str(path): content_hash(path) for path in sorted(set(map(str, inputs)))}
    return {"version": sqsd.__version__, "stage": stage, "stage_version": version, "inputs": hashes}


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's content, or of names and contents of all files in a folder, 16 digits.

    Of a file above `WHOLE_BYTES` size, beginning and end stand for the content.
    """
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
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
