"""States of a model: which weights, which adapter on them, how strongly, and where it came from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft202012Validator

from sqsd.errors import AGAIN, ConfigurationError, DataError
from sqsd.files import written_whole

# What a table says of a state beside its name; each is null where it means nothing.
ORIGIN_COLUMNS = {"alpha": "float64", "step": "Int64", "window": "str", "seed": "Int64"}
# What the origin of a chosen state adds; null where it was not measured.
CHOSEN_BY = (
    "rank", "sensitivity", "sensitivity_bootstrap_low", "sensitivity_bootstrap_high", "exact_share",
)  # fmt: skip
SCHEMA = Draft202012Validator(
    {
        "type": "array",
        "minItems": 0,
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "model", "adapter", "multiplier", "origin"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "model": {"type": "string", "minLength": 1},
                "adapter": {"type": ["string", "null"], "minLength": 1},
                "multiplier": {"type": "number"},
                "origin": {"type": "object"},
            },
        },
    }
)


@dataclass(frozen=True)
class State:
    """theta + multiplier * drift: the weights in folder `model`, moved by the adapter in a folder.

    adapter None is the weights alone: a base model, or one that was fine-tuned whole. origin says
    how the state was made (alpha, step, window, seed, rank, ...); whoever applies it needs none
    of that. Unlike in Eq. 5's published code, the multiplier scales the drift as trained.
    """

    name: str
    model: str
    adapter: str | None
    multiplier: float = 1.0
    origin: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def steered(cls, model: str, folder: str, alpha: float) -> Self:
        """theta_0 + alpha V (Eqs. 5, 14), V the adapter in `folder`; theta_0 itself at 0."""
        adapter = folder if alpha else None
        return cls(f"alpha-{alpha}", model, adapter, alpha, {"alpha": alpha})

    @classmethod
    def checkpoint(cls, model: str, folder: str | None, step: int) -> Self:
        """A checkpoint of a pilot; step 0 is theta_0, without a folder."""
        return cls(f"step-{step}", model, folder, 1.0, {"step": step})

    @classmethod
    def finetuned(cls, model: str, folder: str, tuning: str, window: str, seed: int) -> Self:
        """A model fine-tuned on a subset: an adapter on `model`, or with full tuning a model."""
        full = tuning == "full"
        origin = {"window": window, "seed": seed}
        name = f"{window}-seed-{seed}"
        return cls(name, folder if full else model, None if full else folder, 1.0, origin)


def write_states(states: Sequence[State], path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Write states to a JSON file, whole or not at all, with what they were made from.

    Raises DataError as `read_states`.
    """
    records = [asdict(state) for state in states]
    check(records, path)
    with written_whole(path) as temporary:
        content = {"states": records, "made_from": provenance}
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_states(path: str | Path) -> list[State]:
    """The states of a file, in its order.

    Raises DataError naming the file and what is wrong: missing, not JSON, a state with a missing,
    unknown or wrong value, or a name that occurs twice.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; ask snakemake for it to make it") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict) or "states" not in content:
        raise DataError(f"{path}: not a file of states: it has no 'states'; delete it, run again")
    check(content["states"], path)
    return [State(**record) for record in content["states"]]


def read_state(path: str | Path) -> State:
    """The one state of a file. Raises DataError as `read_states`, and for another count."""
    states = read_states(path)
    if len(states) != 1:
        raise DataError(f"{path}: holds {len(states)} states, expected one; {AGAIN}")
    return states[0]


def check(records: list, path: str | Path) -> None:
    errors = sorted(SCHEMA.iter_errors(records), key=lambda error: error.json_path)
    problems = [f"{error.json_path}: {error.message}" for error in errors]
    if not problems:
        names = [record["name"] for record in records]
        problems = [f"state '{n}' occurs twice" for n in dict.fromkeys(names) if names.count(n) > 1]
    if problems:
        raise DataError(f"{path}: not a file of states: {'; '.join(problems)}")


def list_states(model: str, listing: dict[str, Any]) -> list[State]:
    """The states of a subject of evaluation, or of a part of it.

    model: folder of the model that is evaluated. listing: one of
      {alphas, folder, checkpoint}: a direction at every alpha
      {pilot, part: [first, last]}: theta_0 and the checkpoints of a pilot's folder, by step, of
        which the part is taken; an end beyond the last is no error
      {pilot, steps}: some checkpoints of a pilot's folder
      {runs: [{folder, tuning, window, seed}]}: fine-tuned models
      {theta_0: true}: the model as it is
    """
    if "theta_0" in listing:
        return [State("theta-0", model, None)]
    if "alphas" in listing:
        folder = str(direction_folder(listing["folder"], listing["checkpoint"]))
        return [State.steered(model, folder, alpha) for alpha in listing["alphas"]]
    if "steps" in listing:
        folders = [checkpoint_folder(listing["pilot"], step) for step in listing["steps"]]
        pairs = zip(folders, listing["steps"], strict=True)
        return [State.checkpoint(model, str(folder), step) for folder, step in pairs]
    if "pilot" in listing:
        saved = [(0, None), *((step, str(path)) for step, path in checkpoints(listing["pilot"]))]
        first, last = listing["part"]
        return [State.checkpoint(model, folder, step) for step, folder in saved[first:last]]
    return [State.finetuned(model, **run) for run in listing["runs"]]


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint in a training run's output, by step."""
    found = [(int(p.name.split("-")[1]), p) for p in Path(folder).glob("checkpoint-*")]
    return sorted(found)


def checkpoint_folder(folder: str | Path, step: int) -> Path:
    """A checkpoint's adapter. Raises ConfigurationError naming the checkpoints there are."""
    saved = dict(checkpoints(folder))
    if step not in saved:
        known = ", ".join(map(str, saved)) or "none"
        raise ConfigurationError(f"{folder}: checkpoint {step} was not saved; known: {known}")
    return saved[step]


def direction_folder(folder: str | Path, checkpoint: int | str) -> Path:
    """A direction's adapter: its last one for "final", else that of a kept checkpoint.

    Raises ConfigurationError naming the checkpoints there are.
    """
    return Path(folder) if checkpoint == "final" else checkpoint_folder(folder, int(checkpoint))
