"""Status: the figures people plan with.   pytest tests/report/test_status.py"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcdata import combine as combine_command
from hpcdata import status as status_command
from hpcdata import verify as verify_command
from hpcdata.dataset import combining as combine
from hpcdata.dataset import partlist
from hpcdata.dataset.combining import CombineOptions
from hpcdata.history import submissions
from hpcdata.history.outcome import Outcome, write_outcome
from hpcdata.history.queue import JobStates
from hpcdata.report import status, summary
from hpcdata.runs.paths import RunPaths
from hpcdata.shards import shard
from hpcdata.shards.counts import Counts
from tests import made, synthetic


def test_shards_and_samples_are_counted_by_state(tmp_path: Path) -> None:
    made.run(tmp_path / "run", unfinished={1: 8, 3: 0})
    result = status.read_status(tmp_path / "run")
    assert (result.num_shards, result.done, result.running, result.interrupted, result.waiting) == (4, 2, 0, 1, 1)
    assert (result.num_samples, result.samples_done) == (56, 40)
    assert not result.is_finished


def test_a_combined_and_emptied_run_is_finished(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    combine.combine(tmp_path / "run", CombineOptions(delete_after_combining=True, compact=True))
    result = status.read_status(tmp_path / "run")
    assert result.is_finished
    assert result.combined == str(tmp_path / "run/dataset")


def test_more_parts_than_a_process_can_map_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By status before and after combining, with what to type; by combine; and no longer once that was done."""
    run = tmp_path / "run"
    made.run(run)
    compacting = f"4 parts are more than a process can map, so .* hpcdata.combine {run} --compact makes one"
    again = f"4 parts have small files of their own, which are more than .* hpcdata.combine {run} --compact makes one"
    for most, before, after in ((4 * 18, None, None), (4, None, again), (3, compacting, again)):
        monkeypatch.setattr(partlist, "MAX_MAPS", most)
        shutil.rmtree(run / "dataset", ignore_errors=True)
        (run / "combined.json").unlink(missing_ok=True)
        for expected, is_combined in ((before, False), (after, True)):
            if is_combined:
                combine_command.main([str(run)])
                assert (expected is None) == ("can map" not in capsys.readouterr().out)
            text = summary.describe(status.read_status(run), run)
            assert re.search(f"WARNING  {expected}", text) if expected else "can map" not in text
    monkeypatch.setattr(partlist, "MAX_MAPS", 18)
    combine_command.main([str(run), "--compact"])
    assert status.read_status(run).compacting is None


def test_the_exit_code_of_status_is_how_the_run_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made.run(run, unfinished={1: 8})
    assert status_command.main([str(run)]) == status_command.main([str(run), "--json"]) == 3
    assert combine_command.main([str(run)]) == verify_command.main([str(run)]) == 3
    ledger = run / "ledger/a.jsonl"
    ledger.parent.mkdir()
    events = [{"event": "start", "time": 1}, {"event": "end", "time": 2, "outcome": "failed"}]
    ledger.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert status_command.main([str(run)]) == 1, "the last process could not go on"
    later = [{"event": "start", "time": 3}, {"event": "end", "time": 4, "outcome": "stopped"}]
    (run / "ledger/b.jsonl").write_text("".join(json.dumps(event) + "\n" for event in later))
    assert status_command.main([str(run)]) == 3, "but another one later could"
    write_outcome(RunPaths(run), Outcome(outcome="stopped", reason="the budget is spent", next_step="resume"))
    assert status_command.main([str(run)]) == 1
    made.complete(run)
    RunPaths(run).report.unlink()
    assert status_command.main([str(run)]) == 0
    (run / "plan.json").write_text("{")
    assert status_command.main([str(run)]) == 1
    (run / "plan.json").unlink()
    assert status_command.main([str(run)]) == 2


def test_a_run_at_work_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run(tmp_path, unfinished={1: 8})
    (tmp_path / "ledger").mkdir()
    slurm = {"SLURM_JOB_ID": "7"}
    events = [{"event": "start", "time": 1, "slurm": slurm}, {"event": "end", "time": 2, "outcome": "failed"}]
    (tmp_path / "ledger/a.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    monkeypatch.setattr(status, "look", lambda jobs: JobStates(by_element={"7_1": "RUNNING", "7_0": "FAILED"}))
    assert status_command.main([str(tmp_path)]) == 3
    monkeypatch.setattr(status, "look", lambda jobs: JobStates(by_element={"7_0": "FAILED"}))
    assert status_command.main([str(tmp_path)]) == 1


def test_json_and_text_tell_rejects_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(tmp_path / "run")
    assert status_command.main([str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["rejected"]["unreadable_image"] > 0
    assert status_command.main([str(tmp_path / "run")]) == 0
    assert "unreadable_image" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_command.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_useful_lost_and_queued_seconds_are_added_up_from_the_ledger(tmp_path: Path) -> None:
    made.run(tmp_path / "run", unfinished={0: 8})
    folder = tmp_path / "run/ledger"
    folder.mkdir()
    slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
    name = "00000-of-00004"
    for attempt, start in (("a", 100), ("b", 200), ("c", 300)):
        events = [
            {"event": "start", "time": start, "slurm": slurm},
            {"event": "claim", "time": start + 1, "shard": name, "resumed": 8, "lost_s": 2.5},
            {"event": "checkpoint", "time": start + 40, "shard": name, "samples": 8, "busy_s": 30.0},
        ]
        (folder / f"{attempt}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    result = status.read_status(tmp_path / "run")
    assert (result.useful_s, result.lost_s, result.queued_s) == (90.0, 7.5, 120.0)
    assert (result.stuck, result.batch_s) == ([name], None)
    assert "WARNING  1 shards do not advance" in summary.describe(result, tmp_path)


def test_status_of_many_shards_reads_no_shard_that_the_ledger_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=300, num_tasks=10, done=0.9))
    unknown = next(path for path in (tmp_path / "run/ledger").iterdir() if '"commit"' in path.read_text())
    num_unknown = unknown.read_text().count('"commit"')
    unknown.unlink()
    read: list[Path] = []
    real = shard.read_summary
    monkeypatch.setattr(shard, "read_summary", lambda folder: read.append(folder) or real(folder))
    observer = status.Observer(tmp_path / "run")
    first, second = observer.look(), observer.look()
    assert len(read) == num_unknown, "each shard.json once, and only where no ledger has the account"
    assert first.done == second.done == 270
    counts = [real(path).counts for path in (tmp_path / "run/shards").iterdir()]
    assert first.counts == second.counts == sum(counts, Counts()).to_mapping()
    assert first.samples_done == 270 * 256


def test_a_shard_that_somebody_deleted_is_not_done_whatever_the_ledger_says(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=20, num_tasks=2, done=1.0))
    observer = status.Observer(tmp_path / "run")
    assert observer.look().is_finished
    shutil.rmtree(tmp_path / "run/shards/00007-of-00020")
    assert observer.look().done == 19
    assert observer.look().counts["inputs"] == 19 * 256


def test_preemptions_and_goodput_are_those_of_the_ledger(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=200, num_tasks=8, preempted=0.9))
    texts = [path.read_text() for path in (tmp_path / "run/ledger").iterdir()]
    result = status.read_status(tmp_path / "run")
    assert result.starts == len(texts)
    assert result.preemptions == sum('"signal"' in text for text in texts) > 20
    assert result.vanished == sum('"outcome"' not in text for text in texts) - result.task_states.get("running", 0)
    assert result.num_tasks == len(result.tasks) == 8
    in_work = sum(task.shard_done for task in result.tasks)
    assert sum(task.samples for task in result.tasks) - in_work == result.samples_done, "it has no checkpoint on disk"
    assert result.goodput == pytest.approx(
        result.useful_s / (result.useful_s + result.lost_s + result.overhead_s), abs=1e-3
    )
    assert result.spent["encode_s"] == pytest.approx(0.88 * result.useful_s, rel=1e-3)
    assert (result.cpu_cores, result.gpu_use) == (1.4, 0.8)
    assert {task.gpu_use for task in result.tasks} == {0.8}


def test_a_task_far_slower_than_the_others_is_named(tmp_path: Path) -> None:
    made.run(tmp_path / "run", unfinished=dict.fromkeys(range(4), 8))
    (tmp_path / "run/ledger").mkdir()
    for task, seconds in enumerate((10.0, 11.0, 12.0, 90.0)):
        now = time.time()
        events = [
            {"event": "start", "time": now - 100, "host": "h"},
            {"event": "claim", "time": now - seconds, "shard": f"0000{task}-of-00004", "resumed": 0},
            {"event": "checkpoint", "time": now, "shard": f"0000{task}-of-00004", "samples": 8, "busy_s": seconds},
        ]
        (tmp_path / f"run/ledger/h-{task}-x.jsonl").write_text("".join(json.dumps(item) + "\n" for item in events))
    result = status.read_status(tmp_path / "run")
    assert result.slow_tasks == ["h-3"]
    assert "far slower" in summary.describe(result, tmp_path)
    task = next(task for task in result.tasks if task.task == "h-3")
    assert (task.state, task.shard_done, task.shard_samples) == ("running", 8, 8)


def test_states_of_the_scheduler_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=20, num_tasks=3))
    asked: list[set[str]] = []

    def ask(jobs: set[str]) -> JobStates:
        asked.append(jobs)
        return JobStates(by_element={"4242_1": "RUNNING"}, num_waiting=5, reasons=Counter({"Priority": 5}))

    monkeypatch.setattr(status, "look", ask)
    waiting = submissions.Submission(
        job_id="77", kind="tasks", round=1, by="user", time=0.0, num_tasks=5, samples_done=0, partition=None
    )
    submissions.add(RunPaths(tmp_path / "run"), waiting)
    result = status.read_status(tmp_path / "run", ask_scheduler=True)
    assert asked == [{"4242", "77"}]
    assert result.jobs == {"PENDING": 5, "RUNNING": 1}
    assert [task.job_state for task in result.tasks] == [None, "RUNNING", None]
    assert "5 PENDING, 1 RUNNING (waiting for: 5 Priority)" in summary.describe(result, tmp_path)
    assert status.read_status(tmp_path / "run").jobs is None


@pytest.mark.parametrize(
    ("spent", "images", "gpu_use", "remedy"),
    [
        ((20.0, 30.0, 140.0), 100, None, "hpcdata.resume /out loader.num_workers"),
        ((40.0, 10.0, 140.0), 100, None, "reading"),
        ((2.0, 8.0, 180.0), 100, None, None),
        ((90.0, 0.0, 100.0), 0, None, None),  # texts: that is the work
        ((2.0, 3.0, 14.0), 100, None, None),  # too early to tell
        ((20.0, 30.0, 140.0), 100, 0.98, None),  # a GPU was at work meanwhile
        ((20.0, 30.0, 140.0), 100, 0.75, "hpcdata.resume /out loader.num_workers"),
    ],
)
def test_an_encoder_that_waits_for_pictures_is_warned_of(
    tmp_path: Path, spent: tuple[float, ...], images: int, gpu_use: float | None, remedy: str | None
) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=8, num_tasks=2))
    result = status.read_status(tmp_path / "run")
    tasks = [dataclasses.replace(task, device="cuda" if gpu_use else "cpu") for task in result.tasks]
    seconds = dict(zip(("read_s", "decode_s", "encode_s"), spent, strict=True), write_s=sum(spent) / 19)
    counts = {**result.counts, "images": images}
    result = dataclasses.replace(result, spent=seconds, counts=counts, tasks=tasks, gpu_use=gpu_use)
    warned = [line for line in summary.warnings(result, "/out") if "waits" in line]
    assert len(warned) == (remedy is not None)
    assert all("25.0 %" in line and remedy and remedy in line for line in warned)


def test_where_the_time_went_is_a_line(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=20, num_tasks=2))
    text = summary.describe(status.read_status(tmp_path / "run"), tmp_path)
    assert "work     read 2 %, decode 5 %, encode 90 %, write 3 %; 1.39 CPU cores a process; GPU busy 80.0 %" in text
