from sqsd.devices import own_gpus
from sqsd.layers import read_layer
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import Shard, collect_hidden_states
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    rows = read_table(snakemake.input.rows, "dataset")
    collect_hidden_states(
        shard=Shard.of(rows, int(snakemake.wildcards.shard), **parameters.gradients),
        model=snakemake.input.model,
        layer=read_layer(snakemake.input.layer),
        token=int(snakemake.wildcards.token),
        out=snakemake.output[0],
        provenance=made_from(snakemake, "collect_hidden_states"),
    )
