"""Parquet tables with a declared schema, written whole or not at all."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet as parquet
from pandera.errors import SchemaErrors

from sqsd.errors import AGAIN, DataError, not_known
from sqsd.files import written_whole
from sqsd.provenance import KEY
from sqsd.states import ORIGIN_COLUMNS


def _schema(unique: list[str] | None = None, **columns) -> pa.DataFrameSchema:
    """columns: types by name; with ? a null is allowed, with ?? a table may lack the column."""
    return pa.DataFrameSchema(
        {
            name: pa.Column(
                kind.rstrip("?"), nullable=kind.endswith("?"), required=not kind.endswith("??")
            )
            for name, kind in columns.items()
        },
        strict=True,
        ordered=True,
        unique=unique,
    )


# Where a judged state comes from, as far as it does (`states.State.origin`).
ORIGIN = {name: f"{kind}?" for name, kind in ORIGIN_COLUMNS.items()}
# A sensitivity with its bootstrap interval over prompts, and how many these are.
SENSITIVITY = dict.fromkeys(
    ("sensitivity", "sensitivity_bootstrap_low", "sensitivity_bootstrap_high"), "float64?"
) | {"prompts": "int64"}
SCHEMAS: dict[str, pa.DataFrameSchema] = {
    # conversation: turns that prompt and response cannot hold (`conversations.Conversation`).
    "dataset": _schema(
        ["sample_id"],
        sample_id="str", prompt="str", response="str?", family="str?", problem="str?",
        conversation="str??",
    ),
    "preferences": _schema(
        ["sample_id"], sample_id="str", prompt="str", chosen="str", rejected="str"
    ),
    "benchmark": _schema(
        ["prompt_id"], prompt_id="str", prompt="str", category="str?", reference="str?"
    ),
    "responses": _schema(
        ["state", "prompt_id"],
        state="str", **ORIGIN, prompt_id="str", prompt="str", response="str",
        response_tokens="int64",
    ),
    # unreadable: what the judge said where no verdict could be read from it.
    "judgements": _schema(
        ["state", "prompt_id"],
        state="str", **ORIGIN, prompt_id="str", verdict="boolean?", unreadable="str?",
        score="float64?",
    ),
    "known_judgements": _schema(
        ["prompt", "response"],
        prompt="str", response="str", verdict="boolean?", unreadable="str?", score="float64?",
    ),
    "samples": _schema(
        ["sample_id"],
        sample_id="str", prompt_tokens="int64", response_tokens="int64", reason="str?",
    ),
    "gradient_samples": _schema(
        ["sample_id"],
        sample_id="str", loss="float64?", prompt_tokens="int64", response_tokens="int64",
        reason="str?",
    ),
    "gradient_modules": _schema(
        ["sample_id", "module"],
        sample_id="str", module="str", update_norm="float64", inner_product="float64",
        direction_norm="float64",
    ),
    "hidden_states": _schema(
        ["sample_id"],
        sample_id="str", prompt_tokens="int64", response_tokens="int64", reason="str?",
        hidden_state="object?",
    ),
    # Of the gradient over all parameters.
    "gradients": _schema(
        ["sample_id"],
        sample_id="str", loss="float64?", prompt_tokens="int64", response_tokens="int64",
        reason="str?", gradient_norm="float64?",
    ),
    "anchor_products": _schema(
        ["sample_id", "anchor"], sample_id="str", anchor="str", product="float64",
    ),
    "row_judgements": _schema(["sample_id"], sample_id="str", score="float64?", reason="str?"),
    "layer_search": _schema(
        ["layer", "factor"],
        layer="int64", factor="float64", prompts="int64", refusals="int64",
    ),
    # Of a run before it: hours of the jobs to do, one after another, null where a model's size is
    # not known; memory of the job with the least room left, and what it may have, on a GPU or,
    # where it has none, in all; measured_share: of the jobs to do, those of a rule that has run on
    # their model.
    "plan": _schema(
        ["target", "rule"],
        target="str", rule="str", done="int64", to_do="int64", hours="float64?",
        longest_hours="float64?", gpu_hours="float64?", memory_mb="float64?",
        allowed_mb="float64?", measured_share="float64?",
    ),
    # Of the model as it is. position: from 1; is_end: the response's end token.
    "token_losses": _schema(
        ["sample_id", "group", "position"],
        sample_id="str", group="str", position="int64", token="str", is_end="bool", loss="float64",
    ),
    # In nats; a change is positive where the loss is less at the step's end.
    "loss_changes": _schema(
        ["sample_id", "alpha"],
        sample_id="str", alpha="float64", predicted="float64", adapter_predicted="float64?",
        change="float64?",
    ),
    "scores": _schema(
        ["sample_id"],
        sample_id="str", score="float64?", rank="Int64?", reason="str?", response_tokens="int64",
    ),
    # position: of a row's token, from 1. share: of a term of the row's score, which it sums to over
    # all tokens. token: what it adds to the text.
    "token_shares": _schema(
        ["sample_id", "term", "position"],
        sample_id="str", term="str", position="int64", token="str", is_response="bool",
        share="float64",
    ),
    # The same by layer, and by kind of module. part: `layer` or `kind`.
    "module_shares": _schema(
        ["sample_id", "term", "part", "name"],
        sample_id="str", term="str", part="str", name="str", share="float64",
    ),
    "nearest": _schema(
        ["sample_id", "neighbour"], sample_id="str", neighbour="str", similarity="float64",
    ),
    # Rows that are like another one. group: the first row that is.
    "repeats": _schema(["sample_id"], sample_id="str", group="str", similarity="float64"),
    "subset": _schema(
        ["sample_id"],
        sample_id="str", score="float64", rank="int64", prompt="str", response="str",
        conversation="str??",
    ),
    # A row may be there several times.
    "training_rows": _schema(
        sample_id="str", prompt="str", response="str?", family="str?", problem="str?",
        conversation="str??",
    ),
    # The mean over a response's tokens and its end token, in nats; null with a reason.
    "row_losses": _schema(
        ["state", "sample_id"],
        state="str", **ORIGIN, sample_id="str", loss="float64?", reason="str?",
    ),
    # biased_to: the family that a group has more rows of, null for a random one.
    "groups": _schema(
        ["group", "sample_id"], group="str", sample_id="str", biased_to="str?",
    ),
    "trajectory": _schema(["step"], step="int64", projection="float64"),
    "drift_ranking": _schema(
        ["step"],
        step="int64", next_step="int64", **SENSITIVITY, denominator_floored="bool",
        safety_score="float64", projection="float64", exact_share="float64?", rank="Int64?",
    ),
    "linear_ranking": _schema(
        ["alpha"],
        alpha="float64", **SENSITIVITY, safety_score="float64", exact_share="float64?",
        rank="Int64?",
    ),
}  # fmt: skip


# A shard in which every sample is unusable has no module rows and no products; its samples table
# says why. A gradient's norm alone is multiplied with no anchor. A pilot that could not train on
# all its rows has fewer checkpoints than parts were planned for. No row need be like another.
MAY_BE_EMPTY = frozenset(
    {"gradient_modules", "anchor_products", "responses", "judgements", "repeats"}
)


def write_table(
    frame: pd.DataFrame, path: str | Path, schema: str, provenance: Mapping[str, Any]
) -> None:
    """Validate and write atomically; metadata names the schema and what `provenance` says.

    The same frame and provenance (`provenance.made_from`) give the same bytes. Raises DataError
    naming the path, the column and what is wrong; the file at `path` is then as it was.
    """
    write_frame(_checked(frame, path, schema), path, {"schema": schema, **provenance})


def write_frame(frame: pd.DataFrame, path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write Parquet, whole or not at all.

    Raises OSError, or an error of pyarrow where a value has no Parquet type.
    """
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    said = {KEY: json.dumps(metadata)}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **said})
    with written_whole(path) as temporary:
        parquet.write_table(table, temporary, write_page_checksum=True)


def read_table(path: str | Path, schema: str) -> pd.DataFrame:
    """Read and validate a table.

    Raises DataError naming the path when it is missing, empty, unreadable or not as declared.
    """
    if Path(path).is_dir():
        raise DataError(f"{path}: a folder in the place of a file; {AGAIN}")
    if not Path(path).is_file():
        raise DataError(f"{path}: no such table; ask snakemake for this file to make it")
    if Path(path).stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; {AGAIN}")
    try:
        frame = parquet.read_table(path, page_checksum_verification=True).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file ({error}); {AGAIN}") from error
    try:
        frame = _checked(frame, path, schema)
    except DataError as error:
        raise DataError(f"{error}; {AGAIN}") from error
    if frame.empty and schema not in MAY_BE_EMPTY:
        raise DataError(f"{path}: the '{schema}' table has no rows; look at the step that wrote it")
    return frame


def read_tables(paths: Iterable[str], schema: str) -> pd.DataFrame:
    """Tables of one schema, one below the other. Raises DataError as `read_table`."""
    return pd.concat([read_table(path, schema) for path in paths], ignore_index=True)


def _checked(frame: pd.DataFrame, path: str | Path, schema: str) -> pd.DataFrame:
    if schema not in SCHEMAS:
        raise DataError(f"{path}: {not_known(schema, 'schema', SCHEMAS)}")
    declared = SCHEMAS[schema]
    texts = [n for n, c in declared.columns.items() if _kind(c) == "str" and n in frame]
    # An object column of text is the declared type; any other value must not become text.
    others = [n for n in texts if frame[n].dtype != "str"]
    plain = [n for n in others if all(isinstance(v, str) for v in frame[n].dropna())]
    try:
        return declared.validate(frame.astype(dict.fromkeys(plain, "str")), lazy=True)
    except SchemaErrors as error:
        raise DataError(f"{path}: not a '{schema}' table: {_failures(error, declared)}") from error


def _kind(column: pa.Column) -> str:
    """A column's type as declared: pandera prints "str" as the storage pandas gives it."""
    kind = str(column.dtype)
    return "str" if kind.startswith("str") else kind


def _failures(error: SchemaErrors, declared: pa.DataFrameSchema) -> str:
    """Every failing column once, with its first failing row where there is one."""
    found: dict[str, None] = {}
    seen: set[tuple[str, str]] = set()
    declared_names = ", ".join(declared.columns)
    for case in error.failure_cases.to_dict("records"):
        value, check, column = case["failure_case"], str(case["check"]), str(case["column"])
        row = "" if pd.isna(case["index"]) else f" (first: row {case['index']}, {value!r})"
        if check == "column_in_schema":
            text = f"column '{value}' is not declared; declared: {declared_names}"
        elif check == "column_in_dataframe":
            text = f"column '{value}' is missing"
        elif check == "column_ordered":
            text = f"column '{value}' is out of order; declared: {declared_names}"
        elif check == "not_nullable":
            text = f"column '{column}' holds a null{row}"
        elif check == "multiple_fields_uniqueness":
            text = f"{', '.join(declared.unique or [])} must be unique{row}"
            column = ""
        elif check.startswith("dtype"):
            allowed = _kind(declared.columns[column])
            text = f"column '{column}' must be {allowed}, got {value!r}"
        else:
            text = f"column '{column}': {check}{row}"
        key = (check, str(value) if check.startswith("column_") else column)
        if key not in seen:
            seen.add(key)
            found[text] = None
    return "; ".join(found)
