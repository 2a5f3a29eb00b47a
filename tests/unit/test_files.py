"""Files and folders are written whole or not at all, and nothing is left beside them."""

import os
from pathlib import Path

import pytest

from sqsd.files import written_whole


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / text).write_text(text)


def contents(path: Path) -> str | list[str]:
    return path.read_text() if path.is_file() else sorted(p.name for p in path.iterdir())


def make(write, path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        write(temporary, text)


WAYS = pytest.mark.parametrize(
    ("write", "of"), [(write_file, str), (write_folder, lambda text: [text])]
)


@WAYS
def test_it_appears_at_the_end_of_the_block_and_replaces_what_was_there(tmp_path, write, of):
    path = tmp_path / "result"
    for text in ("old", "new"):
        before = contents(path) if path.exists() else None
        with written_whole(str(path)) as temporary:
            write(temporary, text)
            assert temporary.parent == tmp_path, "a move from another file system is no move"
            assert (contents(path) if path.exists() else None) == before
        assert contents(path) == of(text)
        assert list(tmp_path.iterdir()) == [path]


@WAYS
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path, write, of, error):
    path = tmp_path / "result"
    make(write, path, "old")
    for written in (True, False):
        with pytest.raises(error), written_whole(path) as temporary:
            if written:
                write(temporary, "half")
            raise error
        assert contents(path) == of("old")
        assert list(tmp_path.iterdir()) == [path]


@WAYS
def test_a_move_that_fails_leaves_nothing_beside_it(tmp_path, monkeypatch, write, of):
    path = tmp_path / "result"

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make(write, path, "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_does_not_replace_a_folder(tmp_path):
    path = tmp_path / "result"
    make(write_folder, path, "kept")
    with pytest.raises(OSError):
        make(write_file, path, "new")
    assert contents(path) == ["kept"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_does_not_replace_a_file(tmp_path):
    path = tmp_path / "result"
    make(write_file, path, "kept")
    with pytest.raises(OSError):
        make(write_folder, path, "new")
    assert contents(path) == "kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    path = tmp_path / "result"
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert list(tmp_path.iterdir()) == []
