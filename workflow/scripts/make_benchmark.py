from sqsd.logs import log_to
from sqsd.sandbox import benchmark_prompts
from sqsd.tables import write_table

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    frame = benchmark_prompts(spec["seed"], spec["sandbox"])
    write_table(frame, snakemake.output[0], "benchmark")
