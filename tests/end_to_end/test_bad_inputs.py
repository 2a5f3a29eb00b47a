"""What a user of the command line may give wrongly: one message with place, value and remedy.

Each case runs the real command in a folder of its own, or, where it takes a job, together with
others whose set-up is the same. A message is written here as a user needs it.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import yaml
from conftest import (
    ROOT,
    SHAPES,
    V_PROJ,
    full_log,
    put_files,
    snakemake,
    write_adapter,
    write_config,
    write_model,
)

from sqsd.config import merged
from sqsd.provenance import STAGE_VERSIONS
from sqsd.sources import HUB_FORMS
from sqsd.tables import write_frame, write_table
from sqsd.validation import MODEL_SOURCES

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
RUN = "results/bad"
ROWS = f"{RUN}/data/mixed.parquet"
PROFILE = "Using workflow specific profile"
# In a message: what a library says there.
ANYTHING = "<...>"
AGAIN = "delete it and run again"


@dataclass(frozen=True, eq=False)
class Case:
    """A bad input.

    says: the whole message; `ANYTHING` stands for words of a library, FOLDER for where the command
    runs. config: differences to the default, or the text of a file; None is no file. put: puts the
    input into the folder. found: `before` anything else is printed, at the `start` of a run, in a
    `job`, or by `snakemake` itself. log: of the rule that fails, which has the traceback. disk:
    (folder, options) of a file system of its own. with_: what a job needs beside the input, made
    once for all cases with the same.
    """

    name: str
    says: str
    config: Mapping[str, Any] | str | None = field(default_factory=dict)
    put: Callable[[Path], object] = lambda folder: None
    target: str = ROWS
    found: Literal["before", "start", "job", "snakemake"] = "before"
    log: str | None = None
    disk: tuple[str, str] | None = None
    with_: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Ran:
    """A command that has been run, and what lay in its folder before."""

    folder: Path
    before: dict[str, bytes | str]
    status: int
    output: str


def problems(*found: str) -> str:
    first = f"ConfigurationError: {len(found)} problem(s) in the configuration:"
    return "\n  ".join([first, *found])


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A file that the user gives."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def lines(*rows: Any, name: str = "mine.jsonl") -> Callable[[Path], object]:
    return text(name, "".join(json.dumps(row) + "\n" for row in rows))


def source(name: str, registry: str = "datasets", **keys: Any) -> dict[str, Any]:
    """An entry `mine` of a registry of rows."""
    fields = {"instruction": "q", "response": "a"}
    return {registry: {"mine": {"source": name, "fields": fields, **keys}}}


# The configuration, and what is asked for.
CONFIGURATION = [
    Case(
        "unknown-key",
        problems(
            "selection: 'tabels' is not a key; known: curations, experiments, tables. "
            "Did you mean 'tables'?"
        ),
        {"selection": {"tabels": ["table1"]}},
    ),
    Case(
        "text-for-a-number",
        problems("datasets.mixed.rows: 'many' is not of type 'integer'"),
        {"datasets": {"mixed": {"rows": "many"}}},
    ),
    Case(
        "below-the-least",
        problems("lora.r: 0 is less than the minimum of 1"),
        {"lora": {"r": 0}},
    ),
    Case(
        "no-number",
        problems("directions.danger.training.learning_rate: nan is no finite number"),
        {"directions": {"danger": {"training": {"learning_rate": float("nan")}}}},
    ),
    Case(
        "name-that-points-nowhere",
        problems(
            "experiments.sandbox.dataset: 'mixd' is not a data set; known: danger, harmful-10, "
            "harmful-100, heldout, mixed, pilot, pilot-1200, pilot-150, pilot-300, refusals, "
            "refused-10, refused-10-more, refused-100. Did you mean 'mixed'?"
        ),
        {"experiments": {"sandbox": {"dataset": "mixd"}}},
    ),
    Case(
        "model-that-differs-is-none",
        problems(
            "directions.danger.per_model: 'sandbx' is not a model; known: cost, guard, sandbox. "
            "Did you mean 'sandbox'?"
        ),
        {"directions": {"danger": {"per_model": {"sandbx": {"checkpoint": 25}}}}},
    ),
    Case(
        "key-twice",
        problems("run: given 2 times in FOLDER/config.yaml, lines 1 and 2; keep one"),
        "run: good\nrun: bad\n",
    ),
    Case(
        "two-problems-at-once",
        problems(
            "directions.danger.training.batch_size: 0 is less than the minimum of 1",
            "directions.danger.training.epochs: 'ten' is not of type 'number'",
        ),
        {"directions": {"danger": {"training": {"batch_size": 0, "epochs": "ten"}}}},
    ),
    Case(
        "unknown-kind",
        problems(
            "judges.phrases.kind: 'phrase' is not a kind; known: cost, guard, openings, phrases, "
            "sandbox. Did you mean 'phrases'?"
        ),
        {"judges": {"phrases": {"kind": "phrase"}}},
    ),
    Case(
        "option-missing",
        problems(
            "methods.mine: 'safe' is missing; kind 'larf' needs it",
            "methods.mine: 'layer' is missing; kind 'larf' needs it",
        ),
        {"methods": {"mine": {"kind": "larf", "unsafe": "harmful-100"}}},
    ),
    Case(
        "alpha-without-its-neighbours",
        problems(
            "states.s-insensitive.alphas[1]: 0.8 is searched by its neighbours at "
            "sensitivity.delta=0.1, and steering.alphas lacks 0.9; add them there, or leave 0.8 out"
        ),
        {
            "states": {"s-insensitive": {"alphas": [0.1, 0.8]}},
            "selection": {"tables": ["table3"]},
        },
    ),
    Case(
        "checkpoint-that-will-not-be-saved",
        problems(
            "states.s.checkpoint: 30 is no checkpoint; allowed: final, or a multiple of "
            "directions.safety.save_steps=25 up to 125"
        ),
        {"states": {"s": {"checkpoint": 30}}},
    ),
    Case(
        "batch-in-unequal-parts",
        problems(
            "finetunes.lora.training.micro_batch_size: 3 does not divide batch_size=8; give a "
            "divisor of it"
        ),
        {"finetunes": {"lora": {"training": {"micro_batch_size": 3}}}},
    ),
    Case(
        "judge-by-a-model-of-another-head",
        problems(
            "judges.guard.model: 'cost' has a cost head, not a language one; models that have it: "
            "sandbox, guard"
        ),
        {"judges": {"guard": {"model": "cost"}}},
    ),
    Case(
        "axis-twice",
        problems("axes.seed: 11 is given more than once; keep one of it"),
        {"axes": {"seed": [11, 12, 11]}},
    ),
    Case(
        "name-of-a-run",
        problems(
            "run: 'My Run' is not a name: at most 100 lower-case letters and digits, with hyphens "
            "between, as my-run-2"
        ),
        {"run": "My Run"},
    ),
    Case(
        "no-folder-of-a-model",
        problems(
            f"models.mine.source: 'models/mine' is no folder; allowed: {MODEL_SOURCES}. "
            "Did you mean 'hub:models/mine'?"
        ),
        {"models": {"mine": {"source": "models/mine", "seed": 1}}},
    ),
    Case(
        "no-model-in-a-folder",
        problems(
            "models.mine.source: 'given' has no config.json; give one written by save_pretrained"
        ),
        {"models": {"mine": {"source": "given", "seed": 1}}},
        lambda folder: (folder / "given").mkdir(exist_ok=True),
    ),
    Case(
        "no-name-of-the-hub",
        problems(
            f"models.mine.source: 'hub:mine' is no model of the hub; allowed: {MODEL_SOURCES}"
        ),
        {"models": {"mine": {"source": "hub:mine", "seed": 1}}},
    ),
    Case(
        "results-of-an-earlier-layout",
        f"ConfigurationError: {RUN} holds results of an earlier layout (benchmarks-of-rules), "
        "which this version neither reads nor deletes; move the folder away, or choose another "
        "`run`",
        put=lambda folder: (folder / RUN / "benchmarks-of-rules").mkdir(parents=True),
    ),
    # Snakemake reads the file before any line of the workflow, and names neither it nor the line.
    Case(
        "no-yaml",
        "ConfigurationError: FOLDER/config.yaml:2: not YAML (expected ',' or ']', but got "
        "'<stream end>'); look at this line and the one before: each is `key: value`, indented by "
        "spaces as far as the lines that it goes with",
        "run: [bad\n",
        found="snakemake",
    ),
    Case(
        "empty-file",
        "ConfigurationError: FOLDER/config.yaml: empty; give keys with values, as run: mine",
        "",
        found="snakemake",
    ),
    Case(
        "no-file",
        "ConfigurationError: FOLDER/config.yaml: no such file; name one that is there",
        None,
        found="snakemake",
    ),
    Case(
        "unknown-target",
        f"MissingRuleException:\nNo rule to produce tabel1 ({ANYTHING}).",
        target="tabel1",
        found="snakemake",
    ),
    Case(
        "target-of-an-unknown-data-set",
        f"{ANYTHING}'mixd' is not a data set; known: danger, harmful-10, harmful-100, "
        "heldout, mixed, pilot, pilot-1200, pilot-150, pilot-300, refusals, refused-10, "
        "refused-10-more, refused-100. Did you mean 'mixed'?",
        target=f"{RUN}/data/mixd.parquet",
        found="start",
    ),
    Case(
        "target-of-an-unknown-direction",
        f"{ANYTHING}'dangr' is not a direction; known: danger, safety. Did you mean 'danger'?",
        target=f"{RUN}/directions/sandbox/dangr",
        found="start",
    ),
]

# Rows, and files of them. Whoever reads a file before any job says where its entry is.
MINE = source("mine.jsonl")
HELLO, BYE = {"q": "Hello", "a": "There"}, {"q": "Bye", "a": "Then"}
FILES = "a .jsonl, .json, .csv or .parquet file"
ROW_FILES = [
    Case(
        "absent",
        problems(
            f"datasets.mine.source: 'mine.jsonl' does not exist; allowed: {FILES}, "
            "hub:owner/name:split, or sandbox:part"
        ),
        MINE,
    ),
    Case(
        "link-to-nothing",
        problems(
            f"datasets.mine.source: 'mine.jsonl' does not exist; allowed: {FILES}, "
            "hub:owner/name:split, or sandbox:part"
        ),
        MINE,
        lambda folder: (folder / "mine.jsonl").symlink_to("/nowhere/mine.jsonl"),
    ),
    Case(
        "folder",
        problems(
            f"datasets.mine.source: 'mine.jsonl' is no file; allowed: {FILES}, "
            "hub:owner/name:split, or sandbox:part"
        ),
        MINE,
        lambda folder: (folder / "mine.jsonl").mkdir(),
    ),
    Case(
        "other-kind",
        problems(
            "datasets.mine: mine.txt: '.txt' is not a known kind of file; allowed: .jsonl, .json, "
            f".csv, .parquet, {HUB_FORMS}"
        ),
        source("mine.txt"),
        text("mine.txt", "Hello\n"),
    ),
    Case(
        "empty",
        problems("datasets.mine: mine.jsonl: the file is empty"),
        MINE,
        text("mine.jsonl", ""),
    ),
    Case(
        "line-cut-short",
        problems(
            "datasets.mine: mine.jsonl:2: not JSON (Unterminated string starting at, column 19)"
        ),
        MINE,
        text("mine.jsonl", '{"q": "Hello", "a": "There"}\n{"q": "Bye", "a": "Th'),
    ),
    Case(
        "no-object",
        problems("datasets.mine: mine.jsonl:2: holds list, expected an object"),
        MINE,
        lines(HELLO, ["Bye", "Then"]),
    ),
    Case(
        "other-encoding",
        problems(
            "datasets.mine: mine.jsonl: not UTF-8 text ('utf-8' codec can't decode byte 0xe9 in "
            "position 10: invalid continuation byte); convert it"
        ),
        MINE,
        text("mine.jsonl", '{"q": "Caf\xe9", "a": "There"}\n'.encode("latin-1")),
    ),
    Case(
        "other-column",
        problems("datasets.mine: mine.jsonl: 'q' is not a column; known: answer, question"),
        MINE,
        lines({"question": "Hello", "answer": "There"}),
    ),
    Case(
        "semicolons-for-commas",
        problems("datasets.mine: mine.csv: 'q' is not a column; known: q;a"),
        source("mine.csv"),
        text("mine.csv", "q;a\nHello;There\n"),
    ),
    Case(
        "more-values-than-columns",
        problems("datasets.mine: mine.csv:3: more values than the 2 columns"),
        source("mine.csv"),
        text("mine.csv", "q,a\nHello,There\nBye,Then,Now\n"),
    ),
    Case(
        "no-parquet",
        problems(f"datasets.mine: mine.parquet: not a Parquet file ({ANYTHING})"),
        source("mine.parquet"),
        text("mine.parquet", "Hello, there, this is none\n"),
    ),
    Case(
        "none-left",
        problems(
            'datasets.mine: mine.jsonl: no row of 2 is left by where; a holds "There", "Then"'
        ),
        source("mine.jsonl", where={"a": "Here"}),
        lines(HELLO, BYE),
    ),
    Case(
        "more-than-there-are",
        problems(
            "datasets.mine: mine.jsonl: rows is 3, allowed 1 to 2 (it holds 2 rows, skip is 0)"
        ),
        source("mine.jsonl", rows=3, seed=1),
        lines(HELLO, BYE),
    ),
    Case(
        "preference-without-an-answer",
        problems(
            "preferences.mine: mine.jsonl:2: missing field worse; repair the row or remove it"
        ),
        {
            "preferences": {
                "mine": {
                    "source": "mine.jsonl",
                    "fields": {"instruction": "q", "chosen": "a", "rejected": "worse"},
                }
            }
        },
        lines({**HELLO, "worse": "No"}, BYE),
    ),
    Case(
        "prompt-twice",
        problems(
            "benchmarks.mine: mine.jsonl:3: the prompt of mine.jsonl:1 again, 'Hello'; 1 row(s) "
            "repeat one; keep each prompt once"
        ),
        {"benchmarks": {"mine": {"source": "mine.jsonl", "fields": {"prompt": "q"}}}},
        lines(HELLO, BYE, HELLO),
    ),
    Case(
        "score-that-is-no-number",
        problems(
            "methods.theirs: theirs.csv:3: field risk is 'high', no finite number; correct it, or "
            "leave it blank (null) for a row without a score"
        ),
        {
            "methods": {
                "theirs": {
                    "kind": "file",
                    "source": "theirs.csv",
                    "fields": {"instruction": "q", "response": "a", "score": "risk"},
                }
            }
        },
        text("theirs.csv", "q,a,risk\nHello,There,0.5\nBye,Then,high\n"),
    ),
    Case(
        "scores-of-other-rows",
        problems(
            "methods.theirs: theirs.csv: none of its 1 rows is one of the 2 rows of datasets.mine, "
            "by prompt and response; its first row: 'Hi', 'You'; the first row there: 'Hello', "
            "'There'; correct `fields`, or score the data set that the file is of"
        ),
        MINE
        | {
            "experiments": {"sandbox": {"dataset": "mine"}},
            "methods": {
                "theirs": {
                    "kind": "file",
                    "source": "theirs.csv",
                    "fields": {"instruction": "q", "response": "a", "score": "risk"},
                }
            },
            "tables": {"ranking": {"methods": ["theirs"]}},
            "selection": {"tables": ["ranking"], "curations": []},
        },
        lambda folder: (
            lines(HELLO, BYE)(folder),
            text("theirs.csv", "q,a,risk\nHi,You,0.5\n")(folder),
        ),
    ),
]


def nothing(folder: Path) -> None:
    """What a job needs beside its input, where that is all it needs."""


def row_job(name: str, says: str, where: str, put: Callable[[Path], object]) -> Case:
    """Rows that only the job that reads them finds wrong."""
    entry = source(where)["datasets"]["mine"]
    return Case(
        name, says, {"datasets": {name: entry}}, put, f"{RUN}/data/{name}.parquet", "job",
        log=f"make_dataset/{name}", with_=nothing,
    )  # fmt: skip


ROW_JOBS = [
    row_job(
        "half-a-character",
        "DataError: half.jsonl:2: text that is not Unicode (surrogates not allowed); repair it",
        "half.jsonl",
        lines(HELLO, {"q": "Bye", "a": "Then \ud83d"}, name="half.jsonl"),
    ),
    row_job(
        "hub-without-a-network",
        f"DataError: hub:nobody/nothing:train: cannot be loaded ({ANYTHING}); check name, subset, "
        "split or files, revision and the network, log in with `hf auth login` if it is gated, or "
        "give a local file as the source",
        "hub:nobody/nothing:train",
        nothing,
    ),
]


# Models in folders.
def with_settings(file: Path, **values: Any) -> None:
    """Change some keys of a JSON file; None takes one away."""
    both = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in both.items() if value is not None}))


def change_tensors(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def as_pickle(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def for_fewer_tokens(folder: Path) -> None:
    """The weights of a model of 6 tokens, beside a tokenizer of 10."""
    name = "model.embed_tokens.weight"
    change_tensors(folder / "model.safetensors", lambda t: t.update({name: t[name][:6].clone()}))
    with_settings(folder / "config.json", vocab_size=6)


V_WEIGHT = f"{V_PROJ}.weight"
SAVED = "the folder must be one of save_pretrained, its weights safetensors"


def model(
    name: str, says: str, spoil: Callable[[Path], object], entry: Mapping[str, Any] | None = None
) -> Case:
    """A model in a folder of the case's name, which is sound but for one thing."""
    config = {"source": f"given/{name}", "seed": 1} | dict(entry or {})

    def put(folder: Path) -> None:
        write_model(folder / "given" / name)
        spoil(folder / "given" / name)

    return Case(
        name, says, {"models": {name: config}}, put, f"{RUN}/models/{name}", "job",
        log=f"fetch_model/{name}", with_=nothing,
    )  # fmt: skip


MODELS = [
    model(
        "config-cut-short",
        f"DataError: given/config-cut-short: cannot be loaded ({ANYTHING}config.json{ANYTHING}"
        f"not a valid JSON file.); {SAVED}",
        lambda f: cut_short(f / "config.json"),
    ),
    model(
        "config-of-no-keys",
        f"DataError: given/config-of-no-keys: cannot be loaded ({ANYTHING}); {SAVED}",
        lambda f: (f / "config.json").write_text("[]"),
    ),
    model(
        "unknown-type",
        "DataError: given/unknown-type: cannot be loaded (The checkpoint you are trying to load "
        f"has model type `lama` but Transformers does not recognize this architecture.{ANYTHING}); "
        f"{SAVED}",
        lambda f: with_settings(f / "config.json", model_type="lama"),
    ),
    model(
        "heads-that-do-not-divide",
        f"DataError: given/heads-that-do-not-divide: cannot be loaded ({ANYTHING}The hidden size "
        f"(16) is not a multiple of the number of attention heads (3).); {SAVED}",
        lambda f: with_settings(f / "config.json", num_attention_heads=3),
    ),
    model(
        "no-tokenizer",
        f"DataError: given/no-tokenizer: cannot be loaded ({ANYTHING}tokenizer{ANYTHING}); {SAVED}",
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
    ),
    model(
        "tokenizer-of-nothing",
        f"DataError: given/tokenizer-of-nothing: cannot be loaded ({ANYTHING}); {SAVED}",
        lambda f: (f / "tokenizer.json").write_text("{}"),
    ),
    model(
        "no-template",
        "DataError: given/no-template: the tokenizer has no chat template; use a chat model, or "
        "add chat_template.jinja to its folder",
        lambda f: (f / "chat_template.jinja").unlink(),
    ),
    model(
        "template-cut-short",
        f"DataError: given/template-cut-short: the chat template {ANYTHING}"
        f"(Unexpected end of template.{ANYTHING}); {ANYTHING}chat_template.jinja{ANYTHING}",
        lambda f: (f / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}"),
    ),
    model(
        "template-without-an-end",
        "DataError: given/template-without-an-end: the chat template puts ' ' after a response, "
        "which has no special token, so a response would never end; use another model or correct "
        "the template in a local folder",
        lambda f: (f / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m.content }} {% endfor %}"
        ),
    ),
    model(
        "weights-as-pickles",
        f"DataError: given/weights-as-pickles: cannot be loaded ({ANYTHING}no file named "
        f"model.safetensors{ANYTHING}); {SAVED}",
        as_pickle,
    ),
    model(
        "weights-cut-short",
        "DataError: given/weights-cut-short: cannot be loaded (Error while deserializing header: "
        f"incomplete metadata, file not fully covered); {SAVED}",
        lambda f: cut_short(f / "model.safetensors"),
    ),
    model(
        "weight-missing",
        f"DataError: given/weight-missing: {ANYTHING}{V_WEIGHT}{ANYTHING}; {ANYTHING}",
        lambda f: change_tensors(f / "model.safetensors", lambda t: t.pop(V_WEIGHT)),
    ),
    model(
        "weight-of-another-shape",
        f"DataError: given/weight-of-another-shape: {ANYTHING}{V_WEIGHT}{ANYTHING}; {ANYTHING}",
        lambda f: change_tensors(
            f / "model.safetensors", lambda t: t.update({V_WEIGHT: t[V_WEIGHT][:4].clone()})
        ),
    ),
    model(
        "more-tokens-than-weights",
        f"DataError: given/more-tokens-than-weights: {ANYTHING}10 tokens{ANYTHING} 6{ANYTHING}; "
        f"{ANYTHING}",
        for_fewer_tokens,
    ),
    model(
        "cost-model-without-its-head",
        "DataError: given/cost-model-without-its-head: no cost model of this class: it lacks "
        "score_head.weight; give one of beaver-7b-unified-cost's class (a model without a head, "
        "and score_head)",
        nothing,
        {"head": "cost"},
    ),
    model(
        "cost-model-cut-short",
        f"DataError: given/cost-model-cut-short: {ANYTHING}(Error while deserializing header: "
        f"incomplete metadata, file not fully covered); {ANYTHING}",
        lambda f: cut_short(f / "model.safetensors"),
        {"head": "cost"},
    ),
    model(
        "hub-without-a-network",
        f"DataError: hub:nobody/nothing: cannot be loaded ({ANYTHING}); check name, revision and "
        "the network, log in with `hf auth login` if it is gated",
        nothing,
        {"source": "hub:nobody/nothing"},
    ),
    model(
        "cost-model-of-the-hub-without-a-network",
        f"DataError: hub:nobody/costs: cannot be loaded ({ANYTHING}); check name, revision and "
        "the network, log in with `hf auth login` if it is gated",
        nothing,
        {"source": "hub:nobody/costs", "head": "cost"},
    ),
]
NO_GUARD = Case(
    "guard-without-verdicts",
    problems(
        "judges.guard.model: given/mine: no guard: the tokenizer has no tokens for safe or unsafe, "
        "which a guard answers; give the judge a `model` in Llama-Guard-3's format"
    ),
    {
        "models": {"mine": {"source": "given/mine", "seed": 1}},
        "judges": {"guard": {"model": "mine"}},
    },
    lambda folder: write_model(folder / "given/mine"),
)

# Directions, pilots and states in results. Of a case its direction has the name.
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA = "base_model.model.{}.lora_{}.weight"


def adapters(folder: Path) -> None:
    """A model, a pilot with a checkpoint and one without, rows of a benchmark.

    The model first: a pilot that is older than its model would be trained again.
    """
    write_model(folder / RUN / "models/sandbox")
    pilots = folder / RUN / "pilots/sandbox"
    (pilots / "pilot").mkdir(parents=True)
    write_adapter(pilots / "pilot/checkpoint-10", SHAPES)
    (pilots / "pilot-150").mkdir()
    prompts = pd.DataFrame(
        {"prompt_id": ["a"], "prompt": ["Hello"], "category": [None], "reference": [None]}
    )
    write_to(folder / RUN / "benchmarks/tuning.parquet", prompts, "benchmark")


def write_to(path: Path, frame: pd.DataFrame, schema: str, **metadata: Any) -> None:
    """A table as the library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(frame, path, schema, metadata)


def direction(
    name: str, says: str, spoil: Callable[[Path], object], pilot: str = "pilot", **entry: Any
) -> Case:
    """A direction that fits the pilot but for one thing."""

    def put(folder: Path) -> None:
        place = folder / RUN / "directions/sandbox" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_adapter(place, SHAPES, seed=1)
        spoil(place)

    return Case(
        name, says, {"directions": {name: DEFAULT["directions"]["danger"] | entry}}, put,
        f"{RUN}/trajectories/sandbox/{pilot}/{name}.parquet", "job",
        log=f"measure_trajectory/sandbox/{pilot}/{name}", with_=adapters,
    )  # fmt: skip


def responses(
    name: str,
    says: str,
    along: str,
    shapes: Mapping[str, tuple[int, int]],
    states: str | list[dict[str, Any]],
) -> Case:
    """Responses along a direction of the default, of states given as what their file holds."""
    subject = f"steering/{along}/final"
    place = f"{RUN}/evaluations/sandbox/{subject}"

    def put(folder: Path) -> None:
        adapter = folder / RUN / "directions/sandbox" / along
        adapter.parent.mkdir(parents=True, exist_ok=True)
        write_adapter(adapter, shapes)
        file = folder / place / "states/0.json"
        file.parent.mkdir(parents=True)
        file.write_text(states if isinstance(states, str) else json.dumps({"states": states}))

    return Case(
        name, says, {}, put, f"{place}/tuning/responses/0.parquet", "job",
        log=f"generate_responses/sandbox/{subject}/tuning/0", with_=adapters,
    )  # fmt: skip


def in_directions(name: str) -> str:
    return f"{RUN}/directions/sandbox/{name}"


NOT_FITTING = {
    "name": "alpha-0.1", "model": f"{RUN}/models/sandbox", "adapter": in_directions("danger"),
    "multiplier": 0.1, "origin": {"alpha": 0.1},
}  # fmt: skip
ADAPTERS = [
    direction(
        "no-adapter-config",
        f"DataError: {in_directions('no-adapter-config')}{ANYTHING}{CONFIG}{ANYTHING}; {AGAIN}",
        lambda place: (place / CONFIG).unlink(),
    ),
    direction(
        "adapter-config-cut-short",
        f"DataError: {in_directions('adapter-config-cut-short')}{ANYTHING}; {AGAIN}",
        lambda place: cut_short(place / CONFIG),
    ),
    direction(
        "no-rank",
        f"DataError: {in_directions('no-rank')}{ANYTHING}'r'{ANYTHING}; {AGAIN}",
        lambda place: with_settings(place / CONFIG, r=None),
    ),
    direction(
        "adapter-weights-cut-short",
        f"DataError: {in_directions('adapter-weights-cut-short')}{ANYTHING}(Error while "
        f"deserializing header: incomplete metadata, file not fully covered); {AGAIN}",
        lambda place: cut_short(place / WEIGHTS),
    ),
    direction(
        "half-of-a-module",
        f"DataError: {in_directions('half-of-a-module')}{ANYTHING}{V_PROJ}.lora_B{ANYTHING}; "
        f"{AGAIN}",
        lambda place: change_tensors(place / WEIGHTS, lambda t: t.pop(LORA.format(V_PROJ, "B"))),
    ),
    direction(
        "no-numbers",
        f"DataError: {in_directions('no-numbers')}{ANYTHING}finite{ANYTHING}; {AGAIN}",
        lambda place: change_tensors(
            place / WEIGHTS, lambda t: t[LORA.format(V_PROJ, "A")].fill_(float("nan"))
        ),
    ),
    direction(
        "no-drift",
        f"DataError: {in_directions('no-drift')}{ANYTHING}zero{ANYTHING}; {ANYTHING}",
        lambda place: change_tensors(
            place / WEIGHTS, lambda t: [weight.zero_() for weight in t.values()]
        ),
    ),
    direction(
        "of-fewer-modules",
        f"ShapeMismatch: {ANYTHING}{in_directions('of-fewer-modules')}{ANYTHING}{V_PROJ}: the "
        f"drift is (8, 16), the direction None{ANYTHING}; {ANYTHING}",
        lambda place: change_tensors(
            place / WEIGHTS, lambda t: [t.pop(LORA.format(V_PROJ, part)) for part in "AB"]
        ),
    ),
    direction(
        "checkpoint-not-there",
        f"ConfigurationError: {in_directions('checkpoint-not-there')}: checkpoint 25 was not "
        "saved; known: 50",
        lambda place: write_adapter(place / "checkpoint-50", SHAPES),
        checkpoint=25,
    ),
    direction(
        "of-an-earlier-version",
        f"DataError: {in_directions('of-an-earlier-version')}: made by version 1 of "
        f"train_direction, and that stage has version {STAGE_VERSIONS['train_direction']} now: "
        f"what it says may mean something else; {AGAIN}",
        lambda place: (place / "provenance.json").write_text(
            '{"stage": "train_direction", "stage_version": 1}'
        ),
    ),
    direction(
        "provenance-cut-short",
        f"DataError: {in_directions('provenance-cut-short')}: cannot be read ({ANYTHING}); {AGAIN}",
        lambda place: (place / "provenance.json").write_text('{"stage": "train_di'),
    ),
    direction(
        "pilot-without-checkpoints",
        f"DataError: {RUN}/pilots/sandbox/pilot-150: {ANYTHING}checkpoint{ANYTHING}; {AGAIN}",
        nothing,
        pilot="pilot-150",
    ),
    responses(
        "states-cut-short",
        f"DataError: {RUN}/evaluations/sandbox/steering/safety/final/states/0.json: not JSON "
        f"(Unterminated string starting at: line 1 column 12 (char 11)); {AGAIN}",
        "safety",
        SHAPES,
        '{"states": "alpha-',
    ),
    responses(
        "of-another-model",
        f"ShapeMismatch: {ANYTHING}{in_directions('danger')}{ANYTHING}{V_PROJ}: the adapter needs "
        f"a weight (9, 16), the model has (8, 16){ANYTHING}; {ANYTHING}",
        "danger",
        SHAPES | {V_PROJ: (9, 16)},
        [NOT_FITTING],
    ),
]


# Parquet files in results: scores that subsets are made of. Of a case its method has the name.
def ranked(**columns: Any) -> pd.DataFrame:
    """A table of scores of four rows, with some columns in place of its own."""
    return pd.DataFrame(
        {
            "sample_id": list("abcd"), "score": [4.0, 3.0, 2.0, 1.0],
            "rank": pd.array([1, 2, 3, 4], dtype="Int64"),
            "reason": pd.array([None] * 4, dtype="str"), "response_tokens": [5, 5, 5, 5],
        }
        | columns
    )  # fmt: skip


def rows_of(ids: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": list(ids), "prompt": "Hello", "response": "There", "family": None,
            "problem": None,
        }
    )  # fmt: skip


def scored_rows(folder: Path) -> None:
    """The rows that are scored, and rows that are not these."""
    write_to(folder / ROWS, rows_of("abcd"), "dataset")
    write_to(folder / RUN / "data/danger.parquet", rows_of("xy"), "dataset")


def scores_at(name: str, dataset: str = "mixed") -> str:
    return f"{RUN}/scores/sandbox/{dataset}/{name}.parquet"


def scores(name: str, says: str, spoil: Callable[[Path], object], dataset: str = "mixed") -> Case:
    """Scores of four rows, sound but for one thing."""

    def put(folder: Path) -> None:
        path = folder / scores_at(name, dataset)
        write_to(path, ranked(), "scores")
        spoil(path)

    return Case(
        name, says, {"subsets": {"rows": 2}, "methods": {name: {"kind": "length"}}}, put,
        f"{RUN}/subsets/sandbox/{dataset}/{name}/s1.parquet", "job",
        log=f"make_subsets/sandbox/{dataset}/{name}", with_=scored_rows,
    )  # fmt: skip


def holding(frame: pd.DataFrame, **metadata: Any) -> Callable[[Path], object]:
    """A table in place of the sound one, whatever is in it."""
    return lambda path: write_frame(frame, path, {"schema": "scores", **metadata})


def turn_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"a", len("PAR1"))] ^= 1  # in the first page, which has the sample_ids
    path.write_bytes(data)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def no_table(name: str, what: str) -> str:
    return f"DataError: {scores_at(name)}: not a 'scores' table: {what}; {AGAIN}"


NOT_PARQUET = f"not a Parquet file ({ANYTHING}); {AGAIN}"
TABLES = [
    scores(
        "of-no-bytes",
        f"DataError: {scores_at('of-no-bytes')}: the file is empty; {AGAIN}",
        lambda path: path.write_bytes(b""),
    ),
    scores(
        "of-text",
        f"DataError: {scores_at('of-text')}: {NOT_PARQUET}",
        lambda path: path.write_text("sample_id,score\n" * 9),
    ),
    scores(
        "cut-short",
        f"DataError: {scores_at('cut-short')}: {NOT_PARQUET}",
        cut_short,
    ),
    scores(
        "with-a-turned-bit",
        f"DataError: {scores_at('with-a-turned-bit')}: {NOT_PARQUET}",
        turn_a_bit,
    ),
    scores(
        "of-another-table",
        no_table(
            "of-another-table",
            "; ".join(
                [
                    f"column '{name}' is not declared; declared: sample_id, score, rank, reason, "
                    "response_tokens"
                    for name in ("prompt", "response", "family", "problem")
                ]
                + [
                    f"column '{name}' is missing"
                    for name in ("score", "rank", "reason", "response_tokens")
                ]
            ),
        ),
        holding(rows_of("abcd")),
    ),
    scores(
        "without-a-column",
        no_table("without-a-column", "column 'rank' is missing"),
        holding(ranked().drop(columns="rank")),
    ),
    scores(
        "with-scores-as-text",
        no_table("with-scores-as-text", "column 'score' must be float64, got 'str'"),
        holding(ranked(score=["4", "3", "2", "1"])),
    ),
    scores(
        "with-a-row-twice",
        no_table("with-a-row-twice", "sample_id must be unique (first: row 0, 'a')"),
        holding(ranked(sample_id=list("abca"))),
    ),
    scores(
        "with-a-null",
        no_table("with-a-null", "column 'sample_id' holds a null (first: row 2, <...>)"),
        holding(ranked(sample_id=["a", "b", None, "d"])),
    ),
    scores(
        "without-rows",
        f"DataError: {scores_at('without-rows')}: the 'scores' table has no rows; look at the step "
        "that wrote it",
        holding(ranked().head(0)),
    ),
    scores(
        "with-a-rank-twice",
        f"DataError: {scores_at('with-a-rank-twice')}: the ranks of 4 rows are not 1 to 4, each "
        f"once{ANYTHING}; {AGAIN}",
        holding(ranked(rank=pd.array([1, 2, 2, 4], dtype="Int64"))),
    ),
    scores(
        "of-too-few-rows",
        f"DataError: {ANYTHING}{scores_at('of-too-few-rows')}{ANYTHING}windows of size 2 do not "
        f"fit 1 ranked samples; make {ANYTHING}subsets.rows{ANYTHING} 1 or smaller, or score more "
        "samples",
        holding(ranked(rank=pd.array([1, None, None, None], dtype="Int64"))),
    ),
    scores(
        "of-an-earlier-version",
        f"DataError: {scores_at('of-an-earlier-version')}: made by version 0 of score_samples, and "
        f"that stage has version {STAGE_VERSIONS['score_samples']} now: what it says may mean "
        f"something else; {AGAIN}",
        holding(ranked(), stage="score_samples", stage_version=0),
    ),
    scores(
        "that-is-a-folder",
        f"DataError: {scores_at('that-is-a-folder')}: {ANYTHING}folder{ANYTHING}; {AGAIN}",
        become_a_folder,
    ),
    scores(
        "of-other-rows",
        f"DataError: {ANYTHING}{scores_at('of-other-rows', 'danger')}{ANYTHING}a{ANYTHING}"
        f"{RUN}/data/danger.parquet{ANYTHING}; {ANYTHING}",
        nothing,
        "danger",
    ),
]

# The file system. Tests run as root, for whom permissions do not hold.
ROOM = "free room on the disk of results/ and run again"
KEPT = "keep"  # a file without which Snakemake would take its empty folder away


def in_place(path: str) -> Callable[[Path], object]:
    """A file where a folder should be."""

    def put(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()

    return put


def full(path: str) -> Callable[[Path], object]:
    """Fill the disk that is mounted at a folder."""

    def put(folder: Path) -> None:
        with (folder / path / KEPT).open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    return put


def kept_in(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path / KEPT).touch()


def log_is_a_folder(folder: Path) -> None:
    log = folder / RUN / "logs/make_dataset/mixed.log"
    log.mkdir(parents=True)
    (log / KEPT).touch()


def link_to_nothing(folder: Path) -> None:
    (folder / RUN).mkdir(parents=True)
    (folder / RUN / "data").symlink_to("/nowhere/data")


def locked(folder: Path) -> None:
    """As a run that was killed leaves a folder."""
    locks = folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    (locks / "0.output.lock").write_text(f"{ROWS}\n")


FILE_SYSTEM = [
    Case(
        "results-is-a-file",
        f"{ANYTHING}Error: {RUN}/config.yaml: {ANYTHING}Not a directory{ANYTHING}; {ANYTHING}",
        put=in_place("results"),
        found="start",
    ),
    Case(
        "the-run-is-a-file",
        f"{ANYTHING}Error: {RUN}/config.yaml: {ANYTHING}File exists: '{RUN}'{ANYTHING}; {ANYTHING}",
        put=in_place(RUN),
        found="start",
    ),
    Case(
        "the-configuration-is-a-folder",
        f"{ANYTHING}Error: {RUN}/config.yaml: {ANYTHING}Is a directory{ANYTHING}; {ANYTHING}",
        put=lambda folder: (folder / RUN / "config.yaml").mkdir(parents=True),
        found="start",
    ),
    Case(
        "read-only-results",
        f"{ANYTHING}Error: {RUN}/config.yaml: {ANYTHING}Read-only file system{ANYTHING}; run where "
        "results/ can be written",
        disk=("results", "ro,size=64k"),
        found="start",
    ),
    Case(
        "no-room-at-the-start",
        f"{ANYTHING}Error: {RUN}/config.yaml: {ANYTHING}No space left on device{ANYTHING}; {ROOM}",
        put=full("results"),
        disk=("results", "size=16k"),
        found="start",
    ),
    Case(
        "no-room-for-rows",
        f"OSError: {ANYTHING}No space left on device; {ROOM}",
        put=kept_in(f"{RUN}/data"),
        disk=(f"{RUN}/data", "size=16k"),
        found="job",
        log="make_dataset/mixed",
    ),
    Case(
        "no-room-for-logs",
        f"OSError: [Errno 28] No space left on device; {ROOM}",
        put=full(f"{RUN}/logs"),
        disk=(f"{RUN}/logs", "size=16k"),
        found="job",
    ),
    Case(
        "no-room-for-a-model",
        f"{ANYTHING}Error: {ANYTHING}No space left on device{ANYTHING}; {ROOM}",
        {"models": {"mine": {"source": "given", "seed": 1}}},
        lambda folder: (write_model(folder / "given"), kept_in(f"{RUN}/models")(folder)),
        f"{RUN}/models/mine",
        disk=(f"{RUN}/models", "size=16k"),
        found="job",
        log="fetch_model/mine",
    ),
    Case(
        "a-log-is-a-folder",
        f"{ANYTHING}Error: {ANYTHING}{RUN}/logs/make_dataset/mixed.log{ANYTHING}; {ANYTHING}",
        put=log_is_a_folder,
        found="job",
    ),
    Case(
        "link-in-the-place-of-a-folder",
        f"{ANYTHING}Error: {ANYTHING}{RUN}/data{ANYTHING}; {ANYTHING}",
        put=link_to_nothing,
        found="job",
        log="make_dataset/mixed",
    ),
    # Snakemake meets it as it makes room for the job's output.
    Case(
        "file-in-the-place-of-a-folder",
        f"NotADirectoryError: [Errno 20] Not a directory: '{ROWS}' (its traceback is in FOLDER/"
        f".snakemake/log/{ANYTHING}.snakemake.log)",
        put=in_place(f"{RUN}/data"),
        found="snakemake",
    ),
    Case(
        "locked",
        "LockException:\nError: Directory cannot be locked. Please make sure that no other "
        "Snakemake process is trying to create the same files in the following directory:\nFOLDER\n"
        "If you are sure that no other instances of snakemake are running on this directory, the "
        "remaining lock was likely caused by a kill signal or a power loss. It can be removed with "
        "the --unlock argument.",
        put=locked,
        found="snakemake",
    ),
]

KINDS: dict[str, Sequence[Case]] = {
    "configuration": CONFIGURATION, "rows": [*ROW_FILES, *ROW_JOBS], "model": [*MODELS, NO_GUARD],
    "adapter": ADAPTERS, "table": TABLES, "file-system": FILE_SYSTEM,
}  # fmt: skip
CASES = [pytest.param(case, id=f"{kind}-{case.name}") for kind, of in KINDS.items() for case in of]


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file and link in a folder but Snakemake's own and logs, with what is in it."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith((".snakemake", f"{RUN}/logs")):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A file system in memory at a folder; skips the test where there can be none."""
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"there is no program to mount a small disk with: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def run(
    folder: Path, config: Mapping[str, Any] | str | None, targets: Sequence[str], *options: str
) -> Ran:
    """The real command, of a folder in which everything lies."""
    file = folder / "config.yaml"
    if isinstance(config, str):
        file.write_text(config)
    elif config is not None:
        write_config(file, **{"run": "bad", **config})
    put_files(folder)
    before = contents(folder)
    done = snakemake(folder, *targets, "--cores", "1", *options, configfiles=(file,))
    return Ran(folder, before, done.returncode, done.stdout)


def together(cases: Sequence[Case], folder: Path) -> Ran:
    """Cases whose jobs need the same, each with its own job, whatever becomes of the others."""
    assert cases[0].with_ is not None
    cases[0].with_(folder)
    config: dict[str, Any] = {}
    for case in cases:
        case.put(folder)
        assert isinstance(case.config, Mapping)
        config = merged(config, case.config)
    return run(folder, config, [case.target for case in cases], "--keep-going")


def alone(case: Case, folder: Path) -> None:
    """Run a case and check it, while its disk is there."""
    with nullcontext() if case.disk is None else mounted(folder / case.disk[0], case.disk[1]):
        case.put(folder)
        check(case, run(folder, case.config, [case.target]))


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory) -> Iterator[dict[Case, Future]]:
    """What becomes of every case that was asked for; two commands run at a time."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    params = [item.callspec.params["case"] for item in functions if item.path == request.path]
    asked = [case for case in params if isinstance(case, Case)]
    found: dict[Case, Future] = {}
    pool = ThreadPoolExecutor(2)
    try:
        # The longest first.
        for with_ in dict.fromkeys(case.with_ for case in asked if case.with_ is not None):
            cases = [case for case in asked if case.with_ is with_]
            ran = pool.submit(together, cases, tmp_path_factory.mktemp("together"))
            found |= dict.fromkeys(cases, ran)
        for case in asked:
            if case.with_ is None:
                found[case] = pool.submit(alone, case, tmp_path_factory.mktemp("alone"))
        yield found
    finally:
        pool.shutdown(cancel_futures=True)


def pattern_of(message: str, folder: Path) -> str:
    """A message as a regular expression of whole lines."""
    parts = message.replace("FOLDER", str(folder)).split(ANYTHING)
    return "^" + ".*".join(map(re.escape, parts)) + "$"


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_one_message_and_nothing_half_written(case: Case, outcomes):
    ran = outcomes[case].result()
    if ran is not None:
        check(case, ran)


def check(case: Case, ran: Ran) -> None:
    assert ran.status != 0, ran.output
    message = pattern_of(case.says, ran.folder)
    assert len(re.findall(message, ran.output, re.MULTILINE)) == 1, ran.output

    if case.found == "before":
        first, _, rest = ran.output.partition("\n")
        assert first.startswith(PROFILE)
        assert re.fullmatch(message, rest.removesuffix("\n")), ran.output
    assert "Traceback" not in ran.output, ran.output
    assert not re.search(r'^ +File "', ran.output, re.MULTILINE), ran.output
    if case.found == "start":
        assert "FAILED" not in ran.output, ran.output
    if case.found == "job":
        failed = rf"^Error in rule \w+:\n(    .*\n)*    output: .*{re.escape(case.target)}"
        assert re.search(failed, full_log(ran.folder), re.MULTILINE), ran.output
        assert re.search(r"^FAILED ", ran.output, re.MULTILINE), ran.output
    if case.log is not None:
        logged = (ran.folder / RUN / "logs" / f"{case.log}.log").read_text()
        assert "Traceback (most recent call last)" in logged
        if case.with_ is not None:  # it is this job's message, and no other's
            assert re.search(message.removeprefix("^"), logged, re.MULTILINE), logged

    after = contents(ran.folder)
    assert {name: after.get(name) for name in ran.before} == ran.before
    assert not list((ran.folder / "results").rglob("*.tmp"))
    # A file that is in a folder's place has nothing below.
    target = ran.folder / case.target
    assert not os.path.lexists(target)
    if case.with_ is None:
        assert after.keys() - ran.before.keys() <= {f"{RUN}/config.yaml"}
