from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import collect_shard
from sqsd.states import read_state
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    collect_shard(
        rows=read_table(snakemake.input.rows, "dataset"),
        state=read_state(snakemake.input.state),
        direction=snakemake.input.direction,
        checkpoint=parameters.checkpoint,
        shard=int(snakemake.wildcards.shard),
        samples_out=snakemake.output.samples,
        modules_out=snakemake.output.modules,
        provenance=made_from(snakemake.input, "collect_gradients", parameters.version),
        **parameters.gradients,
    )
