import shutil
from pathlib import Path

from sqsd.logs import log_to
from sqsd.models import load_model, load_tokenizer
from sqsd.tables import read_table
from sqsd.training import train_sft

with log_to(snakemake.log[0]):
    pilot = snakemake.params.pilot
    train_sft(
        model=load_model(snakemake.input.model, pilot["training"]["dtype"]),
        tokenizer=load_tokenizer(snakemake.input.model),
        rows=read_table(snakemake.input.rows, "dataset"),
        out=Path(snakemake.output.adapter),
        work=Path(snakemake.params.work),
        training=pilot["training"],
        lora=snakemake.params.lora,
        seed=snakemake.params.seed,
        save_steps=pilot["save_steps"],
    )
    shutil.rmtree(snakemake.params.work)
