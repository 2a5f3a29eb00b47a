from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.directions import fetch_direction
from sqsd.logs import log_to
from sqsd.provenance import made_from, write_provenance

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    fetch_direction(
        source=snakemake.params.source,
        model_folder=snakemake.input.model,
        version=snakemake.params.trained_by,
        out=Path(snakemake.output.adapter),
    )
    write_provenance(snakemake.output.adapter, made_from(snakemake, "fetch_direction"))
