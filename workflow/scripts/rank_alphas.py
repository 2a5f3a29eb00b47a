from sqsd.initial_states import Measured, rank_alphas
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    measured = Measured.read(snakemake.input, "alpha")
    ranking = rank_alphas(measured, **parameters.sensitivity)
    provenance = made_from(snakemake, "rank_alphas")
    write_table(ranking, snakemake.output[0], "linear_ranking", provenance)
