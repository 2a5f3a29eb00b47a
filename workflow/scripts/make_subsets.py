from sqsd.logs import log_to
from sqsd.subsets import rank_samples, windows
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    scores = read_table(snakemake.input.scores, "scores")
    rows = read_table(snakemake.input.rows, "dataset")[["sample_id", "prompt", "response"]]
    ranking = rank_samples(list(scores["sample_id"]), list(scores["score"]))
    subsets = windows(ranking, snakemake.params.size, len(snakemake.output))
    for path, subset in zip(snakemake.output, subsets, strict=True):
        write_table(subset.merge(rows, on="sample_id"), path, "subset")
