"""Kills by the real SLURM: requeued by hand, at the time limit, with a node, submitted twice; the same bytes.

pytest tests/slurm/test_kills.py
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hpcdata.ledger import read_ledgers
from tests.slurm.cluster import SlurmCluster
from tests.slurm.test_runs import (
    NUM_SAMPLES,
    arguments,
    check,
    reference,
    restarts_and_resumes,
    source,
    submit,
    wait_for_status,
)

__all__ = ["reference", "source"]  # fixtures


def wait_for_the_end(slurm: SlurmCluster, folder: Path) -> None:
    wait_for_status(slurm, folder, NUM_SAMPLES)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip() or None, "an empty queue", 120)


def test_a_job_that_is_requeued_by_hand_continues(
    login_node: SlurmCluster, tmp_path: Path, source: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    job = submit(capsys, *arguments(folder, source, "cluster.array=0"))
    for done in (60, 200):
        wait_for_status(login_node, folder, done)
        login_node.requeue(job)
        login_node.skip_requeue_delay()
    wait_for_the_end(login_node, folder)
    restarts, resumes = restarts_and_resumes(folder)
    assert restarts >= 2
    assert resumes >= 1
    check(folder, reference)


def test_the_time_limit_makes_a_checkpoint_and_the_job_comes_back(
    login_node: SlurmCluster, tmp_path: Path, source: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM looks every half minute: until its USR2 is there the task stands still, to be neither done nor killed."""
    folder = tmp_path / "run"
    submit(capsys, *arguments(folder, source, "cluster.array=0", "cluster.time_min=1", "cluster.signal_delay_s=45"))
    wait_for_status(login_node, folder, 60)
    pid = pid_of_the_task(folder)
    os.kill(pid, signal.SIGSTOP)
    login_node.wait_until(lambda: has_ended(pid) or None, "the warning, which SLURM begins with SIGCONT")
    wait_for_the_end(login_node, folder)
    events = [event for _, events in read_ledgers(folder / "ledger") for event in events]
    assert {event["name"] for event in events if event["event"] == "signal"} == {"SIGUSR2"}
    restarts, resumes = restarts_and_resumes(folder)
    assert restarts >= 1
    assert resumes >= 1
    check(folder, reference)


def pid_of_the_task(folder: Path) -> int:
    return next(event["pid"] for _, events in read_ledgers(folder / "ledger") for event in events if "pid" in event)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_same_line_submitted_twice_at_once_does_the_work_once(
    login_node: SlurmCluster, tmp_path: Path, source: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        submit(capsys, *arguments(folder, source, "cluster.array=0-1"))
    wait_for_the_end(login_node, folder)
    check(folder, reference)


def test_a_node_that_goes_down_under_its_task_loses_nothing(
    login_node: SlurmCluster, tmp_path: Path, source: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its slurmd is killed, so that nobody ends the task there: it runs on beside its own restart elsewhere."""
    folder = tmp_path / "run"
    job = submit(capsys, *arguments(folder, source, "cluster.array=0", "cluster.claim_timeout_s=5"))
    wait_for_status(login_node, folder, 60)
    with login_node.lost_node(login_node.job(job)["NodeList"]):
        wait_for_the_end(login_node, folder)
    assert restarts_and_resumes(folder)[0] >= 1
    check(folder, reference)
