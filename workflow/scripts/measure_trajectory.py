from sqsd.initial_states import measure_trajectory
from sqsd.logs import log_to
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    folders = dict(zip(snakemake.params.directions, snakemake.input.directions, strict=True))
    frame = measure_trajectory(snakemake.input.pilot, folders)
    write_table(frame, snakemake.output[0], "trajectory")
