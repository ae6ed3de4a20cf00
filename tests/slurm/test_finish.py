"""The finishing job on the real SLURM: arrays past the cap, loss, damage, cancel, resume.

pytest tests/slurm/test_finish.py
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import cancel as cancel_command
from hpcdata import launch as launch_command
from hpcdata import resume as resume_command
from hpcdata.base.errors import UserError
from hpcdata.cluster.preflight import check_cluster
from hpcdata.cluster.runs import submit_finish
from hpcdata.dataset.verifying import verify
from hpcdata.history import queue, submissions
from hpcdata.history.ledger import read_ledgers
from hpcdata.history.outcome import Outcome, read_outcome
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_runtime
from tests.slurm.cluster import SlurmCluster
from tests.slurm.test_runs import arguments, source, wait_for_status
from tests.smallruns import small_config

__all__ = ["source"]  # a fixture


NUM_SAMPLES = 192  # of two tars, in six shards


@pytest.fixture(scope="module")
def own_cluster(slurm_programs: None) -> Iterator[SlurmCluster]:
    """Arrays of at most three elements; account `lab` may have five jobs, all of `few` three; QOS `short` is short."""
    lines = ("AccountingStorageEnforce=limits",)
    with SlurmCluster(max_array_size=3, kill_wait_s=1, slurm_conf=lines) as cluster:
        user = cluster.run("id", "-un").strip()
        cluster.run("sacctmgr", "--immediate", "add", "account", "lab", "MaxSubmitJobs=5")
        cluster.run("sacctmgr", "--immediate", "add", "account", "few", "GrpSubmitJobs=3", "GrpTRES=cpu=1")
        cluster.run("sacctmgr", "--immediate", "add", "qos", "short", "MaxWall=00:30:00")
        for account in ("lab", "few"):
            cluster.run("sacctmgr", "--immediate", "add", "user", user, f"account={account}", "qos=normal,short")
        yield cluster


def start(folder: Path, source: Path, *overrides: str) -> None:
    options = ["cluster=slurm", "cluster.partition=preempt", "cluster.cpus_per_task=1", "finish.combine=true"]
    options += ["cluster.claim_timeout_s=10", "data.resolution=64", f"data.n_train_samples={NUM_SAMPLES}"]
    assert launch_command.main([*arguments(folder, source), *options, "data.shard_size=32", *overrides]) == 0


def wait_for_the_outcome(slurm: SlurmCluster, folder: Path) -> Outcome:
    paths = RunPaths(folder)
    outcome = slurm.wait_until(lambda: read_outcome(paths), "the report", timeout_s=240)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), "an empty queue")
    return outcome


def require_readable_logs(folder: Path, num_logs: int) -> None:
    """One file a task, each line says whose it is, and no caption is in any of them."""
    logs = [path.read_text() for path in (folder / "logs").glob("*_log.out")]
    assert len(logs) == num_logs
    lines = [line for text in logs for line in text.splitlines() if line.startswith("20")]
    assert lines
    assert all(re.match(r"[\d: -]{19} [A-Z]+ \[\d+(_\d+)?/0@node\d\] ", line) for line in lines)
    assert not any("strawberry" in text for text in logs)  # one of the captions


def test_one_array_past_two_caps_is_finished_by_itself(
    login: SlurmCluster, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three elements an array, five jobs of the account: four of the six tasks that six shards can use."""
    folder = tmp_path / "run"
    start(folder, source, "cluster.array=0-9999%2", "cluster.account=lab")
    assert "4 of 6 tasks fit into the limit of submitted jobs" in capsys.readouterr().out
    history = submissions.read(RunPaths(folder))
    assert [item.num_tasks for item in history.submissions] == [3, 1, 1]
    outcome = wait_for_the_outcome(login, folder)
    assert outcome.outcome == "finished", outcome
    assert outcome.account == f"{NUM_SAMPLES} inputs = {NUM_SAMPLES} written + 0 rejected + 0 duplicate"
    assert [report.problems for report in verify(folder)] == [[], []]
    require_readable_logs(folder, num_logs=5)
    capsys.readouterr()
    start(folder, source, "cluster.array=0-9999%2", "cluster.account=lab")  # the same line again
    assert capsys.readouterr().out.startswith("finished")
    assert submissions.read(RunPaths(folder)) == history


def test_limits_of_a_group_are_fitted_in_and_what_waits_for_ever_is_refused(
    login: SlurmCluster, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, few = tmp_path / "run", "cluster.account=few"
    for override, message in (
        ("cluster.cpus_per_task=2", "one task asks for 2 CPUs, over GrpTRES=cpu=1 of account few"),
        ("cluster.qos=short", "cluster.time_min=240 is over MaxWall=30 of QOS short"),
    ):
        with pytest.raises(UserError, match=message):
            check_cluster(small_config(folder, "cluster=slurm", few, "cluster.time_min=240", override))
    login.run("scontrol", "update", "PartitionName=high", "State=DOWN")
    config = small_config(folder, "cluster=slurm", few, "cluster.cpus_per_task=1", "finish.partition=high")
    assert "partition high is not up: the finishing job waits until it is" in check_cluster(config).lines
    login.run("scontrol", "update", "PartitionName=high", "State=UP")
    start(folder, source, "cluster.array=0-2", few, "cluster.additional_parameters.hold=true")
    assert [item.num_tasks for item in submissions.read(RunPaths(folder)).submissions] == [3, 1]
    assert len(submissions.read(RunPaths(folder)).withdrawn) == 1  # for the finishing job


def test_a_damaged_input_ends_with_a_report_and_its_repair_with_a_dataset(
    login: SlurmCluster, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two inputs changes while the run is held: the other is written, and the report names this one."""
    folder, inputs = tmp_path / "run", tmp_path / "in"
    shutil.copytree(source, inputs)
    start(folder, inputs, "cluster.array=0-1", "cluster.additional_parameters.hold=true")
    (job,) = submissions.read(RunPaths(folder)).job_ids("tasks")
    damaged = inputs / "cc3m-0001.tar"
    content, times = damaged.read_bytes(), damaged.stat()
    damaged.write_bytes(content[:-512])
    login.run("scontrol", "release", job)
    outcome = wait_for_the_outcome(login, folder)
    assert outcome.outcome == "stopped"
    assert (
        outcome.reason == f"3 shards cannot be finished: input {damaged} has changed since it was planned: restore it"
    )
    assert outcome.next_step == f"python -m hpcdata.resume {folder}"
    assert read_status(folder).samples_done == NUM_SAMPLES // 2
    damaged.write_bytes(content)
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resume_command.main([str(folder), "cluster.additional_parameters.hold=false"]) == 0
    assert wait_for_the_outcome(login, folder).outcome == "finished"
    assert [report.problems for report in verify(folder)] == [[], []]


def test_a_cancelled_run_stays_so_until_it_is_resumed_elsewhere(
    login: SlurmCluster, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it runs it moves to another partition, then it is cancelled, then resumed."""
    folder, paths = tmp_path / "run", RunPaths(tmp_path / "run")
    start(folder, source, "cluster.array=0-1", "data.resolution=640")
    wait_for_status(login, folder, 20)
    first = submissions.read(paths)
    assert resume_command.main([str(folder), "cluster.array=0", "cluster.partition=high"]) == 0
    replaced = submissions.read(paths)
    assert replaced.withdrawn == {item.job_id for item in first.submissions}
    login.wait_for(first.job_ids("tasks")[0], "CANCELLED")
    (job,) = replaced.job_ids("tasks")
    login.wait_for(job, "RUNNING")
    assert login.job(job)["Partition"] == "high"
    assert cancel_command.main([str(folder)]) == 0
    login.wait_until(lambda: not queue.active_jobs(paths, submissions.read(paths)), "no job of the run")
    kept = read_status(folder).samples_done
    assert 20 <= kept < NUM_SAMPLES
    assert read_outcome(paths) is None
    assert resume_command.main([str(folder), "cluster.array=0-1"]) == 0
    assert wait_for_the_outcome(login, folder).outcome == "finished"
    resumed = [event for _, events in read_ledgers(paths.ledger) for event in events if event.get("resumed")]
    assert resumed, "no task has continued the checkpoint of a replaced one"


def test_killed_tasks_and_finishing_jobs_that_are_doubled_and_requeued(
    login: SlurmCluster, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, paths = tmp_path / "run", RunPaths(tmp_path / "run")
    monkeypatch.setenv("HPCDATA_RESTARTS", "10")  # the batch script starts them no more
    start(folder, source, "cluster.array=0-1", "data.resolution=640")
    (tasks,) = submissions.read(paths).job_ids("tasks")
    submit_finish(folder, load_runtime(folder), after=(tasks,), samples_done=0, by="user")  # a second one
    wait_for_status(login, folder, 20)
    for _, events in read_ledgers(paths.ledger):
        os.kill(events[0]["pid"], signal.SIGKILL)
    again = login.wait_until(lambda: submissions.read(paths).job_ids("tasks", 3), "what is missing is submitted")
    assert len(again) == 1
    login.wait_until(lambda: read_status(folder).is_finished, "all shards", timeout_s=120)
    (third,) = submissions.read(paths).job_ids("finish", 3)
    logs = folder / "logs"  # slurmctld gives a job up that is requeued while its node begins with it
    login.wait_until(lambda: any(path.stat().st_size for path in logs.glob(f"{third}_*.out")), "its first words")
    login.requeue(third)  # at work or done
    outcome = wait_for_the_outcome(login, folder)
    assert outcome.outcome == "finished", outcome
    assert [item["by"] for item in outcome.rounds] == ["user", "finish"]
    assert [report.problems for report in verify(folder)] == [[], []]
