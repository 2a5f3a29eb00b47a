from sqsd.logs import log_to
from sqsd.report import ranking_table, save_ranking
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    scores = [read_table(path, "scores") for path in snakemake.input.scores]
    rows = [read_table(path, "dataset") for path in snakemake.input.rows]
    save_ranking(ranking_table(snakemake.params.arms, scores, rows), snakemake.output)
