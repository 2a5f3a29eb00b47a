from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import Shard, collect_shard
from sqsd.states import read_state
from sqsd.tables import read_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    rows = read_table(snakemake.input.rows, "dataset")
    collect_shard(
        shard=Shard.of(rows, int(snakemake.wildcards.shard), **parameters.gradients),
        state=read_state(snakemake.input.state),
        direction=snakemake.input.direction,
        checkpoint=parameters.checkpoint,
        samples_out=snakemake.output.samples,
        modules_out=snakemake.output.modules,
        provenance=made_from(snakemake, "collect_gradients"),
    )
