"""Every path is made by one rule: no path of one kind can be read as one of another."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqsd.paths import NAME, Paths

PATHS = Paths("r")
# What each kind of path is made of; as the rules ask for it.
KINDS = {
    "dataset": ("dataset",),
    "preferences": ("dataset",),
    "benchmark": ("benchmark",),
    "pretrained": ("model",),
    "model": ("model",),
    "direction": ("model", "direction"),
    "pilot": ("model", "pilot"),
    "trajectory": ("model", "pilot", "direction"),
    "checkpoint_ranking": ("model", "pilot", "direction"),
    "alpha_ranking": ("model", "subject"),
    "state": ("model", "state"),
    "samples": ("model", "dataset"),
    "shard": ("model", "dataset", "state", "direction", "shard", "table"),
    "scores": ("model", "dataset", "method"),
    "subset": ("model", "dataset", "method", "window"),
    "repeats": ("dataset",),
    "groups": ("model", "dataset", "groups"),
    "group_runs": ("finetune", "model", "dataset", "groups", "seed"),
    "finetune": ("finetune", "model", "dataset", "method", "seed", "window"),
    "subject_states": ("model", "subject", "part"),
    "responses": ("model", "subject", "benchmark", "part"),
    "judgements": ("model", "subject", "benchmark", "judge", "part"),
}
PATTERNS = {
    "shard": r"\d+", "part": r"\d+", "seed": r"\d+", "window": r"s\d+", "table": "samples|modules",
    "subject": f"{NAME}(/{NAME})+",
}  # fmt: skip
# Names that folders have too, or that look like numbers, windows and files.
WORDS = (
    "a", "a-b", "1", "0", "s1", "states", "samples", "finetunes", "steering", "final", "alphas",
    "a-1.5", "x-0.json", "checkpoints", "seed-1",
)  # fmt: skip
VALUES: dict[str, tuple[str, ...]] = {
    "shard": ("00000", "00012"), "part": ("0", "12"), "seed": ("1", "10"), "window": ("s1", "s12"),
    "table": ("samples", "modules"),
}  # fmt: skip


def names_of(wildcard):
    if wildcard == "subject":
        return st.lists(st.sampled_from(WORDS), min_size=2, max_size=4).map("/".join)
    return st.sampled_from(VALUES.get(wildcard, WORDS))


def path_of(kind, values):
    return getattr(PATHS, kind)(*values)


def pattern_of(kind):
    """The regular expression that a rule with this path as output matches."""
    marked = re.escape(path_of(kind, [f"<{wildcard}>" for wildcard in KINDS[kind]]))
    for wildcard in KINDS[kind]:
        marked = marked.replace(f"<{wildcard}>", f"(?P<{wildcard}>{PATTERNS.get(wildcard, NAME)})")
    return re.compile(marked)


@st.composite
def made_paths(draw):
    kind = draw(st.sampled_from(list(KINDS)))
    return kind, [draw(names_of(wildcard)) for wildcard in KINDS[kind]]


@given(made_paths())
def test_a_path_is_of_one_kind_and_says_what_it_is_of(made):
    kind, values = made
    path = path_of(kind, values)
    assert path.startswith("results/r/")
    matches = {k: pattern_of(k).fullmatch(path) for k in KINDS}
    assert [k for k, match in matches.items() if match] == [kind]
    found = matches[kind]
    assert found is not None
    assert [found[wildcard] for wildcard in KINDS[kind]] == values


def test_files_beside_results_lie_by_rule_and_place():
    assert PATHS.root == "results/r" and PATHS.config == "results/r/config.yaml"
    assert PATHS.log("table1") == "results/r/logs/table1.log"
    assert PATHS.log("score_samples", "m/d/x") == "results/r/logs/score_samples/m/d/x.log"
    assert PATHS.times("train_pilot", "m/p") == "results/r/times/train_pilot/m/p.tsv"
    assert PATHS.resume("pilots", "m/p") == "results/r/resume/pilots/m/p"


def test_files_of_a_table_by_format():
    assert PATHS.table("t-1") == {
        "parquet": "results/r/tables/t-1.parquet",
        "csv": "results/r/tables/t-1.csv",
        "md": "results/r/tables/t-1.md",
    }
    assert PATHS.figure("t-1") == {
        "png": "results/r/figures/t-1.png",
        "svg": "results/r/figures/t-1.svg",
    }


@pytest.mark.parametrize("name", ["a", "a1-b.c-2", "seed-11", "qwen3-8b", "1"])
def test_a_name(name):
    assert re.fullmatch(NAME, name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "a.b", "a b", "a--b"])
def test_what_is_no_name(name):
    assert not re.fullmatch(NAME, name)
