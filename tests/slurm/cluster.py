"""A SLURM of one machine, for tests: its daemons on loopback, two stand-ins for GPUs.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge (`install.sh`), and root.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
# /etc/slurm: inside a job SLURM_CONF is not set.
CONFIGURATION = Path("/etc/slurm")
# What a job of two Snakemake processes and a script needs, several at a time.
MEMORY_MB, CPUS = 16_000, 8
SECONDS_TO_START = 60

SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory is watched, and a job above its own is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=50000,bf_interval=5
# More CPUs than there are: jobs of tests wait more than they compute.
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
KillWait=5
OverTimeLimit=0
InactiveLimit=0
JobRequeue=0
GresTypes=gpu
DefMemPerCPU=500
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:a100:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=02:00:00 State=UP
PartitionName=gpu Nodes={host} MaxTime=02:00:00 State=UP
"""
# A count without files is refused.
GRES_CONF = """\
AutoDetect=off
NodeName={host} Name=gpu Type=a100 File=/dev/null,/dev/zero
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None where one can."""
    if os.geteuid() != 0:
        return "SLURM's daemons are started as root"
    if running := subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).stdout:
        return f"a slurmctld runs already, with pid {running.decode().strip()}"
    theirs = CONFIGURATION / "slurm.conf"
    if theirs.exists() and not theirs.read_text().startswith(SLURM_CONF.splitlines()[0]):
        return f"{theirs} is a configuration of this machine's own"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed: run tests/slurm/install.sh" if absent else None


class NotStarted(Exception):
    """This machine has SLURM, and does not let it run."""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM; state: the folder of its state and logs."""

    state: Path

    def jobs(self) -> list[dict[str, str]]:
        """What `scontrol show job` says of each job, ended ones too."""
        text = said("scontrol", "--oneliner", "show", "job")
        lines = [line for line in text.splitlines() if line.startswith("JobId=")]
        return [dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", line)) for line in lines]

    def of(self, rule: str) -> list[dict[str, str]]:
        """The jobs of a rule, by their numbers."""
        found = [job for job in self.jobs() if re.match(rf"rule_{rule}(_|$)", job["Comment"])]
        return sorted(found, key=lambda job: int(job["JobId"]))


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def started(state: Path) -> Iterator[Cluster]:
    """A SLURM whose daemons end with the block, each by the pid that it has written."""
    names = {"host": socket.gethostname().split(".")[0], "state": state}
    for folder in ("state", "spool", "log"):
        (state / folder).mkdir(parents=True)
    CONFIGURATION.mkdir(exist_ok=True)
    conf = SLURM_CONF.format(**names, cpus=CPUS, memory=MEMORY_MB)
    (CONFIGURATION / "slurm.conf").write_text(conf)
    (CONFIGURATION / "gres.conf").write_text(GRES_CONF.format(**names))
    munge = Path("/run/munge")
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge", "munge")
    munge.chmod(0o755)
    try:
        for daemon in (["runuser", "-u", "munge", "--", "munged"], ["slurmctld", "-c"], ["slurmd"]):
            done = subprocess.run(daemon, capture_output=True, text=True)
            if done.returncode:
                raise NotStarted(f"{daemon[-1]} does not start here: {done.stderr}")
        wait_until_idle(state)
        yield Cluster(state)
    finally:
        for pid in (state / "slurmd.pid", state / "slurmctld.pid", munge / "munged.pid"):
            stop(pid)
        # With it, every start of Snakemake would wait 9 s for a controller that is gone.
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)


def wait_until_idle(state: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    command = ["sinfo", "-h", "-o", "%T"]
    while "idle" not in subprocess.run(command, capture_output=True, text=True).stdout:
        if time.monotonic() > deadline:
            logs = "".join(path.read_text()[-2000:] for path in (state / "log").iterdir())
            raise NotStarted(f"SLURM did not start here:\n{logs}")
        time.sleep(0.2)


def stop(pid_file: Path) -> None:
    """End the process of a pid file, and wait for its end."""
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
