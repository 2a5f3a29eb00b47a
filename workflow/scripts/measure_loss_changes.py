from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.losses import measure_loss_changes
from sqsd.provenance import made_from
from sqsd.shards import Shard
from sqsd.states import read_state
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    rows = read_table(snakemake.input.rows, "dataset")
    changes = measure_loss_changes(
        # In bfloat16 the change of a small step would be rounding noise.
        shard=Shard.of(rows, 0, parameters.steps["rows"], dtype="float32", **parameters.encoding),
        state=read_state(snakemake.input.state),
        direction=snakemake.input.direction,
        checkpoint=parameters.checkpoint,
        alphas=parameters.steps["alphas"],
    )
    provenance = made_from(snakemake, "measure_loss_changes")
    write_table(changes, snakemake.output[0], "loss_changes", provenance)
