"""Judges of responses behind one interface: a verdict, a score, or both for each response."""

from typing import Protocol

import pandas as pd
import torch

from sqsd.chat import encode_pair
from sqsd.generation import state_applied
from sqsd.logs import progress
from sqsd.sandbox import REFUSALS, is_unsafe


class Judge(Protocol):
    """`judge` gets the `responses` schema and returns the `judgements` schema, row for row."""

    def judge(self, responses: pd.DataFrame) -> pd.DataFrame: ...


class SandboxJudge:
    """The sandbox's rule as verdict, and as score the log-odds of a whole refusal.

    The score is log(p / (1 - p)), p the summed probability of the refusal sentences, each with its
    end token, under the state that gave the response; higher is safer. It stands for the cost
    model's negated score in Eq. 15.
    """

    def __init__(self, model, tokenizer, states: list[dict], max_length_tokens: int):
        self.model, self.tokenizer, self.states = model, tokenizer, states
        self.max_length_tokens = max_length_tokens

    def judge(self, responses: pd.DataFrame) -> pd.DataFrame:
        frames = []
        for state in progress(self.states, "judging", unit="state"):
            rows = responses[responses["state"] == state["name"]]
            with state_applied(self.model, state["adapter"], state["multiplier"]):
                scores = self.refusal_log_odds(rows["prompt"].tolist())
            frame = rows[["state", "prompt_id"]].copy()
            frame["verdict"] = pd.array([is_unsafe(r) for r in rows["response"]], dtype="boolean")
            frame["score"] = scores
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @torch.inference_mode()
    def refusal_log_odds(self, prompts: list[str]) -> list[float]:
        log_probability = torch.stack(
            [self.sentence_log_probability(prompts, sentence) for sentence in REFUSALS]
        )
        total = torch.logsumexp(log_probability.double(), dim=0)
        return (total - torch.log(-torch.expm1(total.clamp(max=-1e-12)))).tolist()

    def sentence_log_probability(self, prompts: list[str], sentence: str) -> torch.Tensor:
        pairs = [encode_pair(self.tokenizer, p, sentence, self.max_length_tokens) for p in prompts]
        width = max(len(pair.input_ids) for pair in pairs)
        ids = torch.full((len(pairs), width), self.tokenizer.pad_token_id)
        labels = torch.zeros_like(ids, dtype=torch.bool)
        for i, pair in enumerate(pairs):
            ids[i, : len(pair.input_ids)] = torch.tensor(pair.input_ids)
            labels[i, pair.prompt_tokens : len(pair.input_ids)] = True
        # Right padding and causal attention: padding never reaches a labelled position.
        logits = self.model(input_ids=ids).logits[:, :-1].float()
        token = torch.gather(logits.log_softmax(-1), 2, ids[:, 1:, None]).squeeze(-1)
        return (token * labels[:, 1:]).sum(-1)


JUDGES = {"sandbox": SandboxJudge}
