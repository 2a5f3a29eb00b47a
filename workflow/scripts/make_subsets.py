from sqsd.errors import DataError
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.subsets import windows
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    scores = read_table(snakemake.input.scores, "scores")
    rows = read_table(snakemake.input.rows, "dataset")[["sample_id", "prompt", "response"]]
    provenance = made_from(snakemake, "make_subsets")
    subsets = windows(scores, parameters.size, len(parameters.windows), snakemake.input.scores)
    for window, subset in zip(parameters.windows, subsets, strict=True):
        table = subset.merge(rows, on="sample_id")
        if lost := sorted(set(subset["sample_id"]) - set(table["sample_id"])):
            raise DataError(
                f"{snakemake.input.scores}: {len(lost)} rows, as {lost[0]}, are not in "
                f"{snakemake.input.rows}; delete the scores and run again"
            )
        write_table(table, snakemake.output[window], "subset", provenance)
