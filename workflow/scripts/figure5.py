from sqsd.logs import log_to
from sqsd.report import CURVE_NOTE, draw_steering, save_table, steering_table
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    curves = [read_table(path, "judgements") for path in snakemake.input.judgements]
    table = steering_table(list(zip(snakemake.params.arms, curves, strict=True)))
    save_table(table, snakemake.output[:3], CURVE_NOTE)
    draw_steering(table, snakemake.output[3:])
