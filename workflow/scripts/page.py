from sqsd.logs import log_to
from sqsd.page import write_page
from sqsd.parts import parts_of
from sqsd.provenance import made_from

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    write_page(
        run=parameters.run,
        entries=parameters.entries,
        ranked=parts_of(parameters.ranked, snakemake.input),
        tables=parts_of(parameters.tables, snakemake.input),
        out=snakemake.output[0],
        provenance=made_from(snakemake, "page"),
        **parameters.ends,
    )
