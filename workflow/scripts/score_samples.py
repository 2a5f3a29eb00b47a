from sqsd.logs import log_to
from sqsd.scorers import score_all
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    scores = score_all(
        snakemake.input.shards, parameters.methods, parameters.experiment, parameters.seed
    )
    for path, method in zip(snakemake.output, parameters.methods, strict=True):
        write_table(scores[method], path, "scores")
