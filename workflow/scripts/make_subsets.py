from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.subsets import windows
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    scores = read_table(snakemake.input.scores, "scores")
    rows = read_table(snakemake.input.rows, "dataset")[["sample_id", "prompt", "response"]]
    provenance = made_from(snakemake, "make_subsets")
    subsets = windows(scores, parameters.size, len(parameters.windows))
    for window, subset in zip(parameters.windows, subsets, strict=True):
        table = subset.merge(rows, on="sample_id")
        write_table(table, snakemake.output[window], "subset", provenance)
