"""How busy a GPU is.   pytest tests/work/test_gpumeter.py

No GPU is needed: a program of the same name prints what `nvidia-smi` does.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from hpcdata.report import status
from hpcdata.work import gpumeter, shardwork
from hpcdata.work.clock import WorkClock
from hpcdata.work.gpumeter import GpuMeter
from tests.smallruns import small_run


def program(folder: Path, script: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n{script}\n')
    path.chmod(0o755)
    return str(path)


def wait_for(meter: GpuMeter, *, known: bool) -> None:
    until = time.monotonic() + 20
    while (meter.busy_s() is not None) != known:
        assert time.monotonic() < until
        time.sleep(0.01)


def count_for(meter: GpuMeter, seconds: float) -> tuple[float, float]:
    """(busy seconds that the meter counts in about so many, how many they were); closes it."""
    before, started = meter.busy_s(), time.monotonic()
    time.sleep(seconds)
    after, seconds = meter.busy_s(), time.monotonic() - started
    meter.close()
    assert before is not None
    assert after is not None
    return after - before, seconds


def test_busy_seconds_are_the_samples_times_the_seconds_between_them(tmp_path: Path) -> None:
    meter = GpuMeter(program(tmp_path, "echo 50"), "GPU-1", sample_s=0.02)
    wait_for(meter, known=True)
    counted_s, seconds = count_for(meter, 1)
    assert counted_s == pytest.approx(seconds / 2, abs=0.2 * seconds)
    assert (tmp_path / "arguments").read_text().split()[:2] == ["--id=GPU-1", "--query-gpu=utilization.gpu"]
    assert "gpumeter" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("script", ["echo '[N/A]'", "echo 'No devices were found'; exit 6", "exit 9"])
def test_a_gpu_that_nvidia_smi_does_not_know_is_unknown(tmp_path: Path, script: str) -> None:
    meter = GpuMeter(program(tmp_path, script), "GPU-1")
    meter._thread.join(timeout=20)
    assert not meter._thread.is_alive(), "it is not asked again"
    assert meter.busy_s() is None
    assert "gpu_s" not in WorkClock(meter).mark_safe()
    meter.close()


def test_a_sample_that_a_signal_kills_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    once = f"[ -e {tmp_path}/second ] && [ ! -e {tmp_path}/third ] && touch {tmp_path}/third && kill -9 $$"
    meter = GpuMeter(program(tmp_path, f"{once}\ntouch {tmp_path}/second\necho 100"), "GPU-1", sample_s=0.02)
    until = time.monotonic() + 20
    while not (tmp_path / "third").exists() and time.monotonic() < until:
        time.sleep(0.01)
    counted_s, seconds = count_for(meter, 0.5)
    assert counted_s == pytest.approx(seconds, abs=0.2)


def test_a_gpu_that_falls_silent_is_unknown_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpumeter, "_TIMEOUT_S", 0.2)
    silent = tmp_path / "silent"
    meter = GpuMeter(program(tmp_path, f"[ -e {silent} ] && exec sleep 60\necho 90"), "GPU-1", sample_s=0.02)
    wait_for(meter, known=True)
    silent.touch()
    wait_for(meter, known=False)
    meter.close()


def test_a_cpu_has_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 50")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpumeter.start("cpu") is None
    assert gpumeter.start("none") is None


def test_status_tells_how_busy_the_gpus_of_a_run_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "echo 100")
    meters: list[GpuMeter] = []

    def start(device: str) -> GpuMeter:
        meters.append(GpuMeter(path, device, sample_s=0.01))
        wait_for(meters[0], known=True)
        return meters[0]

    monkeypatch.setattr(shardwork.gpumeter, "start", start)
    folder = tmp_path / "run"
    small_run(folder)
    (ledger,) = (folder / "ledger").iterdir()
    commits = [event for line in ledger.read_text().splitlines() if (event := json.loads(line))["event"] == "commit"]
    assert all(0 <= event["gpu_s"] <= event["useful_s"] + 0.1 for event in commits)
    assert status.read_status(folder).gpu_use is not None
    assert not meters[0]._thread.is_alive(), "it ended with the task"
