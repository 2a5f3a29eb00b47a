from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.finetuning import finetune
from sqsd.logs import log_to
from sqsd.provenance import made_from, write_provenance
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    finetune(
        model=snakemake.input.model,
        rows=read_table(snakemake.input.rows, "training_rows"),
        out=Path(snakemake.output[0]),
        work=Path(parameters.work),
        training=parameters.training,
        lora=parameters.lora,
        seed=parameters.seed,
        version=parameters.version,
        gpus=snakemake.resources.gpu,
    )
    write_provenance(snakemake.output[0], made_from(snakemake, "finetune_treated_rows"))
