"""Writing past the page cache: pytest tests/base/disk"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcdata.base.disk import direct
from hpcdata.base.disk.direct import ALIGNED, Direct


def test_a_slow_way_past_the_page_cache_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(direct, "_TRIAL_BYTES", ALIGNED)
    monkeypatch.setattr(direct, "_FAST", float("inf"))
    way = Direct(tmp_path / "file")
    way.descriptor, way.is_used = os.open(tmp_path / "file", os.O_RDWR), True  # on any file system
    assert way.write(memoryview(bytes(3 * ALIGNED + 1)), 0) == 3 * ALIGNED
    assert not way.is_used
    assert way.write(memoryview(bytes(ALIGNED)), 0) == 0
    way.close()
