from sqsd.devices import own_gpus
from sqsd.layers import search_layers
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table, write_table

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    search = search_layers(
        prompts=read_table(snakemake.input.prompts, "benchmark"),
        model_folder=snakemake.input.model,
        judge=parameters.judge,
        **parameters.search,
        **parameters.generation,
    )
    provenance = made_from(snakemake, "search_layers")
    write_table(search, snakemake.output[0], "layer_search", provenance)
