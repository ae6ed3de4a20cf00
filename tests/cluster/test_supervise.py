"""The finishing job, with programs that only look like SLURM's.   pytest tests/cluster/test_supervise.py"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from hpcdata import cancel as cancel_command
from hpcdata import embedded
from hpcdata import resume as resume_command
from hpcdata.base.errors import UserError
from hpcdata.cluster import cancelling as cancel
from hpcdata.cluster import guard, task
from hpcdata.cluster.runs import submit_run
from hpcdata.cluster.supervise import supervise
from hpcdata.history import outcome, submissions
from hpcdata.history.ledger import Ledger
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_config, small_run

SLURM = ("cluster=slurm", "cluster.array=0-9%2")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(guard, "PAUSES_S", (0, 0, 0))
    monkeypatch.setattr(task, "PAUSES_S", (0, 0, 0))
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def run(tmp_path: Path, fake: FakeSlurm) -> Path:
    """A run of four shards whose tasks 4242 have ended without a sample; the finishing job is 4243."""
    folder, tar = tmp_path / "run", tmp_path / "in.tar"
    shutil.copy(embedded.path("quickstart.tar"), tar)
    config = small_config(folder, *SLURM, source=tar)
    prepare(config)
    submit_run(folder, config, num_open=4, samples_done=0)
    return folder


def submitted(fake: FakeSlurm) -> list[str]:
    """`tasks` or `finish`, and what they wait for, of each script after the first two."""
    found = []
    for script in fake.scripts()[2:]:
        kind = "finish" if "hpcdata.cluster.supervise" in script else "tasks"
        options = [line.split("=", 1)[1] for line in script.splitlines() if line.startswith("#SBATCH --dependency")]
        found.append(" ".join([kind, *options]))
    return found


def report(folder: Path) -> outcome.Outcome:
    found = outcome.read_outcome(RunPaths(folder))
    assert found is not None
    assert found.next_step == f"python -m hpcdata.resume {folder}"
    assert found.next_step in (folder / "report.txt").read_text()
    return found


def queue_of(fake: FakeSlurm, *lines: str) -> None:
    fake.program("squeue", "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines))


def accounting_of(fake: FakeSlurm, *lines: str) -> None:
    fake.program("sacct", "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines))


def fail(folder: Path, job: str, event: str = "failed") -> None:
    """A task of the job notes that a shard, or everything, failed."""
    ledger = Ledger(folder / "ledger", f"{job}-{time.time_ns()}")
    ledger.write("start", slurm={"SLURM_ARRAY_JOB_ID": job})
    ledger.write(event, shard="00002-of-00004", error="no GPU was found")
    ledger.close()


def test_missing_shards_are_submitted_again_with_a_successor_behind(run: Path, fake: FakeSlurm) -> None:
    assert supervise(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    assert "--array=0-3%2" in fake.scripts()[2]
    history = submissions.read(RunPaths(run))
    assert [(item.round, item.by) for item in history.submissions[2:]] == [(2, "finish")] * 2


def test_tasks_in_the_queue_are_waited_for(run: Path, fake: FakeSlurm) -> None:
    queue_of(fake, "4242|RUNNING|", "4243|RUNNING|")
    os.environ["SLURM_JOB_ID"] = "4243"  # this job itself is in the queue
    try:
        assert supervise(run) == 0
    finally:
        del os.environ["SLURM_JOB_ID"]
    assert submitted(fake) == ["finish afterany:4242"]


def test_it_is_left_to_another_finishing_job(run: Path, fake: FakeSlurm) -> None:
    queue_of(fake, "4242|PENDING|", "4243|PENDING|")
    assert supervise(run) == 0
    assert submitted(fake) == []


def test_of_two_that_run_at_once_one_acts(run: Path, fake: FakeSlurm) -> None:
    """SLURM shows a job as running for a while after it has ended: that must not make both leave it to the other."""
    queue_of(fake, "4243|RUNNING|", "4299|RUNNING|" + submissions.mark(run, "finish"))
    assert supervise(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    queue_of(fake, "4243|RUNNING|", "4244|PENDING|", "4245|PENDING|")
    assert supervise(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]


@pytest.mark.slow
def test_one_at_a_time(run: Path, fake: FakeSlurm) -> None:
    with Claims(run / "claims", Owner.of_this_process("other"), timeout_s=120) as claims:
        assert claims.try_claim("finish")
        second = threading.Thread(target=supervise, args=[run])
        second.start()
        time.sleep(0.5)
        assert submitted(fake) == []
        claims.release("finish")
        second.join(30)
    assert submitted(fake) == ["tasks", "finish afterany:4244"]


def test_a_finished_run_is_combined_and_verified_once(
    tmp_path: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    small_run(folder, *SLURM)
    assert supervise(folder) == 0
    found = outcome.read_outcome(RunPaths(folder))
    assert found is not None
    assert (found.outcome, found.next_step, found.num_missing) == ("finished", None, 0)
    assert found.account == "24 inputs = 24 written + 0 rejected + 0 duplicate"
    assert (folder / "dataset/manifest.json").exists()
    assert "combined and verified" in capsys.readouterr().out
    assert supervise(folder) == 0
    assert outcome.read_outcome(RunPaths(folder)) == found
    assert fake.calls() == []


@pytest.mark.slow
def test_it_waits_for_somebody_who_combines(tmp_path: Path, fake: FakeSlurm) -> None:
    folder = tmp_path / "run"
    small_run(folder, *SLURM)
    with Claims(folder / "claims", Owner.of_this_process("other"), timeout_s=120) as claims:
        assert claims.try_claim("combine")
        second = threading.Thread(target=supervise, args=[folder])
        second.start()
        second.join(1.5)
        assert second.is_alive()
        assert outcome.read_outcome(RunPaths(folder)) is None
    second.join(30)
    found = outcome.read_outcome(RunPaths(folder))
    assert found is not None
    assert found.outcome == "finished"


def test_a_damaged_shard_ends_with_what_to_remove(tmp_path: Path, fake: FakeSlurm) -> None:
    folder = tmp_path / "run"
    small_run(folder, *SLURM)
    next((folder / "shards/00002-of-00004").glob("*/*.memmap")).write_bytes(b"")
    assert supervise(folder) == 1
    assert f"remove {folder}/shards/00002-of-00004" in report(folder).reason


def test_a_dataset_with_flipped_bits_does_not_pass(tmp_path: Path, fake: FakeSlurm) -> None:
    folder = tmp_path / "run"
    small_run(folder, *SLURM)
    path = max((folder / "shards/00002-of-00004").glob("*/*.memmap"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    assert supervise(folder) == 1
    assert "does not verify" in report(folder).reason
    assert any("00002-of-00004" in line for line in report(folder).details)


def test_a_changed_input_is_not_tried_again(run: Path, fake: FakeSlurm) -> None:
    tar = run.parent / "in.tar"
    with open(tar, "ab") as file:
        file.write(b"more")
    assert supervise(run) == 1
    assert submitted(fake) == []
    assert (
        report(run).reason == f"4 shards cannot be finished: input {tar} has changed since it was planned: restore it"
    )
    tar.unlink()
    assert supervise(run) == 1
    assert f"input {tar} is gone" in report(run).reason


def test_a_failure_is_tried_once_more_then_reported(run: Path, fake: FakeSlurm) -> None:
    fail(run, "4242")
    assert supervise(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    fail(run, "4244", "error")
    assert supervise(run) == 1
    found = report(run)
    assert found.reason == "2 submissions in a row failed without getting further: no GPU was found"
    assert "shard 00002-of-00004: no GPU was found" in found.details
    assert [(item["by"], item["num_tasks"]) for item in found.rounds] == [("user", 4), ("finish", 4)]
    assert (found.num_missing, found.num_shards) == (4, 4)


def test_tasks_that_end_badly_before_they_can_write_count_as_failed(run: Path, fake: FakeSlurm) -> None:
    accounting_of(fake, "4242_0|FAILED|1:0", "4244_0|OUT_OF_MEMORY|0:125", "4244_1|COMPLETED|0:0")
    assert supervise(run) == 0
    assert supervise(run) == 1
    assert "task 4244_0 ended with" in report(run).reason


def test_what_the_cluster_took_is_submitted_more_patiently(run: Path, fake: FakeSlurm) -> None:
    accounting_of(fake, *(f"{job}_0|NODE_FAIL|0:0" for job in range(4242, 4260, 2)), "4242_1|FAILED|143:0")
    for _ in range(4):
        assert supervise(run) == 0
    assert ["--begin" in script for script in fake.scripts()[2::2]] == [False, True, True, True]
    assert supervise(run) == 1
    assert report(run).reason == "the cluster ended 5 submissions in a row before they got further"


def test_tasks_that_a_person_cancelled_stay_so(run: Path, fake: FakeSlurm) -> None:
    accounting_of(fake, "4242_0|COMPLETED|0:0", "4242_1|CANCELLED by 1000|0:15")
    assert supervise(run) == 1
    assert submitted(fake) == []
    assert report(run).reason == "its tasks were cancelled"


@pytest.mark.parametrize("complaint", ["sbatch: error: Access/permission denied", "missing"])
def test_where_jobs_may_not_submit_jobs_it_says_what_to_type(run: Path, fake: FakeSlurm, complaint: str) -> None:
    fake.program("sbatch", f"echo {complaint} >&2; exit 1")
    if complaint == "missing":
        (fake.folder / "sbatch").unlink()
        os.environ["PATH"] = str(fake.folder)
    assert supervise(run) == 1
    expected = "needs sbatch" if complaint == "missing" else "Access/permission denied"
    assert expected in report(run).reason
    assert "4 shards are missing and cannot be submitted from here" in report(run).reason


def test_a_new_submission_removes_the_old_report(run: Path, fake: FakeSlurm) -> None:
    fail(run, "4242")
    fail(run, "4244")
    assert [supervise(run), supervise(run)] == [0, 1]
    assert resume_command.main([str(run)]) == 0
    assert not (run / "report.json").exists()
    assert "at work" in (run / "report.txt").read_text()
    assert supervise(run) == 0  # a person's submission begins a new count


# ---- resume and cancel -------------------------------------------------------------------------------------------


def test_resume_takes_everything_from_the_run(
    run: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resume_command.main(["run", "cluster.array=0-2", "cluster.partition=other", "data.save_tmp_interval=5"]) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    assert {"#SBATCH --array=0-2%3", "#SBATCH --partition=other"} <= set(fake.scripts()[2].splitlines())
    runtime = json.loads((run / "runtime.json").read_text())
    assert (runtime["cluster"]["array"], runtime["data"]["save_tmp_interval"]) == ("0-2", 5.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.resolution=64", "data.resolution was 32, now 64"),
        ("cluster.aray=3", "did you mean cluster.array"),
        ("cluster.array", "expected key=value"),
        ("cluster.array=x", "is no index or range"),
        ("cluster.time_min=soon", "expected int"),
    ],
)
def test_resume_refuses(
    run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    before = (run / "runtime.json").read_bytes()
    assert resume_command.main([str(run), override]) == 2
    assert message in capsys.readouterr().err
    assert (run / "runtime.json").read_bytes() == before
    assert submitted(fake) == []


def test_resume_refuses_changed_inputs(run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "in.tar").unlink()
    assert resume_command.main([str(run)]) == 2
    assert "input in.tar is gone" in capsys.readouterr().err


def test_resume_without_a_scheduler_goes_on_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(small_config(tmp_path / "run"))
    assert resume_command.main([str(tmp_path / "run"), "finish.combine=true"]) == 0
    assert "24 inputs = 24 written + 0 rejected + 0 duplicate" in capsys.readouterr().out


def test_resume_while_tasks_are_in_the_queue_changes_nothing(
    run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_of(fake, "4242|RUNNING|", "4243|PENDING|")
    assert resume_command.main([str(run)]) == 0
    assert "4242 are still in the queue: nothing is submitted" in capsys.readouterr().out
    assert submitted(fake) == []
    queue_of(fake, "4242|RUNNING|")  # the finishing job is gone
    assert resume_command.main([str(run)]) == 0
    assert submitted(fake) == ["finish afterany:4242"]


def test_resume_with_settings_replaces_what_is_in_the_queue(run: Path, fake: FakeSlurm) -> None:
    queue_of(fake, "4242|RUNNING|", "4243|PENDING|")
    assert resume_command.main([str(run), "cluster.array=0-1"]) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    assert [call for call in fake.calls() if call.startswith("scancel")] == ["scancel 4243", "scancel 4242"]
    assert submissions.read(RunPaths(run)).withdrawn == {"4242", "4243"}


def test_cancel_ends_the_finishing_job_first_and_says_what_is_kept(
    run: Path, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    queue_of(fake, "4242|RUNNING|", "4243|PENDING|", "1|RUNNING|")
    assert cancel_command.main([str(run)]) == 0
    assert [call for call in fake.calls() if call.startswith("scancel")] == ["scancel 4243", "scancel 4242"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cancelled 4242, 4243"
    assert lines[1].startswith("kept      0 of 24 samples: 0 of 4 shards")
    assert lines[2] == f"next      python -m hpcdata.resume {run}"
    queue_of(fake)
    assert supervise(run) == 0  # one that was already starting does not bring it back
    assert submitted(fake) == []
    assert cancel_command.main([str(run)]) == 0
    assert "no job of this run" in capsys.readouterr().out


def test_cancel_without_a_run(tmp_path: Path, fake: FakeSlurm) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        cancel.cancel(tmp_path)
