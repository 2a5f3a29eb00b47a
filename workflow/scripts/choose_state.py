from sqsd.initial_states import find_state
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.states import write_states

with log_to(snakemake.log[0]):
    state = find_state(
        name=snakemake.wildcards.state,
        model=snakemake.input.model,
        entry=snakemake.params.state,
        inputs=snakemake.input,
        sensitivity=snakemake.params.sensitivity,
    )
    print(state)
    write_states([state], snakemake.output[0], made_from(snakemake, "choose_state"))
