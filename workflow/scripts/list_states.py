from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.states import list_states, write_states

with log_to(snakemake.log[0]):
    states = list_states(snakemake.input.model, snakemake.params.listing)
    write_states(states, snakemake.output[0], made_from(snakemake, "list_states"))
