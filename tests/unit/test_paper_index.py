"""Every name in docs/paper_index.md is there, and what it has to list is listed."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

import pytest
import yaml
from conftest import ROOT, with_own
from jsonschema import Draft202012Validator
from test_documents import held, rows_of, tables

from sqsd import scorers
from sqsd.config import resolve

PAGE = "docs/paper_index.md"
TEXT = (ROOT / PAGE).read_text()
ROWS = [row for table in tables(PAGE) for row in rows_of(table)]
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "config/schemas/config.schema.json").read_text())
PRESETS = sorted(path.name for path in (ROOT / "config/presets").glob("*.yaml"))
RULES = {
    name
    for path in (ROOT / "rules").glob("*.smk")
    for name in re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
}
# What is no name of ours: formulas, markup of a row, and names in the published code.
NOTATION = (
    "s B A", "α s B A", "2 α", "θ0 + αV", "-gW",  # noqa: RUF001
    "<end>", "< end>", "avg_n", "hidden_states[22]",
)  # fmt: skip
# Rows of which no configuration here says anything.
WITHOUT_SETTINGS = (
    "ours: scores from a file of anyone's",
    "how far scores put rows of one data set above those of another",
    "models fine-tuned on all rows of each of several data sets",
)


@cache
def preset(name: str) -> dict[str, Any]:
    given = yaml.safe_load((ROOT / "config/presets" / name).read_text())
    return resolve(DEFAULT, with_own(given))


@cache
def defined(path: str) -> set[str]:
    """Names that a Python file defines, those of a class after its own; not what it imports."""
    return set(names_in(ast.parse((ROOT / path).read_text()).body))


def names_in(body: list[ast.stmt], before: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield before + node.name
        if isinstance(node, ast.ClassDef):
            yield from names_in(node.body, f"{before}{node.name}.")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (before + n.id for n in targets if isinstance(n, ast.Name))


def is_function(code: str) -> bool:
    module, _, name = code.partition(".")
    path = f"src/sqsd/{module}.py"
    return (ROOT / path).is_file() and name in defined(path)


def is_rule(code: str) -> bool:
    return code in RULES or any(code in config["tables"] for config in configs())


def configs() -> list[dict[str, Any]]:
    return [DEFAULT, *map(preset, PRESETS)]


def is_place(code: str, config: dict[str, Any] = DEFAULT) -> bool:
    """A place in a configuration, of a preset after its name, with `: value` or without."""
    place, _, value = code.partition(": ")
    name, _, after = place.partition(":")
    if after:
        return name in PRESETS and is_place(code.removeprefix(f"{name}:"), preset(name))
    try:
        found = held(config, place)
    except (ValueError, TypeError):
        return False
    return not value or found == yaml.safe_load(value)


def is_place_of_the_paper(code: str) -> bool:
    return is_place(code, preset("paper.yaml"))


def is_test(code: str) -> bool:
    path, _, name = code.partition("::")
    path = f"tests/{path}"
    is_file = re.fullmatch(r"tests/\w+/test_\w+\.py", path) and (ROOT / path).is_file()
    return bool(is_file) and name.startswith("test_") and name in defined(path)


def is_kind(code: str) -> bool:
    return code in scorers.KINDS


def is_option(code: str, kind: str) -> bool:
    """An option of a method of this kind, or of an entry that it names, with a value allowed."""
    schemas, scorer = SCHEMA["$defs"], scorers.KINDS[kind]
    own = {field.name: schemas["method"]["properties"][field.name] for field in fields(scorer)}
    for registry in scorer.points.values():
        own |= schemas.get(registry.removesuffix("s"), {}).get("properties", {})
    name, _, value = code.partition(": ")
    if name not in own or not value:
        return name in own
    return Draft202012Validator(own[name] | {"$defs": schemas}).is_valid(yaml.safe_load(value))


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text.replace("\n", " "))


# What a column may hold: names of one kind and nothing else.
COLUMNS: dict[str, Callable[[str], bool]] = {
    "function": is_function, "rule": is_rule, "settings": is_place,
    "setting": is_place_of_the_paper, "test": is_test, "kind": is_kind,
}  # fmt: skip
OPTIONS = [row for row in ROWS if "option" in row]
INDEX = [row for row in ROWS if "function" in row]


def first(row: dict[str, str]) -> str:
    return next(iter(row.values()))


@pytest.mark.parametrize("row", INDEX, ids=first)
def test_every_name_of_a_line_is_there(row):
    for column in COLUMNS.keys() & row:
        names = codes(row[column])
        assert row[column] == ", ".join(f"`{name}`" for name in names)
        assert [name for name in names if not COLUMNS[column](name)] == [], column


def test_every_line_says_all_of_it():
    """A table without a column of settings is of what none changes."""
    blank = [(first(row), column) for row in INDEX for column in row if not row[column]]
    assert blank == [(name, "settings") for name in WITHOUT_SETTINGS]
    for row in INDEX:
        assert {"function", "rule", "test"} <= row.keys()
        assert {"settings", "setting", "fixed"} & row.keys()


@pytest.mark.parametrize("row", OPTIONS, ids=first)
def test_every_option_is_one_of_its_method(row):
    (kind,) = codes(row["method"])
    assert is_kind(kind) and codes(row["option"])
    assert [code for code in codes(row["option"]) if not is_option(code, kind)] == []


def test_every_other_name_is_there():
    """In prose, and in columns that are not of names."""
    prose = re.sub(r"^\|.*\n", "", TEXT, flags=re.MULTILINE)
    told = [cell for row in ROWS for c, cell in row.items() if c not in (*COLUMNS, "option")]
    found = {code for text in (prose, *told) for code in codes(text)}
    checks = (is_function, is_rule, is_place, is_test, is_kind)
    assert {code for code in found if not any(check(code) for check in checks)} == {*NOTATION}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_every_link_leads_somewhere(link):
    path, _, heading = link.partition("#")
    page = (ROOT / PAGE).parent / path if path else ROOT / PAGE
    assert page.exists()
    headings = re.findall(r"^#+ (.+)", page.read_text(), re.MULTILINE) if heading else []
    assert not heading or heading in [text.lower().replace(" ", "-") for text in headings]


def numbered(what: str, text: str) -> set[int]:
    """The numbers that a first cell begins with: `Eqs. 5, 14`, `Eqs. 6-8`, `Table 6, Qwen3-8B`."""
    begins = re.match(rf"{what} ((?:\d+(?:-\d+)?(?:, )?)+)", text)
    found = set()
    for part in re.findall(r"\d+(?:-\d+)?", begins[1]) if begins else []:
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def lines_of(what: str, number: int) -> list[dict[str, str]]:
    return [row for row in INDEX if number in numbered(what, row.get("paper", ""))]


def targets_of(what: str, number: int) -> list[str]:
    return [code for row in lines_of(what, number) for code in codes(row["rule"])]


def test_numbers_of_a_line():
    assert numbered(r"Eqs?\.", "Eqs. 5, 14") == {5, 14}
    assert numbered(r"Eqs?\.", "Eqs. 6-8") == {6, 7, 8}
    assert numbered(r"Eqs?\.", "Eq. 20: Reward Model") == {20}
    assert numbered("Table", "Table 6, Qwen3-8B") == {6}
    assert numbered("Figure", "Table 6, Qwen3-8B") == set()


@pytest.mark.parametrize("number", range(1, 28))
def test_every_equation_has_a_line(number):
    assert lines_of(r"Eqs?\.", number)


@pytest.mark.parametrize("number", range(1, 12))
def test_every_table_has_a_line_with_its_target(number):
    assert f"table{number}" in targets_of("Table", number)


@pytest.mark.parametrize("number", range(2, 12))
def test_every_figure_has_a_line_with_its_target(number):
    assert f"figure{number}" in targets_of("Figure", number)


def test_every_target_of_the_default_has_a_line():
    targets = {code for row in INDEX for code in codes(row["rule"])}
    assert set(DEFAULT["tables"]) - targets == set()


@pytest.mark.parametrize("kind", scorers.KINDS)
def test_every_kind_of_method_has_a_line_with_its_class(kind):
    own = [codes(row["function"]) for row in ROWS if row.get("kind") == f"`{kind}`"]
    assert own and f"scorers.{scorers.KINDS[kind].__name__}" in own[0]


def test_every_method_of_the_default_has_a_line():
    settings = {code for row in ROWS for code in codes(row.get("settings", ""))}
    assert {f"methods.{name}" for name in DEFAULT["methods"]} - settings == set()
