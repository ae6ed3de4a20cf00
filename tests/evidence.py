"""What runs have survived, counted where it happens, for the table that `tests/proof.py` makes.

    def test_x(tmp_path, evidence):
        ...
        evidence(KILLS, num_hit, tmp_path / "run")     the run is finished, or combined: its samples are counted

The account is read from the files alone and trusts no sum of hpcdata's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

KILLS = "tasks killed or stopped by a signal"
SLURM = "times that a real SLURM preempted, requeued, cancelled, timed out or lost a task"
CRASHES = "crashes, or losses of power, before or after a single step on disk"
FAULTS = "faults of disks: full, failing, read-only, without links or exact times"
READS = "reads and opens of raw files that fail or come short, while planning and working"
CHANGES = "inputs or pictures removed or changed after planning"
POISON = "records that crash, hang or exhaust the process that reads or decodes them"
BAD_INPUTS = "records of hostile tars, lines, streams and headers"
PICTURES = "pictures of Pillow's own tests and of openclipart"
KINDS = (KILLS, SLURM, CRASHES, FAULTS, READS, CHANGES, POISON, BAD_INPUTS, PICTURES)

Evidence = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Account:
    planned: int
    lost: int
    duplicated: int
    wronged: int = 0
    """Rejected although nothing is wrong with them: looked for where reads fail."""

    def __add__(self, other: Account) -> Account:
        return Account(**{name: value + vars(other)[name] for name, value in vars(self).items()})


NOTHING = Account(planned=0, lost=0, duplicated=0)


def account(run: Path) -> Account:
    """How often each planned sample is there, written or rejected: by its index, in every shard or part."""
    folders = [path.parent for path in (run / "shards").glob("[0-9r]*/shard.json")]
    folders = folders or [path.parent for path in (run / "dataset/parts").glob("*/shard.json")]
    seen: Counter[int] = Counter()
    for folder in folders:
        index = folder / "samples/index.memmap"
        seen.update(np.fromfile(index, "<i8").tolist() if index.exists() else ())
        seen.update(_indices(folder / "rejects.jsonl"))
        seen.subtract(_indices(folder / "recovered.jsonl"))
    planned = json.loads((run / "plan.json").read_bytes())["num_samples"]
    lost = sum(seen[index] < 1 for index in range(planned))
    return Account(planned=planned, lost=lost, duplicated=sum(number - 1 for number in seen.values() if number > 1))


def _indices(path: Path) -> list[int]:
    return [json.loads(line)["index"] for line in path.read_bytes().splitlines()] if path.exists() else []


Attacked = Callable[[str, int], None]


@pytest.fixture
def attacked(record_property: Callable[[str, object], None]) -> Attacked:
    """attacked("flipped bits", 1000): of a test that makes many attacks, what they are and how many it has made."""
    return lambda name, times: record_property("attacked", (name, int(times)))


@pytest.fixture
def evidence(record_property: Callable[[str, object], None]) -> Evidence:
    """evidence(kind, times, *runs): notes it, and fails when a sample of the runs is lost or duplicated.

    counted: the account of runs that are gone by now.
    """

    def note(kind: str, times: int, *runs: Path, counted: Account = NOTHING) -> None:
        assert kind in KINDS
        found = sum(map(account, runs), counted)
        record_property("evidence", (kind, int(times), vars(found)))  # plain: reports travel between processes
        assert (found.lost, found.duplicated, found.wronged) == (0, 0, 0), kind

    return note
