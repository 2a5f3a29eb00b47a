from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.provenance import made_from, write_provenance
from sqsd.tables import read_tables
from sqsd.training import train_sft

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    train_sft(
        model=load_model(snakemake.input.model, parameters.training["dtype"]),
        tokenizer=load_tokenizer(snakemake.input.model),
        rows=read_tables(snakemake.input.rows, "dataset"),
        out=Path(snakemake.output.model),
        work=Path(parameters.work),
        training=parameters.training,
        lora=None,
        seed=parameters.seed,
        version=parameters.version,
    )
    write_provenance(snakemake.output.model, made_from(snakemake, "tune_model"))
