"""What is made again where checks before scores are, on a folder in which everything is there."""

import os
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, write_config
from planner import AGE, TWO, make_empty
from snakemake.cli import parse_config
from snakemake.utils import update_config

from sqsd.config import resolve
from sqsd.trust import PROCEED

CHECKS = "results/two/trust/elm/sqsd-north.json"
# By what nothing but these checks is made of.
VERDICTS = "results/two/evaluations/elm/steering/harm/4/elm-try/judgements/wary/0.parquet"
CURATED = {"curate_rows less-north elm grain"}
TARGETS = ["all", "curate"]
OLD, NEW = AGE, AGE + 1e8


@pytest.fixture
def made(planner, tmp_path):
    """A folder with every file of `two.yaml`, all of one age."""
    make_empty(planner.plan(tmp_path, TWO, targets=TARGETS), tmp_path, OLD)
    return tmp_path


def run_again(planner, folder):
    jobs = planner.plan(folder, TWO, targets=TARGETS)
    return {job.name for job in jobs if job.runs and job.makes}


def test_checks_that_are_made_again_make_no_gradients_again(planner, made):
    assert run_again(planner, made) == set()
    os.utime(made / CHECKS, (NEW, NEW))
    assert run_again(planner, made) == CURATED
    os.utime(made / CHECKS, (OLD, OLD))
    os.utime(made / VERDICTS, (NEW, NEW))
    assert run_again(planner, made) == CURATED | {"check_trust elm sqsd-north"}


def test_gradients_come_after_the_checks(planned):
    jobs = planned.values()
    makers = {file: job for job in jobs for file in job.makes}
    gradients = [job for job in jobs if job.rule == "collect_gradients"]
    assert gradients
    for job in gradients:
        (awaited,) = (makers[f] for f in job.needs if f in makers and f.endswith(".checked"))
        assert awaited.rule == "await_trust"
        assert {makers[file].rule for file in awaited.needs} == {"check_trust"}


def test_without_trust_nothing_is_checked(planner, tmp_path):
    off = write_config(tmp_path / "off.yaml", trust=None)
    for files in ((TWO, off), (TINY,)):
        jobs = planner.plan(tmp_path, *files)
        assert not [job.name for job in jobs if job.rule == "check_trust" or "/trust/" in str(job)]


def test_a_reading_that_no_selected_method_has_is_checked_by_every_method_that_has_it(
    planner, tmp_path
):
    """Of those that are selected alone, else: another's directions need not be trained."""
    selected = write_config(
        tmp_path / "selected.yaml",
        selection={"experiments": ["north"], "tables": ["order"], "curations": []},
        methods={
            "sqsd-other": {
                "kind": "sqsd",
                "danger": {"direction": "ill", "state": "d-south"},
                "safety": {"direction": "calm", "state": "s-north"},
            }
        },
    )

    def checked(*targets):
        jobs = planner.plan(tmp_path, TWO, selected, targets=targets)
        return {job.name for job in jobs if job.rule == "check_trust"}

    assert checked() == {"check_trust elm sqsd-north"}
    scores = str(Path("results/two/scores/elm/grain"))
    # `sqsd-other` shares the safety term's reading with the selected one, and has one of its own.
    assert checked(f"{scores}/sqsd-other.parquet") == {
        "check_trust elm sqsd-north", "check_trust elm sqsd-other", "check_trust elm sqsd-south",
    }  # fmt: skip


def test_gradients_have_the_same_inputs_whichever_methods_are_selected(planner, tmp_path):
    """Another set of inputs would make them again; what comes before them differs all the same."""

    def plan(*methods):
        config = write_config(
            tmp_path / f"{len(methods)}.yaml",
            selection={"experiments": ["north"], "tables": ["order"], "curations": []},
            methods={
                "half-north": {"kind": "sqsd", "danger": {"direction": "harm", "state": "d-north"}}
            },
            tables={"order": {"methods": list(methods)}},
        )
        jobs = planner.plan(tmp_path, TWO, config)
        return [
            {job.name: job.needs for job in jobs if job.rule == rule}
            for rule in ("collect_gradients", "await_trust")
        ]

    gradients, awaited = plan("sqsd-north")
    again, both = plan("sqsd-north", "half-north")
    assert again == gradients and len(gradients) == 4
    shared, own = "await_trust elm d-north harm", "await_trust elm s-north calm"
    assert both[shared] - awaited[shared] == {"results/two/trust/elm/half-north.json"}
    assert both[own] == awaited[own] == {CHECKS}


def test_what_a_failed_check_says_to_add_goes_on():
    """As Snakemake reads the command line: a truth in braces would be a text to it."""
    option, *given = shlex.split(PROCEED)
    assert option == "--config"
    config = yaml.safe_load(TWO.read_text())
    config["trust"]["if_failed"] = "stop"
    update_config(config, parse_config(given))
    found = resolve(yaml.safe_load((ROOT / "config/config.yaml").read_text()), config)["trust"]
    assert found == {"minimum_refusal_rate": 0.37, "alpha": 0.5, "if_failed": "proceed"}
