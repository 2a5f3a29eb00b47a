"""What is wrong with the files behind `--configfile`, which Snakemake reads before any workflow.

Its own words tell neither which of several files it is nor where in it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

OPTIONS = ("--configfile", "--configfiles")
# Of the errors that Snakemake ends with when one of them cannot be read.
UNREADABLE = re.compile(
    r"Config file is not valid JSON or YAML|must be given as JSON or YAML|UnicodeDecodeError"
    r"|(?:FileNotFound|IsADirectory|Permission)Error: .*: '(?P<file>.*)'"
)
# A quote that is not closed is found at the end of the file, and lies where it is opened.
QUOTE = "while scanning a quoted scalar"
AS_YAML = (
    "look at this line and the one before: each is `key: value`, indented by spaces as far as the "
    "lines that it goes with"
)


def told_of_config_files(error: str, arguments: Sequence[str]) -> list[str]:
    """What is wrong with each config file, if an error is about them; else nothing.

    error: Snakemake's message; arguments: its command line.
    """
    found, files = UNREADABLE.search(error), config_files(arguments)
    if not found or (found["file"] and found["file"] not in files):
        return []
    return [f"ConfigurationError: {p}" for file in files for p in problems(file, files)]


def config_files(arguments: Sequence[str]) -> list[str]:
    """All that stands behind `--configfile`, up to the next option."""
    files, taking = [], False
    for argument in arguments:
        if argument.startswith("-"):
            option, _, value = argument.partition("=")
            taking = option in OPTIONS
            files += [value] if taking and value else []
        elif taking:
            files.append(argument)
    return files


def problems(file: str, files: Sequence[str]) -> Iterator[str]:
    """At most one. files: all of them."""
    path = Path(file)
    if not path.exists() and not path.suffix and file != files[0]:
        yield (
            f"{file}: no such file, and all that stands behind --configfile is one; a target goes "
            f"first: snakemake {file} --configfile {files[0]}"
        )
    elif not path.is_file():
        here = f" in {Path.cwd()}, where snakemake is run"
        yield f"{file}: no such file{'' if path.is_absolute() else here}; name one that is there"
    else:
        yield from problems_of_text(file, path.read_bytes())


def problems_of_text(file: str, content: bytes) -> Iterator[str]:
    try:
        found = yaml.safe_load(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield f"{file}:{line}: not UTF-8 text (byte {content[error.start]:#x}); convert it"
    except yaml.MarkedYAMLError as error:
        yield not_yaml(file, error)
    except yaml.YAMLError as error:  # a character that no text has
        yield f"{file}: not YAML ({error}); remove it"
    else:
        if not isinstance(found, dict):
            what = "empty" if found is None else f"holds {type(found).__name__} alone"
            yield f"{file}: {what}; give keys with values, as run: mine"


def not_yaml(file: str, error: yaml.MarkedYAMLError) -> str:
    mark, remedy = error.problem_mark, AS_YAML
    if error.context == QUOTE:
        mark, remedy = error.context_mark, "close the quote"
    elif "\\t" in (error.problem or ""):
        remedy = "indent with spaces, not tabs"
    line = f":{mark.line + 1}" if mark else ""
    return f"{file}{line}: not YAML ({error.problem}); {remedy}"
