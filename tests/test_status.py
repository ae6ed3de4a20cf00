"""Status: the figures people plan with.   pytest tests/test_status.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcdata import combine, status
from hpcdata.combine import CombineOptions
from tests import made


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ([], 0),
        ([(0, 10, 100)], 10),
        ([(0, 10, 100), (0, 10, 100)], 20),  # two tasks at once
        ([(0, 3600, 36000)], 10),  # one checkpoint an hour: only its share of the window counts
        ([(0, 3600, 36000), (3590, 3600, 100)], (6000 + 100) / 600),  # both at work in the last ten seconds
        ([(0, 10, 1000), (10_000, 10_010, 100)], 10),  # what was done before the window does not count
        ([(0, 10, 100), (300, 310, 100)], 10),  # nor does the time between two submissions
    ],
)
def test_the_rate_spreads_samples_over_the_seconds_they_took(done: list, expected: float) -> None:
    assert status.rate(done) == pytest.approx(expected)


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


def test_json_and_text_tell_rejects_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(tmp_path / "run")
    assert status.main([str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["rejected"]["unreadable_image"] > 0
    assert status.main([str(tmp_path / "run")]) == 0
    assert "unreadable_image" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(tmp_path)]) == 1
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
    assert "WARNING  1 shards do not advance" in status.describe(result, tmp_path)
