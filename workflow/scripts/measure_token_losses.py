from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.losses import measure_token_losses
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    losses = measure_token_losses(
        rows=read_table(snakemake.input.rows, "dataset"),
        samples=read_table(snakemake.input.samples, "samples"),
        model=snakemake.input.model,
        size=parameters.size,
        **parameters.encoding,
    )
    provenance = made_from(snakemake, "measure_token_losses")
    write_table(losses, snakemake.output[0], "token_losses", provenance)
