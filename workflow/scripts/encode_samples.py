from sqsd.chat import encode_rows
from sqsd.logs import log_to
from sqsd.models import load_tokenizer
from sqsd.provenance import made_from
from sqsd.shards import samples_table
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    rows = read_table(snakemake.input.rows, "dataset")
    tokenizer = load_tokenizer(snakemake.input.model)
    samples = samples_table(encode_rows(rows, tokenizer, snakemake.params.max_length_tokens))
    provenance = made_from(snakemake, "encode_samples")
    write_table(samples, snakemake.output[0], "samples", provenance)
