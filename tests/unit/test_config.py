from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from sqsd.config import METHODS, validate_config
from sqsd.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def with_value(path, value):
    config = deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


def test_the_default_is_valid():
    validate_config(DEFAULT, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("gradiens", {}, r"\(top level\): 'gradiens' is not a key; .* Did you mean 'gradients'\?"),
        ("lora.r", "eight", r"lora\.r: 'eight' is not of type 'integer'"),
        ("lora.r", 0, r"lora\.r: 0 is less than the minimum of 1"),
        (
            "steering.alphas",
            [0.0, 0.1, 9.0],
            r"steering\.alphas\[2\]: 9\.0 is greater than the max",
        ),
        ("states.danger", {"rank": 0, "floor_fraction": 0.0}, r"states\.danger"),
        ("selection.scored", "mixd", r"selection\.scored: 'mixd' is not a data set; .*'mixed'\?"),
        ("selection.model", "nope", r"selection\.model: 'nope' is not a model; known: sandbox"),
        ("selection.pilot", "nope", r"selection\.pilot: 'nope' is not a data set"),
        ("selection.danger", "nope", r"selection\.danger: 'nope' is not a direction"),
        ("selection.safety", "nope", r"selection\.safety: 'nope' is not a direction"),
        ("selection.tuning_benchmark", "x", r"selection\.tuning_benchmark: 'x' is not a benchmark"),
        ("selection.test_benchmark", "x", r"selection\.test_benchmark: 'x' is not a benchmark"),
        ("selection.methods", ["sqd-danger"], r"methods\[0\]: .* Did you mean 'sqsd-danger'\?"),
        ("evaluation.judge", "nope", r"evaluation\.judge: 'nope' is not a judge; known: sandbox"),
        ("directions.danger.data", "nope", r"directions\.danger\.data: 'nope' is not a data set"),
        (
            "directions.safety.data",
            "nope",
            r"directions\.safety\.data: 'nope' is not a set of pref",
        ),
        ("subsets.rows", 9999, r"subsets\.rows: 9999 is more than the 1500 rows .* at most 1500"),
    ],
)
def test_what_is_wrong_where_and_what_is_allowed(path, value, message):
    with pytest.raises(ConfigurationError, match=message):
        validate_config(with_value(path, value), SCHEMA)


def test_dpo_needs_beta():
    config = deepcopy(DEFAULT)
    del config["directions"]["safety"]["training"]["beta"]
    with pytest.raises(ConfigurationError, match=r"directions\.safety\.training: 'beta' is a req"):
        validate_config(config, SCHEMA)


def test_all_problems_at_once():
    config = with_value("lora.r", 0)
    config["evaluation"]["batch_size"] = 0
    with pytest.raises(ConfigurationError, match=r"(?s)2 problem.*evaluation.*lora"):
        validate_config(config, SCHEMA)


def test_methods_of_the_configuration_are_the_scorers():
    """`config` imports no scorer, to keep a dry run fast; this keeps the two lists equal."""
    from sqsd.scorers import METHODS as SCORERS

    assert list(METHODS) == list(SCORERS)
