from sqsd.logs import log_to
from sqsd.parts import parts_of
from sqsd.provenance import made_from
from sqsd.report import make_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    make_table(
        kind=parameters.kind,
        parts=parts_of(parameters.parts, snakemake.input),
        settings=parameters.settings,
        out=dict(snakemake.output.items()),
        provenance=made_from(snakemake, "make_table"),
    )
