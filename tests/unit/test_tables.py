import json

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from sqsd import tables
from sqsd.errors import DataError
from sqsd.tables import SCHEMAS, read_table, write_frame, write_table

VALUES = {
    "str": ["a", "b"],
    "bool": [True, False],
    "boolean": [True, False],
    "Int64": [1, 2],
    "int64": [1, 2],
    "float64": [0.5, -2.0],
    "object": [np.array([0.5, 1.0], dtype="float32"), np.array([-2.0, 0.0], dtype="float32")],
}


def example(schema: str, with_nulls: bool = False) -> pd.DataFrame:
    """Two rows that fit a schema; the second null wherever the schema allows it."""
    columns = {}
    for name, column in SCHEMAS[schema].columns.items():
        kind = "str" if "str" in str(column.dtype) else str(column.dtype)
        values = list(VALUES[kind])
        if with_nulls and column.nullable:
            values[1] = np.nan if kind == "float64" else None
        columns[name] = pd.Series(values, dtype=kind)
    return pd.DataFrame(columns)


@pytest.mark.parametrize("with_nulls", [False, True])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_round_trip_keeps_values_types_and_nulls(tmp_path, schema, with_nulls):
    frame = example(schema, with_nulls)
    write_table(frame, tmp_path / "t.parquet", schema, {})
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", schema), frame)


BOUNDED = {"sensitivity", "sensitivity_bootstrap_low", "sensitivity_bootstrap_high"}


@pytest.mark.parametrize(
    ("schema", "nullable"),
    [
        ("dataset", {"response", "family", "problem", "conversation"}),
        ("preferences", set()),
        ("benchmark", {"category", "reference"}),
        ("responses", {"alpha", "step", "window", "seed"}),
        ("judgements", {"alpha", "step", "window", "seed", "verdict", "unreadable", "score"}),
        ("known_judgements", {"verdict", "unreadable", "score"}),
        ("samples", {"reason"}),
        ("gradient_samples", {"loss", "reason"}),
        ("gradient_modules", set()),
        ("hidden_states", {"reason", "hidden_state"}),
        ("gradients", {"loss", "reason", "gradient_norm"}),
        ("anchor_products", set()),
        ("row_judgements", {"score", "reason"}),
        ("layer_search", set()),
        ("token_losses", set()),
        ("loss_changes", {"adapter_predicted", "change"}),
        ("scores", {"score", "rank", "reason"}),
        ("subset", {"conversation"}),
        ("groups", {"biased_to"}),
        ("trajectory", set()),
        ("drift_ranking", {*BOUNDED, "exact_share", "rank"}),
        ("linear_ranking", {*BOUNDED, "exact_share", "rank"}),
    ],
)
def test_nulls_are_refused_exactly_where_undeclared(tmp_path, schema, nullable):
    assert {n for n, c in SCHEMAS[schema].columns.items() if c.nullable} == nullable
    for name, column in SCHEMAS[schema].columns.items():
        if name in nullable or str(column.dtype).lower() in ("int64", "bool"):
            continue
        frame = example(schema)
        frame.loc[1, name] = None
        with pytest.raises(DataError, match=f"not a '{schema}' table: column '{name}' holds a nul"):
            write_table(frame, tmp_path / "t.parquet", schema, {})


def test_conversations_alone_may_be_absent(tmp_path):
    for schema, declared in SCHEMAS.items():
        frame = example(schema)
        for name in declared.columns:
            if name == "conversation":
                write_table(frame.drop(columns=name), tmp_path / "t.parquet", schema, {})
                assert name not in read_table(tmp_path / "t.parquet", schema)
                continue
            with pytest.raises(DataError, match=f"column '{name}' is missing"):
                write_table(frame.drop(columns=name), tmp_path / "t.parquet", schema, {})


def test_same_frame_gives_same_bytes_with_provenance(tmp_path):
    frame, provenance = example("scores"), {"version": "0.1", "inputs": {"a": "12"}}
    write_table(frame, tmp_path / "a.parquet", "scores", provenance)
    write_table(frame.copy(), tmp_path / "b.parquet", "scores", provenance)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    metadata = parquet.read_schema(tmp_path / "a.parquet").metadata
    assert json.loads(metadata[b"sqsd"]) == {"schema": "scores", **provenance}
    write_table(frame, tmp_path / "c.parquet", "scores", provenance | {"version": "0.2"})
    metadata = parquet.read_schema(tmp_path / "c.parquet").metadata
    assert json.loads(metadata[b"sqsd"])["version"] == "0.2"
    pd.testing.assert_frame_equal(read_table(tmp_path / "c.parquet", "scores"), frame)


def test_object_columns_of_text_are_text(tmp_path):
    frame = example("dataset").astype(object).assign(family=None)
    write_table(frame, tmp_path / "t.parquet", "dataset", {})
    read = read_table(tmp_path / "t.parquet", "dataset")
    assert str(read["family"].dtype) == "str"
    assert list(read["family"].isna()) == [True, True]


def test_numbers_do_not_become_text(tmp_path):
    for prompt in ([1, 2], pd.Series(["a", 2], dtype=object)):
        with pytest.raises(
            DataError, match=r"t\.parquet: not a 'dataset' table: column 'prompt' must be str"
        ):
            write_table(
                example("dataset").assign(prompt=prompt), tmp_path / "t.parquet", "dataset", {}
            )


def test_every_failure_is_reported_at_once(tmp_path):
    frame = example("trajectory").assign(step=[0.5, 1.5], extra=1).drop(columns="projection")
    with pytest.raises(DataError) as caught:
        write_table(frame, tmp_path / "t.parquet", "trajectory", {})
    message = str(caught.value)
    assert "column 'extra' is not declared; declared: step, projection" in message
    assert "column 'projection' is missing" in message
    assert "column 'step' must be int64, got 'float64'" in message


def test_column_order_is_declared(tmp_path):
    frame = example("trajectory").reindex(columns=["projection", "step"])
    message = r"column '(step|projection)' is out of order; declared: step, projection"
    with pytest.raises(DataError, match=message):
        write_table(frame, tmp_path / "t.parquet", "trajectory", {})


def test_repeated_key_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a 'scores' table: sample_id must be unique"):
        write_table(example("scores").assign(sample_id="a"), tmp_path / "t.parquet", "scores", {})


def test_unknown_schema_names_the_known(tmp_path):
    with pytest.raises(DataError, match=r"'score' is not a schema; .*Did you mean 'scores'\?"):
        write_table(example("scores"), tmp_path / "t.parquet", "score", {})


def test_failed_writes_leave_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_table(example("scores"), path, "scores", {})
    before = path.read_bytes()
    with pytest.raises(DataError):
        write_table(example("scores").assign(sample_id="a"), path, "scores", {})

    def write_half(table, where, **options):
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tables.parquet, "write_table", write_half)
    with pytest.raises(OSError, match="disk full"):
        write_table(example("scores"), path, "scores", {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_changed_byte_in_a_column_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(example("scores"), path, "scores", {})
    column = parquet.ParquetFile(path).metadata.row_group(0).column(1)
    assert column.path_in_schema == "score"
    last = column.data_page_offset + column.total_compressed_size - 1
    content = bytearray(path.read_bytes())
    content[last - 2] ^= 1
    path.write_bytes(content)
    message = r"t\.parquet: not a Parquet file \(.*checksum.*\); delete it and run again"
    with pytest.raises(DataError, match=message):
        read_table(path, "scores")


def test_missing_table(tmp_path):
    with pytest.raises(DataError, match=r"gone\.parquet: no such table"):
        read_table(tmp_path / "gone.parquet", "scores")


def test_empty_file(tmp_path):
    path = tmp_path / "t.parquet"
    path.touch()
    with pytest.raises(DataError, match=r"t\.parquet: the file is empty"):
        read_table(path, "scores")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_only_tables_that_may_be_empty_are_read_without_a_row(tmp_path, schema):
    path = tmp_path / "t.parquet"
    write_table(example(schema).head(0), path, schema, {})
    # A part beyond a pilot's last checkpoint, or a shard of which no row can be scored.
    if schema in ("gradient_modules", "anchor_products", "responses", "judgements", "repeats"):
        pd.testing.assert_frame_equal(read_table(path, schema), example(schema).head(0))
        return
    with pytest.raises(DataError, match=rf"t\.parquet: the '{schema}' table has no rows"):
        read_table(path, schema)


def test_wrong_file_and_wrong_table(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("not parquet")
    with pytest.raises(DataError, match=r"t\.parquet: not a Parquet file"):
        read_table(path, "scores")
    write_frame(pd.DataFrame({"x": [1]}), path, {})
    with pytest.raises(DataError, match=r"t\.parquet: not a 'scores' table: column 'x' is not dec"):
        read_table(path, "scores")
