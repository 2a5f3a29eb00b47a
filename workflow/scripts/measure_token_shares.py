from typing import cast

from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.scorers import SqsdScorer, make_scorer
from sqsd.states import read_state
from sqsd.tables import read_table, write_table
from sqsd.token_shares import Term, measure_token_shares

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    terms = {
        name: Term(
            state=read_state(snakemake.input[f"{name}_state"]),
            direction=snakemake.input[f"{name}_direction"],
            checkpoint=checkpoint,
        )
        for name, checkpoint in parameters.checkpoints.items()
    }
    shares = measure_token_shares(
        rows=read_table(snakemake.input.rows, "dataset"),
        scores=read_table(snakemake.input.scores, "scores"),
        model=snakemake.input.model,
        terms=terms,
        scorer=cast(SqsdScorer, make_scorer(parameters.method)),
        **parameters.chosen,
        **parameters.encoding,
    )
    provenance = made_from(snakemake, "measure_token_shares")
    write_table(shares, snakemake.output[0], "token_shares", provenance)
