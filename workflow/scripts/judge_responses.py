from sqsd.judges import judge_responses
from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.states import list_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    judgements = judge_responses(
        load_model(snakemake.input.model, snakemake.params.dtype),
        load_tokenizer(snakemake.input.model),
        read_table(snakemake.input.responses, "responses"),
        list_states(inputs=snakemake.input[2:], **snakemake.params.states),
        snakemake.params.judge,
    )
    write_table(judgements, snakemake.output[0], "judgements")
