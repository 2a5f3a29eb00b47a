import shutil
from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.sandbox import alignment_rows
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
    sandbox, seed = snakemake.params.sandbox, snakemake.params.seed
    train_sft(
        model=load_model(snakemake.input.model, sandbox["alignment_training"]["dtype"]),
        tokenizer=load_tokenizer(snakemake.input.model),
        rows=alignment_rows(seed, **sandbox["alignment"]),
        out=Path(snakemake.output.model),
        work=Path(snakemake.params.work),
        training=sandbox["alignment_training"],
        lora=None,
        seed=seed,
    )
    shutil.rmtree(snakemake.params.work)
