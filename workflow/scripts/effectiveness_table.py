from sqsd.logs import log_to
from sqsd.report import EFFECTIVENESS_NOTES, draw_effectiveness, effectiveness_table, save_table
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    judged = [read_table(path, "judgements") for path in snakemake.input.judgements]
    table = effectiveness_table(
        list(zip(parameters.arms, judged, strict=True)),
        windows=parameters.windows,
        seeds=parameters.seeds,
        measure=parameters.measure,
    )
    save_table(table, snakemake.output[:3], EFFECTIVENESS_NOTES[parameters.measure])
    draw_effectiveness(table, parameters.windows, parameters.measure, snakemake.output[3:])
