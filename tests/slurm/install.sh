#!/usr/bin/env bash
# The packages that tests/slurm starts a SLURM of, on Debian, as root.
set -euo pipefail
command -v slurmctld slurmd sbatch munged >/dev/null && exit 0
apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
