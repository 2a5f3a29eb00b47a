from sqsd.logs import log_to
from sqsd.shards import collect_shard

with log_to(snakemake.log[0]):
    collect_shard(
        model_folder=snakemake.input.model,
        rows_file=snakemake.input.rows,
        states_file=snakemake.input.states,
        state=snakemake.wildcards.state,
        directions={"danger": snakemake.input.danger, "safety": snakemake.input.safety},
        shard=int(snakemake.wildcards.shard),
        samples_out=snakemake.output.samples,
        modules_out=snakemake.output.modules,
        **snakemake.params.gradients,
    )
