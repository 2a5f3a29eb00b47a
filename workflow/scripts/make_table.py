from sqsd.logs import log_to
from sqsd.parts import Part
from sqsd.provenance import made_from
from sqsd.report import make_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    make_table(
        kind=parameters.kind,
        parts=[
            Part(
                part["names"],
                part["options"],
                {role: snakemake.input[name] for role, name in part["inputs"].items()},
            )
            for part in parameters.parts
        ],
        settings=parameters.settings,
        out=dict(snakemake.output.items()),
        provenance=made_from(snakemake, "make_table"),
    )
