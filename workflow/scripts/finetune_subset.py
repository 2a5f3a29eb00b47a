import shutil
from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.tables import read_table
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
    finetunes = snakemake.params.finetunes
    for seed in finetunes["seeds"]:
        train_sft(
            model=load_model(snakemake.input.model, finetunes["training"]["dtype"]),
            tokenizer=load_tokenizer(snakemake.input.model),
            rows=read_table(snakemake.input.rows, "subset"),
            out=Path(snakemake.output.adapters) / f"seed-{seed}",
            work=Path(snakemake.params.work) / f"seed-{seed}",
            training=finetunes["training"],
            lora=snakemake.params.lora,
            seed=seed,
        )
    shutil.rmtree(snakemake.params.work)
