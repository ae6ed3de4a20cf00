"""Sums of files that are there.   pytest tests/catalogue/transfer/test_hashing.py"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from hpcdata.catalogue.faults import Fault, Wanted
from hpcdata.catalogue.transfer import hashing

DATA = os.urandom(2 << 20) + b"end"
SHA256 = hashlib.sha256(DATA).hexdigest()
GIT_SHA1 = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()


def wanted(size: int | None = len(DATA), sha256: str | None = None, git_sha1: str | None = None) -> Wanted:
    return Wanted(path="a.bin", url="http://x/a.bin", size=size, sha256=sha256, git_sha1=git_sha1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was opened."""
    paths: list[object] = []
    actual = os.open

    def noted(path: Path, *rest: int) -> int:
        paths.append(path)
        return actual(path, *rest)

    monkeypatch.setattr(os, "open", noted)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is held in memory"))
    return paths


@pytest.mark.parametrize(
    ("known", "is_right"),
    [
        (wanted(sha256=SHA256), True),
        (wanted(sha256="0" * 64), False),
        (wanted(git_sha1=GIT_SHA1), True),
        (wanted(size=None, git_sha1=GIT_SHA1), True),
        (wanted(git_sha1="0" * 40), False),
        (wanted(sha256="0" * 64, git_sha1=GIT_SHA1), False),
    ],
)
def test_a_file_is_told_by_the_sum_of_its_line_in_one_reading(
    path: Path, opened: list[object], known: Wanted, is_right: bool
) -> None:
    assert hashing.is_right(path, known, lambda _: False) == (SHA256 if is_right else None)
    assert opened == [path]


@pytest.mark.parametrize("known", [wanted(), wanted(size=None), wanted(size=1, sha256=SHA256)])
def test_a_file_that_no_sum_can_tell_is_not_read(path: Path, opened: list[object], known: Wanted) -> None:
    assert hashing.is_right(path, known, lambda _: False) is None
    assert opened == []


def test_a_process_that_is_to_stop_reads_no_further(path: Path) -> None:
    with pytest.raises(Fault, match="stopped"):
        hashing.is_right(path, wanted(git_sha1=GIT_SHA1), lambda _: True)


def test_bytes_that_do_not_come_are_a_fault_of_the_machine_and_no_other_sum(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [1], os.readv

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        left[0] -= 1
        return real(descriptor, buffers) if left[0] >= 0 else 0

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(OSError, match="1048579 bytes less than it should") as raised:
        hashing.hash_file(path)
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(path))


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="it is no file"):
        hashing.hash_file(tmp_path / "a")
