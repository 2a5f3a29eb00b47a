"""Parts of a table: what the plan asks for, and what the report reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sqsd.tables import read_tables


@dataclass(frozen=True)
class Part:
    """One row or curve of a table: the names that stand in it, options, and its files by role."""

    names: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def input_name(self, role: str) -> str:
        """The part's files of a role, among a rule's inputs."""
        return " ".join([role, *self.names.values()])

    def read(self, role: str, schema: str) -> pd.DataFrame:
        """The tables of a role, one below the other. Raises DataError as `read_table`."""
        return read_tables(self.files[role], schema)


def part_inputs(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Files of parts, each part's by names of its own."""
    return {
        part.input_name(role): list(files) for part in parts for role, files in part.files.items()
    }


def part_params(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Parts as params: names, options, and the names of their inputs by role."""
    return [
        {
            "names": part.names,
            "options": part.options,
            "inputs": {role: part.input_name(role) for role in part.files},
        }
        for part in parts
    ]


def parts_of(described: Iterable[Mapping[str, Any]], inputs: Mapping[str, Any]) -> list[Part]:
    """The parts that `part_params` describes, with the files of a job's inputs."""
    return [
        Part(
            part["names"],
            part["options"],
            {role: inputs[name] for role, name in part["inputs"].items()},
        )
        for part in described
    ]


def named(part: Part, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the part's names as its first columns."""
    return pd.DataFrame({**part.names, **frame.reset_index(drop=True)})
