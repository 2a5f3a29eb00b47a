from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.sandbox import make_dataset
from sqsd.sources import load_dataset
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    load = make_dataset if spec["source"].startswith("sandbox:") else load_dataset
    provenance = made_from(snakemake, "make_dataset")
    write_table(load(spec), snakemake.output[0], "dataset", provenance)
