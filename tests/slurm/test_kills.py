"""Kills by the real SLURM: requeued by hand, at the time limit, with a node, submitted twice; the same bytes.

pytest tests/slurm/test_kills.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.rejects import rows_of
from tests.evidence import POISON, SLURM, Evidence
from tests.poisoned import install
from tests.slurm.cluster import SlurmCluster
from tests.slurm.test_runs import (
    NUM_SAMPLES,
    ROOT,
    arguments,
    check,
    reference,
    restarts_and_resumes,
    source,
    submit,
    wait_for_status,
)
from tests.work.test_poison import pictures

__all__ = ["reference", "source"]  # fixtures


def wait_for_the_end(slurm: SlurmCluster, folder: Path) -> None:
    wait_for_status(slurm, folder, NUM_SAMPLES)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip() or None, "an empty queue", 120)


def test_a_job_that_is_requeued_by_hand_continues(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
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
    evidence(SLURM, 2, folder)


def test_the_time_limit_makes_a_checkpoint_and_the_job_comes_back(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SLURM looks every half minute: until its USR2 is there the task stands still, to be neither done nor killed.

    On a slow machine the first sample may come after USR2: then the task has ended already, as it should.
    """
    folder = tmp_path / "run"
    submit(capsys, *arguments(folder, source, "cluster.array=0", "cluster.time_min=1", "cluster.signal_delay_s=45"))
    wait_for_status(login_node, folder, 1)  # soon, as it is to stop before it is done
    pid = pid_of_the_task(folder)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    login_node.wait_until(lambda: has_ended(pid) or None, "the warning, which SLURM begins with SIGCONT")
    wait_for_the_end(login_node, folder)
    events = [event for _, events in read_ledgers(folder / "ledger") for event in events]
    assert {event["name"] for event in events if event["event"] == "signal"} == {"SIGUSR2"}
    restarts, resumes = restarts_and_resumes(folder)
    assert restarts >= 1
    assert resumes >= 1
    check(folder, reference)
    evidence(SLURM, 1, folder)


def pid_of_the_task(folder: Path) -> int:
    return next(event["pid"] for _, events in read_ledgers(folder / "ledger") for event in events if "pid" in event)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_same_line_submitted_twice_at_once_does_the_work_once(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        submit(capsys, *arguments(folder, source, "cluster.array=0-1"))
    wait_for_the_end(login_node, folder)
    check(folder, reference)
    evidence(SLURM, 1, folder)


def test_a_node_that_goes_down_under_its_task_loses_nothing(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its slurmd is killed, so that nobody ends the task there: it runs on beside its own restart elsewhere."""
    folder = tmp_path / "run"
    job = submit(capsys, *arguments(folder, source, "cluster.array=0", "cluster.claim_timeout_s=5"))
    wait_for_status(login_node, folder, 60)
    with login_node.lost_node(login_node.job(job)["NodeList"]):
        wait_for_the_end(login_node, folder)
    assert restarts_and_resumes(folder)[0] >= 1
    check(folder, reference)
    evidence(SLURM, 1, folder)


SMALL = ("cluster.array=0-1", "data.resolution=32", "data.n_train_samples=96", "data.max_crashes=1")


def rejected(folder: Path) -> list[tuple[int, str]]:
    return [(row.index, row.reason) for row in rows_of(Path(folder))]


def test_a_task_whose_record_crashes_it_starts_again_by_itself(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two deadly records, far apart: each ends a process, and none of it needs a person or a place in the queue."""
    victims = [pictures()[index] for index in (9, 19)]
    monkeypatch.setenv("PYTHONPATH", f"{install(tmp_path / 'site', 'segfault', victims)}{os.pathsep}{ROOT}")
    job = submit(capsys, *arguments(tmp_path / "run", source, *SMALL, "data.shard_size=16", "loader.batch_size=2"))
    login_node.wait_for(job, "COMPLETED", timeout_s=120)
    assert rejected(tmp_path / "run") == [(9, "crash"), (19, "crash")]
    assert read_status(tmp_path / "run").counts["written"] == 94
    assert restarts_and_resumes(tmp_path / "run")[0] == 0, "it was not requeued"
    evidence(POISON, 2, tmp_path / "run")


def test_a_task_by_hand_whose_record_exhausts_memory_starts_again_by_itself(
    login_node: SlurmCluster, tmp_path: Path, source: Path, evidence: Evidence
) -> None:
    path = f"{install(tmp_path / 'site', 'malloc', [pictures()[9]])}{os.pathsep}{ROOT}"
    exports = f"--export=ALL,HPCDATA_PYTHON={sys.executable},PYTHONPATH={path}"
    script = ROOT / "sbatch/precompute_tokens.sbatch"
    job = login_node.sbatch(f"--output={tmp_path}/log", exports, script, *arguments(tmp_path / "run", source, *SMALL))
    login_node.wait_for(job, "COMPLETED", timeout_s=120)
    assert rejected(tmp_path / "run") == [(9, "crash")]
    assert read_status(tmp_path / "run").counts["written"] == 95
    evidence(POISON, 1, tmp_path / "run")


def test_a_task_that_always_crashes_gives_up(login_node: SlurmCluster, tmp_path: Path) -> None:
    """Ten restarts are the end of it."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/bash\necho started >> {tmp_path}/starts\nkill -SEGV $$\n")
    python.chmod(0o755)
    exports = f"--export=ALL,HPCDATA_PYTHON={python}"
    job = login_node.sbatch(f"--output={tmp_path}/log", exports, ROOT / "sbatch/precompute_tokens.sbatch", "data.x=1")
    login_node.wait_for(job, "FAILED", timeout_s=120)
    assert (tmp_path / "starts").read_text().count("started") == 11
