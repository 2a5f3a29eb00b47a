from sqsd.logs import log_to
from sqsd.report import draw_steering
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    curves = [read_table(path, "judgements") for path in snakemake.input.judgements]
    draw_steering(list(zip(snakemake.params.arms, curves, strict=True)), snakemake.output)
