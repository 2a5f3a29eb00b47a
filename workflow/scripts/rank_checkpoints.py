from sqsd.initial_states import Measured, rank_checkpoints
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    ranking = rank_checkpoints(
        trajectory=read_table(snakemake.input.trajectory, "trajectory"),
        measured=Measured.read(snakemake.input, "step"),
        **parameters.sensitivity,
    )
    provenance = made_from(snakemake, "rank_checkpoints")
    write_table(ranking, snakemake.output[0], "drift_ranking", provenance)
