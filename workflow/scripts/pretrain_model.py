from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import make_model, make_word_tokenizer
from sqsd.sandbox import corpus_rows, vocabulary
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
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
