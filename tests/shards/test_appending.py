"""Files that only grow.   pytest tests/shards/test_appending.py"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcdata.base import files
from hpcdata.shards import appending

MIB = 2**20


def test_what_is_written_is_sent_on_to_the_disk_long_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "start_writing", lambda _, first, size: started.append((first, size)))
    pieces = [os.urandom(size) for size in (100, 3 * MIB, 7, 9 * MIB, MIB, 17 * MIB)]
    file = appending.AppendFile(tmp_path / "file")
    for piece in pieces:
        file.append(piece)
    file.close()
    ends = [first + size for first, size in started]
    assert [first for first, _ in started] == [0, *ends[:-1]]
    assert file.size - ends[-1] < 8 * MIB
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_it_is_no_error_where_nothing_can_be_sent_on() -> None:
    reader, writer = os.pipe()
    files.start_writing(writer, 0, 1)
    os.close(reader)
    os.close(writer)
