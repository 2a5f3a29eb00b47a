from sqsd.initial_states import guard_share, rank_checkpoints
from sqsd.logs import log_to
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    sensitivity = snakemake.params.sensitivity
    ranking = rank_checkpoints(
        read_table(snakemake.input.trajectory, "trajectory"),
        snakemake.wildcards.direction,
        read_table(snakemake.input.judgements, "judgements"),
        sensitivity["floor_fraction"],
        guard_share(snakemake.input[2:]),
        sensitivity["minimum_exact_share"],
    )
    write_table(ranking, snakemake.output[0], "drift_ranking")
