"""A plan with nothing written gives way to other settings.   pytest tests/runs/test_replacing.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdata import launch, resume
from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.history import submissions
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs import replacing
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime
from hpcdata.runs.planning import prepare
from hpcdata.runs.replacing import PlanChanged, is_nothing_written
from hpcdata.runs.stage import find_stage
from hpcdata.work.task import TaskOutcome, run_task
from tests import made
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import StopAfter, begin, small_arguments, small_config


def test_until_something_is_written_a_launch_with_other_settings_replaces_the_plan(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepare(small_config(run))
    assert run_task(run, StopAfter(0)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    paths = RunPaths(run)
    leftovers = (run / "crashes/00000-of-00004.json", paths.batch_size, paths.halted, paths.report)
    for leftover in leftovers:
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_bytes(sealed.to_json({"batch_size": 3}))
    plan = prepare(small_config(run, "data.resolution=64", "data.shard_size=12"))
    assert (plan.config.data.resolution, plan.num_shards) == (64, 2)
    assert load_plan(run).fingerprint == plan.fingerprint
    assert load_runtime(run).data.resolution == 64
    assert not any(leftover.exists() for leftover in leftovers)
    assert run_task(run, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert read_status(run).state == "finished"
    with pytest.raises(UserError, match=r"data.resolution was 64, now 32"):
        prepare(small_config(run))


def test_a_checkpoint_fixes_the_plan(tmp_path: Path) -> None:
    prepare(small_config(tmp_path / "run"))
    begin(tmp_path / "run")
    with pytest.raises(UserError, match=r"was 32, now 64: restore them, or use a new data.token_output_dir"):
        prepare(small_config(tmp_path / "run", "data.resolution=64"))


@pytest.mark.parametrize("there", ["shards/00001-of-00004", "dataset/parts/00001-of-00004"])
def test_what_is_committed_anywhere_fixes_the_plan(tmp_path: Path, there: str) -> None:
    made.run(tmp_path, unfinished={0: 0, 1: 0, 2: 0, 3: 0})
    assert is_nothing_written(RunPaths(tmp_path))
    (tmp_path / there).mkdir(parents=True)
    (tmp_path / there / "shard.json").write_text("{}")
    assert not is_nothing_written(RunPaths(tmp_path))


def test_a_plan_that_tasks_work_with_stays(tmp_path: Path) -> None:
    prepare(small_config(tmp_path / "run"))
    with Claims(RunPaths(tmp_path / "run").claims, Owner.of_this_process("other"), timeout_s=60) as claims:
        assert claims.try_claim("00003-of-00004")
        with pytest.raises(UserError, match=r"\(tasks are at work\) and launch again: python -m hpcdata.cancel"):
            prepare(small_config(tmp_path / "run", "data.resolution=64"))
    assert prepare(small_config(tmp_path / "run", "data.resolution=64")).config.data.resolution == 64


def test_a_plan_that_jobs_in_the_queue_wait_for_stays_until_they_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fake = FakeSlurm(tmp_path / "bin", monkeypatch)
    assert launch.main(small_arguments(run, "cluster=slurm")) == 0
    assert submissions.read(RunPaths(run)).submissions
    fake.program("squeue", "echo '4242|PENDING|'")
    assert launch.main(small_arguments(run, "cluster=slurm", "data.resolution=64")) == 2
    assert "(jobs 4242 in the queue) and launch again: python -m hpcdata.cancel" in capsys.readouterr().err
    assert load_plan(run).config.data.resolution == 32
    fake.program("squeue", "true")
    assert launch.main(small_arguments(run, "cluster=slurm", "data.resolution=64")) == 0
    assert load_plan(run).config.data.resolution == 64


def test_resume_never_replaces_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(small_config(tmp_path / "run"))
    assert resume.main([str(tmp_path / "run"), "data.resolution=64"]) == 2
    assert "data.resolution was 32, now 64" in capsys.readouterr().err
    assert load_plan(tmp_path / "run").config.data.resolution == 32


@pytest.mark.parametrize("when", ["opened", "appended"])
def test_a_task_that_holds_the_old_plan_ends_before_it_claims_or_writes(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced while it loads its networks; or, which claims should prevent, while it makes its first batch."""
    run = tmp_path / "run"
    prepare(small_config(run))

    def replace() -> None:
        monkeypatch.setattr(replacing, "tasks_at_work", lambda *_: False)
        prepare(small_config(run, "data.resolution=64"))

    stage = find_stage("tokenize")
    really_open = type(stage).open

    def open_and_replace(self, plan, paths, runtime):  # type: ignore[no-untyped-def]
        maker = really_open(self, plan, paths, runtime)
        if when == "opened":
            replace()
            return maker
        really_start = maker.start

        def start(*arguments, **options):  # type: ignore[no-untyped-def]
            replace()
            return really_start(*arguments, **options)

        monkeypatch.setattr(type(maker), "start", lambda self, *given, **options: start(*given, **options))
        return maker

    with monkeypatch.context() as patched:
        patched.setattr(type(stage), "open", open_and_replace)
        with pytest.raises((PlanChanged, UserError), match="was replaced by a launch with other settings"):
            run_task(run, StopAfter())  # type: ignore[arg-type]
    monkeypatch.undo()
    assert is_nothing_written(RunPaths(run))
    errors = [event["error"] for _, events in read_ledgers(run / "ledger") for event in events if "error" in event]
    assert "was replaced by a launch with other settings" in errors[-1]
    assert run_task(run, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert read_status(run).is_finished
