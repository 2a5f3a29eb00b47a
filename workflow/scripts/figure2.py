from sqsd.logs import log_to
from sqsd.report import draw_trajectories
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    draw_trajectories(
        snakemake.params.experiments,
        [read_table(path, "trajectory") for path in snakemake.input.trajectories],
        [read_table(path, "judgements") for path in snakemake.input.judgements],
        snakemake.output,
    )
