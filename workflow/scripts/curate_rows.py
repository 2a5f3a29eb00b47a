from pathlib import Path

from sqsd.curation import curate
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.readings import read_readings
from sqsd.scorers import make_scorer, score_terms
from sqsd.tables import read_table
from sqsd.trust import read_checks

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    readings = {
        name: read_readings(
            reading, {role: snakemake.input[f"{name}_{role}"] for role in reading.tables}
        )
        for name, reading in make_scorer(parameters.method).needs().items()
    }
    curate(
        spec=parameters.spec,
        scores=read_table(snakemake.input.scores, "scores"),
        terms=score_terms(parameters.method, readings),
        about=parameters.about,
        fewest=parameters.fewest,
        out=Path(snakemake.output.folder),
        checks=read_checks(snakemake.input.trust),
        provenance=made_from(snakemake, "curate_rows"),
    )
