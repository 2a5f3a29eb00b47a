from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.finetuning import finetune
from sqsd.logs import log_to
from sqsd.provenance import made_from, write_provenance
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    rows = read_table(snakemake.input.rows, "dataset").set_index("sample_id", drop=False)
    groups = read_table(snakemake.input.groups, "groups")
    for name, group in groups.groupby("group"):
        finetune(
            model=snakemake.input.model,
            rows=rows.loc[group["sample_id"]].reset_index(drop=True),
            out=Path(snakemake.output[0]) / str(name),
            work=Path(parameters.work) / str(name),
            training=parameters.training,
            lora=parameters.lora,
            seed=parameters.seed,
            version=parameters.version,
            gpus=snakemake.resources.gpu,
        )
    write_provenance(snakemake.output[0], made_from(snakemake, "finetune_groups"))
