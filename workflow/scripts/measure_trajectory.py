from sqsd.initial_states import measure_trajectory
from sqsd.logs import log_to
from sqsd.states import direction_folders
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    folders = direction_folders(
        parameters.directions, snakemake.input.directions, parameters.checkpoints
    )
    frame = measure_trajectory(snakemake.input.pilot, folders)
    write_table(frame, snakemake.output[0], "trajectory")
