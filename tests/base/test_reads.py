"""Bytes of others' files.

pytest tests/base/test_reads.py
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from hpcdata.base.reads import naming, read_at, read_beginning


def test_fewer_bytes_only_where_the_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    descriptor, real = os.open(tmp_path / "file", os.O_RDONLY), os.pread
    try:
        monkeypatch.setattr(os, "pread", lambda file, size, offset: real(file, min(size, 3), offset))
        assert read_at(descriptor, 8, 1) == b"12345678"
        assert read_at(descriptor, 8, 6) == b"6789"
        assert read_at(descriptor, 8, 10) == read_at(descriptor, 8, 99) == read_at(descriptor, 0, 0) == b""
        assert read_beginning(str(tmp_path / "file"), 99) == b"0123456789"
        monkeypatch.setattr(os, "pread", lambda file, size, offset: real(file, size, offset) if offset < 4 else b"")
        with pytest.raises(OSError, match="nothing comes after byte 5 of 10"), naming("in.tar"):
            read_at(descriptor, 8, 5)
        assert read_at(descriptor, 4, 0) == b"0123"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "broken"), "[Errno 5] broken: 'in.tar'"),
        (OSError(errno.EIO, "broken", "other"), "[Errno 5] broken: 'other'"),
        (OSError("said no more"), "[Errno 5] said no more: 'in.tar'"),
    ],
)
def test_faults_name_the_file(error: Exception, told: str) -> None:
    for path in ("in.tar", Path("in.tar")):
        with pytest.raises(OSError, match=f"^{re.escape(told)}$"), naming(path):
            raise error
