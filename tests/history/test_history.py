"""What ledgers say together.   pytest tests/history/test_history.py"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from hpcdata.history import history
from hpcdata.history.history import History
from hpcdata.history.ledger import LedgerReader
from hpcdata.history.process import Process
from hpcdata.shards.counts import Counts
from tests import synthetic


def event(kind: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": time, **fields}


def read(folder: Path, **ledgers: list[dict[str, Any]]) -> History:
    for attempt, events in ledgers.items():
        lines = [json.dumps(item) + "\n" for item in events]
        (folder / f"{attempt}.jsonl").write_text("".join(lines))
    made = History(LedgerReader(folder))
    made.read()
    return made


def start(time: float, element: int | None = None) -> dict[str, Any]:
    slurm = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(element), "SLURM_PROCID": "0"}
    return event("start", time, host="h", slurm={} if element is None else slurm)


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
    assert history.rate(done) == pytest.approx(expected)


def test_every_second_of_a_process_is_useful_lost_or_overhead(tmp_path: Path) -> None:
    """100 s of process a: 10 to start, 60 and 20 useful, 10 to leave; b: 5 to start, 15 for nothing, 2 s of a lost."""
    made = read(
        tmp_path,
        a=[
            start(1000, 1),
            event("claim", 1010, shard="x", resumed=0, lost_s=0.0),
            event("checkpoint", 1040, shard="x", samples=30, busy_s=30, useful_s=30),
            event("commit", 1070, shard="x", samples=60, busy_s=30, useful_s=60),
            event("claim", 1070, shard="y", resumed=0, lost_s=0.0),
            event("checkpoint", 1090, shard="y", samples=20, busy_s=20, useful_s=20),
            event("signal", 1100, name="SIGTERM"),
            event("end", 1100, outcome="stopped"),
        ],
        b=[
            start(1150, 1),
            event("claim", 1155, shard="y", resumed=20, lost_s=2.0),
            event("conflict", 1170, shard="y", files=[], busy_s=15),
        ],
    )
    assert (made.useful_s, made.lost_s, made.overhead_s, made.queued_s) == (80, 17, 25, 50)
    assert made.goodput == pytest.approx(80 / (80 + 17 + 25))
    assert made.conflicts == 1
    assert [segment.samples for segment in made.segments()] == [60, 20]
    assert made.commit_s() == 60


def test_sums_since_the_claim_are_added_once(tmp_path: Path) -> None:
    sums = [{"useful_s": 10 * number, "encode_s": 8 * number, "cpu_s": 12 * number} for number in (1, 2, 3)]
    made = read(
        tmp_path,
        a=[
            start(0),
            event("claim", 0, shard="x"),
            event("checkpoint", 10, shard="x", samples=1, busy_s=10, **sums[0]),
            event("checkpoint", 20, shard="x", samples=2, busy_s=10, **sums[1]),
            event("commit", 30, shard="x", samples=3, busy_s=10, **sums[2]),
            event("claim", 30, shard="y"),
            event("checkpoint", 40, shard="y", samples=1, busy_s=10, **sums[0]),
        ],
    )
    assert made.spent == {"encode_s": 32, "cpu_s": 48, "read_s": 0, "decode_s": 0, "write_s": 0}
    assert made.useful_s == 40


@pytest.mark.parametrize(
    ("fields", "alive", "now", "is_last", "expected"),
    [
        ({"outcome": "finished"}, [], 1e9, True, "finished"),
        ({"outcome": "stopped", "signal": "SIGTERM"}, [], 0, True, "preempted"),
        ({"outcome": "stopped", "signal": "SIGUSR1"}, [], 0, True, "preempted"),
        ({"outcome": "stopped", "signal": "SIGINT"}, [], 0, True, "stopped"),
        ({"outcome": "error"}, [], 0, True, "error"),
        ({}, ["a"], 1e9, True, "running"),  # silent for long, but its claim beats
        ({}, [], 160.0, True, "running"),
        ({}, [], 1000.0, True, "vanished"),
        ({}, [], 160.0, False, "vanished"),  # its task runs again
    ],
)
def test_how_a_process_ended(fields: dict, alive: list[str], now: float, is_last: bool, expected: str) -> None:
    process = Process(attempt="a", last=100.0, **fields)
    assert process.state(is_last=is_last, alive=alive, now=now, silent_s=120) == expected


def test_the_processes_of_a_requeued_task_are_one_task(tmp_path: Path) -> None:
    made = read(tmp_path, b=[start(50, 3)], a=[start(0, 3)], c=[start(0, 4)], host_11_x=[start(0)])
    groups = {name: [process.attempt for process in group] for name, group in made.by_task().items()}
    assert groups == {"7_3/0": ["a", "b"], "7_4/0": ["c"], "host_11_x": ["host_11_x"]}


def test_the_account_counts_a_shard_once_and_only_those_that_are_there(tmp_path: Path) -> None:
    counts = [
        Counts(inputs=5, written=4, rejected=Counts().rejected + type(Counts().rejected)({"why": 1})),
        Counts(inputs=7, written=7),
    ]
    commits = [
        event("commit", number, shard=shard, samples=5, busy_s=1, counts=counts[which].to_mapping())
        for number, (shard, which) in enumerate([("x", 0), ("y", 1), ("x", 0)])
    ]
    made = read(tmp_path, a=[start(0), *commits])
    assert made.account({"x", "y"}) == counts[0] + counts[1]
    assert made.account({"y"}) == counts[1]


def test_ledgers_read_by_several_processes_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=60, num_tasks=5, preempted=0.5))
    folder = tmp_path / "run/ledger"
    alone = History(LedgerReader(folder))
    alone.read()
    monkeypatch.setattr(history, "_MANY_LEDGERS", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    children, fork = list[int](), os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    shared = History(LedgerReader(folder))
    for _ in range(2):
        shared.read()
        assert len(children) == 2
        assert shared.processes == alone.processes
        assert shared.commits == alone.commits
        assert shared.account(set(alone.commits)) == alone.account(set(alone.commits))
        assert shared.inherited_lost_s == pytest.approx(alone.inherited_lost_s)
        assert shared.stuck({f"{number:05}-of-00060" for number in range(60)}, 1e9) == alone.stuck(
            {f"{number:05}-of-00060" for number in range(60)}, 1e9
        )
        assert shared.spent == pytest.approx(alone.spent)
