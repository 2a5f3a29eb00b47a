"""What a judge with a model of its own has said before, by prompt and response.

Each job adds one file, whole or not at all, and reads those that are there: no two jobs write to
one file. The folder may be deleted between runs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from sqsd.errors import DataError
from sqsd.provenance import content_hash
from sqsd.tables import read_table, write_table

PAIR = ["prompt", "response"]
SCHEMA = "known_judgements"


@dataclass(frozen=True)
class JudgementCache:
    """A folder of judgements, and what they depend on beside prompt and response."""

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def of(
        cls, work: str | Path, entry: Mapping[str, Any], own_model: str, dtype: str, version: int
    ) -> Self:
        """The folder in `work` of an entry of the configuration; anything else has another."""
        record = {
            "judge": dict(entry), "model": content_hash(own_model), "dtype": dtype,
            "version": int(version),
        }  # fmt: skip
        return cls(Path(work) / digest(json.dumps(record, sort_keys=True)), record)

    def read(self) -> pd.DataFrame:
        """The `known_judgements` table of all files; one that cannot be read is left out."""
        frames = [none_known()]
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                frames.append(read_table(path, SCHEMA))
            except DataError as error:
                print(f"judged again: {error}")
        # Jobs that ran side by side may have judged the same.
        return pd.concat(frames, ignore_index=True).drop_duplicates(PAIR)

    def add(self, judged: pd.DataFrame) -> None:
        """Add a `known_judgements` table, in a file that its pairs name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = digest(judged[PAIR].to_csv(index=False))
        write_table(judged, self.folder / f"{name}.parquet", SCHEMA, self.record)


def none_known() -> pd.DataFrame:
    kinds = {
        "prompt": "str", "response": "str", "verdict": "boolean", "unreadable": "str",
        "score": "float64",
    }  # fmt: skip
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in kinds.items()})  # pyright: ignore


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
