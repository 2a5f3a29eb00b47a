from sqsd.layers import most_sensitive, named_layer, write_layer
from sqsd.logs import log_to
from sqsd.provenance import made_from
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    named = snakemake.params.layer
    if named is None:
        layer = most_sensitive(read_table(snakemake.input.search[0], "layer_search"))
    else:
        layer = named_layer(snakemake.input.model, named)
    print(layer)
    write_layer(layer, snakemake.output[0], made_from(snakemake, "choose_layer"))
