from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.scorers import make_scorer, read_readings, score_method
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    readings = {
        name: read_readings(snakemake.input[f"{name}_samples"], snakemake.input[f"{name}_modules"])
        for name in make_scorer(parameters.method).needs()
    }
    scores = score_method(parameters.method, readings, parameters.seed)
    provenance = made_from(snakemake.input, "score_samples", parameters.version)
    write_table(scores, snakemake.output[0], "scores", provenance)
