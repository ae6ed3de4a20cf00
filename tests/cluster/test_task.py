"""An array task before and after its work.   pytest tests/cluster/test_task.py"""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from hpcdata.cluster import task
from hpcdata.config.schema import ClusterConfig


def delay(array: str, index: int, size: int) -> float:
    cluster = ClusterConfig(array=array, stagger_s=60.0)
    return task.start_delay_s(cluster, {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(size)})


def test_those_that_start_together_are_spread() -> None:
    assert [delay("0-3", index, 4) for index in range(4)] == [0, 15, 30, 45]


def test_those_that_start_later_need_no_delay() -> None:
    assert [delay("0-99%3", index, 100) for index in (0, 1, 2, 3, 99)] == [0, 20, 40, 0, 0]


def test_an_array_of_fewer_tasks_than_was_asked_for_is_spread_by_those_that_it_has() -> None:
    assert [delay("0-999%500", index, 2) for index in range(2)] == [0, 30]


def test_without_an_array_or_without_the_setting_nothing_waits() -> None:
    assert task.start_delay_s(ClusterConfig(stagger_s=60.0), {}) == 0
    assert (
        task.start_delay_s(ClusterConfig(array="0-3"), {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}) == 0
    )


def test_a_task_in_a_container_without_scontrol_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code tells the batch script, which runs outside and asks for the job to come back."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited"))
    assert task.leave(SimpleNamespace(received=signal.SIGUSR2)) == 128 + signal.SIGUSR2  # type: ignore[arg-type]
