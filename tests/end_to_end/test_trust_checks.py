"""Checks before scores, in a run for real."""

import shutil
from pathlib import Path

from conftest import TINY, snakemake, write_config

SCORES = "scores/sandbox/mixed/sqsd-danger.parquet"
SELECTION = {"tables": ["ranking"], "curations": []}


def test_checks_that_are_made_again_hold_nothing_else_back(tiny_run, tmp_path):
    """Not scores that are not there yet: see `check_trust` in rules/sensitivity.smk."""
    folder = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    results = folder / "results/tiny"

    def made(least: float, *methods: str) -> set[str]:
        trust = {"minimum_refusal_rate": least, "alpha": 0.4, "if_failed": "proceed"}
        tables = {"ranking": {"methods": list(methods)}}
        checked = write_config(
            tmp_path / "checked.yaml", trust=trust, selection=SELECTION, tables=tables
        )
        (results / SCORES).unlink()
        before = times(results)
        target = str((results / SCORES).relative_to(folder))
        done = snakemake(folder, target, "--cores", "2", configfiles=(TINY, checked))
        assert done.returncode == 0, done.stdout[-5000:]
        after = times(results)
        return {name for name, time in after.items() if time != before.get(name)}

    made(0.2, "sqsd-danger")
    checks = "trust/sandbox/sqsd-danger.json"
    assert made(0.3, "sqsd-danger") == {checks, SCORES}
    # Another method that reads the same gradients is another check before them.
    assert made(0.3, "sqsd-danger", "danger-alone") == {
        "trust/sandbox/danger-alone.json", "trust/sandbox/d-danger/danger.checked", SCORES,
    }  # fmt: skip


def times(results: Path) -> dict[str, int]:
    """When each file of checks, gradients and scores was written."""
    return {
        str(file.relative_to(results)): file.stat().st_mtime_ns
        for part in ("trust", "gradients", "scores")
        for file in (results / part).rglob("*")
        if file.is_file()
    }
