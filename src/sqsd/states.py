"""States of one base model: an adapter folder and its multiplier, or none for theta_0."""

from pathlib import Path


def list_states(
    kind: str, folders: str | list[str] | None, alphas: list[float], seeds: list[int]
) -> list[dict]:
    """The states a subject of evaluation is made of: dicts of name, adapter, multiplier.

    base: theta_0. steering: one folder at every alpha. pilot: every checkpoint of one folder,
    named by its step, and theta_0 as step 0. finetunes: every seed of every window's folder,
    named `window/seed`.
    """
    paths = [Path(f) for f in ([folders] if isinstance(folders, str) else folders or [])]
    if kind == "base":
        return [_state("base", None, 1.0)]
    if kind == "steering":
        return [_state(f"{alpha}", paths[0], alpha) for alpha in alphas]
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


def _state(name: str, adapter: Path | None, multiplier: float) -> dict:
    return {
        "name": name,
        "adapter": None if adapter is None else str(adapter),
        "multiplier": multiplier,
    }
