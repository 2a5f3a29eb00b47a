from sqsd.generation import generate_responses
from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.states import list_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    responses = generate_responses(
        load_model(snakemake.input.model, snakemake.params.dtype),
        load_tokenizer(snakemake.input.model),
        read_table(snakemake.input.prompts, "benchmark"),
        list_states(inputs=snakemake.input[2:], **snakemake.params.states),
        snakemake.params.max_new_tokens,
        snakemake.params.batch_size,
    )
    write_table(responses, snakemake.output[0], "responses")
