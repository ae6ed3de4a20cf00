"""A thousand tasks on one file system, many of which die: nothing is lost or done twice.

pytest tests/test_simulation.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths
from hpcdata.shards.counts import Counts
from hpcdata.shards.shard import check_files, read_summary
from tests import made

NUM_TASKS, NUM_PROCESSES, NUM_SHARDS, SHARD_SIZE = 1000, 4, 1000, 8
MOST_FILES = 18
"""Of one attempt in flight: its claim, its note in attempts/, and 12 columns, rejects, progress, work note and a
temporary one in its folder."""


def start(run: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.simulation", str(run), name, str(NUM_TASKS // NUM_PROCESSES)]
    return subprocess.Popen(command)


def files_in_flight(paths: RunPaths) -> tuple[int, int]:
    """(shards in somebody's hands, files of all of them)."""
    folders = [path for path in paths.shards.iterdir() if path.name.startswith("tmp_")]
    places = [*folders, paths.claims, paths.root / "attempts"]
    num_claims = len(list(paths.claims.iterdir()))
    return max(len(folders), num_claims), sum(len(names) for place in places for _, _, names in os.walk(place))


@pytest.mark.slow
def test_a_thousand_tasks_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    plan, paths = made.plan(NUM_SHARDS * SHARD_SIZE, SHARD_SIZE), RunPaths(tmp_path)
    paths.shards.mkdir()
    paths.claims.mkdir()
    paths.plan.write_bytes(plan.to_json())
    running = [start(tmp_path, f"p{number}") for number in range(NUM_PROCESSES)]
    most, most_at_once = 0.0, 0
    deadline = time.monotonic() + 120
    try:
        while any(process.poll() is None for process in running):
            assert time.monotonic() < deadline
            time.sleep(0.5)
            attempts, number = files_in_flight(paths)
            most, most_at_once = max(most, number / max(attempts, 50)), max(most_at_once, attempts)
            committed, _ = paths.list_names()
            if running[0].poll() is None and len(running) == NUM_PROCESSES and len(committed) > NUM_SHARDS // 3:
                running[0].kill()  # 250 tasks at once, like a node
                running.append(start(tmp_path, "p-after"))
        assert [process.wait() for process in running] == [-9, 0, 0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert most_at_once > 200, "they were at work at once"
    assert most <= MOST_FILES
    expected = sum((made.batch(spec.first, spec.first + spec.count).counts() for spec in plan.shards()), Counts())
    status = read_status(tmp_path)
    assert status.done == NUM_SHARDS
    events = Counter(event["event"] for _, ledger in read_ledgers(paths.ledger) for event in ledger)
    assert events["conflict"] == 0
    committed = Counter(
        event["shard"] for _, ledger in read_ledgers(paths.ledger) for event in ledger if event["event"] == "commit"
    )
    assert max(committed.values()) == 1, "no shard was published twice"
    assert events["claim"] > NUM_SHARDS, "some were taken over"
    for name in plan.shard_names:
        summary = read_summary(paths.shards / name)
        assert check_files(paths.shards / name, summary) == []
    assert status.counts["written"] == expected.written
    assert Counter(status.counts["rejected"]) == expected.rejected
    left = [*paths.shards.glob("tmp_*"), *paths.claims.iterdir()]
    assert len(left) < NUM_TASKS // 20, "only of tasks that died around a commit of their shard"
