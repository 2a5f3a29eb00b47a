from pathlib import Path

from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.models import make_model, make_word_tokenizer
from sqsd.provenance import made_from, write_provenance
from sqsd.sandbox import corpus_rows, vocabulary
from sqsd.training import train_sft

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    tokenizer = make_word_tokenizer(vocabulary())
    train_sft(
        model=make_model(tokenizer, parameters.architecture, parameters.seed),
        tokenizer=tokenizer,
        rows=corpus_rows(parameters.seed, **parameters.corpus),
        out=Path(snakemake.output.model),
        work=Path(parameters.work),
        training=parameters.training,
        lora=None,
        seed=parameters.seed,
        version=parameters.version,
    )
    write_provenance(snakemake.output.model, made_from(snakemake, "pretrain_model"))
