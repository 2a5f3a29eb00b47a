from pathlib import Path

from sqsd.cost_models import make_classifier, make_cost_tokenizer
from sqsd.devices import own_gpus
from sqsd.logs import log_to
from sqsd.provenance import made_from, write_provenance
from sqsd.sandbox import judged_pairs, vocabulary
from sqsd.training import train_reward

with log_to(snakemake.log[0]), own_gpus(snakemake.resources.gpu):
    parameters = snakemake.params
    tokenizer = make_cost_tokenizer(vocabulary())
    train_reward(
        model=make_classifier(tokenizer, parameters.architecture, parameters.seed),
        tokenizer=tokenizer,
        pairs=judged_pairs(parameters.seed, **parameters.rows),
        out=Path(snakemake.output.model),
        work=Path(parameters.work),
        training=parameters.training,
        seed=parameters.seed,
        version=parameters.version,
    )
    write_provenance(snakemake.output.model, made_from(snakemake, "train_cost_model"))
