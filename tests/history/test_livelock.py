"""Shards that do not get ahead between kills, and that others do.   pytest tests/history/test_livelock.py"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcdata.history.livelock import History, batch_seconds
from hpcdata.report.status import read_status
from hpcdata.report.summary import describe
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.shards.shard import read_progress
from tests.poisoned import READING, install
from tests.smallruns import small_config, small_run, start_task
from tests.stopping import kill_when_stopped
from tests.trees import sha256_tree
from tests.work.test_poison import ROOT, members

TEXT = ("image.tokenizer=none", "data.shard_size=24")


@pytest.mark.parametrize(
    ("claims", "advances", "batch_s", "expected"),
    [
        ([], [], 10, False),
        ([(0, 0)], [], 10, False),
        ([(0, 0), (60, 0), (120, 0)], [], None, True),  # three in a row
        ([(0, 0), (60, 0), (120, 4)], [], 10, False),
        ([(120, 4), (0, 0), (60, 4), (180, 4)], [], 10, True),  # the ledgers' order does not matter
        ([(0, 0), (60, 0)], [], 10, False),  # long enough for a batch: something else was in the way
        ([(0, 0), (60, 0)], [], 90, True),  # a kill every minute, and a batch takes longer
        ([(0, 0), (60, 0)], [], None, False),
        ([(0, 0), (60, 0)], [70], 90, False),  # the second one got ahead
        ([(0, 0), (60, 0), (120, 0)], [125], 10, False),
        ([(0, 0), (60, 8), (70, 8)], [30], 90, True),  # ahead once, not since
    ],
)
def test_stuck(claims: list[tuple[float, int]], advances: list[float], batch_s: float | None, expected: bool) -> None:
    assert History(claims=claims, advances=advances).is_stuck(batch_s) is expected


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ([], None),
        ([(0, 3, 2)], None),  # less than a batch says nothing
        ([(0, 30, 40), (30, 32, 4), (32, 33, 4)], 2),
    ],
)
def test_the_time_of_a_batch(done: list[tuple[float, float, int]], expected: float | None) -> None:
    assert batch_seconds(done, batch_size=4) == expected


@pytest.mark.slow
def test_a_shard_that_cannot_be_finished_between_two_kills_gets_ahead_by_a_batch_each_time(tmp_path: Path) -> None:
    """The interval between checkpoints is half a minute, no signal warns, and a task lives for its first batch only."""
    small_run(tmp_path / "good", *TEXT)
    folder = tmp_path / "run"
    prepare(small_config(folder, *TEXT, "data.save_tmp_interval=30"))
    samples = load_plan(folder).num_samples
    site = install(tmp_path / "site", "pause", members("text"), where=READING)  # no task is over before it is looked at
    starts, done = 0, 0
    while not read_status(folder).is_finished:
        task = start_task(folder, PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
        starts += 1
        while task.poll() is None and safe_samples(folder) <= done:
            time.sleep(0.002)
        task.kill()
        task.wait()
        done = max(done, safe_samples(folder))
        assert starts <= samples // 4 + 1, "each start must get ahead by a batch of 4"
    assert starts > 1
    assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / "good/shards")


def safe_samples(folder: Path) -> int:
    """Of the only shard."""
    if (folder / "shards/00000-of-00001").exists():
        return 24
    found = [read_progress(path) for path in (folder / "shards").glob("tmp_*")]
    return max((progress.samples_read for progress in found if progress), default=0)


@pytest.mark.slow
def test_suspected_batches_are_made_safe_one_by_one(tmp_path: Path) -> None:
    """After a kill a child takes over three batches: what it has done must not wait for the last of them."""
    folder = tmp_path / "run"
    prepare(small_config(folder, *TEXT))
    site = install(tmp_path / "site", "sleep", members("text")[10:11], where=READING)
    for expected in (0, 8):
        task = start_task(folder, PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
        deadline = time.monotonic() + 30
        while not list((folder / "shards").glob(f"tmp_*-{task.pid}-*/work")) or safe_samples(folder) < expected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        task.kill()
        task.wait()


@pytest.mark.slow
def test_tasks_that_die_before_their_first_batch_are_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, *TEXT))
    site = install(tmp_path / "site", "sleep", members("text")[:1], where=READING)
    for _ in range(3):
        python_path = f"{site}{os.pathsep}{ROOT}"
        kill_when_stopped(start_task(folder, stops_at="shards/tmp_*/work", PYTHONPATH=python_path))
    status = read_status(folder)
    assert status.stuck == ["00000-of-00001"]
    assert "do not advance" in describe(status, folder)
