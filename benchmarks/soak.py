"""Runs under fire: processes killed at random, a disk that fills up, two runs on one folder.

    python benchmarks/soak.py [kills] [disk] [two] [--config tests/end_to_end/tiny.yaml]
                              [--kills 25] [--seed 1] [--folder FOLDER]

A run that nothing disturbs is made first, or taken from an earlier soak in FOLDER.

kills: runs are started in fresh folders, one after another; in each, at random moments, a process
of the run gets SIGKILL or SIGTERM, what is left of it is waited for, and the run is started again,
until it is done. The process is one of a rule that runs a model and was not hit yet, or, until
there were so many kills, any. That goes on until both are reached. In the end all scores and tables
must be those of the undisturbed run, to the last bit, and nothing that a run had finished may have
been made again.
disk: the ranking alone, on a disk that is too small, and again once it is larger.
two: the ranking alone, by two runs that are started on one folder at the same moment.

Without a name all three. Each prints, and saves `measured/soak_{run}_{part}.json`; exit status 1
where something was lost.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/end_to_end/tiny.yaml"
# Of the tiny run's ranking, which takes more than the smaller disk has.
DISK_MB, LARGER_DISK_MB = 10, 2000
# What is asked for where all of a run would show no more.
TARGET = "ranking"
SCRIPT = re.compile(r"\.snakemake/scripts/\w+\.(\w+)\.py")
KILLED = ("SIGKILL", "SIGTERM")


@dataclass
class Record:
    """What a soak has seen."""

    kills: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    starts: int = 0
    remade: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def command(folder: Path, config: Path, *options: str) -> list[str]:
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    given = ["--configfile", str(config)]
    return [*base, "--directory", str(folder), "--cores", "2", *options, *given]


def fresh(folder: Path, config: Path) -> Path:
    """An empty folder with the files that lie beside the configuration."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in config.parent.glob("*.jsonl"):
        shutil.copy(path, folder)
    return folder


def start(folder: Path, config: Path) -> tuple[subprocess.Popen, Path]:
    subprocess.run(command(folder, config, "--unlock"), capture_output=True, check=True)
    log = folder / f"start-{len(list(folder.glob('start-*')))}.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command(folder, config), stdout=file, stderr=subprocess.STDOUT, cwd=folder
        )
    return process, log


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a run: the main one, and below it what runs a rule's script."""
    try:
        main = psutil.Process(process.pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def rule_of(member: psutil.Process) -> str:
    """The rule whose script a process runs; `snakemake` for any other."""
    try:
        found = SCRIPT.search(" ".join(member.cmdline()))
    except psutil.Error:
        return "snakemake"
    return found[1] if found else "snakemake"


def outputs(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(output, job, whether it was finished) of each job that the last start has begun."""
    text = max((folder / ".snakemake/log").glob("*.log")).read_text(errors="replace")
    begun: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\[)", text):
        made = re.search(r"^    output: (.*)$", block, re.MULTILINE)
        job = re.search(r"^    jobid: (\d+)$", block, re.MULTILINE)
        # Of a job that failed the block names its output again.
        if made and job and "Error in rule" not in block:
            begun[job[1]] = made[1].split(", ")
    finished = set(re.findall(r"Finished jobid: (\d+) ", text))
    for job, files in begun.items():
        for file in files:
            yield file, job, job in finished


def disturb(
    folder: Path, config: Path, wanted: set[str], kills: int, draw: random.Random, record: Record
):
    """One run in a folder, killed and started again until it is done.

    wanted: rules to be hit; kills: how many there are to be at least, of any process.
    """
    done: set[str] = set()
    while True:
        process, log = start(folder, config)
        record.starts += 1
        enough = sum(record.kills.values()) >= kills
        hit = kill_one(process, wanted - set(record.kills), not enough, draw)
        process.wait()
        wait_for_the_rest(folder)
        for file, _, _ in outputs(folder):
            if file in done:
                record.remade.append(file)
        done |= {file for file, _, finished in outputs(folder) if finished}
        if hit is None:
            assert process.returncode == 0, log.read_text()[-3000:]
            return
        rule, sent = hit
        record.kills[rule] += 1
        record.signals[sent] += 1
        print(f"{sum(record.kills.values()):3d} {sent} {rule}", flush=True)


def kill_one(
    process: subprocess.Popen, wanted: set[str], others: bool, draw: random.Random
) -> tuple[str, str] | None:
    """Kill a process of a run at a random moment; None where the run was done before.

    wanted: rules that were not hit yet. The first process of one of them is taken; others: else
    after some time any.
    """
    moment = time.monotonic() + draw.uniform(5, 60)
    while process.poll() is None:
        members = family(process)
        scripts = [member for member in members if rule_of(member) in wanted]
        if scripts or (others and time.monotonic() > moment):
            member = draw.choice(scripts or members)
            # Anywhere in its life: while it imports, computes or writes.
            if scripts:
                time.sleep(draw.uniform(0, 12))
            rule, sent = rule_of(member), draw.choice(KILLED)
            try:
                member.send_signal(getattr(signal, sent))
            except psutil.NoSuchProcess:
                continue
            return rule, sent
        time.sleep(0.2)
    return None


def wait_for_the_rest(folder: Path) -> None:
    """Until no process of a run in a folder is left: those of a lost main process leave too."""
    while True:
        left = [
            member for member in psutil.process_iter(["cmdline"])
            if str(folder) in " ".join(member.info["cmdline"] or ()) and member.pid != os.getpid()
        ]  # fmt: skip
        if not left:
            return
        time.sleep(0.2)


def final(folder: Path) -> set[Path]:
    """The scores and tables of a run, by their paths in its folder."""
    found = folder.glob("results/*/*/**/*.parquet")
    paths = {path.relative_to(folder) for path in found}
    return {path for path in paths if path.parts[2] in ("scores", "tables")}


def differences(found: Path, expected: Path, paths: set[Path]) -> list[str]:
    """Results that are not the same to the last bit, or not there."""
    different = []
    for path in sorted(paths):
        try:
            pd.testing.assert_frame_equal(
                timeless(pd.read_parquet(found / path)),
                timeless(pd.read_parquet(expected / path)),
                check_exact=True,
            )
        except (AssertionError, OSError):
            different.append(str(path))
    return different


def timeless(table: pd.DataFrame) -> pd.DataFrame:
    """Without the seconds that rules took, which no two runs share."""
    return table.drop(columns=[name for name in table if "seconds" in str(name)])


def rules_with_models(folder: Path) -> set[str]:
    """The rules of a run that declare a GPU, memory and time: those that have a benchmark."""
    return {path.name for path in folder.glob("results/*/times/*")}


def fill_the_disk(folder: Path, config: Path, expected: Path) -> str:
    """A run on a disk that is too small, and again once it is larger; what came of it."""
    if os.geteuid() != 0:
        return "not run: mounting a disk takes root"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "not run: mounting a disk is not allowed here"
    try:
        for path in config.parent.glob("*.jsonl"):
            shutil.copy(path, folder)
        ask = command(folder, config, TARGET)
        first = subprocess.run(ask, capture_output=True, text=True)
        said = first.stdout + first.stderr
        if first.returncode == 0:
            return "failed: the disk was not filled"
        if "free room on the disk" not in said and "No space left on device" not in said:
            return "failed: no message about the disk"
        remount = ["mount", "-o", f"remount,size={LARGER_DISK_MB}m", str(folder)]
        subprocess.run(remount, check=True)
        subprocess.run(command(folder, config, "--unlock"), capture_output=True, check=True)
        again = subprocess.run(ask, capture_output=True, text=True)
        if again.returncode:
            return f"failed: the run did not go on: {again.stdout[-2000:]}"
        return verdict(folder, expected, "a clear error, and the rerun mended it")
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def two_at_once(folder: Path, config: Path, expected: Path) -> str:
    """Two runs started on one folder at the same moment; what came of them."""
    fresh(folder, config)
    ask, pipe, both = command(folder, config, TARGET), subprocess.PIPE, subprocess.STDOUT
    pair = [subprocess.Popen(ask, stdout=pipe, stderr=both, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in pair]
    done = [process.returncode == 0 for process in pair]
    refused = [text for text, good in zip(said, done, strict=True) if not good]
    if sum(done) != 1 or "locked" not in refused[0]:
        return f"failed: {sum(done)} of two were done"
    return verdict(folder, expected, "one was refused, the other done")


def verdict(folder: Path, expected: Path, good: str) -> str:
    """What came of a run of the target alone."""
    made = final(folder)
    different = differences(folder, expected, made)
    whole = any(path.stem == TARGET for path in made)
    return good if whole and not different else f"failed: {different or 'no table'}"


def kill_and_repeat(given: argparse.Namespace, config: Path, calm: Path) -> dict[str, Any]:
    """The part `kills`."""
    wanted = rules_with_models(calm)
    record, draw = Record(), random.Random(given.seed)
    while sum(record.kills.values()) < given.kills or wanted - set(record.kills):
        folder = fresh(given.folder / f"run-{record.runs}", config)
        disturb(folder, config, wanted, given.kills, draw, record)
        record.different += differences(folder, calm, final(calm))
        record.runs += 1
    return {
        "seed": given.seed,
        "kills": sum(record.kills.values()),
        "by_rule": dict(sorted(record.kills.items())),
        "by_signal": dict(sorted(record.signals.items())),
        "rules_that_run_a_model": sorted(wanted),
        "runs": record.runs,
        "starts": record.starts,
        "made_again_though_finished": record.remade,
        "different_from_the_undisturbed_run": record.different,
        "result": "failed" if record.remade or record.different else "nothing was lost",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--config", type=Path, default=TINY)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/sqsd-soak"))
    given = parser.parse_args()
    config = given.config.resolve()
    name = yaml.safe_load(config.read_text())["run"]

    calm = given.folder / f"undisturbed-{name}"
    if not (calm / "done").exists():
        fresh(calm, config)
        subprocess.run(command(calm, config), check=True, stdout=subprocess.DEVNULL)
        (calm / "done").touch()
    lost = False
    for part in given.parts:
        started = time.monotonic()
        result = PARTS[part](given, config, calm)
        result["minutes"] = round((time.monotonic() - started) / 60, 1)
        print(json.dumps(result, indent=2))
        common.save(f"soak_{name}_{part}", result)
        lost |= result["result"].startswith("failed")
    return int(lost)


PARTS: dict[str, Callable[[argparse.Namespace, Path, Path], dict[str, Any]]] = {
    "kills": kill_and_repeat,
    "disk": lambda given, config, calm: {
        "disk_mb": DISK_MB, "result": fill_the_disk(given.folder / "disk", config, calm),
    },
    "two": lambda given, config, calm: {
        "result": two_at_once(given.folder / "two", config, calm),
    },
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
