"""Which tokens of a row its score comes from: a second pass over a few rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sqsd.chat import encode_rows, token_texts
from sqsd.drift import load_adapter, module_norms
from sqsd.encoded import EncodedSample
from sqsd.explanations import chosen_rows
from sqsd.gradients import GradientEngine
from sqsd.models import load_model, load_tokenizer
from sqsd.probes import TokenShares
from sqsd.scorers import SqsdScorer
from sqsd.shards import Shard, budget, read_shard, update_at
from sqsd.states import State, direction_folder


@dataclass(frozen=True)
class Term:
    """What a term of a score is read at and against; direction: folder of its training."""

    state: State
    direction: str
    checkpoint: int | str


def measure_token_shares(
    rows: pd.DataFrame,
    scores: pd.DataFrame,
    model: str,
    terms: Mapping[str, Term],
    scorer: SqsdScorer,
    riskiest: int,
    middling: int,
    safest: int,
    **settings,
) -> pd.DataFrame:
    """The `token_shares` table of a few rows of a data set (`explanations.chosen_rows`).

    rows, scores: its `dataset` and `scores` tables. model: folder. terms: those of the score, by
    name. settings: of `shards.Shard`. A share has its term's sign and is over what
    the term is over (the norms of the direction and, where normalised, of the row's update, module
    by module), so that a row's shares of a term sum to that term, and all of them to its score.
    A token's share is that of the position where it is predicted (`probes.TokenShares`); prompts
    have shares too. Raises DataError where no row has a score, ConfigurationError for a checkpoint
    that is not there.
    """
    chosen = chosen_rows(scores, riskiest, middling, safest)["sample_id"]
    shard = Shard(rows.set_index("sample_id", drop=False).loc[chosen], **settings)
    tokenizer, weights = load_tokenizer(model), load_model(model, shard.dtype)
    samples = encode_rows(shard.rows, tokenizer, shard.max_length_tokens)
    texts = [token_texts(tokenizer, sample.input_ids) for sample in samples]
    frames = []
    for name, term in terms.items():
        shares = scorer.signs[name] * read_term(shard, weights, samples, term, scorer.normalised)
        for sample, text, own in zip(samples, texts, shares, strict=True):
            frames.append(token_table(sample, text, name, own))
    return pd.concat(frames, ignore_index=True)


def read_term(
    shard: Shard, model, samples: Sequence[EncodedSample], term: Term, normalised: bool
) -> np.ndarray:
    """Every token's share of one term of Eq. 12 without its sign, [n, length of the longest]."""
    direction = load_adapter(direction_folder(term.direction, term.checkpoint))
    directions = {"direction": direction}
    adapter, update = update_at(term.state, directions)
    probe = TokenShares(directions, max(len(sample.input_ids) for sample in samples))
    engine = GradientEngine(model, [update, probe], adapter, shard.checkpointing)
    most = budget(shard.max_tokens_per_batch, model.device)
    values = read_shard(engine, list(samples), most).values
    norms = module_norms(direction)
    over = np.array([[norms[module] for module in probe.modules]])
    if normalised:
        over = over * values["update_norm"].numpy()
    products = values["token_share"][:, 0].numpy()
    # A module whose update or direction is exactly zero points nowhere: it has no share.
    over = over[..., None]
    return np.divide(products, over, out=np.zeros_like(products), where=over > 0).sum(1)


def token_table(
    sample: EncodedSample, texts: Sequence[str], term: str, shares: np.ndarray
) -> pd.DataFrame:
    """The `token_shares` of one sample and term; shares [length or more]."""
    position = np.arange(1, len(texts) + 1)
    columns: dict[str, Any] = {
        "sample_id": sample.sample_id,
        "term": term,
        "position": position,
        "token": pd.array(texts, dtype="str"),
        "is_response": np.isin(position - 1, sample.label_places),
        "share": shares[: len(texts)],
    }
    return pd.DataFrame(columns)
