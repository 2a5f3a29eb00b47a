from sqsd.logs import log_to
from sqsd.report import save_table, sensitivity_table

with log_to(snakemake.log[0]):
    save_table(sensitivity_table(snakemake.input[0]), snakemake.output)
