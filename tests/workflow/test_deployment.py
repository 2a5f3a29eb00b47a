"""Where rules run that do not run in the environment of Snakemake itself: conda, a container."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from conftest import ROOT, snakemake_command

from sqsd.tables import read_table

RUN = Path("results/sandbox")
# It runs what it is told to run, without a container, and writes down its command.
APPTAINER = """\
#!/usr/bin/env bash
set -e
if [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi
printf '%q ' "$@" >> {record}; echo >> {record}
echo "$SQSD_SOURCE" > {record}-source
exec bash -c "${{@: -1}}"
"""


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    """The environment in which a program of this name is `text`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    own = Path(sys.executable).parent
    return os.environ | {"PATH": f"{folder}:{own}:{os.environ['PATH']}"}


def test_pip_installs_the_package_of_the_folder_in_the_conda_environment(tmp_path):
    lines = yaml.safe_load((ROOT / "envs/sqsd.yaml").read_text())["dependencies"][-1]["pip"]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "-r", "requirements.txt"],
        cwd=tmp_path, env=os.environ | {"SQSD_SOURCE": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Obtaining file://{ROOT} (from -r requirements.txt" in done.stdout
    assert "Would install sqsd-" in done.stdout


def test_jobs_run_in_the_container_where_that_is_asked_for(tmp_path):
    record = tmp_path / "record"
    environment = program(tmp_path / "bin", "apptainer", APPTAINER.format(record=record))
    target = RUN / "data/pilot.parquet"
    command = snakemake_command(tmp_path, str(target), "--cores", "1", "--sdm", "apptainer")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    arguments = shlex.split(record.read_text())
    # Image, shell, -c, command.
    assert arguments[0] == "exec" and arguments[-4] == "envs/sqsd.sif", arguments
    assert "make_dataset.py" in arguments[-1]
    # What envs/sqsd.yaml is made with.
    assert (tmp_path / "record-source").read_text() == f"{ROOT}\n"
    assert len(read_table(tmp_path / target, "dataset")) > 0


def test_nothing_asks_for_a_container_or_conda_unasked(tmp_path):
    """Neither program is there, as on most machines."""
    failing = "#!/bin/sh\necho called >> called\nexit 1\n"
    environment = program(tmp_path / "bin", "apptainer", failing)
    program(tmp_path / "bin", "conda", failing)
    target = str(RUN / "data/pilot.parquet")
    command = snakemake_command(tmp_path, target, "--cores", "1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "called").exists()


def test_the_container_is_made_of_what_is_pinned(tmp_path):
    """The commands of its recipe, run with a pip that writes down what it is to install."""
    recipe = (ROOT / "envs/sqsd.def").read_text()
    files, commands = recipe.split("%files\n")[1].split("%post\n")
    image = tmp_path / "image"
    for line in files.strip().splitlines():
        source, place = line.split()
        there = image / Path(place).relative_to("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes((ROOT / source).read_bytes())
    said = "\n".join(['echo "$@"', "cat dependencies.txt", "cat constraints.txt > given.txt"])
    environment = program(tmp_path / "bin", "pip", f"#!/bin/sh\n{said}\n")
    script = commands.replace("/opt/", f"{image}/opt/")
    done = subprocess.run(
        ["bash", "-e", "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    options, *dependencies = done.stdout.splitlines()
    assert options == "install --no-cache-dir -c constraints.txt -r dependencies.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dependencies == project["dependencies"]
    assert (image / "opt/sqsd/given.txt").read_text() == (ROOT / "constraints.txt").read_text()
