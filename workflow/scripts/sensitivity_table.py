from sqsd.logs import log_to
from sqsd.report import save_table, sensitivity_table
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    rankings = [read_table(path, parameters.schema) for path in snakemake.input.rankings]
    save_table(
        sensitivity_table(list(zip(parameters.arms, rankings, strict=True))), snakemake.output
    )
