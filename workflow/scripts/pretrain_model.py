import shutil
from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import make_model, make_word_tokenizer
from sqsd.sandbox import corpus_rows, vocabulary
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
    sandbox, seed = snakemake.params.sandbox, snakemake.params.seed
    tokenizer = make_word_tokenizer(vocabulary())
    train_sft(
        model=make_model(tokenizer, sandbox["architecture"], seed),
        tokenizer=tokenizer,
        rows=corpus_rows(seed, **sandbox["corpus"]),
        out=Path(snakemake.output.model),
        work=Path(snakemake.params.work),
        training=sandbox["pretraining"],
        lora=None,
        seed=seed,
    )
    shutil.rmtree(snakemake.params.work)
