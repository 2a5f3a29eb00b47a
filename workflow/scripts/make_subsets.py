from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.subsets import make_subsets
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    subsets = make_subsets(
        scores=snakemake.input.scores,
        rows=snakemake.input.rows,
        size=parameters.size,
        count=len(parameters.windows),
    )
    provenance = made_from(snakemake, "make_subsets")
    for window, subset in zip(parameters.windows, subsets, strict=True):
        write_table(subset, snakemake.output[window], "subset", provenance)
