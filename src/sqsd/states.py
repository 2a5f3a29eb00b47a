"""States of one base model: an adapter folder and its multiplier, or none for theta_0."""

from pathlib import Path

from sqsd.errors import ConfigurationError


def list_states(
    kind: str, inputs: list[str], alphas: list[float], checkpoint: int | str, seeds: list[int]
) -> list[dict]:
    """The states a subject of evaluation is made of: dicts of name, adapter, multiplier.

    base: theta_0. steering: one direction's folder at every alpha. pilot: every checkpoint of
    one folder, named by its step, and theta_0 as step 0. finetunes: every seed of every window's
    folder, named `window/seed`.
    """
    paths = [Path(path) for path in inputs]
    if kind == "base":
        return [_state("base", None, 1.0)]
    if kind == "steering":
        folder = direction_folder(paths[0], checkpoint)
        return [_state(f"{alpha}", folder if alpha else None, alpha) for alpha in alphas]
    if kind == "pilot":
        return [_state("0", None, 1.0)] + [
            _state(str(step), folder, 1.0) for step, folder in checkpoints(paths[0])
        ]
    return [
        _state(f"{window.name}/{seed}", window / f"seed-{seed}", 1.0)
        for window in paths
        for seed in seeds
    ]


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint in a training run's output, by step."""
    found = [(int(p.name.split("-")[1]), p) for p in Path(folder).glob("checkpoint-*")]
    return sorted(found)


def direction_folder(folder: str | Path, checkpoint: int | str) -> Path:
    """A direction's adapter: its last one for "final", else that of a kept checkpoint.

    Raises ConfigurationError naming the checkpoints there are.
    """
    if checkpoint == "final":
        return Path(folder)
    steps = dict(checkpoints(folder))
    if checkpoint not in steps:
        known = ", ".join(["final", *map(str, steps)])
        raise ConfigurationError(f"{folder}: checkpoint {checkpoint} was not saved; known: {known}")
    return steps[int(checkpoint)]


def direction_folders(
    names: list[str], folders: list[str], checkpoints_used: list[int | str]
) -> dict[str, str]:
    """Adapter folder of each direction at the checkpoint that is used of it."""
    used = zip(names, folders, checkpoints_used, strict=True)
    return {name: str(direction_folder(folder, checkpoint)) for name, folder, checkpoint in used}


def _state(name: str, adapter: Path | None, multiplier: float) -> dict:
    return {
        "name": name,
        "adapter": None if adapter is None else str(adapter),
        "multiplier": multiplier,
    }
