from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import fetch_model

with log_to(snakemake.log[0]):
    fetch_model(snakemake.params.spec, Path(snakemake.output.model))
