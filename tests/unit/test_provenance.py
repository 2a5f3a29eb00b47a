import hashlib
import json
import os
import pickle
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqsd
from sqsd import provenance
from sqsd.provenance import STAGE_VERSIONS, StageVersion, content_hash, made_from


def write(folder, files):
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_what_a_table_was_made_from(tmp_path):
    write(tmp_path, {"a": b"1", "model/weights": b"2"})
    inputs = [str(tmp_path / name) for name in ("model", "a", "a")]
    found = made_from(inputs, "score_samples", 3)
    assert found == {
        "version": sqsd.__version__,
        "stage": "score_samples",
        "stage_version": 3,
        "inputs": {path: content_hash(path) for path in sorted(set(inputs))},
    }
    assert list(found["inputs"]) == sorted(found["inputs"])
    assert made_from(reversed(inputs), "score_samples", 3) == found


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
