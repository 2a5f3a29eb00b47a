from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import make_anchor
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    make_anchor(
        rows=read_table(snakemake.input.rows, "dataset"),
        model=snakemake.input.model,
        **snakemake.params.anchor,
        out=snakemake.output[0],
        provenance=made_from(snakemake, "make_anchor"),
    )
