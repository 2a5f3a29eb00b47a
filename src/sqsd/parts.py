"""Parts of a table: what the plan asks for, and what the report reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sqsd.tables import read_table


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
        parts = [read_table(path, schema) for path in self.files[role]]
        return pd.concat(parts, ignore_index=True)


def named(part: Part, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the part's names as its first columns."""
    return pd.DataFrame({**part.names, **frame.reset_index(drop=True)})
