from typing import cast

from sqsd.explanations import explain_rows
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.scorers import SqsdScorer, make_scorer
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    scorer = cast(SqsdScorer, make_scorer(parameters.method))
    explain_rows(
        scorer=scorer,
        modules={name: snakemake.input[f"{name}_modules"] for name in scorer.needs()},
        tokens=read_table(snakemake.input.tokens, "token_shares"),
        scores=read_table(snakemake.input.scores, "scores"),
        rows=read_table(snakemake.input.rows, "dataset"),
        repeats=read_table(snakemake.input.repeats, "repeats"),
        about=parameters.about,
        out=dict(snakemake.output.items()),
        provenance=made_from(snakemake, "explain_rows"),
        **parameters.shown,
    )
