from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.provenance import made_from, write_provenance
from sqsd.tables import read_table
from sqsd.training import train_sft

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    train_sft(
        model=load_model(
            snakemake.input.model, parameters.training["dtype"], snakemake.resources.gpu
        ),
        tokenizer=load_tokenizer(snakemake.input.model),
        rows=read_table(snakemake.input.rows, "dataset"),
        out=Path(snakemake.output.adapter),
        work=Path(parameters.work),
        training=parameters.training,
        lora=parameters.lora,
        **parameters.run,
        version=parameters.version,
    )
    write_provenance(snakemake.output.adapter, made_from(snakemake, "train_pilot"))
