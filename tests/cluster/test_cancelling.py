"""Jobs of a run that somebody ends: whoever submitted them, and whoever knows of it.

pytest tests/cluster/test_cancelling.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcdata import cancel as cancel_command
from hpcdata import resume as resume_command
from hpcdata.cluster import resuming
from hpcdata.cluster.supervise import supervise
from hpcdata.history import queue, submissions
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from tests.cluster.test_supervise import fake, queue_of, report, run, submitted
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_config

__all__ = ["fake", "run"]  # fixtures


def test_without_accounting_slurmctld_is_asked_how_tasks_ended(run: Path, fake: FakeSlurm) -> None:
    fake.program("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    tail = "Restarts=0 ExitCode=0:15 NodeList=node1"
    lines = [
        f"JobId=4242 ArrayJobId=4242 ArrayTaskId=3 JobName=a JobState=COMPLETED {tail.replace(':15', ':0')}",
        f"JobId=4250 ArrayJobId=4242 ArrayTaskId=0-2 JobName=a JobState=CANCELLED {tail}",
    ]
    fake.program("scontrol", f"[ $2 = job ] && printf '%s\\n' '{lines[0]}' '{lines[1]}'; true")
    assert [(item.job_id, item.state) for item in queue.ended_jobs(["4242"])] == [
        ("4242_3", "COMPLETED"),
        ("4242_0-2", "CANCELLED"),
    ]
    assert supervise(run) == 1
    assert submitted(fake) == []
    assert report(run).reason == "its tasks were cancelled"


def test_the_queue_is_asked_for_the_jobs_of_all_who_work_on_the_run(run: Path, fake: FakeSlurm) -> None:
    paths = RunPaths(run)
    assert submissions.read(paths).users == {os.getuid()}
    queue.active_jobs(paths, submissions.History(users=frozenset({70001})))
    users = ",".join(map(str, sorted({os.getuid(), 70001})))
    assert fake.calls()[-1].startswith(f"squeue --all --user={users} ")


NO_SCHEDULER = {
    "there": lambda fake: None,
    "missing": lambda fake: (fake.folder / "squeue").unlink(),
    "unconfigured": lambda fake: fake.program("squeue", "echo squeue: fatal: no configuration source >&2; exit 1"),
}


@pytest.mark.parametrize("without", NO_SCHEDULER.values(), ids=NO_SCHEDULER)
def test_a_local_run_needs_no_scheduler_to_be_cancelled(
    tmp_path: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str], without: Callable[[FakeSlurm], object]
) -> None:
    without(fake)
    folder = tmp_path / "run"
    plan = prepare(small_config(folder, "cluster=local"))
    assert cancel_command.main([str(folder)]) == 0
    assert "no job of this run is in the queue" in capsys.readouterr().out
    with Claims(RunPaths(folder).claims, Owner.of_this_process("at-work"), timeout_s=60.0) as claims:
        assert claims.try_claim(plan.shard_names[0])
        assert cancel_command.main([str(folder)]) == 2
    assert "end them where they were started, with Ctrl-C" in capsys.readouterr().err
    assert not any(call.startswith("squeue") for call in fake.calls())


def test_cancel_says_whose_jobs_it_may_not_end(run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    queue_of(fake, "4242|RUNNING||bob", "4243|PENDING||bob")
    fake.program("scancel", "echo scancel: error: Kill job error on job id $1: Access/permission denied >&2; exit 1")
    assert cancel_command.main([str(run)]) == 1
    said = capsys.readouterr().err
    assert "not cancelled: 4243 of bob, 4242 of bob" in said
    assert "Access/permission denied" in said
    assert not submissions.read(RunPaths(run)).is_cancelled  # bob's finishing job goes on


def test_cancel_ends_what_it_may_and_says_what_is_left(
    run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_of(fake, "4242|RUNNING||bob", "4299|RUNNING|" + submissions.mark(run, "tasks") + "|amy")
    fake.program("scancel", "[ $1 = 4299 ] || { echo scancel: error: Access/permission denied >&2; exit 1; }")
    assert cancel_command.main([str(run)]) == 1
    assert "not cancelled: 4242 of bob (" in capsys.readouterr().err
    assert submissions.read(RunPaths(run)).is_cancelled


def test_jobs_that_are_over_meanwhile_are_cancelled_well(run: Path, fake: FakeSlurm) -> None:
    fake.program("squeue", f"[ -e {fake.folder}/over ] || echo '4242|RUNNING||'; touch {fake.folder}/over")
    fake.program("scancel", "echo scancel: error: Invalid job id 4242 >&2; exit 1")
    assert cancel_command.main([str(run)]) == 0


def test_a_second_user_leaves_the_jobs_of_the_first_at_work(
    run: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_of(fake, "4242|RUNNING||bob", "4243|PENDING||bob")
    monkeypatch.setattr(resuming.os, "getuid", lambda: 70001)
    before = (run / "runtime.json").read_bytes()
    assert resume_command.main([str(run), "cluster.array=0-1"]) != 0
    assert "4242, 4243 of bob would be replaced, but only who has submitted" in capsys.readouterr().err
    assert (run / "runtime.json").read_bytes() == before
    assert resume_command.main([str(run)]) == 0
    assert "4242 are still in the queue: nothing is submitted" in capsys.readouterr().out
    assert submitted(fake) == []


def test_resume_waits_for_tasks_that_are_just_being_ended(
    run: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As right after cancel: they would be taken for tasks at work."""
    monkeypatch.setattr(queue.time, "sleep", lambda _: (fake.folder / "gone").touch())
    fake.program("squeue", f"[ -e {fake.folder}/gone ] || echo '4242|COMPLETING||'")
    assert resume_command.main([str(run)]) == 0
    assert (fake.folder / "gone").exists()
    assert submitted(fake) == ["tasks", "finish afterany:4244"]


def test_replaced_jobs_that_do_not_end_are_told(run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    queue_of(fake, "4242|RUNNING||", "4243|PENDING||")
    fake.program("scancel", "echo scancel: error: Unable to contact slurm controller >&2; exit 1")
    assert resume_command.main([str(run), "cluster.array=0-1"]) == 0
    told = capsys.readouterr()
    assert "those that they replace are not ended: scancel 4243 failed: Unable to contact" in told.err
    assert "replaces" not in told.out
