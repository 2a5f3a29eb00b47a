from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.readings import read_readings
from sqsd.scorers import make_scorer, score_method
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    readings = {
        name: read_readings(
            reading, {role: snakemake.input[f"{name}_{role}"] for role in reading.tables}
        )
        for name, reading in make_scorer(parameters.method).needs().items()
    }
    scores = score_method(parameters.method, readings, parameters.seed)
    provenance = made_from(snakemake, "score_samples")
    write_table(scores, snakemake.output[0], "scores", provenance)
