from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.shards import encode_samples
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    samples = encode_samples(
        read_table(snakemake.input.rows, "dataset"),
        model=snakemake.input.model,
        max_length_tokens=snakemake.params.max_length_tokens,
    )
    provenance = made_from(snakemake, "encode_samples")
    write_table(samples, snakemake.output[0], "samples", provenance)
