from sqsd.logs import log_to
from sqsd.sandbox import safety_preferences
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    frame = safety_preferences(spec["seed"], spec["rows"])
    write_table(frame, snakemake.output[0], "preferences")
