"""Machines that lose power: what was said to be safe is there afterwards.   pytest tests/test_power_loss.py

The disk of `tests/powerloss.py` keeps what was synced, and of the rest what it likes: the worst that POSIX allows.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import pytest

from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.shards import shard
from hpcdata.shards.tables import EncodedBatch
from hpcdata.shards.takeover import open_shard
from tests import made
from tests.crashes import Crash
from tests.evidence import CRASHES, Evidence
from tests.powerloss import power_loss
from tests.trees import tree

NUM, BATCH = 24, 8
DISKS = 2
"""Outcomes that are drawn for each moment."""


class Writing:
    """Attempts at one shard, and what they were told is safe."""

    def __init__(self, shards: Path) -> None:
        self.shards, self.safe = shards, 0
        self.is_committed = False
        shard.make_folders(shards)

    def attempt(self, name: str, *, killed_at: int = NUM) -> None:
        writer = open_shard(self.shards, made.header(num_inputs=NUM), name)
        if writer is None:
            self.is_committed = True
            return
        self.safe = max(self.safe, writer.samples_read)
        for start in range(writer.samples_read, NUM, BATCH):
            writer.append(EncodedBatch(examples=[made.example(index) for index in range(start, start + BATCH)]))
            if start + BATCH < NUM:
                writer.checkpoint()
                self.safe = writer.samples_read
            if start >= killed_at:
                return
        writer.commit()
        self.is_committed = True


@pytest.mark.slow
def test_no_checkpoint_and_no_committed_shard_is_lost(tmp_path: Path, evidence: Evidence) -> None:
    """An attempt is killed after its first checkpoint; power is lost at any moment of it or of the next."""
    Writing(tmp_path / "expected/shards").attempt("a")
    expected = tree(tmp_path / "expected/shards")
    number, finished = 0, False
    while not finished:
        number += 1
        for seed in range(DISKS):
            work = Writing(shards := tmp_path / "run/shards")
            with power_loss(tmp_path / "run", at=number) as disk, contextlib.suppress(Crash):
                work.attempt("first", killed_at=0)
                work.attempt("second")
                finished = True
            disk.restore(random.Random(seed))
            where = f"power lost at fsync {number}, disk {seed}"
            assert not work.is_committed or (shards / made.header(num_inputs=NUM).name).exists(), where
            assert safe_samples(shards) >= work.safe, where
            if not (shards / made.header(num_inputs=NUM).name).exists():
                work.attempt("next")
                assert tree(shards) == expected, where
            shutil.rmtree(tmp_path / "run")
    assert number > 60, "the power must have been lost at every fsync"
    evidence(CRASHES, number - 1)


def safe_samples(shards: Path) -> int:
    """What the next attempt would continue with, by its own measure."""
    run = Path(shutil.copytree(shards.parent, shards.parent.with_name("copy")))
    copy = run / "shards"
    try:
        if (copy / made.header(num_inputs=NUM).name).exists():
            return NUM
        writer = open_shard(copy, made.header(num_inputs=NUM), "look")
        if writer is None:
            return NUM
        writer.close()
        return writer.samples_read
    finally:
        shutil.rmtree(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "stride"), [({"move_files": True}, 1), ({"compact": True, "delete_after_combining": True}, 3)]
)
def test_shards_are_removed_only_when_the_dataset_is_on_the_disk(
    tmp_path: Path, evidence: Evidence, options: dict[str, bool], stride: int
) -> None:
    made.run(tmp_path / "made", num_samples=20)
    number, finished = 0, False
    while not finished:
        number += stride
        for seed in range(DISKS):
            run = tmp_path / "run"
            shutil.copytree(tmp_path / "made", run)
            with power_loss(run, at=number) as disk, contextlib.suppress(Crash):
                combine(run, CombineOptions(**options))
                finished = True
            disk.restore(random.Random(seed))
            shutil.rmtree(run / "claims", ignore_errors=True)  # a dead process would not be seen as alive
            combine(run, CombineOptions(**options))
            (report,) = verify.verify(run)
            assert not report.problems, f"power lost at fsync {number}, disk {seed}"
            evidence(CRASHES, int(disk.dead), run)
            shutil.rmtree(run)
    assert number > 15, "the power must have been lost at every fsync"
