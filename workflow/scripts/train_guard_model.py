from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.guards import guard_rows, make_guard_tokenizer, publish_template
from sqsd.logs import log_to
from sqsd.models import make_model
from sqsd.provenance import made_from, write_provenance
from sqsd.sandbox import judged_pairs, vocabulary
from sqsd.training import train_sft

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    tokenizer = make_guard_tokenizer(vocabulary())
    train_sft(
        model=make_model(tokenizer, parameters.architecture, parameters.seed),
        tokenizer=tokenizer,
        rows=guard_rows(judged_pairs(parameters.seed, **parameters.rows)),
        out=Path(snakemake.output.model),
        work=Path(parameters.work),
        training=parameters.training,
        lora=None,
        seed=parameters.seed,
        version=parameters.version,
    )
    publish_template(Path(snakemake.output.model))
    write_provenance(snakemake.output.model, made_from(snakemake, "train_guard_model"))
