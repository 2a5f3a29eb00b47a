from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import Shard, collect_full_gradients
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    rows = read_table(snakemake.input.rows, "dataset")
    collect_full_gradients(
        shard=Shard.of(rows, int(snakemake.wildcards.shard), **parameters.gradients),
        model=snakemake.input.model,
        anchors={name: snakemake.input[name] for name in parameters.anchors},
        samples_out=snakemake.output.samples,
        products_out=snakemake.output.products,
        provenance=made_from(snakemake, "collect_full_gradients"),
    )
