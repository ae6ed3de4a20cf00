"""A stand-in of the hub for each test, and an environment that knows no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalogue.hub import Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_ACCESS_TOKEN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HPCDATA_CATALOGUE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
