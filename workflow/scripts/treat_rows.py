from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table
from sqsd.treatments import treated_rows

with log_to(snakemake.log[0]):
    given = {
        role: read_table(path, "scores" if role == "scores" else "dataset")
        for role, path in snakemake.input.items()
    }
    rows = treated_rows(snakemake.params.treatment, **given)
    write_table(rows, snakemake.output[0], "training_rows", made_from(snakemake, "treat_rows"))
