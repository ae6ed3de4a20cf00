"""No way out of the finishing job is without a report and a line to type.   pytest tests/cluster/test_guard.py"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from hpcdata import resume as resume_command
from hpcdata.cluster import finish, guard, supervise
from hpcdata.cluster.supervise import supervise as run_finishing_job
from hpcdata.history import outcome
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from tests.cluster.test_supervise import SLURM, fake, report, run, submitted
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_config, small_run

__all__ = ["fake", "run"]  # fixtures

FAILS_ONCE = """\
if [ ! -e {flag} ]; then
    touch {flag}
    echo {name}: error: Unable to contact slurm controller >&2
    exit 1
fi
"""


def fail_once(fake: FakeSlurm, name: str) -> None:
    path = fake.folder / name
    works = path.read_text().partition("\n")[2]
    fake.program(name, FAILS_ONCE.format(flag=fake.folder / f"{name}-failed", name=name) + works)


def notice(folder: Path) -> str:
    """What stands there of a run that has no report yet."""
    assert outcome.read_outcome(RunPaths(folder)) is None
    text = (folder / "report.txt").read_text()
    assert text.splitlines()[-1] == f"next      python -m hpcdata.resume {folder}"
    return text


@pytest.mark.parametrize("name", ["squeue", "sbatch"])
def test_what_fails_once_is_tried_again(run: Path, fake: FakeSlurm, name: str) -> None:
    fail_once(fake, name)
    assert run_finishing_job(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]
    assert "4244, and the finishing job 4245 behind" in notice(run)


def test_a_refused_finishing_job_is_submitted_behind_the_tasks_that_were_taken(run: Path, fake: FakeSlurm) -> None:
    refuses = (
        f"grep -q supervise {fake.folder}/stdin && [ ! -e {fake.folder}/no ] && touch {fake.folder}/no && exit 1\n"
    )
    path = fake.folder / "sbatch"
    path.write_text(path.read_text().replace("echo sbatch", f"{refuses}echo sbatch", 1))
    fake.program("squeue", f"[ -e {fake.folder}/4244 ] && echo '4244|PENDING|'; true")
    assert run_finishing_job(run) == 0
    assert submitted(fake) == ["tasks", "finish afterany:4244"]


def test_a_scheduler_that_stays_away_ends_with_a_report(run: Path, fake: FakeSlurm) -> None:
    fake.program("squeue", "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1")
    assert run_finishing_job(run) == 1
    assert report(run).reason == "squeue failed: slurm_load_jobs error: Unable to contact slurm controller"


def test_an_error_that_nobody_expected_ends_with_a_report(
    run: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "decide", lambda *_: {}["x"])
    assert run_finishing_job(run) == 1
    assert report(run).reason == "KeyError: 'x'"


def test_a_plan_that_cannot_be_read_ends_with_a_report(run: Path, fake: FakeSlurm) -> None:
    (run / "plan.json").write_text("{")
    assert run_finishing_job(run) == 1
    assert "plan.json" in report(run).reason


def test_combining_that_fails_for_a_while_is_tried_again(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run(tmp_path / "run", *SLURM)
    faults = [OSError(116, "Stale file handle")]
    combines = finish.combine_and_verify
    monkeypatch.setattr(finish, "combine_and_verify", lambda path: combines(path) if not faults else _raise(faults))
    assert run_finishing_job(tmp_path / "run") == 0
    faults += [OSError(116, "Stale file handle")] * 9
    (tmp_path / "run/report.json").unlink()
    assert run_finishing_job(tmp_path / "run") == 1
    assert "combining failed: [Errno 116] Stale file handle" in report(tmp_path / "run").reason


def _raise(faults: list[OSError]) -> None:
    raise faults.pop()


def test_a_picture_that_cannot_be_made_changes_nothing_of_the_end(
    tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small_run(tmp_path / "run", *SLURM, "finish.preview=preview.png")
    monkeypatch.setattr(finish, "write_pictures", lambda *_: {}["torch"])
    assert run_finishing_job(tmp_path / "run") == 0
    found = outcome.read_outcome(RunPaths(tmp_path / "run"))
    assert found is not None
    assert found.outcome == "finished"
    assert "there is no preview.png: KeyError: 'torch'" in caplog.text


# ---- signals -----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4243")


def signal_of(fake: FakeSlurm, name: str) -> None:
    """The finishing job gets a signal while it asks for the queue."""
    fake.program("squeue", f"kill -{name} $PPID")


def test_a_preempted_finishing_job_goes_back_to_the_queue(run: Path, fake: FakeSlurm, in_a_job: None) -> None:
    fake.program("scontrol", f'echo scontrol "$@" >> {fake.folder}/calls; echo JobState=COMPLETING Restarts=1')
    signal_of(fake, "TERM")
    assert run_finishing_job(run) == 143
    assert "scontrol requeue Incomplete 4243" in fake.calls()
    assert "the finishing job is at work (4243)" in notice(run)


@pytest.mark.parametrize(
    ("scontrol", "reason"),
    [
        (
            "echo JobState=COMPLETING Requeue=1 Restarts=0",
            "SLURM ended the finishing job for good: somebody cancelled it, or its time was over",
        ),
        (
            "echo Requeue is disabled for job 4243; exit 1",
            "the finishing job was stopped by SIGTERM and cannot be requeued: Requeue is disabled for job 4243",
        ),
        (
            "echo Unable to contact slurm controller; exit 1",
            "the finishing job was stopped by SIGTERM and cannot be requeued: Unable to contact slurm controller",
        ),
    ],
)
def test_one_that_does_not_come_back_leaves_a_report(
    run: Path, fake: FakeSlurm, in_a_job: None, scontrol: str, reason: str
) -> None:
    fake.program("scontrol", scontrol)
    signal_of(fake, "TERM")
    assert run_finishing_job(run) == 143
    assert report(run).reason == reason


def test_ctrl_c_leaves_a_report(run: Path, fake: FakeSlurm) -> None:
    signal_of(fake, "INT")
    assert run_finishing_job(run) == 130
    assert report(run).reason == "the finishing job was stopped by SIGINT"


def test_a_time_limit_that_is_too_short_ends_with_a_line_that_gives_more(
    tmp_path: Path, fake: FakeSlurm, in_a_job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, *SLURM, "finish.time_min=20"))
    monkeypatch.setattr(guard.time, "monotonic", itertools.chain([0.0], itertools.repeat(18 * 60.0)).__next__)
    signal_of(fake, "USR2")
    assert run_finishing_job(folder) == 1
    found = outcome.read_outcome(RunPaths(folder))
    assert found is not None
    assert found.reason == "the time limit of 20 min ended the finishing job while combining: give it more"
    assert found.next_step == f"python -m hpcdata.resume {folder} finish.time_min=40"
    fake.program("squeue", "true")
    assert resume_command.main([str(folder), "finish.time_min=40"]) == 0


def test_a_warning_long_before_the_time_limit_is_a_preemption(tmp_path: Path, fake: FakeSlurm, in_a_job: None) -> None:
    prepare(small_config(tmp_path / "run", *SLURM, "finish.time_min=20"))
    signal_of(fake, "USR2")
    assert run_finishing_job(tmp_path / "run") == 140
    notice(tmp_path / "run")


# ---- what a person types -----------------------------------------------------------------------------------------


def test_a_refused_resume_leaves_the_report(run: Path, fake: FakeSlurm) -> None:
    fake.program("squeue", "exit 1")
    assert run_finishing_job(run) == 1
    before = report(run)
    fake.program("squeue", "true")
    fake.program("sbatch", "echo sbatch: error: Invalid account >&2; exit 1")
    assert resume_command.main([str(run)]) != 0
    assert report(run) == before
