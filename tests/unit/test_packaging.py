"""What is said of dependencies in several places says the same."""

import re
import tomllib
from pathlib import Path

import yaml
from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line)
    return {name.lower().replace("_", "-"): version for name, version in found.items()}


def test_every_dependency_is_pinned_and_in_the_conda_environment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs/sqsd.yaml").read_text())
    expected = {f"{name}=={pins()[name]}" for name in project["dependencies"]}
    assert set(environment["dependencies"][-1]["pip"]) == expected | {"-e ${SQSD_SOURCE}"}
    for extra in project["optional-dependencies"].values():
        assert all(name.split("[")[0] in pins() for name in extra)


def test_every_rule_runs_in_the_conda_environment():
    for file in (ROOT / "rules").glob("*.smk"):
        text = file.read_text()
        scripts = re.findall(r"^ +script:$", text, re.MULTILINE)
        environments = re.findall(r"^ +conda:\n +ENVIRONMENT$", text, re.MULTILINE)
        assert len(scripts) == len(environments) > 0 or file.name == "common.smk", file


def test_the_package_ships_the_library_and_the_logger_that_every_profile_asks_for():
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    (where,) = found["find"]["where"]
    assert set(find_packages(str(ROOT / where))) == {"sqsd", "snakemake_logger_plugin_sqsd"}
    for profile in (ROOT / "profiles").glob("*/config.yaml"):
        assert yaml.safe_load(profile.read_text())["logger"] == "sqsd"
