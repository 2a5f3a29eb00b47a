from sqsd.logs import log_to
from sqsd.report import CURVE_NOTE, draw_trajectories, save_table, trajectory_table
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    table = trajectory_table(
        snakemake.params.experiments,
        [read_table(path, "trajectory") for path in snakemake.input.trajectories],
        [read_table(path, "judgements") for path in snakemake.input.judgements],
    )
    save_table(table, snakemake.output[:3], CURVE_NOTE)
    draw_trajectories(table, snakemake.output[3:])
