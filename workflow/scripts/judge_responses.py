from sqsd.judges import JUDGES
from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.states import list_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    judge = JUDGES[snakemake.wildcards.judge](
        load_model(snakemake.input.model),
        load_tokenizer(snakemake.input.model),
        list_states(
            parameters.kind, snakemake.input.get("adapters"), parameters.alphas, parameters.seeds
        ),
        parameters.max_length_tokens,
    )
    judgements = judge.judge(read_table(snakemake.input.responses, "responses"))
    write_table(judgements, snakemake.output[0], "judgements")
