"""The finishing job on a real SLURM that is in trouble, and knows nothing of jobs that are over.

pytest tests/slurm/test_trouble.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import cancel as cancel_command
from hpcdata import embedded
from hpcdata import resume as resume_command
from hpcdata.cluster.runs import submit_finish, submit_run
from hpcdata.dataset.verifying import verify
from hpcdata.history import outcome, submissions
from hpcdata.history.outcome import Outcome
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_runtime
from hpcdata.runs.planning import prepare
from tests.slurm.cluster import SlurmCluster
from tests.smallruns import small_config

SLURM = ("cluster=slurm", "cluster.partition=preempt", "cluster.array=0-1", "cluster.cpus_per_task=1")


@pytest.fixture(scope="module")
def own_cluster(slurm_programs: None) -> Iterator[SlurmCluster]:
    """Without accounting. Who is asked to stop has time for it."""
    with SlurmCluster(kill_wait_s=20, accounting=False) as cluster:
        yield cluster


def planned(folder: Path, *overrides: str) -> Path:
    tar = folder.parent / "in.tar"
    shutil.copy(embedded.path("quickstart.tar"), tar)
    prepare(small_config(folder, *SLURM, *overrides, source=tar))
    return folder


def wait_for_the_outcome(slurm: SlurmCluster, folder: Path) -> Outcome:
    found = slurm.wait_until(lambda: outcome.read_outcome(RunPaths(folder)), "the report", timeout_s=180)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), "an empty queue")
    return found


def has_said(folder: Path, job: str, words: str) -> bool:
    log = folder / "logs" / f"{job}_0_log.out"
    return log.exists() and words in log.read_text()


def test_a_scheduler_that_is_away_while_the_finishing_job_runs(
    login: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue fails: one is cancelled then. Of the next one slurmctld is away as well, until it has noticed."""
    folder, programs = planned(tmp_path / "run"), tmp_path / "bin"
    programs.mkdir()
    real = shutil.which("squeue")
    (programs / "squeue").write_text(f'#!/bin/bash\n[ -e {programs}/broken ] && exit 1\nexec {real} "$@"\n')
    (programs / "squeue").chmod(0o755)
    (programs / "broken").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{login.env['PATH']}")
        job = submit_finish(folder, load_runtime(folder), after=(), samples_done=0, by="user")
        login.wait_until(lambda: has_said(folder, job, "squeue failed"), "an attempt that fails")
        login.cancel(job)
        assert wait_for_the_outcome(login, folder).reason.startswith("SLURM ended the finishing job for good")
        job = submit_finish(folder, load_runtime(folder), after=(), samples_done=0, by="user")
    assert outcome.read_outcome(RunPaths(folder)) is None
    login.wait_until(lambda: has_said(folder, job, "squeue failed"), "an attempt that fails")
    with login.without_controller():
        (programs / "broken").unlink()
        login.wait_until(lambda: has_said(folder, job, "Unable to contact"), "an attempt without slurmctld")
        assert outcome.read_outcome(RunPaths(folder)) is None
        assert f"python -m hpcdata.resume {folder}" in (folder / "report.txt").read_text()
    assert wait_for_the_outcome(login, folder).outcome == "finished"
    assert [report.problems for report in verify(folder)] == [[], []]


def test_without_accounting_cancelled_tasks_stay_so_until_another_user_resumes(
    login: SlurmCluster, tmp_path: Path
) -> None:
    folder = planned(tmp_path / "run", "cluster.additional_parameters.hold=true")
    submitted = submit_run(folder, load_runtime(folder), num_open=4, samples_done=0)
    login.cancel(*submitted.job_ids)
    found = wait_for_the_outcome(login, folder)
    assert (found.outcome, found.reason) == ("stopped", "its tasks were cancelled")
    assert found.next_step == f"python -m hpcdata.resume {folder}"
    former = os.umask(0o077)  # from here on it is as if another user went on
    try:
        assert resume_command.main([str(folder)]) == 0  # the same tasks, held
        assert cancel_command.main([str(folder)]) == 0
        assert resume_command.main([str(folder), "cluster.additional_parameters.hold=false"]) == 0
    finally:
        os.umask(former)
    assert wait_for_the_outcome(login, folder).outcome == "finished"
    closed = [path for path in folder.rglob("*") if not path.stat().st_mode & 0o004]
    assert closed == []
    assert len(submissions.read(RunPaths(folder)).users) == 1
