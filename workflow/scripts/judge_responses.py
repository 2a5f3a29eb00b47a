from sqsd.devices import own_gpus
from sqsd.evaluation import judge_responses
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.states import read_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    judgements = judge_responses(
        responses=read_table(snakemake.input.responses, "responses"),
        states=read_states(snakemake.input.states),
        entry=parameters.judge,
        dtype=parameters.dtype,
        own_model=next(iter(snakemake.input.judge_model), None),
        work=parameters.work,
        version=parameters.version,
        gpus=snakemake.resources.gpu,
    )
    provenance = made_from(snakemake, "judge_responses")
    write_table(judgements, snakemake.output[0], "judgements", provenance)
