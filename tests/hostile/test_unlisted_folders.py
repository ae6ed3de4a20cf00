"""A folder that cannot be listed for a moment is an error that names it: nobody takes it for an empty one.

pytest tests/hostile/test_unlisted_folders.py
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcdata.base import files, sealed
from hpcdata.base.errors import UserError
from hpcdata.base.reads import paths_in, walk
from hpcdata.catalogue.states import names_below
from hpcdata.formats import target
from hpcdata.formats.arranging import Building
from hpcdata.formats.sets.finding import find_sets
from hpcdata.formats.sets.staging import write_mix
from hpcdata.runs.paths import RunPaths
from hpcdata.sources.pictures import exported
from tests.sources.source_files import write


@pytest.fixture
def unlisted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in `tmp_path/all`, which cannot be listed, with a file in it."""
    folder = tmp_path / "all/set"
    write(folder / "a.json", b"[]")
    write(tmp_path / "all/other/b.json", b"[]")

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".") -> Any:
            if str(path) == str(folder):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
            return real(path)

        return call

    monkeypatch.setattr(os, "scandir", failing(os.scandir))
    monkeypatch.setattr(os, "listdir", failing(os.listdir))
    return folder


def adopted(folder: Path) -> None:
    building = Building(folder)
    try:
        building.adopt()
    finally:
        building.close()


ALL: dict[str, Callable[[Path], object]] = {
    "a walk": lambda folder: list(walk(folder)),
    "a copy by links": lambda folder: files.link_folder(folder, folder.with_name("copy")),
    "what a library has written": adopted,
    "files of a split": lambda folder: list(names_below(folder)),
    "sets that are converted": lambda folder: find_sets(folder, (), None),
    "a mix": lambda folder: write_mix("1", folder / "mix.yaml"),
}


@pytest.mark.parametrize("name", ALL)
def test_what_looks_into_it_says_so(unlisted: Path, name: str) -> None:
    with pytest.raises((UserError, OSError)) as caught:
        ALL[name](unlisted.parent)
    assert str(unlisted) in str(caught.value)
    assert os.strerror(errno.EIO) in str(caught.value)


def test_retries_are_not_forgotten(unlisted: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        paths_in(unlisted, "retry-*")
    paths = RunPaths(unlisted.parent)
    paths.shards = unlisted
    with pytest.raises(OSError, match="Input/output error"):
        paths.list_retries()


def test_verify_names_it(unlisted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(unlisted.parent / target.FILE_NAME, b"{}")
    monkeypatch.setattr(target, "read_target", lambda *_, **__: _Empty())
    assert f"{unlisted} cannot be listed: Input/output error" in target.problems_of(unlisted.parent)


class _Empty:
    def entries(self) -> list[object]:
        return []


def test_what_is_gone_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "file", b"")
    assert list(walk(tmp_path / "gone")) == list(walk(tmp_path / "file")) == []
    assert paths_in(tmp_path / "gone", "*") == paths_in(tmp_path / "file", "*") == []
    assert paths_in(tmp_path, "f*") == [tmp_path / "file"]


def test_a_note_of_an_export_that_cannot_be_read_makes_no_other_file_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not exported._is_exported(str(tmp_path / "x.arrow"))
    write(tmp_path / "hpcdata.json", sealed.to_json({"target": "hf"}))
    assert exported._is_exported(str(tmp_path / "x.arrow"))

    def fail(path: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(UserError, match=r"cannot read .*hpcdata\.json: Stale file handle"):
        exported._is_exported(str(tmp_path / "x.arrow"))
