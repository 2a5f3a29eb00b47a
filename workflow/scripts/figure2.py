from sqsd.logs import log_to
from sqsd.report import draw_trajectory
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    draw_trajectory(
        read_table(snakemake.input.trajectory, "trajectory"),
        read_table(snakemake.input.judgements, "judgements"),
        snakemake.output,
    )
