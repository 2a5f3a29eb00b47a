from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.sandbox import make_benchmark
from sqsd.sources import load_benchmark
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    load = make_benchmark if spec["source"].startswith("sandbox:") else load_benchmark
    provenance = made_from(snakemake, "make_benchmark")
    write_table(load(spec), snakemake.output[0], "benchmark", provenance)
