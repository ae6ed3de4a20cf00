"""Processes that fetch together are killed at any moment: same bytes, and hardly a byte asked for twice.

pytest tests/catalogue/test_kills.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcdata.catalogue.record import FOLDER
from tests.catalogue.hub import Hub
from tests.catalogue.sets import MIB, YAML, fill, found

CHECKPOINT = MIB // 4
_UNSEEN = 256 << 10
"""What sockets, and chunks before they are written, hold of each file when a process dies."""


def start(folder: Path, hub: Hub, *words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "MOLMO_DATA_DIR": str(folder / "data"),
        "HPCDATA_CATALOGUE": str(folder / "entries"),
        "HF_HOME": str(folder / "home"),
    }
    line = [
        sys.executable,
        "-m",
        "hpcdata.download",
        "pairs",
        "--json",
        "--checkpoint-mb",
        str(CHECKPOINT / MIB),
        *words,
    ]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def prepare(folder: Path, *, num_small: int = 40, big: int = 4 * MIB) -> dict[str, bytes]:
    (folder / "entries").mkdir()
    (folder / "entries/pairs.yaml").write_text(YAML)
    return fill(folder / "hub", num_small=num_small, big=big)


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "seed"), [(1, 1), (4, 2)])
def test_any_kills_leave_the_same_files_and_ask_for_bytes_once(num_processes: int, seed: int, tmp_path: Path) -> None:
    files, draw = prepare(tmp_path), random.Random(seed)
    num_kills = 0
    with Hub(tmp_path / "hub", rate=1.5 * MIB) as hub:
        hub.misbehave("cut", times=2)
        hub.misbehave("status", times=2, value=(429, {"Retry-After": "1"}), part="/resolve/")
        running = [start(tmp_path, hub, "--n-proc", "2") for _ in range(num_processes)]
        ends = []
        deadline = time.monotonic() + 120
        while running:
            assert time.monotonic() < deadline
            time.sleep(draw.uniform(0.2, 0.9))
            for process in [item for item in running if item.poll() is not None]:
                running.remove(process)
                ends.append(process.returncode)
            if running and num_kills < 5:
                victim = running.pop(draw.randrange(len(running)))
                victim.kill()
                victim.communicate()
                num_kills += 1
                running.append(start(tmp_path, hub, "--n-proc", "2"))
        assert set(ends) == {0}
        folder = tmp_path / "data/torch_datasets/pairs"
        assert found(folder) == files
        assert (folder / FOLDER / "record.json").exists()
        for name, data in files.items():
            sent = hub.bytes_of(name.rpartition("/")[2].replace(" ", "%20"))
            assert sent <= len(data) + num_kills * (CHECKPOINT + _UNSEEN), name
        asked = len(hub.requests)
        last = start(tmp_path, hub)
        (result,) = json.loads(last.communicate()[0])
        assert (result["fetched"], result["kept"], last.returncode) == (0, len(files), 0)
        assert len(hub.requests) == asked
    assert num_kills, "the download was over before the first kill"


@pytest.mark.slow
def test_processes_share_the_work(tmp_path: Path) -> None:
    files = prepare(tmp_path, num_small=6, big=MIB)
    with Hub(tmp_path / "hub", rate=2 * MIB) as hub:
        results = [json.loads(process.communicate()[0])[0] for process in [start(tmp_path, hub) for _ in range(2)]]
        assert found(tmp_path / "data/torch_datasets/pairs") == files
        assert sum(result["fetched"] for result in results) == len(files)
        assert sum(request.sent for request in hub.downloads()) == sum(map(len, files.values()))
