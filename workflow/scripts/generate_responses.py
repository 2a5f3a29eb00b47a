from sqsd.devices import own_gpus
from sqsd.evaluation import generate_responses
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.states import read_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    responses = generate_responses(
        prompts=read_table(snakemake.input.prompts, "benchmark"),
        states=read_states(snakemake.input.states),
        **parameters.generation,
        gpus=snakemake.resources.gpu,
    )
    provenance = made_from(snakemake, "generate_responses")
    write_table(responses, snakemake.output[0], "responses", provenance)
