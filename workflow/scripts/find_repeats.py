from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.repeats import find_repeats
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    rows = read_table(snakemake.input[0], "dataset")
    repeats = find_repeats(rows, snakemake.params.similarity)
    write_table(repeats, snakemake.output[0], "repeats", made_from(snakemake, "find_repeats"))
