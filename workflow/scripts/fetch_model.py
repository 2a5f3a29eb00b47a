from pathlib import Path

from sqsd.cost_models import fetch_cost_model
from sqsd.logs import log_to
from sqsd.models import fetch_model
from sqsd.provenance import made_from, write_provenance

with log_to(snakemake.log[0]):
    spec = dict(snakemake.params.spec)
    head = spec.pop("head", "language")
    (fetch_cost_model if head == "cost" else fetch_model)(spec, Path(snakemake.output.model))
    write_provenance(snakemake.output.model, made_from(snakemake, "fetch_model"))
