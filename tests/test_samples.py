"""Blobs: what is the sample's fault becomes a reject, what is not stays an error.   pytest tests/test_samples.py"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcdata.samples import BadSample, Blob, Reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", Reason.MISSING_IMAGE),
        ("file/below.png", Reason.MISSING_IMAGE),
        ("nul\0.png", Reason.MISSING_IMAGE),
        ("x" * 300, Reason.MISSING_IMAGE),
        ("folder", Reason.MISSING_IMAGE),
        ("empty", Reason.EMPTY_IMAGE),
        ("large", Reason.OVERSIZED_IMAGE),
    ],
)
def test_a_bad_file_is_a_reject_with_a_reason_and_no_path_in_its_message(
    tmp_path: Path, name: str, reason: Reason
) -> None:
    (tmp_path / "folder").mkdir()
    for file, size in (("file", 5), ("empty", 0), ("large", 101)):
        (tmp_path / file).write_bytes(bytes(size))
    with pytest.raises(BadSample) as caught:
        Blob(path=f"{tmp_path}/{name}").read(max_bytes=100)
    assert caught.value.reason == reason
    assert str(tmp_path) not in caught.value.message


def test_slices_and_bytes_in_memory_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert Blob(path=str(tmp_path / "file"), offset=3, size=4).read(max_bytes=100) == b"3456"
    assert Blob(path="", data=b"abc").read(max_bytes=100) == b"abc"
    with pytest.raises(BadSample, match="ends after 2 of 4 bytes"):
        Blob(path=str(tmp_path / "file"), offset=8, size=4).read(max_bytes=100)


def test_a_slice_of_a_file_that_is_gone_is_no_fault_of_the_sample(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Blob(path=str(tmp_path / "gone.tar"), offset=512, size=4).read(max_bytes=100)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_a_passing_fault_of_the_machine_is_no_fault_of_the_sample(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        Blob(path="/any").read(max_bytes=100)
