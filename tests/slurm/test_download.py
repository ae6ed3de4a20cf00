"""Data sets in the layouts of the real ones, fetched by an array of four through kills and faults of the server.

pytest tests/slurm/test_download.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpcdata.catalogue.record import FOLDER
from tests.catalogue import real_sets, sets
from tests.catalogue.hub import Hub
from tests.slurm.cluster import SlurmCluster

ROOT = Path(__file__).parents[2]
NAMES = ("big", "chart_qa", "llava-stage1", "OneVisionData", "vqa2", "cc3m")
BIG = 48 << 20
SPLITS = 9


def prepare(hub: Hub, folder: Path) -> None:
    real_sets.chart_qa(hub.folder)
    real_sets.llava_pretrain(hub.folder, rows=40)
    real_sets.onevision(hub.folder)
    real_sets.cc3m(hub.folder)
    real_sets.vqa2(hub.folder)
    (hub.folder / "lab/big").mkdir(parents=True)
    for number in range(2):
        (hub.folder / f"lab/big/{number}.bin").write_bytes(os.urandom(BIG))
    sets.vqa2_of(hub, folder / "own")
    big = {"name": "big", "title": "t", "folder": "big", "licence": "CC0", "splits": {}, "hub": [{"repo": "lab/big"}]}
    (folder / "own/big.yaml").write_text(yaml.safe_dump(big))


def test_an_array_fetches_through_kills_and_faults_and_then_needs_no_server(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(tmp_path / "hub", rate=2 << 20) as hub:
        prepare(hub, tmp_path)
        for kind, part in (("cut", ".bin"), ("flip", "train-0"), ("status", "cc3m"), ("page", ".json")):
            hub.misbehave(kind, value=(429, {"Retry-After": "1"}), part=part)
        variables = {
            "HF_ENDPOINT": hub.url,
            "MOLMO_DATA_DIR": str(tmp_path / "data"),
            "HPCDATA_CATALOGUE": str(tmp_path / "own"),
            "HPCDATA_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        exports = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
        words = [*NAMES, "--n_proc", "2", "--checkpoint-mb", "1"]
        options = [f"--export={exports}", f"--chdir={tmp_path}", "--partition=preempt", "--array=0-3"]
        job = slurm.sbatch(*options, "--cpus-per-task=1", ROOT / "sbatch/download.sbatch", *words)
        slurm.wait_until(lambda: hub.bytes_of(".bin") > 3 << 20, "the first bytes of the large files")
        claims = tmp_path / "data/big" / FOLDER / "claims"
        os.kill(slurm.wait_until(lambda: _holder(claims), "a process that holds a claim"), signal.SIGKILL)
        with slurm.preempt():
            pass
        slurm.wait_until(lambda: not slurm.run("squeue", "-h", "-j", job, check=False).strip(), "all tasks", 120)
        last = _typed("download", *words, "--json")  # what a killed task has left
        assert last.returncode == 0, last.stdout + last.stderr
        for number in range(2):
            data = (hub.folder / f"lab/big/{number}.bin").read_bytes()
            assert (tmp_path / f"data/big/{number}.bin").read_bytes() == data
        sent = sum(hub.bytes_of(f"{number}.bin") for number in range(2))
        assert sent <= 2 * BIG + 8 * (2 << 20)
        asked = len(hub.requests)
        assert all(item["fetched"] == 0 for item in json.loads(_typed("download", *words, "--json").stdout))
        assert len(hub.requests) == asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # and the servers are gone
    assert _typed("download", *words).returncode == 0
    assert _typed("download", "--check", *NAMES).returncode == 0
    looked = _typed("verify-datasets", *NAMES[1:], "--json")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    counts = {(item["name"], item["split"]): item["num_examples"] for item in json.loads(looked.stdout)["splits"]}
    assert len(counts) == SPLITS
    assert counts["vqa2", "train"] == 3
    assert counts["llava_pretrain", "train"] == 40
    shown = _typed("visualize", "chart_qa", str(tmp_path / "page"), "--split=test")
    assert shown.returncode == 0, shown.stderr
    assert "How high is bar 3 of test?" in (tmp_path / "page/index.html").read_text()


def _holder(claims: Path) -> int | None:
    for path in claims.glob("unit-*"):
        try:
            return int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            continue
    return None


def _typed(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hpcdata", *words], capture_output=True, text=True, check=False)
