"""What is said of a config file that Snakemake cannot read."""

import pytest
from conftest import snakemake

from snakemake_logger_plugin_sqsd.config_files import config_files, told_of_config_files

LOOK = (
    "look at this line and the one before: each is `key: value`, indented by spaces as far as the "
    "lines that it goes with"
)
INVALID = "WorkflowError:\nConfig file is not valid JSON or YAML. In case of YAML, make sure to ..."
NO_KEYS = "WorkflowError:\nConfig file must be given as JSON or YAML with keys at top level."
NOT_TEXT = (
    "Traceback (most recent call last):\n\n  File ...\n\n"
    "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 8: invalid"
)
WRONG = [
    (INVALID, b"run: x\nown:\n\tdrop: 0.1\n",
     ":3: not YAML (found character '\\t' that cannot start any token); "
     "indent with spaces, not tabs"),
    (INVALID, b"run: x\nown:\n  recipe openings\n  drop: 0.1\n",
     f":4: not YAML (mapping values are not allowed here); {LOOK}"),
    (INVALID, b"run: x\nown:\n  drop: 0.1\n   recipe: openings\n",
     f":4: not YAML (mapping values are not allowed here); {LOOK}"),
    (INVALID, b"own: {drop: 0.1\nrun: x\n",
     f":2: not YAML (expected ',' or '}}', but got ':'); {LOOK}"),
    (INVALID, b"run: x\nown:\n  data: 'a.csv\n  drop: 0.1\n",
     ":3: not YAML (found unexpected end of stream); close the quote"),
    (INVALID, b"run: x\x07\n", ": not YAML (unacceptable character #x0007: special characters are "
     'not allowed\n  in "<unicode string>", position 6); remove it'),
    (NOT_TEXT, b"own: 1\nrun: caf\xe9\n", ":2: not UTF-8 text (byte 0xe9); convert it"),
    (NO_KEYS, b"", ": empty; give keys with values, as run: mine"),
    (NO_KEYS, b"run:x\n", ": holds str alone; give keys with values, as run: mine"),
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fine.yaml").write_text("run: x\n")
    return tmp_path


def not_found(file: str) -> str:
    return f"Traceback ...\n\nFileNotFoundError: [Errno 2] No such file or directory: '{file}'"


@pytest.mark.parametrize(("error", "content", "said"), WRONG)
def test_the_file_the_line_and_the_remedy(here, error, content, said):
    (here / "mine.yaml").write_bytes(content)
    arguments = ["curate", "--cores", "2", "--configfile", "fine.yaml", "mine.yaml", "-q"]
    assert told_of_config_files(error, arguments) == [f"ConfigurationError: mine.yaml{said}"]


def test_a_file_that_is_not_there(here):
    said = f"ConfigurationError: a.yaml: no such file in {here}, where snakemake is run; "
    said += "name one that is there"
    assert told_of_config_files(not_found("a.yaml"), ["--configfile", "a.yaml"]) == [said]
    # A target where the first file is expected is no target behind one.
    (line,) = told_of_config_files(not_found("curate"), ["--configfile", "curate"])
    assert line.startswith("ConfigurationError: curate: no such file in ")
    (here / "a.yaml").mkdir()
    folder = "IsADirectoryError: [Errno 21] Is a directory: 'a.yaml'"
    assert told_of_config_files(folder, ["--configfile", "a.yaml"]) == [said]


def test_a_target_behind_the_files(here):
    arguments = ["--configfile", "fine.yaml", "curate"]
    assert told_of_config_files(not_found("curate"), arguments) == [
        "ConfigurationError: curate: no such file, and all that stands behind --configfile is one; "
        "a target goes first: snakemake curate --configfile fine.yaml"
    ]


@pytest.mark.parametrize(
    "error",
    ["WorkflowError:\nTarget rules may not contain wildcards.", not_found("results/x/models/m")],
)
def test_nothing_is_said_of_another_error(here, error):
    assert told_of_config_files(error, ["results/x/models/m", "--configfile", "fine.yaml"]) == []


def test_the_files_are_what_stands_behind_the_option():
    given = ["all", "--configfile", "a", "b", "-n", "c", "--configfiles=d", "e", "--cores", "2"]
    assert config_files(given) == ["a", "b", "d", "e"]
    assert config_files(["all", "--config", "a=1"]) == []


@pytest.mark.parametrize("options", [(), ("-n",)])
def test_snakemake_ends_with_it(tmp_path, options):
    """Of a dry run it stands behind Snakemake's own words."""
    file = tmp_path / "mine.yaml"
    file.write_text("run: x\nown:\n\tdrop: 0.1\n")
    ran = snakemake(tmp_path, *options, "curate", configfiles=(file,))
    assert ran.returncode == 1
    said = f"ConfigurationError: {file}:3: not YAML"
    assert options or ("Traceback" not in ran.stdout and "WorkflowError" not in ran.stdout)
    assert ran.stdout.count(said) == 1
