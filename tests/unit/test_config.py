import itertools
import json
import math
import os
import re
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from conftest import put_direction, with_own
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from sqsd import validation
from sqsd.config import (
    check_layout,
    count_rows,
    expanded,
    for_model,
    merged,
    read_default,
    resolve,
    rows_at_once,
    training_steps,
)
from sqsd.errors import ConfigurationError, DataError
from sqsd.sources import load_dataset
from sqsd.validation import check_keys, options_of, validate_config

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PRESETS = sorted((ROOT / "config/presets").glob("*.yaml"))


def changed(text: str = "", *without: str) -> dict:
    """The default with YAML laid over it, and without the keys at dotted paths."""
    defaults = deepcopy(DEFAULT)
    for path in without:
        *parents, last = path.split(".")
        place = defaults
        for key in parents:
            place = place[key]
        del place[last]
    return resolve(defaults, with_own(yaml.safe_load(text) or {}))


def problems(config: dict) -> list[str]:
    """Every problem of a configuration; [] where it is valid."""
    try:
        validate_config(config, SCHEMA)
    except ConfigurationError as error:
        first, *rest = str(error).split("\n  ")
        assert first == f"{len(rest)} problem(s) in the configuration:"
        return rest
    return []


LEAVES = st.none() | st.booleans() | st.integers() | st.text("ab{}0", max_size=4)
TREES = st.recursive(
    LEAVES,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text("abc", max_size=2), below, max_size=3)
    ),
    max_leaves=12,
)
BRANCHES = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def paths_of(tree: dict, above: tuple = ()) -> dict:
    """Every value that is no dictionary, by its path."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= paths_of(value, (*above, key))
        else:
            found[*above, key] = value
    return found


def test_dictionaries_are_merged_and_everything_else_is_replaced():
    under = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": [1, 2], "g": {"h": 4}, "i": 5}
    over = {"a": {"b": 6, "c": {"e": 7}}, "f": [8], "g": 9, "i": {"j": 10}, "k": None}
    assert merged(under, over) == {
        "a": {"b": 6, "c": {"d": 2, "e": 7}}, "f": [8], "g": 9, "i": {"j": 10}, "k": None,
    }  # fmt: skip


@given(BRANCHES, BRANCHES)
def test_merging_keeps_what_is_given_and_changes_neither_side(under, over):
    before = deepcopy((under, over))
    both = merged(under, over)
    assert (under, over) == before
    assert merged(under, {}) == under and merged({}, over) == over
    found = paths_of(both)
    assert found.items() >= paths_of(over).items()
    # What stood below and still stands has its value; what is new comes from above.
    for path, value in found.items():
        assert value == paths_of(over).get(path, paths_of(under).get(path))


def test_for_model_lays_over_what_per_model_says_of_that_model_alone():
    entry = {
        "data": "rows", "training": {"epochs": 1, "schedule": "linear"},
        "per_model": {"big": {"data": "more", "training": {"epochs": 2}}, "odd": {"data": "odd"}},
    }  # fmt: skip
    before = deepcopy(entry)
    plain = {"data": "rows", "training": {"epochs": 1, "schedule": "linear"}}
    assert for_model(entry, "small") == for_model(entry, "") == for_model(plain, "big") == plain
    assert for_model(entry, "big") == {
        "data": "more", "training": {"epochs": 2, "schedule": "linear"},
    }  # fmt: skip
    assert for_model(entry, "odd") == plain | {"data": "odd"}
    assert entry == before


def test_what_is_given_lies_over_the_defaults_and_neither_changes():
    defaults = {"run": "a", "seeds": [1], "models": {"m": {"seed": 1, "source": "sandbox"}}}
    over = {"run": "b-{x}", "models": {"n-{x}": {"seed": "{x}"}}, "axes": {"x": [2, 3]}}
    # The text of `run` has an axis that nothing above it binds.
    before = deepcopy((defaults, over))
    with pytest.raises(ConfigurationError, match=r"'b-\{x\}': no key or item of a list above it"):
        resolve(defaults, over)
    assert (defaults, over) == before
    assert resolve(defaults, over | {"run": "b", "seeds": []}) == {
        "run": "b", "seeds": [],
        "models": {"m": {"seed": 1, "source": "sandbox"}, "n-2": {"seed": 2}, "n-3": {"seed": 3}},
    }  # fmt: skip


def test_axes_of_the_defaults_hold_for_what_is_given_and_are_not_in_the_result():
    defaults = {"axes": {"x": ["a", "b"], "y": [1]}, "models": {"m-{x}": {"seed": 5}}}
    given = {"axes": {"x": ["c"]}, "selection": ["m-{x}-{y}"]}
    assert resolve(defaults, given) == {"models": {"m-c": {"seed": 5}}, "selection": ["m-c-1"]}


AXES = {"seed": [11, 12], "size": ["s", "l"]}
WRITTEN_OUT = {
    "a key, and what lies below it": (
        {"m-{seed}": {"seed": "{seed}", "deep": {"data": ["rows-{seed}"]}}},
        {
            "m-11": {"seed": 11, "deep": {"data": ["rows-11"]}},
            "m-12": {"seed": 12, "deep": {"data": ["rows-12"]}},
        },
    ),
    "items of a list, in order, among others": (
        ["x", "e-{seed}", 3, "y"],
        ["x", "e-11", "e-12", 3, "y"],
    ),
    "whole numbers once filled": (
        {"m-{seed}": ["10{seed}", "{seed}", "{seed}0", "v{seed}", "-{seed}", "{seed}.5", "7"]},
        {
            "m-11": [1011, 11, 110, "v11", "-11", "11.5", "7"],
            "m-12": [1012, 12, 120, "v12", "-12", "12.5", "7"],
        },
    ),
    "numbers as items": (["10{seed}"], [1011, 1012]),
    "a grid, the first axis slowest": (
        {"{size}-{seed}": "{seed}{size}"},
        {"s-11": "11s", "l-11": "11l", "s-12": "12s", "l-12": "12l"},
    ),
    "an axis at one level, another below it": (
        {"m-{seed}": {"runs": ["{seed}-{size}"], "{size}": "{size}{seed}"}},
        {
            "m-11": {"runs": ["11-s", "11-l"], "s": "s11", "l": "l11"},
            "m-12": {"runs": ["12-s", "12-l"], "s": "s12", "l": "l12"},
        },
    ),
    "one axis twice in a text": (["{seed}-{seed}"], ["11-11", "12-12"]),
    "dictionaries in a list": ([{"a-{seed}": "{seed}"}], [{"a-11": 11, "a-12": 12}]),
    "braces that are no axis": ({"{other}": "{}", "{": ["{none}"]}, None),
    "keys that are no text": ({1: "a", 2.5: {2: "b"}}, {"1": "a", "2.5": {"2": "b"}}),
    "values that are no text": ({"a": [1, 2.5, None, True, {}, []]}, None),
}


@pytest.mark.parametrize(("written", "meant"), WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_an_axis_stands_for_each_of_its_values(written, meant):
    found = expanded(written, AXES, {})
    assert found == (written if meant is None else meant)
    # Types too: 1 is True, and 11 is 11.0, where only == is asked.
    assert json.dumps(found) == json.dumps(written if meant is None else meant)


def test_no_number_has_more_than_18_digits_and_none_is_made_of_what_was_not_filled():
    axes = {"n": ["1" * 18, "1" * 19]}
    assert expanded({"a{n}": "{n}"}, axes, {}) == {
        "a" + "1" * 18: int("1" * 18), "a" + "1" * 19: "1" * 19,
    }  # fmt: skip


@given(TREES)
@example({"a": "{x}", "{x}": ["12", {"b": "{"}]})
def test_nothing_changes_without_axes_nor_a_second_time(tree):
    assert expanded(tree, {}, {}) == tree
    axes = {"b": [1, 2]}
    try:
        once = expanded(tree, axes, {})
    except ConfigurationError:
        return
    assert expanded(once, axes, {}) == once


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4, unique=True),
)
def test_two_axes_are_a_grid(numbers, letters):
    found = expanded({"{n}-{a}": {"n": "{n}", "a": "{a}"}}, {"n": numbers, "a": letters}, {})
    assert found == {f"{n}-{a}": {"n": n, "a": a} for n in numbers for a in letters}
    assert list(found) == [f"{n}-{a}" for n in numbers for a in letters]


BAD_AXES = {
    "an axis that is no list": (
        "axes: {seed: 11}",
        r"^1 problem\(s\) in the configuration:\n  axes\.seed: 11 is no list of values$",
    ),
    "a text is no list": ("axes: {seed: '12'}", r"axes\.seed: '12' is no list of values$"),
    "an empty axis": ("axes: {seed: []}", r"axes\.seed: \[\] is no list of values$"),
    "no dictionary": (
        "axes: [seed]",
        r"axes: \['seed'\] is no dictionary; give a list of values by name$",
    ),
    "a repeated value": (
        "axes: {seed: [11, 12, 11, 11]}",
        r"^1 problem.*\n  axes\.seed: 11 is given more than once; keep one of it$",
    ),
    "all of them": (
        "axes: {seed: [1, 1, 2, 2], size: {}}",
        r"^3 problem.*\n  axes\.seed: 1 is .*\n  axes\.seed: 2 is .*\n  axes\.size: \{\} is no",
    ),
    "an axis that nothing above has": (
        "{axes: {seed: [1]}, models: {m: {seed: '10{seed}'}}}",
        r"^'10\{seed\}': no key or item of a list above it has \{seed\}; give it one$",
    ),
    "an axis that only a neighbour has": (
        "{axes: {seed: [1]}, models: {'m-{seed}': {}}, run: 'm-{seed}'}",
        r"^'m-\{seed\}': no key or item of a list above it has \{seed\}; give it one$",
    ),
    "one of two axes": (
        "{axes: {a: [1], b: [2]}, models: {'m-{a}': {seed: '{a}{b}'}}}",
        r"^'\{a\}\{b\}': no key or item of a list above it has \{b\}; give it one$",
    ),
    "a key that becomes one before it": (
        "{axes: {seed: [1, 2]}, models: {m-2: {}, 'm-{seed}': {}}}",
        r"^'m-\{seed\}' becomes 'm-2', which is there already; give every axis that an entry "
        r"varies along in its name$",
    ),
    "two keys that become one": (
        "{axes: {a: [1, 11], b: [11, 1]}, models: {'m{a}{b}': {}}}",
        r"^'m\{a\}\{b\}' becomes 'm111', which is there already; give every axis",
    ),
}


BAD_VALUES = {
    "a list within itself": (
        "run: &x [*x]",
        r"run(\[0\]){50}: nested more than 50 levels deep, or",
    ),
    "a dictionary within itself": ("lora: &x {r: *x}", r"lora(\.r){50}: nested more than 50"),
    "a long integer": (
        "lora: {r: 0x" + "f" * 5000 + "}",
        r"lora\.r: an integer of 20000 bits; allo",
    ),
    "a key": ("lora: {0x" + "f" * 1000 + ": 1}", r"lora: an integer of 4000 bits; allowed: "),
    "in an axis": ("axes: {x: [-0x8000000000000000]}", r"axes\.x\[0\]: an integer of 64 bits"),
    "a surrogate": (
        'tables: {x: {title: "\\ud800"}}',
        r"tables\.x\.title: '\\ud800' is not Unicode;",
    ),
    "a date": ("run: 2020-01-01", r"run: date is no kind of value here; write a text, in quotes"),
    "bytes": (
        "sandbox: {architecture: {x: !!binary aGk=}}",
        r"sandbox\.architecture\.x: bytes is no ",
    ),
    "no dictionary": ("[run, x]", r"\(top level\): list is no dictionary; give values by key"),
}


@pytest.mark.parametrize(("text", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_no_configuration_has_are_named_by_their_place(text, message):
    given = yaml.safe_load(text)
    for defaults, over in ((DEFAULT, given), (given, {})):
        with pytest.raises(ConfigurationError, match=rf"^1 problem\(s\) in .*:\n  {message}"):
            resolve(defaults, over)


@pytest.mark.parametrize(("text", "message"), BAD_AXES.values(), ids=BAD_AXES)
def test_axes_that_mean_nothing(text, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve({"run": "a", "models": {}}, yaml.safe_load(text))


# What a file holds, and each repeated key with its lines.
REPEATED = {
    "an entry of a registry": (
        "methods:\n  larf: {kind: random}\n  other: {}\n  larf:\n    kind: length\n",
        [("methods.larf", 2, "2 and 4")],
    ),
    "a section": ("run: a\nlora: {r: 2}\nsubsets: {}\nlora: {r: 4}\n", [("lora", 2, "2 and 4")]),
    "a key on one line": ("lora: {r: 5, lora_alpha: 3, r: 6}", [("lora.r", 2, "1 and 1")]),
    "three times": ("a: 1\na: 1\n\na: 1\n", [("a", 3, "1 and 2 and 4")]),
    "below a list": ("a:\n- {}\n- b: 1\n  b: 2\n", [("a[1].b", 2, "3 and 4")]),
    "a number and a text that become one name": ("a:\n  1: x\n  '1': y\n", [("a.1", 2, "2 and 3")]),
    "at two levels": (
        "a:\n  b: 1\n  b: 2\na:\n  c: 3\n",
        [("a.b", 2, "2 and 3"), ("a", 2, "1 and 4")],
    ),
    "under an alias, once": ("a: &x {b: 1, b: 2}\nc: *x\nd:\n  <<: *x\n", [("a.b", 2, "1 and 1")]),
    "in what is merged in": ("a:\n  <<: {b: 1,\n       b: 2}\n", [("a.b", 2, "2 and 3")]),
    "beside a merge": ("a: &x {b: 1}\nc:\n  b: 2\n  <<: *x\n  b: 3\n", [("c.b", 2, "3 and 5")]),
    "a quoted <<, which is a key": ("{'<<': 1, '<<': 2}", [("<<", 2, "1 and 1")]),
    "JSON": ('{"a": {"b": 1,\n"c": [2, {"d": "\\/"}],\n"b": 3}}', [("a.b", 2, "1 and 3")]),
    "JSON with tabs": ('{\n\t"a":1,\n\t"a":\t2\n}', [("a", 2, "2 and 3")]),
}


@pytest.mark.parametrize(("text", "found"), REPEATED.values(), ids=REPEATED)
def test_keys_that_a_file_has_more_than_once(tmp_path, text, found):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        check_keys([file])
    assert str(error.value).split("\n  ")[1:] == [
        f"{place}: given {count} times in {file}, lines {lines}; keep one"
        for place, count, lines in found
    ]


def test_repeated_keys_of_every_file_at_once_and_of_one_that_is_given_twice_once(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("a: 1\na: 2\n")
    two.write_text('{"b": 1, "b": 2, "a": 3}')
    with pytest.raises(
        ConfigurationError,
        match=r"^2 problem\(s\) in the configuration:\n  a: given 2 times in .*one\.yaml, lines 1 "
        r"and 2; keep one\n  b: given 2 times in .*two\.json, lines 1 and 1; keep one$",
    ):
        check_keys([one, str(two), str(one)])


ONCE = {
    "nothing": "",
    "one name in two places": "a: {x: 1, y: {x: 2}}\nb: [{x: 1}, {x: 1}]\n",
    "a key that is merged in and given": "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n",
    "two that both are merged in": "a: &x {k: 1}\nb: &y {k: 2}\nc: {<<: [*x, *y]}\n",
    "two merges": "a: &x {k: 1}\nb: &y {l: 2}\nc:\n  <<: *x\n  <<: *y\n",
    "an alias of what it stands in": "a: &x {b: *x}\n",
    "a key of another kind": "{[1, 2]: 3, {a: 1}: 4}",
}


@pytest.mark.parametrize("text", ONCE.values(), ids=ONCE)
def test_keys_that_are_there_once(tmp_path, text):
    (tmp_path / "my.yaml").write_text(text)
    check_keys([tmp_path / "my.yaml"])


UNREADABLE = {
    "cut short": b"run: [x",
    "not UTF-8": b"run: \xff",
    "a control character, which JSON may have": b'{"run": "\x7f"}',
    "a long key, which JSON may have": b'{"' + b"x" * 1100 + b'": 1}',
    "nested too deeply": b"[" * 5000,
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_files_that_are_not_yaml(tmp_path, content):
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    message = r"(?s)my\.yaml: cannot be read as YAML \(.*; correct"
    for read in (lambda: check_keys([file]), lambda: read_default(file)):
        with pytest.raises(ConfigurationError, match=message):
            read()


@pytest.mark.parametrize("value", ["2020-99-99", "!!int x", "!!timestamp x", "!!bool x", "!x y"])
def test_values_that_are_not_of_their_kind_in_a_default(tmp_path, value):
    (tmp_path / "my.yaml").write_text(f"run: {value}")
    with pytest.raises(ConfigurationError, match=r"my\.yaml: cannot be read as YAML \("):
        read_default(tmp_path / "my.yaml")


def test_a_pipe_is_not_read_a_second_time(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_keys([tmp_path / "pipe", tmp_path / "none.yaml"])


def test_no_key_of_the_default_or_of_a_preset_is_there_twice():
    check_keys([ROOT / "config/config.yaml", *PRESETS])


def test_the_default_is_valid():
    assert problems(changed()) == []


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid(preset):
    assert problems(changed(preset.read_text())) == []


def test_the_ten_seeds_written_out_by_hand():
    (path,) = (path for path in PRESETS if path.stem == "sandbox-seeds")
    config = changed(path.read_text())
    seeds = range(11, 21)
    assert config["selection"]["experiments"] == [f"seed-{s}" for s in seeds]
    for s in seeds:
        assert config["experiments"][f"seed-{s}"] == {"model": f"seed-{s}", "dataset": f"mixed-{s}"}
        assert config["models"][f"seed-{s}"] == {"source": "sandbox", "seed": s}
        assert config["datasets"][f"mixed-{s}"]["seed"] == s
        assert config["datasets"][f"pilot-{s}"]["seed"] == 1000 + s
        pilot = for_model(config["pilots"]["pilot"], f"seed-{s}")
        assert pilot["data"] == f"pilot-{s}"


SQSD = "methods.sqsd-danger"
BEST = "sqsd-danger-calibrated"
# What is laid over the default, and the one line that it gets.
TUNED = {
    "source": "tuned", "base": "sandbox", "data": ["pilot", "danger"], "seed": 1,
    "training": DEFAULT["pilots"]["pilot"]["training"],
}  # fmt: skip


def tuned(other: dict | None = None, **values) -> str:
    """A configuration with a tuned model, with these values; other: another model."""
    models = {"mine": TUNED | values} | ({"other": other} if other else {})
    return json.dumps({"models": models})


def apart(**sides: str) -> str:
    """A configuration with a table of two data sets' scores, and an experiment on another model."""
    table = {"title": "T", "kind": "separation", "methods": ["length"], **sides}
    other = {"model": "guard", "dataset": "pilot"}
    return json.dumps({"experiments": {"other": other}, "tables": {"apart": table}})


CASES = {
    # Keys, types and ranges: the schema.
    "unknown key": (
        "gradiens: {}",
        r"\(top level\): 'gradiens' is not a key; known: .*\. Did you mean 'gradients'\?",
    ),
    "unknown keys below": (
        "subsets: {sise: 3, cuont: 4}",
        r"subsets: 'sise' is not a key; known: count, rows; subsets: 'cuont' is not a key; "
        r"known: count, rows\. Did you mean 'count'\?",
    ),
    "wrong type": ("lora: {r: eight}", r"lora\.r: 'eight' is not of type 'integer'"),
    "a truth for a number": ("subsets: {rows: true}", r"subsets\.rows: True is not of type"),
    "rank of the adapter": ("lora: {r: 0}", r"lora\.r: 0 is less than the minimum of 1"),
    "name of a run": ("run: ../up", r"run: '\.\./up' is not a name: at most 100 lower-case"),
    "name of an entry": (
        "methods: {Random_2: {kind: random}}",
        r"methods: 'Random_2' is not a name: .* digits, with hyphens between, as my-run-2",
    ),
    "nothing selected": ("selection: {tables: []}", r"selection\.tables: \[\] "),
    "a table selected twice": (
        "selection: {tables: [table1, table1]}",
        r"selection\.tables: \['table1', 'table1'\] has non-unique elements",
    ),
    "an experiment selected twice": (
        "selection: {experiments: [sandbox, sandbox]}",
        r"selection\.experiments: \['sandbox', 'sandbox'\] has non-unique elements",
    ),
    "a repeated seed": (
        "finetunes: {lora: {seeds: [1, 2, 1]}}",
        r"finetunes\.lora\.seeds: \[1, 2, 1\] has non-unique elements",
    ),
    "alpha out of range": (
        "steering: {alphas: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 9.0]}",
        r"steering\.alphas\[9\]: 9\.0 is greater than the maximum of 4",
    ),
    "pinned alpha out of range": (
        "states: {x: {direction: safety, checkpoint: final, alpha: 7}}",
        r"states\.x\.alpha: 7 is greater than the maximum of 4",
    ),
    "a marked state at an alpha that is not measured": (
        "states: {s: {alpha: 0.35}}",
        r"tables\.figure5\.states\[0\]: 's' is at alpha 0\.35, which no curve has: it is not in "
        r"steering\.alphas \(model 'sandbox'\); add it there, or leave the state out",
    ),
    "rank below one": (
        "states: {d-danger: {rank: 0}}",
        r"states\.d-danger\.rank: 0 is less than the minimum of 1",
    ),
    "least that is false": ("states: {d-danger-insensitive: {least: false}}", r".*True was expect"),
    "token budget in words": (
        "gradients: {max_tokens_per_batch: all}",
        r"gradients\.max_tokens_per_batch: 'all' does not match '\^auto\$'",
    ),
    "token budget": (
        "gradients: {max_tokens_per_batch: 0}",
        r"gradients\.max_tokens_per_batch: 0 is less than the minimum of 1",
    ),
    "tuning": (
        "finetunes: {lora: {tuning: none}}",
        r"finetunes\.lora\.tuning: 'none' is not one of \['lora', 'full'\]",
    ),
    "measure": (
        "tables: {table1: {measure: score}}",
        r"tables\.table1\.measure: 'score' is not one of \['asr', 'asr_by_score', 'safety_score'\]",
    ),
    "resource": (
        "resources: {train: {mem_mb: 2 GB}}",
        r"resources\.train\.mem_mb: '2 GB' is not of type 'integer'",
    ),
    # per_model.
    "per_model of an unknown model": (
        "pilots: {pilot: {per_model: {sandbx: {save_steps: 5}}}}",
        r"pilots\.pilot\.per_model: 'sandbx' is not a model; known: cost, guard, sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "per_model of a section": (
        "steering: {per_model: {x: {alphas: [0.0]}}}",
        r"steering\.per_model: 'x' is not a model; known: cost, guard, sandbox",
    ),
    "a value that is wrong for a model": (
        "resources: {train: {per_model: {sandbox: {gpu: -1}}}}",
        r"resources\.train\.gpu: -1 is less than the minimum of 0 "
        r"\(with resources\.train\.per_model\.sandbox\)",
    ),
    "a key that is wrong for a model": (
        "directions: {danger: {per_model: {sandbox: {saev_steps: 5}}}}",
        r"directions\.danger: 'saev_steps' is not a key; .*Did you mean 'save_steps'\? "
        r"\(with directions\.danger\.per_model\.sandbox\)",
    ),
    "beta for a model": (
        "directions: {safety: {per_model: {sandbox: {objective: sft, data: danger}}}}",
        r"directions\.safety\.per_model\.sandbox\.training: 'beta' means nothing for sft",
    ),
    "data for a model": (
        "directions: {safety: {per_model: {sandbox: {data: danger}}}}",
        r"directions\.safety\.per_model\.sandbox\.data: 'danger' is not a set of preferences; "
        r"known: safety",
    ),
    "steps for a model": (
        "pilots: {pilot: {per_model: {sandbox: {save_steps: 151}}}}",
        r"pilots\.pilot\.per_model\.sandbox\.save_steps: 151 is beyond the last step; "
        r"allowed: 1 to 150",
    ),
    "micro batch for a model": (
        "finetunes: {lora: {per_model: {sandbox: {training: {micro_batch_size: 3}}}}}",
        r"finetunes\.lora\.per_model\.sandbox\.training\.micro_batch_size: 3 does not divide "
        r"batch_size=8",
    ),
    "a batch that the GPUs of a full fine-tune cannot share": (
        "{finetunes: {lora: {tuning: full}}, resources: {train: {gpu: 3}}}",
        r"finetunes\.lora\.training: batch_size=8 cannot be shared by 3 GPUs; give a multiple of "
        r"3, or another `gpu` under `resources\.train` \(of model 'sandbox'\)$",
    ),
    "parts of a batch that the GPUs of a full fine-tune share": (
        "{finetunes: {lora: {per_model: {sandbox: {tuning: full, training:"
        " {batch_size: 12, micro_batch_size: 4}}}}},"
        " resources: {train: {per_model: {sandbox: {gpu: 2}}}}}",
        r"finetunes\.lora\.training: micro_batch_size=4 does not divide 6, the rows of "
        r"batch_size=12 that each of 2 GPUs takes; give a divisor of 6 \(of model 'sandbox'\)$",
    ),
    "a kind for a model": (
        "methods: {random: {per_model: {sandbox: {kind: length}}}}",
        r"methods\.random\.per_model\.sandbox: 'kind' cannot differ per model; remove it$",
    ),
    "an option of another kind of method for a model": (
        "methods: {length: {per_model: {sandbox: {layer: last}}}}",
        r"methods\.length\.per_model\.sandbox: 'layer' means nothing for kind 'length', which has "
        r"nothing more; remove it",
    ),
    "a layer of a method for a model": (
        "methods: {larf: {per_model: {sandbox: {layer: lst}}}}",
        r"methods\.larf\.per_model\.sandbox\.layer: 'lst' is not a layer; known: last, .*'last'\?",
    ),
    "a state of a method for a model": (
        "methods: {sqsd-danger: {per_model: {sandbox: {danger: {state: d-dangr}}}}}",
        SQSD + r"\.per_model\.sandbox\.danger\.state: 'd-dangr' is not a state; .*'d-danger'\?",
    ),
    "a method of an unknown model": (
        "methods: {larf: {per_model: {sandbx: {token: -2}}}}",
        r"methods\.larf\.per_model: 'sandbx' is not a model; known: cost, guard, sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "data of an anchor for a model": (
        "anchors: {harmful: {per_model: {sandbox: {data: harmfull-10}}}}",
        r"anchors\.harmful\.per_model\.sandbox\.data: 'harmfull-10' is not a data set; .*"
        r"'harmful-10'\?",
    ),
    "no token of an anchor for a model": (
        "anchors: {harmful: {per_model: {sandbox: {first_tokens: 0}}}}",
        r"anchors\.harmful\.first_tokens: 0 is not a number of tokens, or null for all "
        r"\(with anchors\.harmful\.per_model\.sandbox\)",
    ),
    "more cosines than anchors of a model": (
        "{methods: {bi-anchor-reps: {per_model: {sandbox: {most: 11}}}},"
        " tables: {ranking: {methods: [bi-anchor-reps]}}}",
        r"methods\.bi-anchor-reps\.per_model\.sandbox\.most: 11 is more than the 10 rows of "
        r"datasets\.harmful-10; at most 10",
    ),
    "a way too many for a model": (
        "states: {s: {per_model: {sandbox: {rank: 1}}}}",
        r"states\.s\.per_model\.sandbox: gives alpha and rank of alpha, rank, least; give one",
    ),
    "a judge for a model": (
        "evaluation: {per_model: {sandbox: {judges: {asr: x}}}}",
        r"evaluation\.per_model\.sandbox\.judges\.asr: 'x' is not a judge; known: cost, .*sandbox",
    ),
    "a benchmark for a model": (
        "evaluation: {per_model: {sandbox: {benchmarks: {test: x}}}}",
        r"evaluation\.per_model\.sandbox\.benchmarks\.test: 'x' is not a benchmark; known: exact",
    ),
    "a guard for a model": (
        "sensitivity: {per_model: {sandbox: {guard: exat}}}",
        r"sensitivity\.per_model\.sandbox\.guard: 'exat' is not a role of evaluation\.benchmarks; "
        r"known: exact, over-refusal, test, test-2, test-3, tuning\. Did you mean 'exact'\?",
    ),
    "a measure for a model": (
        "{judges: {words: {kind: phrases, phrases: [x]}},"
        " evaluation: {per_model: {sandbox: {judges: {safety_score: words}}}}}",
        r"evaluation\.per_model\.sandbox\.judges\.safety_score: 'words' gives asr, not "
        r"safety_score; judges that give it: sandbox",
    ),
    "parts of a sandbox batch for a model": (
        "sandbox: {per_model: {sandbox: {pretraining: {micro_batch_size: 5}}}}",
        r"sandbox\.per_model\.sandbox\.pretraining\.micro_batch_size: 5 does not divide "
        r"batch_size=16; give a divisor of it",
    ),
    # Kinds and their options.
    "kind of a method": (
        "methods: {random: {kind: randm}}",
        r"methods\.random\.kind: 'randm' is not a kind; known: .*random.*\. Did you mean 'random'",
    ),
    "kind of a judge": (
        "judges: {sandbox: {kind: sandbx}}",
        r"judges\.sandbox\.kind: 'sandbx' is not a kind; known: .*\. Did you mean 'sandbox'\?",
    ),
    "kind of a table": (
        "tables: {table1: {kind: subset}}",
        r"tables\.table1\.kind: 'subset' is not a kind; known: agreement, all-rows, alphas, "
        r"checkpoints, comparison, .*groups, .*ranking, separation, states, steering, subsets, "
        r"token-losses, trajectory, treatments\. Did you mean 'subsets'\?",
    ),
    "option of another kind of method": (
        "methods: {random: {normalised: false}}",
        r"methods\.random: 'normalised' means nothing for kind 'random', which has nothing more; "
        r"remove it",
    ),
    "option that no method has": (
        "methods: {sqsd-danger: {normalized: false}}",
        r"methods\.sqsd-danger: 'normalized' is not a key; .*Did you mean 'normalised'\?",
    ),
    "a score without terms": (
        "methods: {none: {kind: sqsd}}",
        r"methods\.none: neither 'danger' nor 'safety'; give one of them, or both",
    ),
    "a baseline without anchors": (
        "methods: {near: {kind: bi-anchor-reps, layer: last}}",
        r"methods\.near: 'anchors' is missing; kind 'bi-anchor-reps' needs it",
    ),
    "anchors that are no data set": (
        "methods: {bi-anchor-reps: {anchors: harmful-1}}",
        r"methods\.bi-anchor-reps\.anchors: 'harmful-1' is not a data set; .*'harmful-10'\?",
    ),
    "one of a list of anchors": (
        "methods: {bi-anchor-grad: {harmless: [refused, refusd]}}",
        r"methods\.bi-anchor-grad\.harmless\[1\]: 'refusd' is not an anchor; known: harmful, "
        r"refused, refused-more\. Did you mean 'refused'\?",
    ),
    "layer of a method": (
        "methods: {larf: {layer: lst}}",
        r"methods\.larf\.layer: 'lst' is not a layer; known: last, safety-s.*'last'\?",
    ),
    "a token from the beginning": (
        "methods: {larf: {token: 0}}",
        r"methods\.larf\.token: 0 is greater than the maximum of -1",
    ),
    "a similarity that is none": (
        "methods: {larf: {similarity: euclid}}",
        r"methods\.larf\.similarity: 'euclid' is not one of \['dot', 'cosine'\]",
    ),
    "more cosines than anchors": (
        "{methods: {bi-anchor-reps: {most: 11}}, tables: {ranking: {methods: [bi-anchor-reps]}}}",
        r"methods\.bi-anchor-reps\.most: 11 is more than the 10 rows of datasets\.harmful-10; "
        r"at most 10",
    ),
    "anchors of a hub's rows that are not counted": (
        "{methods: {larf: {safe: far}}, tables: {ranking: {methods: [larf]}}, datasets: {far:"
        " {source: 'hub:a/b:c', fields: {instruction: q, response: a}}}}",
        r"datasets\.far: 'rows' is missing; the hub's rows are not counted before a run, and "
        r"methods\.larf needs their number",
    ),
    "a calibrated method without a benchmark": (
        "methods: {best: {kind: calibrated, among: [random, length], groups: test,"
        " finetune: lora}}",
        r"methods\.best: 'benchmark' is missing; kind 'calibrated' needs it",
    ),
    "one of the methods that are chosen among": (
        f"methods: {{{BEST}: {{among: [random, lenght]}}}}",
        rf"methods\.{BEST}\.among\[1\]: 'lenght' is not a method; .*Did you mean 'length'\?",
    ),
    "one method to choose among": (
        f"methods: {{{BEST}: {{among: [random]}}}}",
        rf"methods\.{BEST}\.among: \['random'\] is too short",
    ),
    "a method that is chosen among twice": (
        f"methods: {{{BEST}: {{among: [random, random]}}}}",
        rf"methods\.{BEST}\.among: \['random', 'random'\] has non-unique elements",
    ),
    "a calibrated method that is chosen among": (
        "{methods: {best: {kind: calibrated, among: [random, sqsd-danger-calibrated],"
        " groups: test, finetune: lora, benchmark: test}}}",
        r"methods\.best\.among\[1\]: 'sqsd-danger-calibrated' is calibrated itself; list the "
        r"methods that it chooses among$",
    ),
    "a method that is chosen among by itself": (
        f"methods: {{{BEST}: {{among: [{BEST}, random]}}}}",
        rf"methods\.{BEST}\.among\[0\]: '{BEST}' is calibrated itself; list the methods that",
    ),
    "a calibrated method that is chosen among for a model": (
        f"methods: {{{BEST}: {{per_model: {{sandbox: {{among: [random, {BEST}]}}}}}}}}",
        rf"methods\.{BEST}\.per_model\.sandbox\.among\[1\]: '{BEST}' is calibrated itself; list",
    ),
    "groups of a calibrated method": (
        f"methods: {{{BEST}: {{groups: tunning}}}}",
        rf"methods\.{BEST}\.groups: 'tunning' is not a set of groups; known: test, tuning\. "
        r"Did you mean 'tuning'\?",
    ),
    "fine-tune of a calibrated method": (
        f"methods: {{{BEST}: {{finetune: few-step}}}}",
        rf"methods\.{BEST}\.finetune: 'few-step' is not a fine-tune; known: few-steps, full, .*"
        r"Did you mean 'few-steps'\?",
    ),
    "role of a calibrated method": (
        f"methods: {{{BEST}: {{benchmark: tning}}}}",
        rf"methods\.{BEST}\.benchmark: 'tning' is not a role of evaluation\.benchmarks; known: "
        r"exact, over-refusal, test, test-2, test-3, tuning\. Did you mean 'tuning'\?",
    ),
    "a reading of a method that only a calibrated one chooses": (
        "{methods: {bi-anchor-reps: {most: 11}, sqsd-danger-calibrated: {among: [bi-anchor-reps,"
        " random]}}, tables: {ranking: {methods: [sqsd-danger-calibrated]}}}",
        r"methods\.bi-anchor-reps\.most: 11 is more than the 10 rows of datasets\.harmful-10; "
        r"at most 10",
    ),
    "a state of a method that a calibrated one chooses for a model": (
        "{methods: {odd: {kind: sqsd, danger: {direction: danger, state: odd}},"
        " sqsd-danger-calibrated: {among: [random, length], per_model: {sandbox: {among:"
        " [odd, random]}}}}, states: {odd: {pilot: pilot, step: 15}},"
        " tables: {ranking: {methods: [sqsd-danger-calibrated]}}}",
        r"states\.odd\.step: 15 is no checkpoint; allowed: multiples of ",
    ),
    # Groups.
    "too few groups": (
        "groups: {test: {random_groups: 1, biased_groups: 2}}",
        r"groups\.test: 3 group\(s\) in all; a rank correlation with an interval needs 4; raise "
        r"random_groups or biased_groups$",
    ),
    "groups of more rows than there are": (
        "{groups: {test: {size: 1501}, tuning: {size: 1501}}, selection: {tables: [table11]},"
        " tables: {table11: {methods: [length], against: length}}}",
        r"groups\.test\.size: 1501 is more than the 1500 rows of datasets\.mixed; at most 1500$",
    ),
    "groups of more rows than there are, of a calibrated method": (
        "{groups: {tuning: {size: 1501}}, selection: {tables: [ranking]},"
        f" tables: {{ranking: {{methods: [{BEST}]}}}}}}",
        r"groups\.tuning\.size: 1501 is more than the 1500 rows of datasets\.mixed; at most 1500$",
    ),
    "groups without rows": (
        "groups: {test: {size: 0}}",
        r"groups\.test\.size: 0 is less than the minimum of 1",
    ),
    "more groups than have names": (
        "groups: {test: {biased_groups: 1001}}",
        r"groups\.test\.biased_groups: 1001 is greater than the maximum of 1000",
    ),
    "a share of nothing": (
        "groups: {test: {biased_share: 0}}",
        r"groups\.test\.biased_share: 0 is less than or equal to the minimum of 0",
    ),
    "a key of groups": (
        "groups: {test: {sized: 4}}",
        r"groups\.test: 'sized' is not a key; known: biased_groups, .*Did you mean 'size'\?",
    ),
    "groups of a table": (
        "tables: {table11: {groups: tst}}",
        r"tables\.table11\.groups: 'tst' is not a set of groups; known: test, tuning\. .*'test'\?",
    ),
    "a table of groups against nothing known": (
        "tables: {table11: {methods: [length, sqsd-danger], against: sqsd-dangr}}",
        r"tables\.table11\.against: 'sqsd-dangr' is not a method of the table; known: length, "
        r"sqsd-danger\. Did you mean 'sqsd-danger'\?",
    ),
    "a table of groups against a method it has not": (
        "tables: {table11: {methods: [length, random]}}",
        r"tables\.table11\.against: 'sqsd-danger' is not a method of the table; known: length, "
        r"random$",
    ),
    "a measure of a table of groups": (
        "tables: {table11: {measure: asr}}",
        r"tables\.table11: 'measure' means nothing for kind 'groups', which has methods, groups, "
        r"finetune, benchmark, against, experiments; remove it",
    ),
    "data of an anchor": (
        "anchors: {harmful: {data: harmfull-10}}",
        r"anchors\.harmful\.data: 'harmfull-10' is not a data set; .*'harmful-10'\?",
    ),
    "no token of an anchor": (
        "anchors: {harmful: {first_tokens: 0}}",
        r"anchors\.harmful\.first_tokens: 0 is not a number of tokens, or null for all",
    ),
    "a judge of rows that asks the subject": (
        "methods: {reward-model: {judge: sandbox}}",
        r"methods\.reward-model\.judge: 'sandbox' reads the model that responded, and a data set's "
        r"responses are of none; name a judge with a model of its own",
    ),
    "a judge of rows that gives no score": (
        "{judges: {g: {kind: guard, model: sandbox}}, methods: {reward-model: {judge: g}}}",
        r"methods\.reward-model\.judge: 'g' gives asr, not safety_score; judges that give it: "
        r"sandbox, cost",
    ),
    "a cost model that is a language model": (
        "judges: {cost: {model: sandbox}}",
        r"judges\.cost\.model: 'sandbox' has a language head, not a cost one; models that have it: "
        r"cost",
    ),
    "a guard that is a cost model": (
        "judges: {guard: {model: cost}}",
        r"judges\.guard\.model: 'cost' has a cost head, not a language one; models that have it: "
        r"sandbox, guard",
    ),
    "a guard of the sandbox with a revision": (
        "models: {guard: {revision: main}}",
        r"models\.guard: 'revision' means nothing for source 'sandbox:guard', which has source, s",
    ),
    "a guard's training in parts that do not fit": (
        "sandbox: {guard: {training: {micro_batch_size: 3}}}",
        r"sandbox\.guard\.training\.micro_batch_size: 3 does not divide batch_size=16; give",
    ),
    "an experiment with a cost model": (
        "experiments: {sandbox: {model: cost}}",
        r"experiments\.sandbox\.model: 'cost' has a cost head, not a language one; models that "
        r"have it: sandbox",
    ),
    "a target that is a cost model": (
        "{models: {far: {source: 'hub:a/b', seed: 1, head: cost}},"
        " finetunes: {lora: {model: far}}}",
        r"finetunes\.lora\.model: 'far' has a cost head, not a language one; models that have it: "
        r"sandbox",
    ),
    "a tuned model of a base that there is not": (
        tuned(base="sandbx"),
        r"models\.mine\.base: 'sandbx' is not a model; known: cost, .*Did you mean 'sandbox'\?",
    ),
    "a tuned model of data that there are not": (
        tuned(data=["pilot", "dangr"]),
        r"models\.mine\.data\[1\]: 'dangr' is not a data set; known: .*Did you mean 'danger'\?",
    ),
    "a tuned model of no data": (tuned(data=[]), r"models\.mine\.data: \[\] "),
    "a tuned model of a data set twice": (
        tuned(data=["pilot", "pilot"]),
        r"models\.mine\.data: \['pilot', 'pilot'\] has non-unique elements",
    ),
    "a tuned model with a revision": (
        tuned(revision="main"),
        r"models\.mine: 'revision' means nothing for source 'tuned', which has source, seed, base, "
        r"data, training; remove it",
    ),
    "a tuned model of a cost model": (
        tuned(base="cost"),
        r"models\.mine\.base: 'cost' has a cost head, not a language one; models that have it: "
        r"sandbox, guard, mine",
    ),
    "a tuned model of one that is tuned": (
        tuned(base="other", other=TUNED),
        r"models\.mine\.base: 'other' is tuned itself; allowed: guard, sandbox; tune one of "
        r"them on all the data sets at once",
    ),
    "a tuned model of itself": (
        tuned(base="mine"),
        r"models\.mine\.base: 'mine' is tuned itself; allowed: guard, sandbox; tune one of",
    ),
    "a tuned model's training in parts that do not fit": (
        tuned(training=TUNED["training"] | {"micro_batch_size": 3}),
        r"models\.mine\.training\.micro_batch_size: 3 does not divide batch_size=8; give a divisor",
    ),
    "a tuned model's training by preferences": (
        tuned(training=TUNED["training"] | {"beta": 0.1}),
        r"models\.mine\.training: 'beta' means nothing for sft",
    ),
    "a base of a model that is not tuned": (
        "models: {sandbox: {base: guard}}",
        r"models\.sandbox: 'base' means nothing for source 'sandbox', which has source, seed; remo",
    ),
    "a table of two models' scores": (
        apart(riskier="sandbox", safer="other"),
        r"tables\.apart: 'sandbox' is of model 'sandbox' and 'other' of 'guard', whose scores are "
        r"not comparable; name two experiments of one model",
    ),
    "a table of an experiment beside itself": (
        apart(riskier="other", safer="other"),
        r"tables\.apart: riskier and safer are both 'other'; name two experiments",
    ),
    "a table of an experiment that there is not": (
        apart(riskier="sandbox", safer="othr"),
        r"tables\.apart\.safer: 'othr' is not an experiment; known: other, sandbox\. Did you mean",
    ),
    "a table of one experiment apart from none": (
        apart(riskier="sandbox"),
        r"tables\.apart: 'safer' is missing; kind 'separation' needs it",
    ),
    "a table of fine-tunes on all rows that are not made": (
        "{finetunes: {lora: {all_rows_seeds: []}}, tables: {whole: {title: T, kind: all-rows, "
        "finetune: lora, benchmark: test, measure: asr}}}",
        r"tables\.whole\.finetune: 'lora' trains on no data set's rows together \(model "
        r"'sandbox'\); give it 'all_rows_seeds', a list of seeds",
    ),
    "a table of fine-tunes on all rows by method": (
        "tables: {whole: {title: T, kind: all-rows, finetune: lora, benchmark: test, measure: asr, "
        "methods: [random]}}",
        r"tables\.whole: 'methods' means nothing for kind 'all-rows', which has finetune, "
        r"benchmark, measure, judge, experiments; remove it",
    ),
    "a table of models that has a cost model": (
        "tables: {bare: {title: T, kind: models, models: [sandbox, cost], benchmarks: [test]}}",
        r"tables\.bare\.models\[1\]: 'cost' has a cost head, not a language one; models that have "
        r"it: sandbox, guard",
    ),
    "a table of models on a benchmark that plays no role": (
        "tables: {bare: {title: T, kind: models, models: [sandbox], benchmarks: [seen]}}",
        r"tables\.bare\.benchmarks\[0\]: 'seen' is not a role of evaluation\.benchmarks; known: ",
    ),
    "a layer that a tuned model's base does not have": (
        tuned()[:-1] + ', "experiments": {"sandbox": {"model": "mine"}}, "layers": {"last": '
        '{"layer": 4}}, "tables": {"ranking": {"methods": ["bi-anchor-reps"]}}}',
        r"layers\.last\.layer: 4 is no layer of model 'mine'; allowed: 0 to 3$",
    ),
    "a head of the sandbox": (
        "models: {sandbox: {head: cost}}",
        r"models\.sandbox: 'head' means nothing for source 'sandbox', which has source, seed; remo",
    ),
    # The sandbox's model has three layers.
    "a layer that a method's model does not have": (
        "{layers: {last: {layer: 4}}, tables: {ranking: {methods: [bi-anchor-reps]}}}",
        r"layers\.last\.layer: 4 is no layer of model 'sandbox'; allowed: 0 to 3$",
    ),
    "a search of layers that begins after a model's last": (
        "{layers: {safety-sensitive: {first: 4}}, tables: {ranking: {methods: [larf]}}}",
        r"layers\.safety-sensitive\.first: 4 is no layer of model 'sandbox'; allowed: 1 to 3$",
    ),
    "a search of layers that ends after a model's last": (
        "{layers: {safety-sensitive: {last: 4}}, tables: {ranking: {methods: [larf]}}}",
        r"layers\.safety-sensitive\.last: 4 is no layer of model 'sandbox'; allowed: 1 to 3$",
    ),
    "a search of layers that ends before it begins": (
        "layers: {safety-sensitive: {first: 3, last: 2}}",
        r"layers\.safety-sensitive\.last: 2 is below first=3; give 3 or more, or leave it out for "
        r"the model's last layer$",
    ),
    "a search of layers that ends before it begins for a model": (
        "layers: {safety-sensitive: {last: 2, per_model: {sandbox: {first: 3}}}}",
        r"layers\.safety-sensitive\.per_model\.sandbox\.last: 2 is below first=3; give 3 or more",
    ),
    "the end of a search of a named layer": (
        "layers: {last: {last: 3}}",
        r"layers\.last: 'last' means nothing for a layer that is named, which has layer; remove",
    ),
    "a layer that a model has not, for that model": (
        "{layers: {last: {per_model: {sandbox: {layer: 4}}}},"
        " tables: {ranking: {methods: [bi-anchor-reps]}}}",
        r"layers\.last\.layer: 4 is no layer of model 'sandbox'; allowed: 0 to 3$",
    ),
    "a layer that is no number": (
        "layers: {last: {layer: first}}",
        r"layers\.last\.layer: 'first' is not a layer, 0 \(the embeddings\) or more, or last",
    ),
    "a named layer that is searched": (
        "layers: {last: {first: 3}}",
        r"layers\.last: 'first' means nothing for a layer that is named, which has layer; remove",
    ),
    "a searched layer without factors": (
        "layers: {other: {benchmark: test, judge: phrases, first: 1, max_new_tokens: 9}}",
        r"layers\.other: 'factors' is missing; a layer that is searched needs it",
    ),
    "role of a layer": (
        "layers: {safety-sensitive: {benchmark: tst}}",
        r"layers\.safety-sensitive\.benchmark: 'tst' is not a role of evaluation\.benchmarks; .*"
        r"'test'\?",
    ),
    "judge of a layer": (
        "layers: {safety-sensitive: {judge: phrase}}",
        r"layers\.safety-sensitive\.judge: 'phrase' is not a judge; .*'phrases'\?",
    ),
    "a judge of a layer that reads a model": (
        "layers: {safety-sensitive: {judge: sandbox}}",
        r"layers\.safety-sensitive\.judge: 'sandbox' reads a model, and a search of layers judges "
        r"by texts alone; name a judge of kind phrases",
    ),
    "option of another kind of judge": (
        "judges: {sandbox: {phrases: [x]}}",
        r"judges\.sandbox: 'phrases' means nothing for kind 'sandbox', which has nothing more; "
        r"remove it",
    ),
    "judge without phrases": (
        "judges: {words: {kind: phrases}}",
        r"judges\.words: 'phrases' is missing; kind 'phrases' needs it",
    ),
    "a truth for an opening": (
        "judges: {words: {kind: openings, refusal: no, compliance: 'yes'}}",
        r"judges\.words\.refusal: False is not of type 'string'",
    ),
    "option of a judge of openings": (
        "judges: {words: {kind: openings, refusal: 'no', compliance: 'yes', phrases: ['no']}}",
        r"judges\.words: 'phrases' means nothing for kind 'openings', which has refusal, "
        r"compliance; remove it",
    ),
    "option of another kind of table": (
        "tables: {table4: {benchmark: test}}",
        r"tables\.table4: 'benchmark' means nothing for kind 'alphas', which has directions, "
        r"states; remove it",
    ),
    # States.
    "a pilot's state without a way": (
        "states: {x: {pilot: pilot, direction: danger}}",
        r"states\.x: gives none of step, rank, least; give one",
    ),
    "a pilot's state by two ways": (
        "states: {d-danger: {step: 10, least: true}}",
        r"states\.d-danger: gives step and rank and least of step, rank, least; give one",
    ),
    "a pilot's state at an alpha": (
        "states: {x: {pilot: pilot, alpha: 0.3}}",
        r"states\.x: gives none of step, rank, least; give one",
    ),
    "a pinned step with a direction": (
        "states: {x: {pilot: pilot, step: 10, direction: danger}}",
        r"states\.x: 'direction' means nothing for a checkpoint of a pilot at a step, which has "
        r"pilot, step; remove it",
    ),
    "a searched step without a direction": (
        "states: {x: {pilot: pilot, rank: 1}}",
        r"states\.x: 'direction' is missing; a checkpoint of a pilot by rank needs it",
    ),
    "a searched step with alphas": (
        "states: {d-danger-insensitive: {alphas: [0.1]}}",
        r"states\.d-danger-insensitive: 'alphas' means nothing for a checkpoint of a pilot by "
        r"least, which has pilot, least, direction; remove it",
    ),
    "theta_0 at an alpha": (
        "states: {theta-0: {alpha: 0.3}}",
        r"states\.theta-0: 'alpha' means nothing for theta_0 itself, without an adapter, which has "
        r"unadapted; remove it",
    ),
    "theta_0 of a pilot for a model": (
        "states: {theta-0: {per_model: {sandbox: {pilot: pilot}}}}",
        r"states\.theta-0\.per_model\.sandbox: 'pilot' means nothing for theta_0 itself, without "
        r"an adapter, which has unadapted; remove it",
    ),
    "unadapted that is false": (
        "states: {theta-0: {unadapted: false}}",
        r"states\.theta-0\.unadapted: True was expected",
    ),
    "a steered state without a way": (
        "states: {x: {direction: safety, checkpoint: final}}",
        r"states\.x: gives none of alpha, rank, least; give one",
    ),
    "a steered state by two ways": (
        "states: {s: {rank: 1}}",
        r"states\.s: gives alpha and rank of alpha, rank, least; give one",
    ),
    "a steered state without a direction": (
        "states: {x: {checkpoint: final, alpha: 0.3}}",
        r"states\.x: 'direction' is missing; a steered state at an alpha needs it",
    ),
    "a steered state without a checkpoint": (
        "states: {x: {direction: safety, alpha: 0.3}}",
        r"states\.x: 'checkpoint' is missing; a steered state at an alpha needs it",
    ),
    "a searched steered state without alphas": (
        "states: {x: {direction: safety, checkpoint: final, rank: 1}}",
        r"states\.x: 'alphas' is missing; a steered state by rank needs it",
    ),
    "a pinned alpha with alphas": (
        "states: {s: {alphas: [0.2]}}",
        r"states\.s: 'alphas' means nothing for a steered state at an alpha, which has direction, "
        r"checkpoint, alpha; remove it",
    ),
    "an empty state": ("states: {x: {}}", r"states\.x: gives none of alpha, rank, least; give one"),
    # Names that point nowhere.
    "experiment": (
        "selection: {experiments: [sandbx]}",
        r"selection\.experiments\[0\]: 'sandbx' is not an experiment; known: sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "table": (
        "selection: {tables: [table1, tabel3]}",
        r"selection\.tables\[1\]: 'tabel3' is not a table; known: agreement, .*, table9\. "
        r"Did you mean 'table3'\?",
    ),
    "model": (
        "experiments: {sandbox: {model: sandbux}}",
        r"experiments\.sandbox\.model: 'sandbux' is not a model; known: cost, guard, sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "data set": (
        "experiments: {sandbox: {dataset: mixd}}",
        r"experiments\.sandbox\.dataset: 'mixd' is not a data set; known: danger, harm.*\. "
        r"Did you mean 'mixed'\?",
    ),
    "data of a direction": (
        "directions: {danger: {data: dangr}}",
        r"directions\.danger\.data: 'dangr' is not a data set; .*Did you mean 'danger'\?",
    ),
    "preferences of a direction": (
        "directions: {safety: {data: safty}}",
        r"directions\.safety\.data: 'safty' is not a set of preferences; known: safety\. "
        r"Did you mean 'safety'\?",
    ),
    "data of a pilot": (
        "pilots: {pilot: {data: x}}",
        r"pilots\.pilot\.data: 'x' is not a data set; known: danger, harmful-10, ",
    ),
    # Arms: what a table or a figure has a row or a curve for.
    "a method twice in a table": (
        "tables: {table1: {methods: [random, length, random]}}",
        r"tables\.table1\.methods: \['random', 'length', 'random'\] has non-unique elements",
    ),
    "an experiment twice in a table": (
        "tables: {table1: {experiments: [sandbox, sandbox]}}",
        r"tables\.table1\.experiments: \['sandbox', 'sandbox'\] has non-unique elements",
    ),
    "a curve twice in a figure": (
        "tables: {figure2: {directions: [danger, danger]}}",
        r"tables\.figure2\.directions: \['danger', 'danger'\] has non-unique elements",
    ),
    "a state twice in a table": (
        "tables: {table6: {states: [s, s]}}",
        r"tables\.table6\.states: \['s', 's'\] has non-unique elements",
    ),
    "a judge twice in a table": (
        "tables: {judges: {judges: [cost, cost]}}",
        r"tables\.judges\.judges: \['cost', 'cost'\] has non-unique elements",
    ),
    "a table without methods": (
        "tables: {table1: {methods: []}}",
        r"tables\.table1\.methods: \[\] ",
    ),
    "a figure without curves": (
        "tables: {figure2: {directions: []}}",
        r"tables\.figure2\.directions: \[\] ",
    ),
    "a figure of no experiment": (
        "tables: {figure2: {experiments: []}}",
        r"tables\.figure2\.experiments: \[\] ",
    ),
    "a marked state of another run": (
        "tables: {figure2: {states: [d-danger, s]}}",
        r"tables\.figure2\.states\[1\]: 's' is no state of pilot pilot, which the table has "
        r"curves of; leave it out",
    ),
    "a marked state of a pilot on a direction's curve": (
        "tables: {figure5: {states: [d-danger]}}",
        r"tables\.figure5\.states\[0\]: 'd-danger' is no state of direction danger, safety, which",
    ),
    "theta_0 as a marked state of a pilot": (
        "tables: {figure2: {states: [theta-0]}}",
        r"tables\.figure2\.states\[0\]: 'theta-0' is no state of pilot pilot, which the table has "
        r"curves of; leave it out",
    ),
    "theta_0 as a marked state of a direction": (
        "tables: {figure5: {states: [theta-0]}}",
        r"tables\.figure5\.states\[0\]: 'theta-0' is no state of direction danger, safety, which",
    ),
    "a marked state of another direction": (
        "tables: {figure5: {directions: [danger]}}",
        r"tables\.figure5\.states\[0\]: 's' is no state of direction danger, which the table",
    ),
    "a marked state that is none": (
        "tables: {figure5: {states: [t]}}",
        r"tables\.figure5\.states\[0\]: 't' is not a state; known: ",
    ),
    "a family of architectures": (
        "sandbox: {architecture: {model_type: qwen2}}",
        r"sandbox\.architecture\.model_type: 'qwen2' is not one of \['llama', 'qwen3'\]",
    ),
    "a family without the size of its heads": (
        "sandbox: {per_model: {sandbox: {architecture: {model_type: qwen3}}}}",
        r"sandbox\.architecture: 'head_dim' is missing "
        r"\(with sandbox\.per_model\.sandbox\)",
    ),
    "how states are ranked": (
        "sensitivity: {rank_by: width}",
        r"sensitivity\.rank_by: 'width' is not one of \['value', 'bound'\]",
    ),
    "pilot of a state": (
        "states: {d-danger: {pilot: pilt}}",
        r"states\.d-danger\.pilot: 'pilt' is not a pilot; known: pilot, pilot-1200, .*'pilot'\?",
    ),
    "direction of a state": (
        "states: {s: {direction: safty}}",
        r"states\.s\.direction: 'safty' is not a direction; known: danger, safety\. "
        r"Did you mean 'safety'\?",
    ),
    "direction of a searched checkpoint": (
        "states: {d-danger: {direction: dangr}}",
        r"states\.d-danger\.direction: 'dangr' is not a direction; .*Did you mean 'danger'\?",
    ),
    "state of a method": (
        "methods: {sqsd-danger: {danger: {state: d-dangr}}}",
        SQSD + r"\.danger\.state: 'd-dangr' is not a state; .*\. Did you mean 'd-danger'\?",
    ),
    "direction of a method": (
        "methods: {sqsd-danger: {safety: {direction: saftey}}}",
        SQSD + r"\.safety\.direction: 'saftey' is not a direction; .*Did you mean 'safety'\?",
    ),
    "model of a fine-tune": (
        "finetunes: {lora: {model: sandbix}}",
        r"finetunes\.lora\.model: 'sandbix' is not a model; known: cost, guard, sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "benchmark of a role": (
        "evaluation: {benchmarks: {test: tset}}",
        r"evaluation\.benchmarks\.test: 'tset' is not a benchmark; known: exact, over-ref.*"
        r"Did you mean 'test'\?",
    ),
    "judge of a measure": (
        "evaluation: {judges: {safety_score: sandbax}}",
        r"evaluation\.judges\.safety_score: 'sandbax' is not a judge; known: cost, .*sandbox\. "
        r"Did you mean 'sandbox'\?",
    ),
    "role that states are searched on": (
        "sensitivity: {benchmark: tunning}",
        r"sensitivity\.benchmark: 'tunning' is not a role of evaluation\.benchmarks; known: "
        r"exact, over-refusal, test, test-2, test-3, tuning\. Did you mean 'tuning'\?",
    ),
    "role of the guard": (
        "sensitivity: {guard: exact-match}",
        r"sensitivity\.guard: 'exact-match' is not a role of evaluation\.benchmarks; .*'exact'\?",
    ),
    "experiment of a table": (
        "tables: {table1: {experiments: [sandbox, sandbox2]}}",
        r"tables\.table1\.experiments\[1\]: 'sandbox2' is not an experiment; .*'sandbox'\?",
    ),
    "method of a table": (
        "tables: {table1: {methods: [random, lenght]}}",
        r"tables\.table1\.methods\[1\]: 'lenght' is not a method; known: bi-anchor-grad, .*\. "
        r"Did you mean 'length'\?",
    ),
    "state of a table": (
        "tables: {table6: {states: [s, t]}}",
        r"tables\.table6\.states\[1\]: 't' is not a state; known: d-danger, d-danger-ins",
    ),
    "direction of a table": (
        "tables: {table4: {directions: [safe]}}",
        r"tables\.table4\.directions\[0\]: 'safe' is not a direction; .*'safety'\?",
    ),
    "pilot of a table": (
        "tables: {table5: {pilot: plot}}",
        r"tables\.table5\.pilot: 'plot' is not a pilot; known: pilot, pilot-1200, .*'pilot'\?",
    ),
    "fine-tune of a table": (
        "tables: {table1: {finetune: lorra}}",
        r"tables\.table1\.finetune: 'lorra' is not a fine-tune; known: few-steps, full, lora, .*"
        r"Did you mean 'lora'",
    ),
    "judge of a table": (
        "tables: {table1: {judge: sandbux}}",
        r"tables\.table1\.judge: 'sandbux' is not a judge; known: cost, .*sandbox\. .*'sandbox'\?",
    ),
    "role of a table": (
        "tables: {figure5: {benchmark: tuningg}}",
        r"tables\.figure5\.benchmark: 'tuningg' is not a role of evaluation\.benchmarks; .*"
        r"Did you mean 'tuning'\?",
    ),
    "published numbers that there are none of": (
        "tables: {figure7: {published: figur7}}",
        r"tables\.figure7\.published: 'figur7' is not an entry of config/published\.yaml; known: "
        r"figure2, .*figure7, .*table7-share\. Did you mean 'figure7'\?",
    ),
    "published numbers that have no name": (
        "tables: {table4: {published: 4}}",
        r"tables\.table4\.published: 4 is not the name of an entry of config/published\.yaml, or "
        "null for none",
    ),
    "a group by length that there is none of": (
        "tables: {figure9: {group: short}}",
        r"tables\.figure9\.group: 'short' is not one of \['longest', 'middle', 'shortest'\]",
    ),
    "groups by length of more rows than there are": (
        "{subsets: {rows: 9999}, selection: {tables: [figure9]}}",
        r"subsets\.rows: 9999 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    "losses of more rows than there are": (
        "{subsets: {rows: 9999}, selection: {tables: [figure8]}}",
        r"subsets\.rows: 9999 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    "a judge of lengths that gives no verdicts": (
        "tables: {figure7: {judge: cost}}",
        r"tables\.figure7\.judge: 'cost' gives safety_score, not asr; judges that give it: ",
    ),
    "loss changes of more rows than there are": (
        "{selection: {tables: [figure11]}, tables: {figure11: {rows: 1501}}}",
        r"tables\.figure11\.rows: 1501 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    "loss changes at a state that there is none of": (
        "tables: {figure11: {states: [theta-1]}}",
        r"tables\.figure11\.states\[0\]: 'theta-1' is not a state; .*'theta-0'",
    ),
    "loss changes along a direction that there is none of": (
        "tables: {figure11: {directions: [dangr]}}",
        r"tables\.figure11\.directions\[0\]: 'dangr' is not a direction; .*'danger'",
    ),
    "a step of no length": (
        "tables: {figure11: {alphas: [0.0, 0.1]}}",
        r"tables\.figure11\.alphas\[0\]: 0\.0 is less than or equal to the minimum of 0",
    ),
    "a step twice": (
        "tables: {figure11: {alphas: [0.1, 0.1]}}",
        r"tables\.figure11\.alphas: \[0\.1, 0\.1\] has non-unique elements",
    ),
    "loss changes of no rows": (
        "tables: {figure11: {rows: 0}}",
        r"tables\.figure11\.rows: 0 is less than the minimum of 1",
    ),
    "a measure of lengths": (
        "tables: {figure7: {measure: asr}}",
        r"tables\.figure7: 'measure' means nothing for kind 'lengths', which has methods, "
        r"finetune, benchmark, judge, experiments; remove it",
    ),
    "several fine-tunes of a table, one of which is none": (
        "tables: {table1: {finetune: [lora, lorra]}}",
        r"tables\.table1\.finetune\[1\]: 'lorra' is not a fine-tune; known: .*lora.*'lora'",
    ),
    "the same fine-tune twice": (
        "tables: {table1: {finetune: [lora, lora]}}",
        r"tables\.table1\.finetune: \['lora', 'lora'\] is not a name, or a list of different "
        r"names",
    ),
    "no fine-tune": (
        "tables: {table1: {finetune: []}}",
        r"tables\.table1\.finetune: \[\] is not a name, or a list of different names",
    ),
    "several fine-tunes of a comparison": (
        "tables: {table10: {finetune: [lora]}}",
        r"tables\.table10\.finetune: a list, which only kind 'subsets' takes; give one name",
    ),
    "several pilots, one of which is none": (
        "tables: {figure2: {pilot: [pilot, pilt]}}",
        r"tables\.figure2\.pilot\[1\]: 'pilt' is not a pilot; known: .*pilot.*'pilot'",
    ),
    "several pilots of a table of checkpoints": (
        "tables: {table5: {pilot: [pilot]}}",
        r"tables\.table5\.pilot: a list, which only kind 'trajectory' takes; give one name",
    ),
    "a marked state of none of several pilots": (
        "{tables: {figure2: {pilot: [more, most]}}, pilots: {more: PILOT, most: PILOT}}".replace(
            "PILOT", json.dumps(DEFAULT["pilots"]["pilot"])
        ),
        r"tables\.figure2\.states\[0\]: 'd-danger' is no state of pilot more, most, which the "
        r"table has curves of; leave it out",
    ),
    "experiments of a trajectory": (
        "tables: {figure2: {experiments: [sandbx]}}",
        r"tables\.figure2\.experiments\[0\]: 'sandbx' is not an experiment; .*'sandbox'\?",
    ),
    "a method called as the folder of fine-tunes on all rows": (
        "methods: {all-rows: {kind: length}}",
        r"methods\.all-rows: the name of the folder of fine-tunes on all rows; rename it",
    ),
    "a treatment of a kind that there is not": (
        "treatments: {less: {kind: dorp, share: 0.1}}",
        r"treatments\.less\.kind: 'dorp' is not a kind; known: drop, mix, weights\. .*'drop'\?",
    ),
    "a drop without a share": (
        "treatments: {less: {kind: drop}}",
        r"treatments\.less: 'share' is missing; kind 'drop' needs it",
    ),
    "a drop of rows by a seed": (
        "treatments: {drop-5: {seed: 1}}",
        r"treatments\.drop-5: 'seed' means nothing for kind 'drop', which has share; remove it",
    ),
    "a drop of all rows": (
        "treatments: {drop-5: {share: 1}}",
        r"treatments\.drop-5\.share: 1 is not a share of rows between 0 and 1, as 0\.1 for the",
    ),
    "a mix with a data set that there is not": (
        "treatments: {refusals: {data: refusal}}",
        r"treatments\.refusals\.data: 'refusal' is not a data set; known: .*'refusals'\?",
    ),
    "a treatment called as a window": (
        "treatments: {s1: {kind: weights, seed: 1}}",
        r"treatments\.s1: the name of a folder of fine-tunes on a subset, or on all rows; rename",
    ),
    "a treatment called as the folder of all rows": (
        "treatments: {all: {kind: weights, seed: 1}}",
        r"treatments\.all: the name of a folder of fine-tunes on a subset, or on all rows; rename",
    ),
    "a treatment of a table that there is not": (
        "tables: {dropping: {treatments: [drop-5, drop5]}}",
        r"tables\.dropping\.treatments\[1\]: 'drop5' is not a treatment; known: .*'drop-5'\?",
    ),
    "held-out rows that there are not": (
        "tables: {dropping: {heldout: held}}",
        r"tables\.dropping\.heldout: 'held' is not a data set; known: .*heldout",
    ),
    "exact answers to a role that there is not": (
        "tables: {dropping: {exact: exakt}}",
        r"tables\.dropping\.exact: 'exakt' is not a role of evaluation\.benchmarks; .*'exact'\?",
    ),
    "treated rows that no seed is fine-tuned on": (
        "finetunes: {whole: {all_rows_seeds: []}}",
        r"tables\.dropping\.finetune: 'whole' has no all_rows_seeds \(model 'sandbox'\), which "
        r"treated rows and all of them are fine-tuned on; give it one or more",
    ),
    "a table of treatments of fine-tunes": (
        "tables: {dropping: {finetune: [whole]}}",
        r"tables\.dropping\.finetune: a list, which only kind 'subsets' takes; give one name",
    ),
    "a seed on all rows twice": (
        "finetunes: {lora: {all_rows_seeds: [1, 1]}}",
        r"finetunes\.lora\.all_rows_seeds: \[1, 1\] has non-unique elements",
    ),
    "a comparison with a method that it has not": (
        "tables: {beside: {title: t, kind: comparison, methods: [length, larf], finetune: lora,"
        " benchmark: test, measure: asr, against: random}}",
        r"tables\.beside\.against: 'random' is not a method of the table; known: larf, length",
    ),
    "a comparison of larger subsets than there are rows": (
        "{subsets: {rows: 9999}, selection: {tables: [beside]}, tables: {beside: {title: t,"
        " kind: comparison, methods: [length], finetune: lora, benchmark: test, measure: asr,"
        " against: length}}}",
        r"subsets\.rows: 9999 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    "a comparison with none": (
        "tables: {beside: {title: t, kind: comparison, methods: [length, larf], finetune: lora,"
        " benchmark: test, measure: asr}}",
        r"tables\.beside: 'against' is missing; kind 'comparison' needs it",
    ),
    "a table called as the target of everything": (
        "tables: {all: {title: t, kind: states, states: [s]}}",
        r"tables\.all: 'all' is the target that makes every selected table; rename it",
    ),
    # Measures.
    "a judge that gives no scores": (
        "{judges: {words: {kind: phrases, phrases: ['no']}},"
        " evaluation: {judges: {safety_score: words}}}",
        r"evaluation\.judges\.safety_score: 'words' gives asr, not safety_score; judges that give "
        r"it: sandbox",
    ),
    "a reference of judges that gives no verdicts": (
        "tables: {mine: {title: t, kind: judges, methods: [length], finetune: lora,"
        " benchmark: test,"
        " judges: [guard], reference: cost}}",
        r"tables\.mine\.reference: 'cost' gives safety_score, not asr; judges that give it: ",
    ),
    "a judge of judges": (
        "tables: {mine: {title: t, kind: judges, methods: [length], finetune: lora,"
        " benchmark: test,"
        " judges: [cost, gard], reference: sandbox}}",
        r"tables\.mine\.judges\[1\]: 'gard' is not a judge; .*Did you mean 'guard'\?",
    ),
    "a judge that gives no verdicts": (
        "{judges: {starts: {kind: openings, refusal: 'no', compliance: 'yes'}},"
        " tables: {table1: {judge: starts}}}",
        r"tables\.table1\.judge: 'starts' gives safety_score, not asr; judges that give it: "
        r"sandbox",
    ),
    # Sources.
    "file that does not exist": (
        "datasets: {mine: {source: no/such.jsonl, fields: {a: b}}}",
        r"datasets\.mine\.source: 'no/such\.jsonl' does not exist; allowed: a \.jsonl, \.json, "
        r"\.csv or \.parquet file, hub:owner/name:split, or sandbox:part",
    ),
    "folder for a file": (
        "benchmarks: {mine: {source: docs, fields: {a: b}}}",
        r"benchmarks\.mine\.source: 'docs' is no file; allowed: ",
    ),
    "nonsense of the hub as rows": (
        "datasets: {mine: {source: 'hub:nonsense', fields: {instruction: a, response: b}}}",
        r"datasets\.mine\.source: source 'hub:nonsense' is not a hub data set; allowed: "
        r"hub:owner/name:split, hub:owner/name:subset:split",
    ),
    "nonsense of the hub as preferences": (
        "preferences: {mine: {source: 'hub:a/b', fields: {a: b}}}",
        r"preferences\.mine\.source: source 'hub:a/b' is not a hub data set; allowed: hub:owner",
    ),
    "nonsense of the hub as a benchmark": (
        "benchmarks: {mine: {source: 'hub:a/b:c:d:e', fields: {a: b}}}",
        r"benchmarks\.mine\.source: source 'hub:a/b:c:d:e' is not a hub data set; allowed: hub:o",
    ),
    "rows without a seed": (
        "datasets: {mine: {source: 'hub:a/b:train', fields: {a: b}, rows: 5}}",
        r"datasets\.mine: 'seed' is missing; source 'hub:a/b:train' needs it",
    ),
    "skip without a seed": (
        "datasets: {mine: {source: 'hub:a/b:train', fields: {a: b}, skip: 5}}",
        r"datasets\.mine: 'seed' is missing; source 'hub:a/b:train' needs it",
    ),
    "files of the hub in a subset": (
        "datasets: {mine: {source: 'hub:a/b:en:*.csv', fields: {instruction: a, response: b}}}",
        r"datasets\.mine\.source: source 'hub:a/b:en:\*\.csv' is not a hub data set; allowed: ",
    ),
    "fields of the hub that do not fit": (
        "preferences: {mine: {source: 'hub:a/b:c', fields: {instruction: a, first: b}}}",
        r"preferences\.mine: hub:a/b:c: fields and constants give instruction, first; allowed: "
        r"instruction, chosen, rejected, optionally context; or instruction, first, second, pref",
    ),
    "a constant that is preferred": (
        "preferences: {mine: {source: 'hub:a/b:c', constants: {preferred: '1'},"
        " fields: {instruction: a, first: b, second: c}}}",
        r"preferences\.mine: hub:a/b:c: constants: 'preferred' is not a text that rows can share",
    ),
    "columns that a field is not of": (
        "benchmarks: {mine: {source: 'hub:a/b:*.csv', fields: {prompt: p}, columns: [q]}}",
        r"benchmarks\.mine: hub:a/b:\*\.csv: 'p' is not a column; known: q",
    ),
    "columns that are there twice": (
        "benchmarks: {mine: {source: 'hub:a/b:*.csv', fields: {prompt: p}, columns: [p, p]}}",
        r"benchmarks\.mine\.columns: \['p', 'p'\] has non-unique elements",
    ),
    "columns of no CSV file": (
        "benchmarks: {mine: {source: 'hub:a/b:c', fields: {prompt: p}, columns: [p]}}",
        r"benchmarks\.mine: 'columns' means nothing for source 'hub:a/b:c', which has source, "
        r"fields, constants, where, where_not, rows, skip, seed, revision; remove it",
    ),
    "a number to select rows of a CSV file by": (
        "benchmarks: {mine: {source: 'hub:a/b:c.csv', fields: {prompt: p}, where_not: {k: [1]}}}",
        r"benchmarks\.mine: hub:a/b:c\.csv: where_not: k is 1, and a CSV file holds texts alone; "
        r"give the text in quotes, as it is in the file",
    ),
    "a loss of turns that there are not": (
        "datasets: {mine: {source: 'hub:a/b:c', loss: first}}",
        r"datasets\.mine\.loss: 'first' is not one of \['all', 'last'\]",
    ),
    "a loss of requests": (
        "benchmarks: {mine: {source: 'hub:a/b:c', fields: {prompt: p}, loss: last}}",
        r"benchmarks\.mine: 'loss' means nothing for source 'hub:a/b:c'",
    ),
    "no value to select rows by": (
        "datasets: {mine: {source: 'hub:a/b:c', fields: {instruction: a, response: b},"
        " where: {k: []}}}",
        r"datasets\.mine\.where\.k: \[\] is not a text, a number, true, false or null, or a list "
        r"of different ones",
    ),
    "what is no value to select rows by": (
        "datasets: {mine: {source: 'hub:a/b:c', fields: {instruction: a, response: b},"
        " where_not: {k: [{a: 1}]}}}",
        r"datasets\.mine\.where_not\.k: \[\{'a': 1\}\] is not a text, a number, true, false",
    ),
    "a revision that is no text": (
        "datasets: {mine: {source: 'hub:a/b:c', fields: {instruction: a, response: b},"
        " revision: 12}}",
        r"datasets\.mine\.revision: 12 is not of type 'string'",
    ),
    "part of the sandbox": (
        "datasets: {pilot: {source: 'sandbox:bening'}}",
        r"datasets\.pilot\.source: 'sandbox:bening' is not a part of the sandbox; known: "
        r"sandbox:benign, sandbox:danger, sandbox:refusal\. Did you mean 'sandbox:benign'\?",
    ),
    "part of the sandbox of another registry": (
        "preferences: {safety: {source: 'sandbox:tuning'}}",
        r"preferences\.safety\.source: 'sandbox:tuning' is not a part .*; known: sandbox:safety",
    ),
    "fields of the sandbox": (
        "datasets: {pilot: {fields: {prompt: p}}}",
        r"datasets\.pilot: 'fields' means nothing for source 'sandbox:benign', which has source, "
        r"rows, seed; remove it",
    ),
    "rows of a sandbox benchmark": (
        "benchmarks: {test: {rows: 10}}",
        r"benchmarks\.test: 'rows' means nothing for source 'sandbox:test', which has source, "
        r"seed; remove it",
    ),
    "nonsense of the hub as a model": (
        "models: {big: {source: 'hub:nonsense', seed: 1}}",
        r"models\.big\.source: 'hub:nonsense' is no model of the hub; allowed: sandbox, .*"
        r"hub:owner/name, wheel:package==version:folder/file\.gguf, a \.gguf file, or a folder "
        "with a model",
    ),
    "a part of the hub's data as a model": (
        "models: {big: {source: 'hub:a/b:train', seed: 1}}",
        r"models\.big\.source: 'hub:a/b:train' is no model of the hub; allowed: sandbox, .*hub:o",
    ),
    "model folder": (
        "models: {big: {source: no/such/folder, seed: 1}}",
        r"models\.big\.source: 'no/such/folder' is no folder; allowed: sandbox, .*hub:owner/name, "
        r"wheel:.*, or a folder with a model",
    ),
    "folder without a model": (
        "models: {big: {source: /dev, seed: 1}}",
        r"models\.big\.source: '/dev' has no config\.json; give one written by save_pretrained",
    ),
    "model in a GGUF file": (
        "models: {big: {source: no/such.gguf, seed: 1}}",
        r"models\.big\.source: 'no/such\.gguf' is no file; allowed: sandbox, .*a \.gguf file, or a",
    ),
    "model folder of a name that no disk has": (
        f"models: {{big: {{source: {'x' * 300}, seed: 1}}}}",
        r"models\.big\.source: 'x{300}' is no folder; allowed: sandbox",
    ),
    "name that no disk has": (f"run: {'x' * 101}", r"run: 'x{101}' is not a name: at most"),
    "revision of the sandbox": (
        "models: {sandbox: {revision: main}}",
        r"models\.sandbox: 'revision' means nothing for source 'sandbox', which has source, seed; "
        r"remove it",
    ),
    "checksum of a hub's model": (
        f"models: {{big: {{source: 'hub:a/b', seed: 1, sha256: {'0a' * 32}}}}}",
        r"models\.big: 'sha256' means nothing for source 'hub:a/b', which has source, seed, "
        r"revision, head; remove it",
    ),
    "checksum of a wheel": (
        "models: {big: {source: 'wheel:a==1:b.gguf', seed: 1}}",
        r"models\.big: 'sha256' is missing; source 'wheel:a==1:b\.gguf' needs it",
    ),
    "malformed wheel": (
        f"models: {{big: {{source: 'wheel:a:b.gguf', seed: 1, sha256: {'0a' * 32}}}}}",
        r"models\.big\.source: 'wheel:a:b\.gguf' is no wheel; allowed: sandbox, .*hub:owner/name, "
        r"wheel:package==version:folder/file\.gguf, a \.gguf file, or a folder with a model",
    ),
    # Numbers that the rest rules out. By hand: danger and safety train on 200 rows in batches of
    # 8 over 5 epochs, 125 steps; the pilot on 600 rows over 2 epochs, 150 steps.
    "parts of a pilot's batch": (
        "pilots: {pilot: {training: {micro_batch_size: 3}}}",
        r"pilots\.pilot\.training\.micro_batch_size: 3 does not divide batch_size=8; give a "
        r"divisor of it",
    ),
    "a part larger than the batch": (
        "finetunes: {lora: {training: {micro_batch_size: 16}}}",
        r"finetunes\.lora\.training\.micro_batch_size: 16 does not divide batch_size=8",
    ),
    "parts of a direction's batch": (
        "directions: {danger: {training: {micro_batch_size: 5}}}",
        r"directions\.danger\.training\.micro_batch_size: 5 does not divide batch_size=8",
    ),
    "parts of an alignment's batch": (
        "sandbox: {alignment_training: {micro_batch_size: 5}}",
        r"sandbox\.alignment_training\.micro_batch_size: 5 does not divide batch_size=32",
    ),
    "save steps of a direction": (
        "directions: {safety: {save_steps: 126}}",
        r"directions\.safety\.save_steps: 126 is beyond the last step; allowed: 1 to 125",
    ),
    "save steps of a direction of rows": (
        "directions: {danger: {save_steps: 126}}",
        r"directions\.danger\.save_steps: 126 is beyond the last step; allowed: 1 to 125",
    ),
    "checkpoint between two": (
        "directions: {safety: {checkpoint: 30}}",
        r"directions\.safety\.checkpoint: 30 is no checkpoint; allowed: final, or a multiple of "
        r"save_steps=25 up to 125",
    ),
    "checkpoint beyond the last": (
        "directions: {safety: {checkpoint: 150}}",
        r"directions\.safety\.checkpoint: 150 is no checkpoint; allowed: final, or a multiple of "
        r"save_steps=25 up to 125",
    ),
    "save steps of a pilot": (
        "{pilots: {pilot: {save_steps: 151}}, selection: {tables: [table4]}}",
        r"pilots\.pilot\.save_steps: 151 is beyond the last step; allowed: 1 to 150",
    ),
    # 601 rows are 76 batches of 8, in parts of 2 as well; 1.5 epochs of them 114 steps.
    "save steps with parts of a batch and part of an epoch": (
        "{datasets: {pilot: {rows: 601}}, pilots: {pilot: {save_steps: 115,"
        " training: {epochs: 1.5, micro_batch_size: 2}}}, selection: {tables: [table4]}}",
        r"pilots\.pilot\.save_steps: 115 is beyond the last step; allowed: 1 to 114",
    ),
    "step between checkpoints": (
        "states: {d-danger: {pilot: pilot, step: 15}}",
        r"states\.d-danger\.step: 15 is no checkpoint; allowed: multiples of "
        r"pilots\.pilot\.save_steps=10 up to 150",
        "states.d-danger",
    ),
    "step beyond the last": (
        "states: {d-danger: {pilot: pilot, step: 160}}",
        r"states\.d-danger\.step: 160 is no checkpoint; allowed: multiples of "
        r"pilots\.pilot\.save_steps=10 up to 150",
        "states.d-danger",
    ),
    "checkpoint of a state between two": (
        "states: {s: {checkpoint: 30}}",
        r"states\.s\.checkpoint: 30 is no checkpoint; allowed: final, or a multiple of "
        r"directions\.safety\.save_steps=25",
    ),
    "checkpoint of a state of a model": (
        "states: {s: {per_model: {sandbox: {checkpoint: 30}}}}",
        r"states\.s\.per_model\.sandbox\.checkpoint: 30 is no checkpoint; allowed: final, or a "
        r"multiple of directions\.safety\.save_steps=25",
    ),
    "theta_0 as a state": (
        "states: {s: {alpha: 0.0}}",
        r"states\.s\.alpha: 0 is theta_0, which has no adapter to take updates at; give another",
    ),
    "an alpha at the end of the grid": (
        "{states: {s-insensitive: {alphas: [0.1, 0.8]}}, selection: {tables: [table3]}}",
        r"states\.s-insensitive\.alphas\[1\]: 0\.8 is searched by its neighbours at "
        r"sensitivity\.delta=0\.1, and steering\.alphas lacks 0\.9; add them there, or leave 0\.8 "
        r"out",
    ),
    "an alpha at the beginning of the grid": (
        "{states: {s-insensitive: {alphas: [0.0]}}, selection: {tables: [table3]}}",
        r"states\.s-insensitive\.alphas\[0\]: 0 is searched .* lacks -0\.1; add .* leave 0 out",
    ),
    "an alpha off the grid": (
        "{states: {s-insensitive: {alphas: [0.35]}}, selection: {tables: [table3]}}",
        r"states\.s-insensitive\.alphas\[0\]: 0\.35 is .* lacks 0\.25, 0\.35, 0\.45; add",
    ),
    "alphas at another delta": (
        "{sensitivity: {delta: 0.4}, states: {s-insensitive: {alphas: [0.4, 0.5]}}, "
        "selection: {tables: [table3]}}",
        r"states\.s-insensitive\.alphas\[1\]: 0\.5 is searched by its neighbours at "
        r"sensitivity\.delta=0\.4, and steering\.alphas lacks 0\.9; add them there",
    ),
    "rank above what is searched": (
        "states: {s: {direction: safety, checkpoint: final, rank: 3, alphas: [0.1, 0.2]}}",
        r"states\.s\.rank: 3 is out of range; allowed: 1 to 2",
        "states.s",
    ),
    "two experiments that would write the same files": (
        "{selection: {experiments: [sandbox, again]},"
        " experiments: {again: {model: sandbox, dataset: mixed}}}",
        r"experiments\.again: model and data set are those of 'sandbox', so both would write the "
        r"same files; select one of them",
    ),
    "rows of the hub that jobs are counted by": (
        "{datasets: {mixed: {source: 'hub:a/b:train', fields: {instruction: a, response: b}}}}",
        r"datasets\.mixed: 'rows' is missing; the hub's rows are not counted before a run, and "
        r"experiments\.sandbox needs their number",
        "datasets.mixed",
    ),
    "rows of the hub that checkpoints are counted by": (
        "{datasets: {pilot: {source: 'hub:a/b:train', fields: {instruction: a, response: b}}}}",
        r"datasets\.pilot: 'rows' is missing; the hub's rows are not counted before a run, and "
        r"pilots\.pilot\.data needs their number",
        "datasets.pilot",
    ),
    "windows larger than the data": (
        "subsets: {rows: 1501}",
        r"subsets\.rows: 1501 is more than the 1500 rows of datasets\.mixed; at most 1500",
    ),
    # 10,000 shards of 750 rows each are 7,500,000 rows.
    "more rows than jobs can be planned for": (
        "datasets: {mixed: {rows: 1000000000}}",
        r"datasets\.mixed\.rows: 1000000000 in shards of gradients\.rows_per_shard=750 are more "
        r"than 10000 jobs for each state; at most 7500000 rows, or larger shards",
    ),
    "one row more than jobs can be planned for": (
        "{datasets: {mixed: {rows: 30001}}, gradients: {rows_per_shard: 3}}",
        r"datasets\.mixed\.rows: 30001 in shards of gradients\.rows_per_shard=3 are more than "
        r"10000 jobs for each state; at most 30000 rows, or larger shards",
    ),
    "checks at an alpha of no curve": (
        "trust: {minimum_refusal_rate: 0.5, alpha: 0.35, if_failed: stop}",
        r"trust\.alpha: 0\.35 is compared with 0, and 0\.35 is not in steering\.alphas \(model "
        r"'sandbox'\): 0, 0\.1, 0\.2, 0\.3, 0\.4, 0\.5, 0\.6, 0\.7, 0\.8; add it there, or give "
        r"another$",
    ),
    "checks without the model as it is": (
        "{trust: {minimum_refusal_rate: 0.5, alpha: 0.3, if_failed: stop}, steering: {alphas: "
        "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}, states: {s-insensitive: {alphas: [0.2]}}}",
        r"trust\.alpha: 0\.3 is compared with 0, and 0 is not in steering\.alphas .*: 0\.1, 0\.2, ",
    ),
    "checks against no rate": (
        "trust: {minimum_refusal_rate: 4, alpha: 0.3, if_failed: stop}",
        r"trust\.minimum_refusal_rate: 4 is greater than the maximum of 1",
    ),
    "checks steered nowhere": (
        "trust: {minimum_refusal_rate: 0.5, alpha: 0, if_failed: stop}",
        r"trust\.alpha: 0 is less than or equal to the minimum of 0",
    ),
    "checks that end in neither way": (
        "trust: {minimum_refusal_rate: 0.5, alpha: 0.3, if_failed: go}",
        r"trust\.if_failed: 'go' is not one of \['stop', 'proceed'\]",
    ),
    "checks in part": (
        "trust: {alpha: 0.3, if_failed: stop}",
        r"trust: 'minimum_refusal_rate' is missing",
    ),
    "a direction that is nowhere": (
        "directions: {danger: {source: nowhere}}",
        r"directions\.danger\.source: 'nowhere' has no adapter_config\.json and no "
        r"adapter_model\.safetensors and no training\.json; give a whole folder as it lies in "
        r"results/RUN/directions/MODEL, whose training\.json says which model it is of",
    ),
    "a direction of others for one model": (
        "directions: {danger: {per_model: {sandbox: {source: theirs}}}}",
        r"directions\.danger\.per_model\.sandbox: 'source' cannot differ per model; give each "
        r"model's direction a name of its own",
    ),
    "more anchors than jobs can be planned for": (
        "{datasets: {harmful-10: {rows: 7500001}}, tables: {ranking: {methods: [bi-anchor-reps]}}}",
        r"datasets\.harmful-10\.rows: 7500001 in shards of gradients\.rows_per_shard=750 are more "
        r"than 10000 jobs for each state; at most 7500000 rows, or larger shards",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_wrong_where_and_what_is_allowed(case):
    text, message, *without = case
    with pytest.raises(ConfigurationError, match=rf"(?m)^1 problem\(s\) .*:\n  (?:{message})"):
        validate_config(changed(text, *without), SCHEMA)


def test_a_text_in_place_of_a_list_is_one_name():
    kind, name = problems(changed("tables: {ranking: {methods: lenght}}"))
    assert kind == "tables.ranking.methods: 'lenght' is not of type 'array'"
    assert name.startswith("tables.ranking.methods: 'lenght' is not a method; known: ")
    assert name.endswith("Did you mean 'length'?")


# A problem of each stage of the checks, and what it is told by.
BESIDE = """
envs: 1
judges: {odd: {kind: odd}}
pilots: {odd: {data: odd, save_steps: 10, training: TRAINING}}
benchmarks: {odd: {source: odd.txt, fields: {prompt: a}}}
directions:
  odd: {objective: sft, data: danger, save_steps: 25, checkpoint: 26, training: TRAINING}
""".replace("TRAINING", json.dumps(DEFAULT["pilots"]["pilot"]["training"]))
TOLD = (
    "(top level): 'envs' is not a key", "judges.odd.kind: 'odd' is not a kind",
    "pilots.odd.data: 'odd' is not a data set", "benchmarks.odd.source: 'odd.txt' does not exist",
    "directions.odd.checkpoint: 26 is no checkpoint",
)  # fmt: skip


def places(found: list[str]) -> set[str]:
    return {problem.split(": ")[0] for problem in found}


def test_no_problem_hides_another():
    hidden = []
    missing = {path: ("", "", path) for path in MISSING}
    for name, (wrong, _, *without) in (CASES | missing).items():
        config = changed(wrong, *without)
        together = problems(resolve(config, yaml.safe_load(BESIDE)))
        # By place: there are more names to choose from.
        lost = places(problems(config)) - places(together)
        lost |= {told for told in TOLD if not any(told in problem for problem in together)}
        if lost:
            hidden.append((name, lost))
    assert hidden == []


MISSING = {
    "run": r"\(top level\): 'run' is missing",
    "groups": r"\(top level\): 'groups' is missing",
    "groups.test.seed": r"groups\.test: 'seed' is missing",
    "tables.table11.against": r"tables\.table11: 'against' is missing; kind 'groups' needs it",
    "methods.sqsd-danger-calibrated.among": (
        r"methods\.sqsd-danger-calibrated: 'among' is missing; kind 'calibrated' needs it"
    ),
    "lora.r": r"lora: 'r' is missing",
    "pilots.pilot.data": r"pilots\.pilot: 'data' is missing",
    "anchors.harmful.data": r"anchors\.harmful: 'data' is missing",
    "directions.danger.data": r"directions\.danger: 'data' is missing",
    "evaluation.benchmarks": r"evaluation: 'benchmarks' is missing",
    "evaluation.judges.asr": r"evaluation\.judges: 'asr' is missing",
    "tables.table1.title": r"tables\.table1: 'title' is missing",
    "datasets.pilot.rows": (
        r"datasets\.pilot: 'rows' is missing; source 'sandbox:benign' needs it"
    ),
    "datasets.pilot.seed": (
        r"datasets\.pilot: 'seed' is missing; source 'sandbox:benign' needs it"
    ),
    "benchmarks.test.seed": r"benchmarks\.test: 'seed' is missing; source 'sandbox:test' needs it",
    "directions.safety.training.beta": (r"directions\.safety\.training: 'beta' is missing for dpo"),
    "tables.table1.measure": r"tables\.table1: 'measure' is missing; kind 'subsets' needs it",
    "tables.figure9.group": r"tables\.figure9: 'group' is missing; kind 'token-losses' needs it",
    "tables.figure11.states": r"tables\.figure11: 'states' is missing; kind 'first-order' needs it",
    "tables.table5.pilot": r"tables\.table5: 'pilot' is missing; kind 'checkpoints' needs it",
    "tables.figure2.pilot": r"tables\.figure2: 'pilot' is missing; kind 'trajectory' needs it",
    "tables.figure2.directions": (
        r"tables\.figure2: 'directions' is missing; kind 'trajectory' needs it"
    ),
    "tables.figure5.directions": (
        r"tables\.figure5: 'directions' is missing; kind 'steering' needs it"
    ),
    "tables.table1.methods": r"tables\.table1: 'methods' is missing; kind 'subsets' needs it",
    "tables.ranking.methods": r"tables\.ranking: 'methods' is missing; kind 'ranking' needs it",
}


@pytest.mark.parametrize(("path", "message"), MISSING.items(), ids=MISSING)
def test_what_is_missing_and_who_needs_it(path, message):
    with pytest.raises(ConfigurationError, match=rf"(?m)^1 problem\(s\) .*:\n  {message}$"):
        validate_config(changed("", path), SCHEMA)


def test_beta_means_nothing_for_sft():
    with pytest.raises(
        ConfigurationError, match=r"directions\.danger\.training: 'beta' means nothing for sft$"
    ):
        validate_config(changed("directions: {danger: {training: {beta: 0.1}}}"), SCHEMA)


NUMBERS = {
    "in a dictionary": ("lora: {lora_alpha: .nan}", r"lora\.lora_alpha: nan is no finite number"),
    "in a list": ("steering: {alphas: [0.0, .inf]}", r"steering\.alphas\[1\]: inf is no finite"),
    "at a pinned state": ("states: {s: {alpha: .nan}}", r"states\.s\.alpha: nan is no finite"),
    "below zero": ("sensitivity: {delta: -.inf}", r"sensitivity\.delta: -inf is no finite number"),
    "where anything is allowed": (
        "sandbox: {architecture: {rope_parameters: {rope_theta: .inf}}}",
        r"sandbox\.architecture\.rope_parameters\.rope_theta: inf is no finite number",
    ),
    "for a model": (
        "directions: {danger: {per_model: {sandbox: {training: {learning_rate: .nan}}}}}",
        r"directions\.danger\.per_model\.sandbox\.training\.learning_rate: nan is no finite",
    ),
    "for rows": ("datasets: {mixed: {rows: .inf}}", r"datasets\.mixed\.rows: inf is no finite"),
    "in a list of lists": (
        "sandbox: {architecture: {layers: [1, [2, {a: .nan}]]}}",
        r"sandbox\.architecture\.layers\[1\]\[1\]\.a: nan is no finite number",
    ),
}


@pytest.mark.parametrize(("text", "message"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_that_are_none(text, message):
    with pytest.raises(ConfigurationError, match=rf"(?m)^  {message}"):
        validate_config(changed(text), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "{resources: {train: {gpu: 3}}}",
        "{finetunes: {full: {training: {batch_size: 7}}}, resources: {train: {gpu: 3}}}",
        "{finetunes: {lora: {tuning: full}}, resources: {train: {gpu: 4}, infer: {gpu: 3}}}",
        "{finetunes: {lora: {tuning: full}}, resources: {train: {per_model: {cost: {gpu: 3}}}}}",
    ],
    ids=["adapters", "not asked for", "a batch of 8 for 4", "another model"],
)
def test_gpus_that_share_no_batch_or_share_it_are_no_problem(text):
    assert problems(changed(text)) == []


def test_a_full_fine_tune_of_a_method_has_a_batch_to_share():
    method = f"{{methods: {{{BEST}: {{finetune: full}}}}, selection: {{tables: [own]}},"
    table = f" tables: {{own: {{kind: ranking, title: T., methods: [{BEST}]}}}},"
    (problem,) = problems(changed(f"{method}{table} resources: {{train: {{gpu: 3}}}}}}"))
    assert problem.startswith("finetunes.full.training: batch_size=8 cannot be shared by 3 GPUs")


@pytest.mark.parametrize(
    ("size", "micro", "processes", "rows"),
    [(8, None, 1, 8), (8, None, 2, 4), (8, 8, 2, 4), (8, 2, 2, 2), (12, 6, 4, 3), (12, 1, 4, 1)],
)
def test_rows_that_a_process_takes_at_once(size, micro, processes, rows):
    training = {"batch_size": size} | ({} if micro is None else {"micro_batch_size": micro})
    assert rows_at_once(training, processes) == rows
    assert size % (rows * processes) == 0


def test_every_number_that_is_none_has_its_line():
    found = problems(
        changed("{lora: {lora_alpha: .nan}, subsets: {rows: 0}, steering: {alphas: [.inf, .nan]}}")
    )
    assert {line for line in found if "finite" in line} == {
        "lora.lora_alpha: nan is no finite number",
        "steering.alphas[0]: inf is no finite number",
        "steering.alphas[1]: nan is no finite number",
    }
    assert "subsets.rows: 0 is less than the minimum of 1" in found


def test_all_problems_at_once():
    assert problems(changed("{lora: {r: 0}, evaluation: {batch_size: 0}}")) == [
        "evaluation.batch_size: 0 is less than the minimum of 1",
        "lora.r: 0 is less than the minimum of 1",
    ]
    found = problems(
        changed(
            "{experiments: {sandbox: {model: x}}, methods: {random: {kind: y}, length: {danger:"
            " {direction: danger, state: s}}}, tables: {table4: {pilot: pilot}},"
            " models: {sandbox: {source: 'hub:z'}}, datasets: {pilot: {source: a.txt}}}"
        )
    )
    assert [line.split(": ")[0] for line in found] == [
        "methods.random.kind", "methods.length", "tables.table4", "experiments.sandbox.model",
        "datasets.pilot.source", "models.sandbox.source",
    ]  # fmt: skip
    # Of the schema, of names, of files and of ranges side by side.
    found = problems(
        changed(
            "{lora: {rr: 1}, sensitivity: {floor_fraction: .nan},"
            " datasets: {mixed: {rows: 1000000000}, danger: {source: a.txt}},"
            " models: {sandbox: {source: 'hub:z'}}, methods: {random: {kind: [y]}},"
            " pilots: {pilot: {save_steps: 9999}}, states: {s: {checkpoint: 30}}}"
        )
    )
    assert [line.split(": ")[0] for line in found] == [
        "sensitivity.floor_fraction", "lora", "methods.random.kind", "datasets.danger.source",
        "models.sandbox.source", "pilots.pilot.save_steps", "datasets.mixed.rows",
        "states.s.checkpoint",
    ]  # fmt: skip
    found = problems(
        changed(
            "{subsets: {rows: 9999}, states: {s: {checkpoint: 30}}, finetunes: {lora: {training:"
            " {micro_batch_size: 3}}}, directions: {danger: {checkpoint: 26}},"
            " judges: {words: {kind: phrases, phrases: [x]}}, tables: {table7: {judge: words}}}"
        )
    )
    assert [line.split(": ")[0] for line in found] == [
        "finetunes.lora.training.micro_batch_size", "directions.danger.checkpoint", "subsets.rows",
        "states.s.checkpoint", "tables.table7.judge",
    ]  # fmt: skip


PAIR = {"instruction": "q", "response": "a"}


def rows_file(folder: Path, name: str, count: int) -> str:
    """A file of as many rows that fit every registry."""
    rows = [{"q": f"Why {i}?", "a": "So.", "b": "No."} for i in range(count)]
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def with_sources(**registries) -> dict:
    return resolve(deepcopy(DEFAULT), registries)


def test_a_direction_of_others_stands_in_for_its_training(tmp_path):
    """What the entry says of the training is not read: a recipe's needs no other change."""
    put_direction(tmp_path / "theirs")
    given = {"source": str(tmp_path / "theirs")}
    own = {"lora": {"r": 3, "lora_alpha": 5}, "states": {"s": {"checkpoint": 2}}}
    config = with_sources(directions={"danger": given, "safety": given | {"checkpoint": 2}}, **own)
    assert problems(config) == []
    away = {"data": "gone", "save_steps": 10**6}
    assert problems(resolve(config, {"directions": {"danger": away}})) == []
    lone = {"directions": {"other": given | {"checkpoint": "final"}}}
    assert problems(resolve(config, lone)) == []


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_a_direction_of_others_has_the_rank_of_the_run(tmp_path, key):
    put_direction(tmp_path / "theirs")
    source, lora = str(tmp_path / "theirs"), {"r": 3, "lora_alpha": 5}
    had, needed = lora[key], lora[key] + 1
    given = {"directions": {"danger": {"source": source}}, "lora": lora | {key: needed}}
    assert problems(with_sources(**given)) == [
        f"directions.danger.source: '{source}' has {key}={had}, the run's adapters have "
        f"lora.{key}={needed}; give one with {needed}, or set lora.{key} to {had}"
    ]


def test_a_checkpoint_of_a_direction_of_others_is_there(tmp_path):
    put_direction(tmp_path / "theirs")
    source = str(tmp_path / "theirs")
    given = {"danger": {"source": source, "checkpoint": 25}, "safety": {"source": source}}
    lora = {"r": 3, "lora_alpha": 5}
    config = with_sources(directions=given, lora=lora, states={"s": {"checkpoint": 50}})
    assert problems(config) == [
        f"{place}.checkpoint: '{source}' has no checkpoint-{step}; give final, or the number of "
        "one that is there"
        for place, step in (("directions.danger", 25), ("states.s", 50))
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"r": 3}'])
def test_an_adapter_of_others_that_is_none(tmp_path, text):
    put_direction(tmp_path / "theirs")
    (tmp_path / "theirs/adapter_config.json").write_text(text)
    source = str(tmp_path / "theirs")
    (found,) = problems(with_sources(directions={"danger": {"source": source}}))
    assert found.startswith(f"directions.danger.source: '{source}/adapter_config.json' is none (")
    assert found.endswith("); copy it anew")


def test_a_users_own_files_need_neither_rows_nor_seed(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 160)
    config = with_sources(
        datasets={"mine": {"source": source, "fields": PAIR}},
        preferences={
            "mine": {
                "source": source, "fields": {"instruction": "q", "chosen": "b"},
                "constants": {"rejected": "Sure"},
            }
        },
        benchmarks={"mine": {"source": source, "fields": {"prompt": "q"}}},
        experiments={"sandbox": {"dataset": "mine"}},
        pilots={"pilot": {"data": "mine"}},
        directions={"danger": {"data": "mine"}, "safety": {"data": "mine"}},
        evaluation={"benchmarks": {"tuning": "mine", "test": "mine", "exact": "mine"}},
    )  # fmt: skip
    assert problems(config) == []
    # Its rows are counted: 160 in batches of 8 are 20 steps an epoch, 100 in 5, 40 in 2.
    beyond = {"save_steps": 101}
    found = problems(
        resolve(
            config, {"directions": {"danger": beyond, "safety": beyond}, "subsets": {"rows": 161}}
        )
    )
    assert found == [
        "directions.danger.save_steps: 101 is beyond the last step; allowed: 1 to 100",
        "directions.safety.save_steps: 101 is beyond the last step; allowed: 1 to 100",
        "subsets.rows: 161 is more than the 160 rows of datasets.mine; at most 160",
    ]


def test_a_row_less_than_a_batch_is_a_step_of_its_own(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 201)  # 26 batches of 8, 130 steps in 5 epochs
    config = with_sources(
        datasets={"danger": {"source": source, "fields": PAIR}},
        directions={"danger": {"save_steps": 130, "checkpoint": 130}},
    )
    config["datasets"]["danger"] = {"source": source, "fields": PAIR}
    assert problems(config) == []
    config["directions"]["danger"]["save_steps"] = 131
    assert problems(config) == [
        "directions.danger.save_steps: 131 is beyond the last step; allowed: 1 to 130"
    ]


FILES = {
    "rows.txt": ("a", r"'\.txt' is not a known kind of file; allowed: \.jsonl, \.json, \.csv, "),
    "rows": ("a", r"no suffix is not a known kind of file; allowed: \.jsonl, \.json, \.csv, "),
    "empty.jsonl": ("", r"the file is empty"),
    "text.jsonl": ("{}\nno\n", r"text\.jsonl:2: not JSON \(Expecting value, column 1\)"),
    "torn.parquet": ("PAR1", r"torn\.parquet: not a Parquet file"),
    "columns.csv": ("q,b\n1,2\n", r"columns\.csv: 'a' is not a column; known: b, q"),
    "deep.jsonl": (
        '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}\n",
        r"deep\.jsonl:1: nested too deeply to be read; rows are objects of texts",
    ),
    "deep.json": (
        '[{"q": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}]",
        r"deep\.json: nested too deeply to be read; rows are objects of texts",
    ),
    "digits.jsonl": (
        '{"q": "x", "a": "y"}\n{"q": ' + "9" * 5000 + "}\n",
        r"digits\.jsonl:2: a number that cannot be read \(.*\); give such a number as a text",
    ),
    "digits.json": (
        '[{"q": ' + "9" * 5000 + "}]",
        r"digits\.json: a number that cannot be read \(.*\); give such a number as a text",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), [(k, *v) for k, v in FILES.items()])
def test_a_file_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    specs = {"mine": {"source": str(tmp_path / name), "fields": PAIR}}
    with pytest.raises(
        ConfigurationError, match=rf"^1 problem\(s\) .*:\n  datasets\.mine: .*{message}"
    ):
        validate_config(with_sources(datasets=specs), SCHEMA)


def test_every_file_that_cannot_be_read_at_once(tmp_path):
    for name, (content, _) in FILES.items():
        (tmp_path / name).write_text(content)
    specs = {
        name.lower().replace(".", "-"): {"source": str(tmp_path / name), "fields": PAIR}
        for name in FILES
    }
    config = with_sources(
        datasets=specs,
        preferences={"deep": {"source": str(tmp_path / "deep.json"), "fields": {
            "instruction": "q", "chosen": "a", "rejected": "b"}}},
        benchmarks={"digits": {"source": str(tmp_path / "digits.json"), "fields": {"prompt": "q"}}},
        models={"sandbox": {"source": "hub:nonsense"}},
    )  # fmt: skip
    assert [line.split(": ")[0] for line in problems(config)] == [
        *(f"datasets.{name}" for name in specs),
        "preferences.deep", "benchmarks.digits", "models.sandbox.source",
    ]  # fmt: skip


SCORED = PAIR | {"score": "risk"}
WRONG_SCORES = {
    "no such file": (
        {"source": "no/such.csv"},
        r"\.source: 'no/such\.csv' does not exist; allowed: a \.jsonl, \.json, \.csv or "
        r"\.parquet file$",
    ),
    "a data set of the hub": (
        {"source": "hub:a/b:train"},
        r"\.source: 'hub:a/b:train' does not exist; allowed: a \.jsonl, ",
    ),
    "a column that it has not": (
        {"fields": SCORED | {"score": "rsk"}},
        r": .*scores\.jsonl: 'rsk' is not a column; known: a, q, risk\. Did you mean 'risk'\?$",
    ),
    "no column of scores": (
        {"fields": PAIR},
        r": .*scores\.jsonl: fields and constants give instruction, response; allowed: "
        r"instruction, response, score, optionally context; or messages, score, optionally tools$",
    ),
    "a score that is no number": (
        {"fields": SCORED | {"score": "q"}},
        r": .*scores\.jsonl:1: field q is 'Why\?', no finite number; correct it, or leave",
    ),
    "an option of another kind": (
        {"judge": "cost"},
        r": 'judge' means nothing for kind 'file', which has source, fields; remove it$",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG_SCORES.values(), ids=WRONG_SCORES)
def test_a_file_of_scores_that_cannot_be_read(tmp_path, change, message):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"q": "Why?", "a": "So.", "risk": 0.5}\n')
    method = {"kind": "file", "source": str(path), "fields": SCORED}
    assert problems(with_sources(methods={"theirs": method})) == []
    with pytest.raises(
        ConfigurationError, match=rf"(?m)^1 problem\(s\) .*:\n  methods\.theirs{message}"
    ):
        validate_config(with_sources(methods={"theirs": method | change}), SCHEMA)


def test_a_file_of_scores_for_a_model_and_without_fields(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"q": "Why?", "a": "So.", "risk": 0.5}\n')
    method = {"kind": "file", "source": str(path)}
    other = {"per_model": {"sandbox": {"source": "no/such.csv"}}}
    methods = {"odd": method, "theirs": method | {"fields": SCORED} | other}
    assert problems(with_sources(methods=methods)) == [
        "methods.odd: 'fields' is missing; kind 'file' needs it",
        "methods.theirs.per_model.sandbox.source: 'no/such.csv' does not exist; allowed: a .jsonl, "
        ".json, .csv or .parquet file",
    ]


UNMATCHED = (
    "none of its 1 rows is one of the {} rows of datasets.mine, by prompt and response; its first "
    "row: '{}', 'So.'; the first row there: '{}', 'So.'; correct `fields`, or score the data set "
    "that the file is of"
)


def scored_here(folder: Path, prompt: str, **registries) -> dict:
    """The default with an experiment of two rows of a file, and a method of a file with one."""
    scores = folder / "scores.jsonl"
    scores.write_text(json.dumps({"q": prompt, "a": "So.", "risk": 0.5}) + "\n")
    theirs = {"kind": "file", "source": str(scores), "fields": SCORED}
    return resolve(
        with_sources(
            datasets={"mine": {"source": rows_file(folder, "rows.jsonl", 2), "fields": PAIR}},
            experiments={"sandbox": {"dataset": "mine"}},
            methods={"theirs": theirs},
            groups={"test": {"size": 2}, "tuning": {"size": 2}},
            tables={"ranking": {"methods": ["theirs", "random"]}},
            selection={"tables": ["ranking"], "curations": []},
        ),
        registries,
    )


def test_a_file_of_scores_of_other_rows_than_a_file_s(tmp_path, monkeypatch):
    assert problems(scored_here(tmp_path, "Why  1?")) == []
    expected = f"methods.theirs: {tmp_path}/scores.jsonl: {UNMATCHED}"
    whole = expected.format(2, "Why 2?", "Why 0?")
    assert problems(scored_here(tmp_path, "Why 2?")) == [whole]
    # Read and told once for two tables, and two models, of one data set.
    read = []
    monkeypatch.setattr(
        validation, "load_dataset", lambda spec: read.append(1) or load_dataset(spec)
    )
    twice = {
        "models": {"m": {"source": "sandbox", "seed": 2}},
        "experiments": {"other": {"model": "m", "dataset": "mine"}},
        "selection": {"experiments": ["sandbox", "other"], "tables": ["ranking", "agreement"]},
        "tables": {"agreement": {"methods": ["theirs", "length"]}},
    }
    assert problems(scored_here(tmp_path, "Why 2?", **twice)) == [whole] and read == [1]
    # A row that is not among those that are taken.
    taken = {"datasets": {"mine": {"rows": 1, "seed": 1}}}
    kept = load_dataset(resolve(scored_here(tmp_path, ""), taken)["datasets"]["mine"])["prompt"][0]
    (other,) = {"Why 0?", "Why 1?"} - {kept}
    assert problems(scored_here(tmp_path, kept, **taken)) == []
    assert problems(scored_here(tmp_path, other, **taken)) == [expected.format(1, other, kept)]


@pytest.mark.parametrize(
    ("registries", "count"),
    [
        ({"experiments": {"sandbox": {"dataset": "mixed"}}}, 0),
        ({"tables": {"ranking": {"methods": ["random"]}}}, 0),
        ({"tables": {"ranking": {"methods": [BEST]}}}, 0),
        (
            {
                "tables": {"ranking": {"methods": [BEST]}},
                "methods": {BEST: {"among": ["random", "theirs"]}},
            },
            1,
        ),
        (
            {
                "tables": {"ranking": {"experiments": ["other"]}},
                "experiments": {"other": {"model": "sandbox", "dataset": "mixed"}},
            },
            0,
        ),
    ],
    ids=["the sandbox's rows", "of no table", "nothing chosen", "chosen", "another experiment"],
)
def test_scores_are_looked_up_for_what_is_scored(tmp_path, registries, count):
    assert len(problems(scored_here(tmp_path, "Why 2?", **registries))) == count


def test_the_file_of_scores_of_a_model(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"q": "Why 0?", "a": "So.", "risk": 1}\n')
    per_model = {"methods": {"theirs": {"per_model": {"sandbox": {"source": str(own)}}}}}
    assert problems(scored_here(tmp_path, "Why 2?", **per_model)) == []
    own.write_text('{"q": "Who?", "a": "So.", "risk": 1}\n')
    (found,) = problems(scored_here(tmp_path, "Why 1?", **per_model))
    assert found.startswith(f"methods.theirs: {own}: none of its 1 rows is one of the 2 rows of")


@pytest.mark.parametrize(
    ("drop", "batches", "says"),
    [
        # Of ten rows .04 are none; .3 are three, which leaves seven, less than a batch of eight.
        (0.04, (8,), "0.04 of 10 rows drops 0 and leaves 10; give a share that drops one row at "
         "least, and leaves 8"),
        (0.3, (9, 8), "0.3 of 10 rows drops 3 and leaves 7; give a share that drops one row at "
         "least, and leaves 8"),
        (0.2, (9, 8), None),
    ],
)  # fmt: skip
def test_a_share_that_drops_no_row_or_leaves_no_batch(tmp_path, drop, batches, says):
    config = with_sources(
        datasets={"mine": {"source": rows_file(tmp_path, "rows.jsonl", 10), "fields": PAIR}},
        experiments={"sandbox": {"dataset": "mine"}},
        curations={"safer": {"drop": drop}},
        groups={"test": {"size": 2}, "tuning": {"size": 2}},
        selection={"tables": ["ranking"]},
    )
    for entry, size in zip(config["finetunes"].values(), itertools.cycle(batches)):
        entry["training"]["batch_size"] = size
    place = "curations.safer.drop: "
    found = [problem for problem in problems(config) if problem.startswith(place)]
    assert found == ([f"{place}{says} (datasets.mine)"] if says else [])


def test_a_share_of_rows_of_the_hub_that_the_configuration_counts():
    config = with_sources(
        datasets={"mine": {"source": "hub:a/b:train", "fields": PAIR, "rows": 5000, "seed": 1}},
        experiments={"sandbox": {"dataset": "mine"}},
        curations={"safer": {"drop": 0.9998}},
    )
    assert problems(config) == [
        "curations.safer.drop: 0.9998 of 5000 rows drops 4999 and leaves 1; give a share that "
        "drops one row at least, and leaves 8 (datasets.mine)"
    ]


def test_a_benchmark_with_repeated_prompts(tmp_path):
    path = tmp_path / "asks.jsonl"
    path.write_text('{"p": "Why?"}\n{"p": "Who?"}\n{"p": "Why?"}\n')
    spec = {"source": str(path), "fields": {"prompt": "p"}}
    assert problems(with_sources(benchmarks={"mine": spec})) == [
        f"benchmarks.mine: {path}:3: the prompt of {path}:1 again, 'Why?'; 1 row(s) repeat one; "
        "keep each prompt once"
    ]


OF_OWN_ROWS = {"where": {"q": "Why 1?"}, "where_not": {"q": "x"}, "columns": ["q"], "revision": "a"}


@pytest.mark.parametrize("key", OF_OWN_ROWS)
@pytest.mark.parametrize(
    ("registry", "name"), [("datasets", "pilot"), ("preferences", "safety"), ("benchmarks", "test")]
)
def test_the_sandbox_has_no_keys_of_own_rows(registry, name, key):
    (found,) = problems(with_sources(**{registry: {name: {key: OF_OWN_ROWS[key]}}}))
    assert re.fullmatch(
        rf"{registry}\.{name}: '{key}' means nothing for source 'sandbox:\w+', which has source, "
        "(rows, )?seed; remove it",
        found,
    )


@pytest.mark.parametrize("key", ["columns", "revision"])
def test_keys_that_mean_nothing_for_a_file(tmp_path, key):
    source = rows_file(tmp_path, "rows.jsonl", 3)
    spec = {"source": source, "fields": PAIR, key: OF_OWN_ROWS[key]}
    assert problems(with_sources(datasets={"mine": spec})) == [
        f"datasets.mine: '{key}' means nothing for source '{source}', which has source, fields, "
        "constants, where, where_not, rows, skip, seed, loss; remove it"
    ]


def test_sources_with_every_key_of_own_rows(tmp_path):
    path = tmp_path / "asks.csv"
    path.write_text("Why?,yes\nWho?,no\nWhy?,no\n")
    asks = {"source": str(path), "fields": {"prompt": "p"}, "columns": ["p", "k"]}
    compared = {"instruction": "a", "first": "b", "second": "c", "preferred": "d"}
    typed = {"a": [1, 2.5, None], "b": True}
    hub = {"source": "hub:a/b:c", "revision": "v1", "where": typed, "where_not": {"c": "x"}}
    config = with_sources(
        datasets={"mine": hub | {"fields": PAIR}},
        preferences={"mine": hub | {"fields": compared, "rows": 3, "seed": 1}},
        benchmarks={
            "mine": asks | {"where_not": {"p": "Who?"}, "where": {"k": "no"}},
            "hub": asks | {"source": "hub:a/b:part_*.csv", "revision": "v1"},
        },
    )
    assert problems(config) == []
    assert count_rows("benchmarks", config["benchmarks"]["mine"]) == 1


def test_rows_that_a_file_selects_none_of(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 2)
    spec = {"source": source, "fields": PAIR}
    config = with_sources(
        datasets={"a": spec | {"where": {"q": 1}}, "b": spec | {"where_not": {"r": "x"}}}
    )
    assert problems(config) == [
        f'datasets.a: {source}: no row of 2 is left by where; q holds "Why 0?", "Why 1?"',
        f"datasets.b: {source}: 'r' is not a column; known: a, b, q",
    ]


def test_preferences_of_a_file_that_cannot_be_used(tmp_path):
    path = tmp_path / "compared.jsonl"
    path.write_text('{"q": "x", "r": "y", "s": "z", "b": 2}\n')
    compared = {"instruction": "q", "first": "r", "second": "s", "preferred": "b"}
    plain = {"instruction": "q", "chosen": "r", "rejected": "b"}
    config = with_sources(
        preferences={
            "compared": {"source": str(path), "fields": compared},
            "plain": {"source": str(path), "fields": plain},
        }
    )
    assert problems(config) == [
        f"preferences.compared: {path}:1: field b is 2; allowed: 0 (the first response is "
        "preferred) or 1 (the second); repair the row or remove it",
        f"preferences.plain: {path}:1: field b is int, not text; repair the row or remove it",
    ]


def test_fields_that_do_not_fit_a_registry(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 3)
    spec = {"source": source, "fields": {"prompt": "q"}}
    found = problems(with_sources(datasets={"mine": spec}, benchmarks={"mine": spec}))
    assert len(found) == 1
    assert found[0].startswith("datasets.mine: ") and "'prompt' is not a field" in found[0]


def test_rows_and_skip_that_a_file_does_not_hold(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 3)
    config = with_sources(
        datasets={
            "a": {"source": source, "fields": PAIR, "rows": 1_000_000_000, "seed": 1},
            "b": {"source": source, "fields": PAIR, "skip": 3, "seed": 1},
        }
    )
    assert problems(config) == [
        f"datasets.a: {source}: rows is 1000000000, allowed 1 to 3 (it holds 3 rows, skip is 0)",
        f"datasets.b: {source}: skip is 3, allowed 0 to 2 (it holds 3 rows)",
    ]


def test_rows_are_counted_where_they_can_be(tmp_path):
    source = rows_file(tmp_path, "rows.jsonl", 11)
    spec = {"source": source, "fields": PAIR}
    assert count_rows("datasets", spec) == 11
    assert count_rows("datasets", spec | {"skip": 4, "seed": 1}) == 7
    assert count_rows("datasets", spec | {"skip": 4, "rows": 5, "seed": 1}) == 5
    assert count_rows("benchmarks", {"source": source, "fields": {"prompt": "q"}}) == 11
    assert count_rows("datasets", {"source": "sandbox:benign", "rows": 12, "seed": 1}) == 12
    assert count_rows("benchmarks", {"source": "sandbox:test", "seed": 1}) is None
    assert count_rows("datasets", {"source": "hub:a/b:train", "fields": PAIR}) is None
    hub = {"source": "hub:a/b:train", "fields": PAIR, "rows": 13, "seed": 1}
    assert count_rows("datasets", hub) == 13
    with pytest.raises(DataError, match="'prompt' is not a field"):
        count_rows("datasets", {"source": source, "fields": {"prompt": "q"}})


def test_a_model_in_a_folder_and_of_every_other_source(tmp_path):
    models = {
        "folder": {"source": str(tmp_path), "seed": 1},
        "hub": {"source": "hub:Qwen/Qwen3-8B", "seed": 1},
        "revision": {"source": "hub:a.b/c_d-e", "seed": 1, "revision": "main"},
        "wheel": {"source": "wheel:a==0.1:b/C.Q4_1.gguf", "seed": 1, "sha256": "0a" * 32},
        "gguf": {"source": str(tmp_path / "C.Q4_1.gguf"), "seed": 1},
    }
    for name in ("C.Q4_1.gguf", "config.json"):
        (tmp_path / name).touch()
    assert problems(with_sources(models=models)) == []
    models["gguf"]["revision"] = "main"
    [problem] = problems(with_sources(models=models))
    assert problem.startswith("models.gguf: 'revision' means nothing for source ")


def in_a_folder(folder: Path, **registries) -> dict:
    """The default with a model in a folder, which layers are read of."""
    return with_sources(
        models={"mine": {"source": str(folder), "seed": 1}},
        experiments={"sandbox": {"model": "mine"}},
        tables={"ranking": {"methods": ["bi-anchor-reps", "larf"]}},
        **registries,
    )


def test_layers_that_a_model_in_a_folder_does_not_have(tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 5}')

    def layers(named: int, first: int, last: int) -> dict:
        searched = {"first": first, "last": last}
        return in_a_folder(
            tmp_path, layers={"last": {"layer": named}, "safety-sensitive": searched}
        )

    assert problems(layers(5, 5, 5)) == []
    assert problems(layers(6, 6, 7)) == [
        "layers.last.layer: 6 is no layer of model 'mine'; allowed: 0 to 5",
        "layers.safety-sensitive.first: 6 is no layer of model 'mine'; allowed: 1 to 5",
        "layers.safety-sensitive.last: 7 is no layer of model 'mine'; allowed: 1 to 5",
    ]


@pytest.mark.parametrize("text", ["{", "[5]", "{}", '{"num_hidden_layers": "5"}'])
def test_layers_of_a_model_whose_folder_does_not_tell_how_many(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert problems(in_a_folder(tmp_path, layers={"last": {"layer": 6}})) == []


def words(folder: Path, *known: str) -> None:
    """A tokenizer of these words in a folder."""
    vocabulary = {word: i for i, word in enumerate(("<unk>", *known))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.save(str(folder / "tokenizer.json"))


def judged_in(folder: Path, kind: str = "guard") -> list[str]:
    (folder / "config.json").write_text("{}")
    models = {"mine": {"source": str(folder), "seed": 1}}
    models["mine"] |= {"head": "cost"} if kind == "cost" else {}
    return problems(with_sources(models=models, judges={"own": {"kind": kind, "model": "mine"}}))


@pytest.mark.parametrize(
    ("known", "missing"),
    [(["ash"], "safe or unsafe"), (["safe"], "unsafe"), (["unsafe"], "safe")],
)
def test_a_guard_in_a_folder_that_cannot_write_its_verdicts(tmp_path, known, missing):
    words(tmp_path, *known)
    assert judged_in(tmp_path) == [
        f"judges.own.model: {tmp_path}: no guard: the tokenizer has no tokens for {missing}, which "
        "a guard answers; give the judge a `model` in Llama-Guard-3's format"
    ]
    assert judged_in(tmp_path, "cost") == []


def test_a_guard_in_a_folder_that_can_or_that_does_not_tell(tmp_path):
    assert judged_in(tmp_path) == []
    (tmp_path / "tokenizer.json").write_text("{")
    assert judged_in(tmp_path) == []
    words(tmp_path, "safe", "unsafe")
    assert judged_in(tmp_path) == []


# (rows, batch, part of a batch, epochs): steps, counted by hand.
STEPS = {
    (200, 8, None, 5): 125,
    (201, 8, None, 1): 26,
    (7, 8, None, 3): 3,
    (600, 8, None, 0.5): 38,  # 75 an epoch, 37.5 in half of one
    (600, 8, None, 0.001): 1,
    (25, 8, 2, 1): 4,  # 13 parts, 4 to a step: 4 + 4 + 4 + 1
    (24, 8, 2, 2): 6,
    (9, 8, 8, 1.5): 3,
    (9, 8, 1, 1.25): 3,  # 2 an epoch, 2.5 in all
    (1, 8, 2, 1): 1,
}


@pytest.mark.parametrize(("run", "steps"), STEPS.items())
def test_steps_of_a_training(run, steps):
    rows, batch, micro, epochs = run
    training = {"batch_size": batch, "epochs": epochs}
    training |= {} if micro is None else {"micro_batch_size": micro}
    assert training_steps(rows, training) == steps


@given(st.integers(1, 300), st.integers(1, 6), st.integers(1, 5), st.integers(1, 24))
def test_steps_of_a_training_by_going_through_its_batches(rows, micro, parts, quarters):
    steps = seen = waiting = 0
    while seen < rows:
        seen, waiting = seen + micro, waiting + 1
        if waiting == parts or seen >= rows:
            steps, waiting = steps + 1, 0
    training = {"batch_size": micro * parts, "micro_batch_size": micro, "epochs": quarters / 4}
    assert training_steps(rows, training) == math.ceil(Fraction(quarters, 4) * steps)


VALID = {
    "the last step as a checkpoint": "directions: {safety: {checkpoint: 125, save_steps: 125}}",
    "rows of the hub for what is only trained on": (
        "{datasets: {big: {source: 'hub:a/b:train', fields: {instruction: a, response: b}}},"
        " directions: {danger: {data: big, save_steps: 1000, checkpoint: 9000}}}"
    ),
    "a pinned state needs no neighbouring alphas": (
        "{steering: {alphas: [0.0, 0.5]}, selection: {tables: [table6]}}"
    ),
    "rounding of alphas": (
        "{states: {s-insensitive: {alphas: [0.30000000001, 0.7]}}, selection: {tables: [table3]}}"
    ),
    "a guard that is null": "sensitivity: {guard: null}",
    "groups as large as the data": (
        "{groups: {test: {size: 1500}}, selection: {tables: [table11]},"
        " tables: {table11: {methods: [length], against: length}}}"
    ),
    "large groups, and a layer that is not there, of what is not selected": (
        "{groups: {test: {size: 1501}}, layers: {last: {layer: 4}}}"
    ),
    "the last layers of a sandbox model": (
        "{layers: {last: {layer: 3}, safety-sensitive: {first: 3}},"
        " tables: {ranking: {methods: [bi-anchor-reps, larf]}}}"
    ),
    "a search of layers that ends at a model's last": (
        "{layers: {safety-sensitive: {first: 3, last: 3}}, tables: {ranking: {methods: [larf]}}}"
    ),
    "a layer of a model that nobody has seen": (
        "{layers: {last: {layer: 40}}, tables: {ranking: {methods: [bi-anchor-reps]}},"
        " models: {far: {source: 'hub:a/b', seed: 1}}, experiments: {sandbox: {model: far}}}"
    ),
    "four groups": "groups: {test: {random_groups: 0, biased_groups: 4}}",
    "theta_0 in tables of states and of orders": (
        "{tables: {table6: {states: [theta-0]}, ranking: {methods: [sqsd-danger-theta-0]}}}"
    ),
    "a calibrated method in tables of subsets": (
        "tables: {table1: {methods: [sqsd-danger-calibrated, random]}}"
    ),
    "a method and an anchor that differ for a model": (
        "{methods: {larf: {per_model: {sandbox: {token: -2, similarity: cosine}}},"
        " bi-anchor-grad: {per_model: {sandbox: {harmless: [refused]}}}},"
        " anchors: {harmful: {per_model: {sandbox: {first_tokens: null}}}}}"
    ),
    "as many rows as windows": "subsets: {rows: 1500}",
    "more rows than a window, where nothing is trained on them": (
        "{subsets: {rows: 1501}, selection: {tables: [table4, ranking]}}"
    ),
    "10,000 shards": "{datasets: {mixed: {rows: 30000}}, gradients: {rows_per_shard: 3}}",
    "two experiments of one data set": (
        "{selection: {experiments: [sandbox, other]}, models: {m: {source: sandbox, seed: 2}},"
        " experiments: {other: {model: m, dataset: mixed}}}"
    ),
    "two experiments alike of which one is selected": (
        "experiments: {again: {model: sandbox, dataset: mixed}}"
    ),
    "a direction's other objective for a model": (
        "{models: {m: {source: sandbox, seed: 2}}, directions: {danger: {per_model: {m:"
        " {objective: dpo, data: safety, training: {beta: 0.1}}}}}}"
    ),
    "a judge that needs a setting": (
        "{judges: {words: {kind: phrases, phrases: ['no']}}, evaluation: {judges: {asr: words}}}"
    ),
    "a token budget": "gradients: {max_tokens_per_batch: 4096}",
    "full tuning of another model": (
        "{models: {m: {source: sandbox, seed: 2}}, finetunes: {lora: {tuning: full, model: m}}}"
    ),
}


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_what_is_allowed(text):
    assert problems(changed(text)) == []


# What is laid over the default, and the place that is reported.
REPORTED = {
    "the model of a judge": (
        "judges: {guard: {kind: guard, model: sandbx}}",
        r"judges\.guard\.model: 'sandbx' is not a model; known: cost, .*'sandbox'\?",
    ),
    "a judge without its model": (
        "judges: {mine: {kind: guard}}",
        r"judges\.mine: 'model' is mis",
    ),
    "a judge by the name of a folder": (
        "judges: {responses: {kind: sandbox}}",
        r"judges\.responses: the name of the folder .*; rename it",
    ),
    "a search of layers that ends at none": (
        "layers: {safety-sensitive: {last: 0}}",
        r"layers\.safety-sensitive\.last: 0 is less than the minimum of 1",
    ),
    "theta_0 as a state to score at": (
        "states: {s: {alpha: 0}}",
        r"states\.s\.alpha: 0 is theta_0",
    ),
    "checkpoints without number": (
        "datasets: {pilot: {rows: 100000000}}",
        r"pilots\.pilot\.save_steps: 10 saves more than 10000 checkpoints; save less often",
    ),
    "a checkpoint that is no step": (
        "states: {s: {checkpoint: last}}",
        r"states\.s\.checkpoint: 'last' is not 'final' or the step of a checkpoint",
    ),
    "pilot saves beyond its last step, and a state is searched on it": (
        "pilots: {pilot: {save_steps: 151}}",
        r"pilots\.pilot\.save_steps",
    ),
    "checkpoint of a state beyond the last": (
        "states: {s: {checkpoint: 150}}",
        r"states\.s\.checkpoint: 150",
    ),
    "checkpoint of a state where the direction saves otherwise for a model": (
        "{directions: {safety: {per_model: {sandbox: {save_steps: 20}}}}, states: {s: {checkpoint:"
        " 25}}}",
        r"states\.s.*checkpoint",
    ),
    "step of a state where the pilot saves otherwise for a model": (
        "{pilots: {pilot: {per_model: {sandbox: {save_steps: 20}}}}, states: {d-danger-insensitive:"
        " {per_model: {}}, at: {pilot: pilot, step: 10}}, tables: {table6: {states: [at]}}}",
        r"states\.at.*step",
    ),
    "neighbours where the grid is another for a model": (
        "{steering: {per_model: {sandbox: {alphas: [0.0, 0.3]}}}, selection: {tables: [table3]}}",
        r"states\.s-insensitive.*alphas",
    ),
    "rank above the checkpoints of a pilot": (
        "states: {d-danger: {rank: 15}}",
        r"states\.d-danger.*rank",
    ),
    "a table of alphas where none has neighbours": (
        "{steering: {alphas: [0.0, 0.5]}, selection: {tables: [table4]}}",
        r"alphas",
    ),
    "rows of a pilot that parts are counted by": (
        "datasets: {pilot: {rows: 1000000000}}",
        r"pilot",
    ),
    "more windows than can be planned for": ("subsets: {count: 1000000000}", r"subsets\.count"),
    "rows of an experiment that only a table names": (
        "{datasets: {big: {source: 'sandbox:benign', rows: 1000000000, seed: 1}}, experiments:"
        " {big: {model: sandbox, dataset: big}}, tables: {ranking: {experiments: [big]}}}",
        r"datasets\.big\.rows",
    ),
    "rows of the hub of an experiment that only a table names": (
        "{datasets: {hub: {source: 'hub:a/b:train', fields: {instruction: a, response: b}}},"
        " experiments: {hub: {model: sandbox, dataset: hub}},"
        " tables: {ranking: {experiments: [hub]}}}",
        r"datasets\.hub: 'rows' is missing",
    ),
    "a whole number with a point": ("gradients: {rows_per_shard: 750.0}", r"rows_per_shard"),
    "a seed with a point": ("finetunes: {lora: {seeds: [1.0]}}", r"finetunes\.lora\.seeds"),
    "epochs that are no number of steps": (
        "pilots: {pilot: {training: {epochs: 1.0e+308}}}",
        r"pilots\.pilot\.training\.epochs",
    ),
    "a part larger than a pilot's batch": (
        "pilots: {pilot: {training: {micro_batch_size: 16}}}",
        r"pilots\.pilot\.training\.micro_batch_size: 16 does not divide batch_size=8",
    ),
    "beta of a pilot": (
        "pilots: {pilot: {training: {beta: 0.1}}}",
        r"pilots\.pilot\.training: 'beta'",
    ),
    "target of a fine-tune for a model": (
        "finetunes: {lora: {per_model: {sandbox: {model: nope}}}}",
        r"finetunes\.lora\.per_model",
    ),
    "an option of a method for a model": (
        "methods: {larf: {per_model: {sandbox: {tokn: -1}}}}",
        r"methods\.larf: 'tokn' is not a key; .*Did you mean 'token'\? "
        r"\(with methods\.larf\.per_model\.sandbox\)",
    ),
    "per_model of per_model": (
        "pilots: {pilot: {per_model: {sandbox: {per_model: {x: {}}}}}}",
        r"per_model",
    ),
}


@pytest.mark.parametrize(("text", "place"), REPORTED.values(), ids=REPORTED)
def test_what_is_reported_where(text, place):
    with pytest.raises(ConfigurationError, match=place):
        validate_config(changed(text), SCHEMA)


def test_two_keys_that_become_one_in_either_order():
    with pytest.raises(ConfigurationError, match=r"becomes 'm-2', which is there already"):
        expanded({"m-{seed}": 1, "m-2": 2}, {"seed": [1, 2]}, {})


@pytest.mark.parametrize("values", [[[1], [1]], [{"a": 1}, {"a": 1}], [None], [[1], 2]])
def test_an_axis_has_texts_and_numbers(values):
    with pytest.raises(ConfigurationError, match=r"axes\.x"):
        resolve({"run": "a"}, {"axes": {"x": values}})


@dataclass(frozen=True)
class Kind:
    needed: str
    with_default: int = 3
    with_factory: list = field(default_factory=list)
    set_by_itself: int = field(init=False)
    needs: ClassVar[bool] = True


def test_options_of_a_kind_are_its_fields():
    assert options_of(Kind) == (["needed"], ["with_default", "with_factory"])


def test_results_of_an_earlier_layout_are_refused_and_kept(tmp_path):
    check_layout(tmp_path / "none")
    kept = tmp_path / "run/benchmarks-of-rules/train.tsv"
    (tmp_path / "run/scores").mkdir(parents=True)
    check_layout(tmp_path / "run")
    kept.parent.mkdir()
    kept.write_text("1")
    with pytest.raises(
        ConfigurationError,
        match=r"run holds results of an earlier layout \(benchmarks-of-rules\), .* neither reads "
        r"nor deletes; move the folder away, or choose another `run`$",
    ):
        check_layout(tmp_path / "run")
    assert kept.read_text() == "1"
