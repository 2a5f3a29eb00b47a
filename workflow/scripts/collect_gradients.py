from sqsd.logs import log_to
from sqsd.shards import collect_shard
from sqsd.states import direction_folders

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    collect_shard(
        model_folder=snakemake.input.model,
        rows_file=snakemake.input.rows,
        state_file=snakemake.input.state,
        directions=direction_folders(
            parameters.directions, snakemake.input.directions, parameters.checkpoints
        ),
        shard=int(snakemake.wildcards.shard),
        samples_out=snakemake.output.samples,
        modules_out=snakemake.output.modules,
        **parameters.gradients,
    )
