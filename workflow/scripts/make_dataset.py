from sqsd.logs import log_to
from sqsd.sandbox import make_dataset
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    write_table(make_dataset(**snakemake.params.spec), snakemake.output[0], "dataset")
