from pathlib import Path

from sqsd.cost_models import make_classifier, make_cost_tokenizer
from sqsd.logs import log_to
from sqsd.sandbox import judged_pairs, vocabulary
from sqsd.training import train_reward

with log_to(snakemake.log[0]):
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
