"""Globs of inputs.

pytest tests/sources/test_patterns.py
"""

from __future__ import annotations

import errno
import glob
import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from hpcdata.base.errors import UserError
from hpcdata.sources import list_inputs
from hpcdata.sources.patterns import expand_paths

FILES = ("x.tar", ".z.tar", "a/y.tar", "a/b/x.tar", "a/b/.h/y.tar", "a/b/c/d.tar", "b[1]/q.tar", "b1/q.tar")
COMPONENTS = ("*", "**", "a", "*.tar", "x.tar", "b[1]", "b[[]1]", ".*", "?", "link", "nothing*", "")


def test_globs_mean_what_they_mean_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    compared = 0
    for components in itertools.chain(*(itertools.product(COMPONENTS, repeat=number) for number in (1, 2, 3))):
        for pattern in ("/".join(("a/..", *components)), "/".join((str(tmp_path), *components))):
            found = glob.glob(pattern, recursive=True)
            if glob.has_magic(pattern) and not os.path.exists(pattern) and found and all(map(os.path.exists, found)):
                assert {*expand_paths(pattern)} == {os.path.abspath(path) for path in found}, pattern
                compared += 1
    assert compared > 500


@pytest.mark.parametrize("pattern", ["*.tar", "**/*.tar", "a/../*/*.tar"])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for name in ("x.tar", "a/y.tar", "b/z.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert expand_paths(f"{tmp_path}/{pattern}")
    real, refused = os.listdir, tmp_path if pattern == "*.tar" else tmp_path / "b"

    def listdir(path: str) -> list[str]:
        if os.path.realpath(path) == str(refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(UserError, match=r"cannot list .*: Input/output error"):
        expand_paths(f"{tmp_path}/{pattern}")


@pytest.mark.parametrize("pattern", ["**/*.tar", "b/*.tar", "b", "b/z.tar", "{a,b}/?.tar"])
def test_what_the_disk_cannot_tell_is_not_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for name in ("a/y.tar", "b/z.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1024))
    assert list_inputs(f"{tmp_path}/{pattern}", "auto")
    real, refused = os.stat, {str(tmp_path / "b"), str(tmp_path / "b/z.tar")}

    def stat(path: str, **options: Any) -> os.stat_result:
        if path in refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(UserError, match=r"cannot (read|list) .*/b.*: Input/output error"):
        list_inputs(f"{tmp_path}/{pattern}", "auto")
