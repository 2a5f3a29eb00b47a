"""Wall-clock time of a command, kept by a name beside those of other commands.

    python benchmarks/wall_time.py default snakemake --cores all

Runs the command here, as it stands, and saves its seconds in `benchmarks/measured/wall_times.json`
with the commit, the machine and the versions. A command that fails is not saved, and its status is
returned.
"""

import json
import subprocess
import sys
import time

import common

FILE = common.MEASURED / "wall_times.json"


def main(name: str, *command: str) -> int:
    started = time.perf_counter()
    status = subprocess.run(command).returncode
    seconds = time.perf_counter() - started
    print(f"{name}: {seconds:.1f} s, status {status}")
    if status == 0:
        known = json.loads(FILE.read_text()) if FILE.is_file() else {}
        known[name] = {
            "command": " ".join(command), "seconds": round(seconds, 1), "commit": commit(),
            "machine": common.machine(),
        }  # fmt: skip
        FILE.write_text(json.dumps(known, indent=2) + "\n")
    return status


def commit() -> str:
    """The commit that is checked out, with `-dirty` where a tracked file differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
