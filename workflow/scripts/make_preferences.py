from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.sandbox import make_preferences
from sqsd.sources import load_preferences
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    load = make_preferences if spec["source"].startswith("sandbox:") else load_preferences
    provenance = made_from(snakemake, "make_preferences")
    write_table(load(spec), snakemake.output[0], "preferences", provenance)
