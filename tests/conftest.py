"""What workflow and end-to-end tests share: running snakemake as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests/end_to_end/tiny.yaml"
# A Llama of one layer, for `make_model`.
ONE_LAYER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def snakemake_command(folder: Path, *arguments: str, configfiles: tuple[Path, ...] = ()) -> list:
    files = ["--configfile", *map(str, configfiles)] if configfiles else []
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return [*base, "--directory", str(folder), *arguments, *files]


def snakemake(
    folder: Path, *arguments: str, configfiles: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess:
    """One snakemake run in `folder`, its output as text in `stdout` (both streams)."""
    return subprocess.run(
        snakemake_command(folder, *arguments, configfiles=configfiles),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule from the first 'Job stats' table of snakemake's output."""
    lines = output.split("Job stats:\n", 1)[1].splitlines()[2:]
    counts = {}
    for line in lines:
        if not line.strip():
            break
        rule, count = line.split()
        counts[rule] = int(count)
    return counts


def write_config(path: Path, **values) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """Folder of a whole tiny run on one core."""
    folder = tmp_path_factory.mktemp("tiny")
    done = snakemake(folder, "--cores", "1", configfiles=(TINY,))
    assert done.returncode == 0, done.stdout[-5000:]
    return folder
