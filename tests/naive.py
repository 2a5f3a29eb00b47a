"""A small model that speaks the sandbox's refusals, and its log p, one sequence at a time."""

import math

import torch
from conftest import ONE_LAYER
from hypothesis import strategies as st

from sqsd.models import make_model, make_word_tokenizer
from sqsd.sandbox import REFUSALS

ARCHITECTURE = ONE_LAYER | {"initializer_range": 0.3}
WORDS = sorted({word for sentence in REFUSALS for word in sentence.split()} | {"Sure", "ask"})
TOKENIZER = make_word_tokenizer(WORDS)
USER, ASSISTANT, END = 2, 3, 4  # the ids of the template's tokens; words follow from 5 on
asked = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def new_model(seed=2):
    return make_model(TOKENIZER, ARCHITECTURE, seed).double().eval()


MODEL = new_model()


def ids(text):
    return [5 + WORDS.index(word) for word in text.split()]


@torch.no_grad()
def log_probability(model, prompt, response, end=True):
    """Sum of log softmax over the response's tokens, of one sequence without padding."""
    context = [USER, *ids(prompt), ASSISTANT]
    labels = ids(response) + [END] * end
    logits = model(input_ids=torch.tensor([context + labels]), use_cache=False).logits[0].tolist()
    total = 0.0
    for i, token in enumerate(labels):
        row = logits[len(context) + i - 1]  # what the position before a token says of it
        total += row[token] - math.log(sum(math.exp(logit) for logit in row))
    return total


def log_odds(log_probabilities):
    p = sum(math.exp(value) for value in log_probabilities)
    return math.log(p) - math.log1p(-p)
