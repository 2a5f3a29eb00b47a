import json
from pathlib import Path

from sqsd.logs import log_to
from sqsd.report import save_table, states_table

with log_to(snakemake.log[0]):
    states = [json.loads(Path(path).read_text()) for path in snakemake.input.states]
    arms = snakemake.params.arms
    save_table(states_table(list(zip(arms, states, strict=True))), snakemake.output)
