from sqsd.devices import own_gpus
from sqsd.evaluation import judge_rows
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    judged = judge_rows(
        rows=read_table(snakemake.input.rows, "dataset"),
        shard=int(snakemake.wildcards.shard),
        rows_per_shard=parameters.rows_per_shard,
        entry=parameters.judge,
        dtype=parameters.dtype,
        own_model=next(iter(snakemake.input.judge_model), None),
        gpus=snakemake.resources.gpu,
    )
    provenance = made_from(snakemake, "judge_rows")
    write_table(judged, snakemake.output[0], "row_judgements", provenance)
