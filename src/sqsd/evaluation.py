"""Models at their states: what they respond there, and how that is judged."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sqsd.chat import encode_conversation, encode_pair, encode_prompt, tell_markup
from sqsd.cost_models import CostModel, load_cost_model
from sqsd.encoded import EncodedSample
from sqsd.errors import DataError
from sqsd.generation import greedy
from sqsd.judgement_cache import PAIR, JudgementCache, none_known
from sqsd.judges import Judge, Judgement, check_verdicts, make_judge
from sqsd.logs import progress
from sqsd.models import load_model, load_tokenizer, state_applied
from sqsd.readings import shard_rows
from sqsd.states import ORIGIN_COLUMNS, State

PROMPTS_PER_BATCH = 32
# What a judge of texts is given at once; it batches them by length.
PAIRS_AT_ONCE = 512
UNLIMITED = sys.maxsize


@dataclass
class AtState:
    """A model with its weights at a state, and its tokenizer."""

    model: Any
    tokenizer: Any

    def log_probabilities(
        self, prompts: list[str], responses: Sequence[str], end: bool = True
    ) -> np.ndarray:
        """As `response_log_probabilities`, of this model."""
        given = self.model, self.tokenizer, prompts, responses, end
        return response_log_probabilities(*given).numpy()

    def complete(self, prompts: list[str], responses: list[str], most: int) -> list[str]:
        """Greedy continuations, of at most so many tokens, of conversations of two turns."""
        pairs = zip(prompts, responses, strict=True)
        encoded = [encode_conversation(self.tokenizer, p, r) for p, r in pairs]
        texts, _ = greedy(
            self.model, self.tokenizer, encoded, most, PROMPTS_PER_BATCH, lambda count: None
        )
        return texts


def at_each(states: Sequence[State], dtype: str, gpus: int) -> Iterator[AtState]:
    """The models at the states, one after another; weights that states share are loaded once.

    A model is at its state until the next one is asked for, and as it was loaded after that. It is
    one object throughout, so that whoever holds it holds no model that has been let go: two whole
    models may not fit side by side.
    """
    held, loaded = AtState(None, None), None
    for state in states:
        if state.model != loaded:
            held.model = None
            held.model = load_model(state.model, dtype, gpus)
            held.tokenizer = load_tokenizer(state.model)
            loaded = state.model
        with state_applied(held.model, state.adapter, state.multiplier):
            yield held


def with_origin(frame: pd.DataFrame, state: State) -> pd.DataFrame:
    """Rows of one state, with its name and where it comes from before their own columns."""
    names = {"state": pd.array([state.name] * len(frame), dtype="str")}
    columns = {
        name: pd.Series([state.origin.get(name)] * len(frame)).astype(kind)  # pyright: ignore
        for name, kind in ORIGIN_COLUMNS.items()
    }
    return pd.DataFrame({**names, **columns, **frame.reset_index(drop=True)})


def generate_responses(
    prompts: pd.DataFrame,
    states: Sequence[State],
    max_new_tokens: int,
    batch_size: int,
    dtype: str,
    gpus: int = 0,
) -> pd.DataFrame:
    """Greedy responses (left padding) of every state to every prompt: the `responses` table.

    gpus: of the job, as in `load_model`.
    """
    frames, encoded, tokenizer = [no_responses()], [], None
    with progress("generating", len(states) * len(prompts), "response") as advance:
        for state, at in zip(states, at_each(states, dtype, gpus), strict=True):
            if at.tokenizer is not tokenizer:
                tokenizer = at.tokenizer
                tell_markup(tokenizer, prompts["prompt"])
                encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts["prompt"]]
            texts, lengths = greedy(
                at.model, at.tokenizer, encoded, max_new_tokens, batch_size, advance
            )
            frame = prompts[["prompt_id", "prompt"]].copy()
            frame["response"] = texts
            frame["response_tokens"] = lengths
            frames.append(with_origin(frame, state))
    return pd.concat(frames, ignore_index=True)


def no_responses() -> pd.DataFrame:
    """The `responses` table of a part beyond the last state of its subject."""
    texts = {name: pd.Series([], dtype="str") for name in ("prompt_id", "prompt", "response")}
    lengths = {"response_tokens": pd.Series([], dtype="int64")}
    return with_origin(pd.DataFrame({**texts, **lengths}), State("", "", None))


def judge_responses(
    responses: pd.DataFrame,
    states: Sequence[State],
    entry: Mapping[str, Any],
    dtype: str,
    own_model: str | None = None,
    work: str | Path | None = None,
    version: int = 1,
    gpus: int = 0,
) -> pd.DataFrame:
    """The `judgements` table of a `responses` table; entry: the judge's in the configuration.

    own_model: folder of the judge's own model, where it has one. A judge that reads no subject
    judges every prompt and response once; what one with a model of its own has said before is
    read from `work` (`judgement_cache`), where there is one. version: of the stage. gpus: of the
    job, as in `load_model`.
    """
    judge = make_judge(entry)
    columns = ["state", *ORIGIN_COLUMNS, "prompt_id"]
    by_state = [responses[responses["state"] == state.name] for state in states]
    rows = pd.concat([responses.iloc[:0], *by_state], ignore_index=True)
    if judge.reads == "subject":
        found = judged(rows, judge_at_states(judge, by_state, states, dtype, gpus))
    else:
        cache = None
        if work is not None and own_model is not None:
            cache = JudgementCache.of(work, entry, own_model, dtype, version)
        known = judge_pairs(judge, rows[PAIR].drop_duplicates(), dtype, own_model, cache, gpus)
        found = rows.merge(known, on=PAIR, how="left", validate="m:1")
    said = found["unreadable"].dropna()
    if not said.empty:
        print(
            f"{len(said)} of {len(found)} verdicts cannot be read; "
            f"the judge said first {said.iloc[0][:60]!r}"
        )
    return found[[*columns, "verdict", "unreadable", "score"]]


def judge_at_states(
    judge: Judge, rows: Sequence[pd.DataFrame], states: Sequence[State], dtype: str, gpus: int
) -> Judgement:
    """Judgements of each state's responses, with the model at that state."""
    verdicts, scores, unreadable = [], [], []
    with progress("judging", sum(map(len, rows)), "response") as advance:
        for own, model in zip(rows, at_each(states, dtype, gpus), strict=True):
            found = judge(own["prompt"].tolist(), own["response"].tolist(), model)
            verdicts += found.verdicts
            scores += found.scores
            unreadable += found.unreadable
            advance(len(own))
    return Judgement(verdicts, scores, unreadable)


def judge_pairs(
    judge: Judge,
    pairs: pd.DataFrame,
    dtype: str,
    own_model: str | None,
    cache: JudgementCache | None,
    gpus: int,
) -> pd.DataFrame:
    """The `known_judgements` table of distinct prompts and responses, those in the cache first.

    What is not there is judged, and added; only then is the judge's model loaded. The last digits
    of a score depend on the padding of its batch, and so on what else was new to the job.
    """
    known = pairs.merge(none_known() if cache is None else cache.read(), on=PAIR)
    new = pairs[~pd.MultiIndex.from_frame(pairs).isin(pd.MultiIndex.from_frame(known[PAIR]))]
    print(f"{len(pairs)} distinct responses, {len(known)} of them judged before")
    if new.empty:
        return known
    made, model = [], load_own(judge, dtype, own_model, gpus)
    with progress("judging", len(new), "response") as advance:
        for start in range(0, len(new), PAIRS_AT_ONCE):
            part = new.iloc[start : start + PAIRS_AT_ONCE]
            found = judge(part["prompt"].tolist(), part["response"].tolist(), model)
            made.append(judged(part, found))
            advance(len(part))
    added = pd.concat(made, ignore_index=True)
    if cache is not None:
        cache.add(added)
    return pd.concat([known, added], ignore_index=True)


def load_own(
    judge: Judge, dtype: str, own_model: str | None, gpus: int
) -> AtState | CostModel | None:
    """The model of a judge's own, None where it has none; a cost model is on one GPU at most.

    Raises DataError for a guard that cannot write its verdicts, or what is no cost model.
    """
    if judge.reads is None:
        return None
    assert own_model is not None
    if judge.reads == "cost":
        return load_cost_model(own_model, dtype)
    tokenizer = load_tokenizer(own_model)
    check_verdicts(tokenizer, own_model)
    return AtState(load_model(own_model, dtype, gpus), tokenizer)


def judge_rows(
    rows: pd.DataFrame,
    shard: int,
    rows_per_shard: int,
    entry: Mapping[str, Any],
    dtype: str,
    own_model: str | None,
    gpus: int = 0,
) -> pd.DataFrame:
    """The `row_judgements` table: a judge's score of a shard's own responses, in their order.

    rows: the whole `dataset` table. entry: a judge's in the configuration, that reads no subject.
    gpus: of the job, as in `load_model`. A row that it cannot score keeps its place, with the
    reason.
    """
    judge = make_judge(entry)
    rows = shard_rows(rows, shard, rows_per_shard)
    texts = rows["response"].fillna("").to_list()
    judged = judge(rows["prompt"].to_list(), texts, load_own(judge, dtype, own_model, gpus))
    scores = pd.Series(list(judged.scores), rows.index, dtype="float64")
    empty = pd.Series(["empty response" if not t.strip() else None for t in texts], rows.index)
    reasons = rows["problem"].astype(object).where(rows["problem"].notna(), empty)
    reasons = reasons.where(reasons.notna() | scores.notna(), "the judge gives no score")
    table = pd.DataFrame({"sample_id": rows["sample_id"], "score": scores.mask(reasons.notna())})
    return table.assign(reason=reasons.astype("str")).reset_index(drop=True)


def judged(rows: pd.DataFrame, found: Judgement) -> pd.DataFrame:
    return rows.assign(
        verdict=pd.array(list(found.verdicts), dtype="boolean"),
        unreadable=pd.Series(list(found.unreadable), index=rows.index, dtype="str"),
        score=pd.Series(list(found.scores), index=rows.index, dtype="float64"),
    )


@torch.inference_mode()
def response_log_probabilities(
    model, tokenizer, prompts: list[str], responses: Sequence[str], end: bool = True
) -> torch.Tensor:
    """log p(response | prompt), [responses, prompts] float64, with end tokens unless end=False.

    A prompt is read once for all of its responses. Raises DataError naming a prompt that leaves no
    place for one of them.
    """
    parts = []
    for start in range(0, len(prompts), PROMPTS_PER_BATCH):
        batch = prompts[start : start + PROMPTS_PER_BATCH]
        fans = [[encode_pair(tokenizer, p, r, UNLIMITED) for r in responses] for p in batch]
        for prompt, fan in zip(batch, fans, strict=True):
            check_room(prompt, fan, model.config.max_position_embeddings)
        parts.append(fan_log_probabilities(model, fans, end))
    return torch.cat(parts, 1)


def check_room(prompt: str, fan: Sequence[EncodedSample], longest: int) -> None:
    """Raises DataError where a response would end behind the model's last position."""
    width = max(len(pair.input_ids) for pair in fan)
    if width > longest:
        raise DataError(
            f"judging {prompt[:60]!r}: {width} tokens with the response, the model takes "
            f"{longest}; leave the long prompt out"
        )


def fan_log_probabilities(
    model, fans: Sequence[Sequence[EncodedSample]], end: bool
) -> torch.Tensor:
    """As `response_log_probabilities`; fans: of each prompt its pairs with the responses."""
    ids, positions, branch, before, labels = laid_out(fans, end)
    seen = ((branch[:, None] == 0) | (branch[:, None] == branch[..., None])).tril()
    mask = torch.zeros(seen.shape, dtype=model.dtype)
    mask.masked_fill_(~seen, torch.finfo(model.dtype).min)
    # The head runs only where there is a label, since a real vocabulary is large. Of a model on
    # several GPUs, the first layer, the last and the head may each be on another.
    ids_there, positions, mask = (part.to(model.device) for part in (ids, positions, mask))
    hidden = model.model(
        input_ids=ids_there, position_ids=positions, attention_mask=mask[:, None], use_cache=False
    ).last_hidden_state
    row, column = labels.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[row, before[row, column]]).double()
    token = logits.log_softmax(-1).gather(1, ids[row, column, None].to(logits.device))
    sums = torch.zeros(len(fans[0]), len(fans), dtype=torch.float64)
    return sums.index_put((branch[row, column] - 1, row), token.squeeze(1).cpu(), accumulate=True)


def laid_out(fans: Sequence[Sequence[EncodedSample]], end: bool) -> Sequence[torch.Tensor]:
    """Each prompt and, one behind the other, its responses in one sequence, padded on the right.

    Five tensors [fans, tokens]: ids; positions, of a response's first token the one behind the
    prompt; branch, 0 of the prompt and r of its r-th response, which sees the prompt and itself
    alone; before, where the token stands that predicts this one; labels, the tokens that count.
    """
    size = len(fans), max(fan[0].prompt_tokens + sum(map(answer_tokens, fan)) for fan in fans)
    ids, positions, branch, before = (torch.zeros(size, dtype=torch.long) for _ in range(4))
    labels = torch.zeros(size, dtype=torch.bool)
    for i, fan in enumerate(fans):
        start = prompt = fan[0].prompt_tokens
        ids[i, :prompt] = torch.tensor(fan[0].input_ids[:prompt])
        positions[i, :prompt] = torch.arange(prompt)
        for number, pair in enumerate(fan, 1):
            stop = start + answer_tokens(pair)
            ids[i, start:stop] = torch.tensor(pair.input_ids[prompt:])
            positions[i, start:stop] = torch.arange(prompt, prompt + stop - start)
            branch[i, start:stop] = number
            before[i, start:stop] = torch.tensor([prompt - 1, *range(start, stop - 1)])
            labels[i, start : stop if end else stop - 1] = True
            start = stop
    return ids, positions, branch, before, labels


def answer_tokens(pair: EncodedSample) -> int:
    return len(pair.input_ids) - pair.prompt_tokens
