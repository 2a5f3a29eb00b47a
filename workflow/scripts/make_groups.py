from sqsd.groups import make_groups
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    groups = make_groups(
        rows=read_table(snakemake.input.rows, "dataset"),
        samples=read_table(snakemake.input.samples, "samples"),
        **snakemake.params.groups,
    )
    provenance = made_from(snakemake, "make_groups")
    write_table(groups, snakemake.output[0], "groups", provenance)
