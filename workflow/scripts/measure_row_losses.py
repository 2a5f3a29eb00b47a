from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.losses import measure_row_losses
from sqsd.provenance import made_from
from sqsd.states import read_states
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    losses = measure_row_losses(
        rows=read_table(snakemake.input.rows, "dataset"),
        states=read_states(snakemake.input.states),
        max_length_tokens=snakemake.params.max_length_tokens,
        dtype=snakemake.params.dtype,
    )
    provenance = made_from(snakemake, "measure_row_losses")
    write_table(losses, snakemake.output[0], "row_losses", provenance)
