from sqsd.initial_states import guard_share, rank_alphas
from sqsd.logs import log_to
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    sensitivity = snakemake.params.sensitivity
    ranking = rank_alphas(
        read_table(snakemake.input.judgements, "judgements"),
        sensitivity["delta"],
        guard_share(snakemake.input[1:]),
        sensitivity["minimum_exact_share"],
    )
    write_table(ranking, snakemake.output[0], "linear_ranking")
