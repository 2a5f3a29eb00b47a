from sqsd.logs import log_to
from sqsd.scorers import score_all
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    scores = score_all(snakemake.input.shards, snakemake.params.methods, snakemake.params.seed)
    for path, method in zip(snakemake.output.scores, snakemake.params.methods, strict=True):
        write_table(scores[method], path, "scores")
