from sqsd.logs import log_to
from sqsd.report import effectiveness_table, save_table
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    judged = [read_table(path, "judgements") for path in snakemake.input.judgements]
    table = effectiveness_table(
        dict(zip(snakemake.params.methods, judged, strict=True)),
        windows=snakemake.params.windows,
        seeds=snakemake.params.seeds,
        measure=snakemake.params.measure,
    )
    save_table(table, snakemake.output)
