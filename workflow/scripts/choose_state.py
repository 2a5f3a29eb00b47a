import json
from pathlib import Path

from sqsd.initial_states import chosen_state
from sqsd.logs import log_to
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    parameters = snakemake.params
    schema = f"{parameters.kind}_ranking"
    rankings = [read_table(path, schema) for path in snakemake.input.ranking]
    state = chosen_state(
        parameters.kind,
        parameters.choice,
        rankings[0] if rankings else None,
        snakemake.input.folder,
        parameters.checkpoint,
        parameters.minimum_exact_share,
    )
    Path(snakemake.output[0]).write_text(json.dumps(state, indent=2) + "\n")
