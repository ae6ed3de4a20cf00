"""How a task leaves and comes back, on the real SLURM. python -m pytest tests/slurm/test_task.py"""

import logging
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from hpcdata.base.signals import StopFlag
from hpcdata.cluster import task
from hpcdata.config.schema import ClusterConfig
from tests.slurm import fake_encode
from tests.slurm.cluster import SlurmCluster
from tests.slurm.submitted import submit_tasks

# ---- leave(), with a scontrol of our own -------------------------------------------------------------------------


def _scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A program `scontrol` that notes its arguments, then runs the script."""
    program, calls = folder / "scontrol", folder / "calls"
    program.write_text(f'#!/bin/bash\necho "$@" >> {calls}\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return calls


def _stopped_by(number: signal.Signals) -> StopFlag:
    stop = StopFlag()
    stop.received = number
    return stop


@pytest.fixture(autouse=True)
def _outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_under_slurm_it_requeues_its_array_element(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _scontrol(tmp_path, monkeypatch, "exit 0")
    for name, value in {"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": "90", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert task.leave(_stopped_by(number)) == 128 + number
    assert calls.read_text() == "requeue Incomplete 90_3\n"


def test_it_requeues_nothing_outside_slurm_or_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _scontrol(tmp_path, monkeypatch, "exit 0")
    assert task.leave(_stopped_by(signal.SIGTERM)) == 143
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    assert task.leave(_stopped_by(signal.SIGINT)) == 130
    assert not calls.exists()


def test_it_asks_until_slurmctld_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _scontrol(tmp_path, monkeypatch, f"(( $(wc -l < {tmp_path}/calls) >= 3 ))")
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setattr(task, "PAUSES_S", [0] * 10)
    task.leave(_stopped_by(signal.SIGTERM))
    assert calls.read_text() == "requeue Incomplete 99\n" * 3


@pytest.mark.parametrize("program", ["missing", "refuses"])
def test_it_gives_up_with_a_line_that_says_what_to_do(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _scontrol(tmp_path, monkeypatch, "echo Requested operation is presently disabled for job 99 >&2; exit 1")
    if program == "missing":
        (tmp_path / "scontrol").unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setattr(task, "PAUSES_S", [0, 0])
    task.leave(_stopped_by(signal.SIGUSR2))
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "submit the same line again to continue" in warnings[-1].getMessage()
    assert len(warnings) == (1 if program == "refuses" else 3)


# ---- submitted tasks on the cluster ----------------------------------------------------------------------------


@pytest.fixture
def cluster(login_node: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    monkeypatch.setenv("PYTHONPATH", fake_encode.install(tmp_path / "site"))
    return login_node


def _submit(cluster: SlurmCluster, output_dir: Path, num_processes: int, **options: object) -> str:
    """Submits, and returns when that many processes have started."""
    output_dir.mkdir()
    settings = {"kind": "slurm", "partition": "preempt", "time_min": 10, "cpus_per_task": 1} | options
    (job,) = submit_tasks(output_dir, ClusterConfig(**settings))  # type: ignore[arg-type]
    _wait_for_starts(cluster, output_dir, num_processes, 1)
    return job


def _wait_for_starts(cluster: SlurmCluster, output_dir: Path, num_processes: int, num_starts: int) -> None:
    cluster.wait_until(
        lambda: (
            [noted.count("start") for noted in fake_encode.events(output_dir).values()] == [num_starts] * num_processes
        ),
        f"{num_processes} processes with {num_starts} starts",
    )


def test_a_preempted_array_leaves_at_once_and_comes_back(cluster: SlurmCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = _submit(cluster, out, 2, array="0-1")
    with cluster.preempt():
        _wait_for_starts(cluster, out, 2, 1)  # not running meanwhile
        assert [cluster.restarts(f"{job}_{index}") for index in range(2)] == [1, 1]
    _wait_for_starts(cluster, out, 2, 2)
    (out / "finish").touch()
    cluster.wait_for(job, "COMPLETED")
    assert fake_encode.events(out) == {f"{index}.0": ["start", "SIGTERM", "start", "finish"] for index in range(2)}
    for index in range(2):  # the requeued task appends to its own log
        log = (out / "logs" / f"{job}_{index}_0_log.out").read_text()
        assert log.count("task starts") == 2
        assert re.search(rf"INFO \[{job}_{index}/0@node\d\] stopped by SIGTERM, leaves job {job}_{index} for", log)


def test_a_warned_task_of_several_processes_comes_back_once(cluster: SlurmCluster, tmp_path: Path) -> None:
    """An array of one is no array for SLURM; every process of the job asks for its requeueing."""
    out = tmp_path / "out"
    job = _submit(cluster, out, 4, nodes=2, tasks_per_node=2)
    cluster.run("scancel", "--signal=USR2", job)  # what --signal=USR2@... does before the time limit
    _wait_for_starts(cluster, out, 4, 2)
    assert cluster.restarts(job) == 1
    (out / "finish").touch()
    cluster.wait_for(job, "COMPLETED")


def test_a_cancelled_task_never_comes_back(cluster: SlurmCluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = _submit(cluster, out, 2, array="0-1")
    cluster.cancel(job)
    cluster.wait_for(job, "CANCELLED")
    time.sleep(1)
    assert [cluster.job_state(f"{job}_{index}") for index in range(2)] == ["CANCELLED", "CANCELLED"]
    assert fake_encode.events(out) == {"0.0": ["start", "SIGTERM"], "1.0": ["start", "SIGTERM"]}


def test_without_a_grace_time_it_comes_back_once(cluster: SlurmCluster, tmp_path: Path) -> None:
    cluster.run("scontrol", "update", "PartitionName=preempt", "GraceTime=0")
    try:
        out = tmp_path / "out"
        job = _submit(cluster, out, 1)
        with cluster.preempt():
            assert cluster.restarts(job) == 1
        _wait_for_starts(cluster, out, 1, 2)
        assert cluster.restarts(job) == 1
    finally:
        cluster.run("scontrol", "update", "PartitionName=preempt", f"GraceTime={cluster.grace_time_s}")


@pytest.mark.parametrize("array", ["0", "0-1%1"])
def test_a_signal_before_python_is_ready_is_not_the_end(cluster: SlurmCluster, tmp_path: Path, array: str) -> None:
    (tmp_path / "site" / "slow").touch()
    out = tmp_path / "out"
    (job,) = submit_tasks(out, ClusterConfig(kind="slurm", array=array, time_min=10, cpus_per_task=1))
    cluster.wait_until((tmp_path / "site" / "slow.reached").exists, "the slow start")
    with cluster.preempt():
        (out / "finish").touch()
    cluster.wait_for(job, "COMPLETED")
    assert cluster.restarts(job if array == "0" else f"{job}_0") == 1


def test_the_time_limit_sends_the_warning(cluster: SlurmCluster, tmp_path: Path) -> None:
    """slurmctld looks at time limits every 30 s."""
    out = tmp_path / "out"
    job = _submit(cluster, out, 1, time_min=1, signal_delay_s=50)
    _wait_for_starts(cluster, out, 1, 2)
    assert fake_encode.events(out)["x.0"] == ["start", "SIGUSR2", "start"]
    assert cluster.restarts(job) == 1


@pytest.mark.parametrize("code", [0, 1])
def test_why_a_preempted_task_must_requeue_itself(slurm: SlurmCluster, tmp_path: Path, code: int) -> None:
    """The experiment behind `leave`: a job that only exits within the grace is over for SLURM."""
    script = tmp_path / "job.py"
    script.write_text(
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
        f"open({str(tmp_path / 'up')!r}, 'w').close()\n"
        "time.sleep(300)\n"
    )
    job = slurm.sbatch("--requeue", "--output=/dev/null", "--wrap", f"srun {sys.executable} {script}")
    slurm.wait_until((tmp_path / "up").exists, "the start")
    with slurm.preempt():
        slurm.wait_for(job, "FAILED", "COMPLETED", "TIMEOUT")
        assert slurm.restarts(job) == 0


def test_errors_end_a_task_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(output_dir: Path) -> int:
        raise task.UserError(f"no plan in {output_dir}")

    monkeypatch.setattr(task, "run_array_task", refuse)
    assert task.main(["/out"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("no plan in /out")
    assert f"[{os.getpid()}@" in lines[0]  # which task says it
