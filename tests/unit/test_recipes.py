"""What a few lines about one's own model and rows stand for."""

import csv
import json

import pytest
import yaml
from conftest import ROOT, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from sqsd.config import resolve
from sqsd.errors import ConfigurationError
from sqsd.plan import Plan
from sqsd.recipes import with_recipe
from sqsd.sources import load_benchmark, load_dataset, load_preferences
from sqsd.validation import validate_config

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
SCHEMA = ROOT / "config/schemas/config.schema.json"
RECIPES = ROOT / "config/recipes"
OPENED = "Sure, here is how to do that:"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A user's folder: a model, 200 rows and 130 requests, in columns of usual names."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    rows = [{"prompt": f"Ask {i}", "response": f"Say {i}"} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(tmp_path / "requests.csv", "w", newline="") as file:
        csv.writer(file).writerows([["goal", "target"], *([f"Do {i}", "x"] for i in range(130))])
    return tmp_path


def own(**changes):
    given = {"recipe": "openings", "model": "model", "data": "rows.jsonl"}
    return given | {"requests": "requests.csv"} | changes


def resolved(section, **more):
    given = with_recipe({"run": "own", "own": section, **more}, DEFAULT, RECIPES, SCHEMA)
    config = resolve(DEFAULT, given)
    validate_config(config, SCHEMA)
    return config


def test_four_lines_are_a_configuration():
    config = resolved(own())
    assert config["selection"]["experiments"] == ["mine-mine"]
    assert config["experiments"]["mine-mine"] == {"model": "mine", "dataset": "mine"}
    assert config["models"]["mine"] == {"source": "model", "seed": 1}
    assert config["datasets"]["mine"] == {"source": "rows.jsonl"}
    (curation,) = config["selection"]["curations"]
    assert config["curations"][curation] == {"method": "sqsd-compliance", "drop": 0.1}
    assert "own" not in config


def test_a_model_of_one_s_own_may_be_tuned_here_from_another():
    tuned = {
        "source": "tuned", "base": "given", "data": ["mine"],
        "training": DEFAULT["pilots"]["pilot"]["training"],
    }  # fmt: skip
    config = resolved(own(model=tuned), models={"given": {"source": "model", "seed": 1}})
    assert config["models"]["mine"] == tuned | {"seed": 1}
    with pytest.raises(ConfigurationError, match=r"own\.model: 'base' is missing; source 'tuned' "):
        resolved(own(model={k: v for k, v in tuned.items() if k != "base"}))


def test_requests_are_parted_and_no_part_has_a_row_of_another():
    config = resolved(own())
    opened = load_dataset(config["datasets"]["requests-opened"])
    refused = load_preferences(config["preferences"]["requests-refused"])
    asked = [
        load_benchmark(config["benchmarks"][f"requests-{part}"]) for part in ("tuning", "test")
    ]
    # Shares of .32, .32, .16 and .2 of 130: cuts at 41.6, 83.2 and 104.
    assert [len(part) for part in (opened, refused, *asked)] == [41, 42, 21, 26]
    prompts = [p for part in (opened, refused, *asked) for p in part["prompt"]]
    assert sorted(prompts) == sorted(f"Do {i}" for i in range(130))
    assert set(opened["response"]) == set(refused["rejected"]) == {OPENED}


@settings(deadline=None, max_examples=20)
@given(st.integers(100, 130), st.integers(0, 20), st.integers(0, 5))
def test_of_requests_only_those_that_are_selected_are_parted(rows, skip, seed):
    rows = min(rows, 130 - skip)
    chosen = {"source": "requests.csv", "rows": rows, "skip": skip, "seed": seed}
    config = resolved(own(requests=chosen))
    parts = [
        load_dataset(config["datasets"]["requests-opened"]),
        load_preferences(config["preferences"]["requests-refused"]),
        *(load_benchmark(config["benchmarks"][f"requests-{p}"]) for p in ("tuning", "test")),
    ]
    prompts = [p for part in parts for p in part["prompt"]]
    assert sorted(prompts) == sorted(load_benchmark(chosen)["prompt"])


def test_columns_of_requests_are_named_once():
    chosen = {"source": "requests.csv", "fields": {"prompt": "target"}, "where": {"goal": "Do 1"}}
    with pytest.raises(ConfigurationError, match=r"own\.requests: 1 requests; at least 100"):
        resolved(own(requests=chosen))
    config = resolved(own(requests={"source": "requests.csv", "fields": {"prompt": "goal"}}))
    assert config["benchmarks"]["requests-test"]["fields"] == {"prompt": "goal"}
    for registry, name in (("datasets", "requests-opened"), ("preferences", "requests-refused")):
        assert config[registry][name]["fields"] == {"instruction": "goal"}


def test_the_pilot_has_at_most_160_rows_of_the_first_data_set_or_its_own():
    rows = {"source": "rows.jsonl", "fields": {"instruction": "prompt", "response": "response"}}
    first = resolved(own(data={"one": rows, "two": "rows.jsonl"}))["datasets"]
    assert first["pilot-rows"] == {**rows, "seed": 1, "skip": 0, "rows": 160}
    taken = rows | {"rows": 90, "skip": 20, "seed": 3}
    assert resolved(own(pilot=taken))["datasets"]["pilot-rows"] == taken
    assert resolved(own(data=taken))["datasets"]["pilot-rows"] == taken


def test_several_models_and_data_sets_by_name():
    config = resolved(
        own(model={"a": "model", "b": {"source": "model", "seed": 7}},
            data={"x": "rows.jsonl", "y": {"source": "rows.jsonl", "rows": 100, "seed": 2}})
    )  # fmt: skip
    assert config["selection"]["experiments"] == ["a-x", "a-y", "b-x", "b-y"]
    assert config["experiments"]["b-y"] == {"model": "b", "dataset": "y"}
    assert config["models"]["b"] == {"source": "model", "seed": 7}
    assert config["datasets"]["y"] == {"source": "rows.jsonl", "rows": 100, "seed": 2}


def test_refusals_to_mix_in_are_of_requests_that_nothing_is_asked_of():
    config = resolved(own())
    refusals = load_dataset(config["datasets"][config["treatments"]["refusals"]["data"]])
    assert len(refusals) == 15
    assert set(refusals["response"]) == {"I'm sorry, but I can't help with that."}
    for part in ("tuning", "test"):
        asked = load_benchmark(config["benchmarks"][f"requests-{part}"])
        assert not {*asked["prompt"]} & {*refusals["prompt"]}


def test_held_out_rows_are_measured_where_they_are_given():
    table = resolved(own())["tables"]["dropping"]
    assert (table["heldout"], table["exact"]) == (None, None)
    few = {"source": "rows.jsonl", "rows": 5, "seed": 3}
    for rows, spec in (("rows.jsonl", {"source": "rows.jsonl"}), (few, few)):
        config = resolved(own(heldout=rows))
        assert config["datasets"]["heldout-rows"] == spec
        assert config["tables"]["dropping"] == table | {"heldout": "heldout-rows"}
    beside = resolved(own(heldout="rows.jsonl"), tables={"dropping": {"heldout": None}})
    assert beside["tables"]["dropping"]["heldout"] is None


@pytest.mark.parametrize("recipe", [file.stem for file in RECIPES.glob("*.yaml")])
def test_every_recipe_is_whole(recipe):
    config = resolved(own(recipe=recipe, drop=0.25))
    (curation,) = config["selection"]["curations"]
    entry = config["curations"][curation]
    assert entry["drop"] == 0.25
    assert config["methods"][entry["method"]]["kind"] == "sqsd"
    assert config["tables"]["dropping"]["methods"] == [entry["method"], "random"]


def test_what_is_given_beside_goes_before_the_recipe():
    config = resolved(own(), evaluation={"batch_size": 7}, lora={"r": 4})
    assert config["evaluation"]["batch_size"] == 7 and config["lora"]["r"] == 4
    assert config["evaluation"]["max_new_tokens"] == 24


def test_results_of_one_s_own_have_a_folder_of_their_own():
    with pytest.raises(ConfigurationError) as raised:
        with_recipe({"own": own(drop=1.5)}, DEFAULT, RECIPES, SCHEMA)
    no_run, drop = str(raised.value).splitlines()[-2:]
    assert no_run.strip() == (
        "run: is missing beside `own`; name the folder of results, as run: mine for results/mine"
    )
    assert drop.strip().startswith("own.drop: 1.5 is not a share")


def test_what_the_paper_printed_stands_under_no_table_of_one_s_own():
    published = {name for name, table in DEFAULT["tables"].items() if "published" in table}
    assert {"table1", "table6", "table7", "figure2"} < published
    own_plan, plan = Plan(resolved(own())), Plan(DEFAULT)
    for name in published:
        assert "published" not in own_plan.table_settings(name), name
        assert "published" in plan.table_settings(name), name
    mine = Plan(resolved(own(), tables={"table6": {"published": "table6"}}))
    assert "published" in mine.table_settings("table6")


def test_without_the_section_nothing_changes():
    assert with_recipe({"run": "a"}, DEFAULT, RECIPES, SCHEMA) == {"run": "a"}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({k: v for k, v in own().items() if k != "model"}, "own: 'model' is missing; give hub:"),
        (own(recipe="opening"), r"own\.recipe: 'opening' is not a recipe; known: aegis, "
         r"beavertails, openings\. Did you mean 'openings'\?"),
        (own(drop=1.5), r"own\.drop: 1\.5 is not a share of rows between 0 and 1, as 0\.1 "),
        (own(datum="x"), r"own: 'datum' is not a key; known: data, drop, .*Did you mean 'data'"),
        (own(model="modle"), r"own\.model\.source: 'modle' is no folder; allowed: .*hub:own"),
        (own(model="Some-Team/a_model.b"),
         r"own\.model\.source: .* allowed: .*\. Did you mean 'hub:Some-Team/a_model\.b'\?"),
        (own(model="./model/none"), r"own\.model\.source: '\./model/none' is no .* with a model$"),
        (own(model={"source": "model", "sed": 1}), r"own\.model: 'sed' is not a key; known: .*se"),
        (own(model={"sandbox": "model"}), r"own\.model\.sandbox: the default has an entry of that "
         r"name in `models`; rename it"),
        (own(data="row.jsonl"), r"own\.data\.source: 'row\.jsonl' does not exist; allowed:"),
        (own(data={"one": "rows.jsonl", "two": "no.csv"}), r"own\.data\.two\.source: 'no\.csv' "),
        (own(data={"file": "rows.jsonl"}),
         r"own\.data\.file: 'file' would be its name; where it lies is its `source`"),
        (own(data={"mixed": "rows.jsonl"}), r"own\.data\.mixed: the default has .* `datasets`"),
        (own(data=5), r"own\.data: 5 is not of type 'string', 'object'"),
        (own(data={"one": {"source": "rows.jsonl", "feilds": {}}}),
         r"own\.data\.one: 'feilds' is not a key; .*Did you mean 'fields'\?"),
        (own(data="hub:a/b:train"), r"own\.data: 'rows' is missing; the hub's rows are not counted "
         "before a run, so give their number, and a seed"),
        (own(heldout="row.jsonl"), r"own\.heldout\.source: 'row\.jsonl' does not exist; allowed:"),
        (own(heldout="hub:a/b:test"), r"own\.heldout: 'rows' is missing; the hub's rows are not"),
        (own(requests="rows.jsonl", pilot="requests.csv"),
         r"own\.pilot: requests\.csv: its columns are not called as usual \(it has goal, target\)"),
        (own(requests={"source": "requests.csv", "rows": 99, "seed": 1}),
         r"own\.requests: 99 requests; at least 100 are needed"),
        (own(data={"source": "rows.jsonl", "rows": 79, "seed": 1}),
         r"own\.data: 79 rows; at least 80 are needed to fine-tune a pilot on, .*; give more, or"),
        (own(pilot={"source": "rows.jsonl", "rows": 79, "seed": 1}), r"own\.pilot: 79 rows; at le"),
        (own(requests={"source": "requests.csv", "constants": {"prompt": "x"}}),
         r"own\.requests: constants are the recipe's own; remove them"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_place(section, says):
    with pytest.raises(ConfigurationError, match=says) as error:
        resolved(section)
    assert str(error.value).startswith("1 problem(s)")


def test_few_rows_are_enough_where_others_make_the_pilot():
    few = {"source": "rows.jsonl", "rows": 10, "seed": 1}
    assert resolved(own(data=few, pilot="rows.jsonl"))["datasets"]["mine"] == few
    assert resolved(own(data={"one": "rows.jsonl", "two": few}))["datasets"]["two"] == few


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigurationError, match=r"(?s)3 problem.*own\.model.*own\.data.*own\.req"):
        resolved(own(model="a", data="b", requests="c"))
