from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.trust import check_trust, conclude

with log_to(snakemake.log[0]):
    settings = dict(snakemake.params.trust)
    if_failed = settings.pop("if_failed")
    conclude(
        check_trust(snakemake.input, snakemake.params.directions, **settings),
        place=f"{snakemake.wildcards.model}, {snakemake.wildcards.method}",
        if_failed=if_failed,
        out=snakemake.output[0],
        provenance=made_from(snakemake, "check_trust"),
    )
