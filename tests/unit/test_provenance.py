import hashlib
import json
import os
import pickle
import re
import shutil
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from snakemake.iocontainers import Namedlist

import sqsd
from sqsd import provenance
from sqsd.errors import DataError
from sqsd.provenance import (
    STAGE_VERSIONS,
    StageVersion,
    content_hash,
    made_from,
    provenance_of,
    write_provenance,
)
from sqsd.tables import write_frame


def write(folder, files):
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def job(inputs=(), **params) -> Any:
    return SimpleNamespace(input=list(inputs), params=Params(version=StageVersion(3), **params))


class Params(SimpleNamespace):
    def items(self):
        return vars(self).items()


def test_what_a_job_only_comes_after_it_is_not_made_from(tmp_path):
    """In the inputs as a rule's script sees them: one list, parts of which have names."""
    write(tmp_path, {"rows": b"1", "checked": b""})
    rows, checked = (str(tmp_path / name) for name in ("rows", "checked"))
    given: Any = Namedlist([rows, checked])
    given._set_name("rows", 0)
    given._set_name("after", 1, end=2)
    assert (given.rows, list(given.after)) == (rows, [checked])
    one: Any = SimpleNamespace(input=given, params=Params(version=StageVersion(3)))
    assert list(made_from(one, "collect_gradients")["inputs"]) == [rows]


def test_what_a_table_was_made_from(tmp_path):
    write(tmp_path, {"a": b"1", "model/weights": b"2"})
    inputs = [str(tmp_path / name) for name in ("model", "a", "a")]
    method = {"kind": "random", "windows": ["s1", "s2"]}
    before = datetime.now(UTC).replace(microsecond=0)
    found = made_from(job(inputs, method=method, seed=7, work="w"), "score_samples")
    after = datetime.now(UTC)
    assert before <= datetime.fromisoformat(found.pop("time")) <= after
    settings = hashlib.sha256(json.dumps({"method": method, "seed": 7}).encode()).hexdigest()[:16]
    packages = ("torch", "transformers", "peft", "trl", "numpy", "pandas")
    assert found.pop("device")
    assert found == {
        "version": sqsd.__version__,
        "stage": "score_samples",
        "stage_version": 3,
        "settings": settings,
        "seed": 7,
        "packages": {name: version(name) for name in packages},
        "inputs": {path: content_hash(path) for path in sorted({*inputs})},
    }
    assert list(found["inputs"]) == sorted(found["inputs"])
    json.dumps(found)


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"lora": {"r": 8}, "work": "elsewhere"}, True),
        ({"lora": {"r": 9}}, False),
        ({"lora": {"r": 8}, "more": None}, False),
    ],
)
def test_the_settings_are_those_that_change_what_is_made(params, same):
    first = made_from(job(lora={"r": 8}, work="here"), "train_pilot")["settings"]
    assert (made_from(job(**params), "train_pilot")["settings"] == first) == same


@pytest.mark.parametrize(
    ("params", "seed"),
    [({}, None), ({"run": {"seed": 3, "save_steps": 2}}, 3), ({"spec": {"seed": 0}}, 0),
     ({"groups": {"a": {"seed": 2}}, "seed": 5}, 5)],
)  # fmt: skip
def test_the_seed_of_a_job(params, seed):
    assert made_from(job(**params), "train_pilot")["seed"] == seed


def test_the_device_is_the_gpu_where_a_job_could_compute_on_one(monkeypatch):
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "NVIDIA H200")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert provenance.device() == "NVIDIA H200"
    monkeypatch.delitem(sys.modules, "torch")
    assert provenance.device() not in ("", "NVIDIA H200")


def say(path, said):
    """A file or folder of each kind that says what it was made from."""
    if path.suffix == ".parquet":
        write_frame(pd.DataFrame({"a": [1]}), path, said)
    elif path.suffix == ".safetensors":
        save_file({"a": np.zeros(2)}, path, metadata={"sqsd": json.dumps(said)})
    elif path.suffix == ".json":
        path.write_text(json.dumps({"states": [], "made_from": said}))
    else:
        path.mkdir()
        write_provenance(path, said)


KINDS = pytest.mark.parametrize("name", ["a.parquet", "a.safetensors", "a.json", "a"])


@KINDS
def test_what_a_file_says_it_was_made_from(tmp_path, name):
    said = {"stage": "make_dataset", "stage_version": 1, "inputs": {"x": "12"}}
    say(tmp_path / name, said)
    assert provenance_of(tmp_path / name) == provenance_of(str(tmp_path / name)) == said


def test_files_of_others_say_nothing(tmp_path):
    write(tmp_path, {"rows.csv": b"a", "list.json": b"[1]", "other.json": b"{}", "model/w": b"1"})
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors")
    assert [provenance_of(path) for path in sorted(tmp_path.iterdir())] == [None] * 6
    made_from(job(map(str, tmp_path.iterdir())), "make_table")


@pytest.mark.parametrize("name", ["a.parquet", "a.safetensors", "a.json"])
@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_file_that_was_cut_short_is_told(tmp_path, name, kept):
    path = tmp_path / name
    say(path, {"stage": "make_dataset", "stage_version": 1})
    path.write_bytes(path.read_bytes()[:kept])
    message = rf"{re.escape(str(path))}: cannot be read \(.*\); delete it and run again"
    with pytest.raises(DataError, match=message):
        made_from(job([str(path)]), "make_table")


@KINDS
@pytest.mark.parametrize(
    ("stage", "by", "now"),
    [
        ("make_dataset", 0, "that stage has version 1 now"),
        ("make_dataset", 2, "that stage has version 1 now"),
        ("brew_tea", 1, "there is no such stage now"),
    ],
)
def test_what_another_version_of_a_stage_made_is_refused(
    tmp_path, monkeypatch, name, stage, by, now
):
    monkeypatch.setitem(STAGE_VERSIONS, "make_dataset", 1)
    path = tmp_path / name
    say(path, {"stage": stage, "stage_version": by})
    message = (
        rf"{re.escape(str(path))}: made by version {by} of {stage}, and {now}: what it says may "
        "mean something else; delete it and run again"
    )
    with pytest.raises(DataError, match=message):
        made_from(job([str(path)]), "make_table")


def test_a_folder_s_own_provenance_is_no_content(tmp_path):
    write(tmp_path, {"model/weights": b"1", "model/below/provenance.json": b"2"})
    first = content_hash(tmp_path / "model")
    write_provenance(tmp_path / "model", {"time": "now"})
    assert content_hash(tmp_path / "model") == first
    write(tmp_path, {"model/below/provenance.json": b"3"})
    assert content_hash(tmp_path / "model") != first


def test_a_hash_is_of_the_content_and_not_of_place_or_time(tmp_path):
    write(tmp_path, {"one/a": b"x", "one/b/c": b"y"})
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(tmp_path / "two/a", (1, 1))
    assert content_hash(tmp_path / "one") == content_hash(str(tmp_path / "two"))
    assert content_hash(tmp_path / "one/a") == content_hash(tmp_path / "two/a")
    assert re.fullmatch(r"[0-9a-f]{16}", content_hash(tmp_path / "one"))


def test_the_hash_of_a_file_is_its_sha256_with_its_size(tmp_path):
    write(tmp_path, {"a": b"abc"})
    assert content_hash(tmp_path / "a") == hashlib.sha256(b"\x003\x00abc").hexdigest()[:16]


FILES = {"a": b"x", "b/c": b"yz", "b/d": b""}


@pytest.mark.parametrize(
    "other",
    [
        {"a": b"w", "b/c": b"yz", "b/d": b""},
        {"a": b"x", "b/c": b"yz"},
        {"a": b"x", "b/c": b"yz", "b/d": b"", "e": b""},
        {"a2": b"x", "b/c": b"yz", "b/d": b""},
        {"a": b"x", "c": b"yz", "b/d": b""},
        {"a": b"yz", "b/c": b"x", "b/d": b""},
        {"a": b"xy", "b/c": b"z", "b/d": b""},
    ],
)
def test_another_content_or_name_has_another_hash(tmp_path, other):
    one, two = (write(tmp_path / name, files) for name, files in (("1", FILES), ("2", other)))
    assert content_hash(one) != content_hash(two)


FOLDERS = st.dictionaries(st.sampled_from(["a", "b", "c/a", "c/b"]), st.binary(max_size=4))


@settings(deadline=None, max_examples=60)  # it writes files
@given(FOLDERS, FOLDERS)
def test_folders_have_one_hash_just_where_they_are_the_same(one, two):
    with TemporaryDirectory() as name:
        (Path(name) / "1").mkdir()
        (Path(name) / "2").mkdir()
        found = [content_hash(write(Path(name) / f"{i}", f)) for i, f in ((1, one), (2, two))]
    assert (found[0] == found[1]) == (one == two)


@pytest.mark.parametrize("whole", [8, 9])
def test_of_a_large_file_size_and_ends_are_read(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(provenance, "WHOLE_BYTES", whole)
    content = bytes(range(30))

    def changed(place):
        return content[:place] + b"\xff" + content[place + 1 :]

    files = {"same": content, "longer": content[:15] + b"\0" + content[15:]}
    write(tmp_path, files | {str(place): changed(place) for place in range(30)})
    first = content_hash(write(tmp_path, {"first": content}) / "first")
    assert content_hash(tmp_path / "same") == first
    assert content_hash(tmp_path / "longer") != first
    told = [place for place in range(30) if content_hash(tmp_path / str(place)) != first]
    last = -(-whole // 2)
    assert told == [*range(whole // 2), *range(30 - last, 30)]


@pytest.mark.parametrize("size", [7, 8])
def test_a_file_just_as_large_is_read_whole(tmp_path, monkeypatch, size):
    monkeypatch.setattr(provenance, "WHOLE_BYTES", 8)
    write(tmp_path, {"a": bytes(size)})
    first = content_hash(tmp_path / "a")
    for place in range(size):
        write(tmp_path, {"a": bytes(place) + b"1" + bytes(size - place - 1)})
        assert content_hash(tmp_path / "a") != first


def test_every_script_of_the_workflow_is_a_stage():
    scripts = Path(__file__).parents[2] / "workflow/scripts"
    assert {path.stem for path in scripts.glob("*.py")} == set(STAGE_VERSIONS)
    assert all(isinstance(version, int) for version in STAGE_VERSIONS.values())


def test_a_stage_s_version_is_no_other_number_to_snakemake():
    version = StageVersion(2)
    assert version == 2 and repr(version) != repr(2) and repr(version) != repr(StageVersion(3))
    assert json.dumps({"version": version}) == '{"version": 2}'
    assert pickle.loads(pickle.dumps(version)) == 2
