from sqsd.drift import measure_trajectory
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.states import direction_folder
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    folder = direction_folder(snakemake.input.direction, parameters.checkpoint)
    provenance = made_from(snakemake, "measure_trajectory")
    frame = measure_trajectory(snakemake.input.pilot, folder)
    write_table(frame, snakemake.output[0], "trajectory", provenance)
