import shutil
from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.sandbox import alignment_rows
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
    spec = snakemake.params.spec
    train_sft(
        model=load_model(snakemake.input.model, spec["alignment_training"]["dtype"]),
        tokenizer=load_tokenizer(snakemake.input.model),
        rows=alignment_rows(spec["seed"], **spec["alignment"]),
        out=Path(snakemake.output.model),
        work=Path(snakemake.params.work),
        training=spec["alignment_training"],
        lora=None,
        seed=spec["seed"],
    )
    shutil.rmtree(snakemake.params.work)
