"""Many tasks as several arrays: records, limits, one run.   python -m pytest tests/slurm/test_runs_of_arrays.py"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.cluster.runs import Submitted, submit_run
from hpcdata.config.schema import ClusterConfig, FinishConfig
from hpcdata.history import queue, submissions
from hpcdata.runs.paths import RunPaths
from tests.slurm import fake_encode
from tests.slurm.cluster import SlurmCluster
from tests.slurm.fakes import FakeSlurm
from tests.slurm.submitted import config_for, submit_tasks


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


def submit(folder: Path, array: str, *, num_open: int = 10**6, **options: int) -> Submitted:
    cluster = ClusterConfig(kind="slurm", array=array, **options)  # type: ignore[arg-type]
    config = config_for(folder, cluster, FinishConfig())
    folder.mkdir(exist_ok=True)
    return submit_run(folder, config, num_open=num_open, samples_done=7)


def options_of(fake: FakeSlurm, name: str) -> list[str | None]:
    """The value of an option in each script that sbatch got."""
    found = []
    for script in fake.scripts():
        lines = [line for line in script.splitlines() if line.startswith(f"#SBATCH --{name}=")]
        found.append(lines[0].partition("=")[2] if lines else None)
    return found


def test_pieces_lanes_and_the_finishing_job_behind_all(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.program("scontrol", "echo 'MaxArraySize            = 3'")
    submitted = submit(tmp_path / "out", "0-6%2")
    assert submitted.job_ids == ("4242", "4243", "4244")
    assert options_of(fake_slurm, "array") == ["0-2%1", "0-1%1", "0-1%1", None]
    assert options_of(fake_slurm, "dependency") == [None, None, "afterany:4242", "afterany:4242:4243:4244"]
    history = submissions.read(RunPaths(tmp_path / "out"))
    assert [(item.job_id, item.kind, item.num_tasks, item.round) for item in history.submissions] == [
        ("4242", "tasks", 3, 1),
        ("4243", "tasks", 2, 1),
        ("4244", "tasks", 2, 1),
        ("4245", "finish", 1, 1),
    ]
    assert {item.samples_done for item in history.submissions} == {7}


def test_no_more_tasks_than_shards(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    assert submit(tmp_path / "out", "0-9999%25", num_open=12).num_tasks == 12
    assert submit(tmp_path / "out", "0-99", num_open=12, nodes=2, tasks_per_node=2).num_tasks == 3
    assert submit(tmp_path / "out", "0-1", num_open=0).job_ids == ()  # only the finishing job
    assert options_of(fake_slurm, "array") == ["0-11%12", None, "0-2%3", None, None]


@pytest.mark.parametrize(
    ("limit", "sizes", "withdrawn"),
    [
        (11, ["0-9%10", None], []),
        (10, ["0-9%10", None], ["4242_9"]),  # the finishing job needs a place too
        (9, ["0-4%5", None], []),
        (2, ["0-1%2", None], ["4242_1"]),
    ],
)
def test_as_many_as_the_user_may_submit(
    fake_slurm: FakeSlurm, tmp_path: Path, limit: int, sizes: list[str | None], withdrawn: list[str]
) -> None:
    fake_slurm.limit_jobs(limit)
    submitted = submit(tmp_path / "out", "0-9")
    assert options_of(fake_slurm, "array") == sizes
    assert submitted.finish_id == "4243"
    assert [line.split()[1] for line in fake_slurm.calls() if line.startswith("scancel")] == withdrawn
    assert submissions.read(RunPaths(tmp_path / "out")).withdrawn == set(withdrawn)
    assert (submitted.problem is None) == (limit >= 10)


def test_no_place_for_the_finishing_job_is_said(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.limit_jobs(1)
    submitted = submit(tmp_path / "out", "0-9")
    assert (submitted.num_tasks, submitted.finish_id) == (1, None)
    assert submitted.problem is not None
    assert submitted.problem.startswith("sbatch refused the finishing job: AssocMaxSubmitJobLimit: no more jobs may")
    fake_slurm.limit_jobs(0)
    with pytest.raises(UserError, match="MaxSubmit"):
        submit(tmp_path / "out", "0-9")


@pytest.mark.parametrize(
    "reason",
    [
        "AssocGrpSubmitJobsLimit",
        "QOSMaxSubmitJobPerUserLimit",
        "QOSGrpSubmitJobsLimit",
        "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time)",
    ],
)
def test_every_limit_of_submitted_jobs_is_fitted_in(fake_slurm: FakeSlurm, tmp_path: Path, reason: str) -> None:
    fake_slurm.limit_jobs(6, reason.replace("'", ""))
    submitted = submit(tmp_path / "out", "0-9")
    assert options_of(fake_slurm, "array") == ["0-4%5", None]
    assert submitted.problem == "5 of 10 tasks fit into the limit of submitted jobs"


def test_records_of_a_full_disk_are_left_out(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submit(tmp_path / "out", "0-1")
    paths = RunPaths(tmp_path / "out")
    (paths.submissions / "00000000000000000001-9.json").write_text("")
    assert len(submissions.read(paths).submissions) == 2


def test_jobs_in_the_queue_are_found_by_record_and_by_mark(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submit(tmp_path / "out", "0-1")
    paths = RunPaths(tmp_path / "out")
    lines = ["4242|RUNNING|(null)", "4242|PENDING|(null)", "4243|PENDING|(null)", "77|PENDING|hpcdata:tasks:0"]
    lines += [f"99|RUNNING|{submissions.mark(paths.root, 'tasks')}", "5|RUNNING|mine"]
    fake_slurm.program("squeue", "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines))
    jobs = queue.active_jobs(paths, submissions.read(paths))
    assert {(job.job_id, job.kind, job.states) for job in jobs} == {
        ("4242", "tasks", frozenset({"RUNNING", "PENDING"})),
        ("4243", "finish", frozenset({"PENDING"})),
        ("99", "tasks", frozenset({"RUNNING"})),  # its submitter was killed before it could write
    }


def test_how_jobs_ended(fake_slurm: FakeSlurm) -> None:
    lines = ["7_0|COMPLETED|0:0", "7_1|CANCELLED by 1000|0:15", "7_2|FAILED|143:0", "7_3|RUNNING|0:0", "nonsense"]
    fake_slurm.program("sacct", "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines))
    assert [(item.job_id, item.state, item.exit_code) for item in queue.ended_jobs(["7"])] == [
        ("7_0", "COMPLETED", 0),
        ("7_1", "CANCELLED", 0),
        ("7_2", "FAILED", 143),
    ]


def test_a_scheduler_that_does_not_answer(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.program("squeue", "echo slurm_load_jobs error >&2; exit 1")
    with pytest.raises(UserError, match="squeue failed: slurm_load_jobs error"):
        queue.active_jobs(RunPaths(tmp_path), submissions.History())


# ---- on the cluster ----------------------------------------------------------------------------------------------


def test_any_array_size_and_a_resubmission_with_another(
    login_node: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", fake_encode.install(tmp_path / "site"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "finish").touch()
    for array, tasks in (("0", ["x.0"]), ("3,17,5%2", ["0.0", "1.0", "2.0", "x.0"])):
        cluster = ClusterConfig(kind="slurm", array=array, partition="preempt", time_min=5, cpus_per_task=1)
        (job,) = submit_tasks(out, cluster)
        login_node.wait_for(job, "COMPLETED")
        assert sorted(fake_encode.events(out)) == tasks
        logs = list((out / "logs").glob(f"{job}_*_log.out"))
        assert len(logs) == (1 if array == "0" else 3)
        assert all("task starts" in path.read_text() for path in logs)


def test_ten_thousand_tasks_take_a_handful_of_calls(login_node: SlurmCluster, tmp_path: Path) -> None:
    """Held, so that none of them starts."""
    started = time.monotonic()
    cluster = ClusterConfig(kind="slurm", array="0-9999%25", additional_parameters={"hold": True})
    finish = FinishConfig(additional_parameters={"hold": True})
    submitted = submit_run(tmp_path, config_for(tmp_path, cluster, finish), num_open=10**6, samples_done=0)
    seconds = time.monotonic() - started
    print(f"10,000 tasks in {seconds:.1f} s")
    assert (submitted.num_tasks, len(submitted.job_ids)) == (10_000, 10)
    shown = login_node.run("squeue", "--noheader", "--format=%i %r", "--states=PENDING").splitlines()
    limits = [int(line.split("%")[1].split("]")[0]) for line in shown if "%" in line]
    assert sum(limits) == 25
    assert len(list((tmp_path / "logs").iterdir())) == 11  # a script each, no file for a task
    jobs = queue.active_jobs(RunPaths(tmp_path), submissions.read(RunPaths(tmp_path)))
    assert {job.job_id for job in jobs} == {*submitted.job_ids, submitted.finish_id}
