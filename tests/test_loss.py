"""What a kill costs: at most the interval between checkpoints and one batch.   pytest tests/test_loss.py"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcdata.encoders.examples import BatchEncoder
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.planning import prepare
from hpcdata.shards.shard import list_attempts, read_progress, read_work_note
from hpcdata.shards.tables import Encoded
from hpcdata.shards.writing import ShardWriter
from hpcdata.work.task import run_task
from tests.crashes import Crash
from tests.poisoned import READING, install
from tests.smallruns import StopAfter, small_config, start_task
from tests.work.test_poison import ROOT, members

NUM_SAMPLES, BATCH = 24, 2
BATCH_S, INTERVAL_S = 2.0, 5.0
SETTINGS = ("image.tokenizer=none", "data.shard_size=24")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only batches move."""
    clock = SimpleNamespace(now=0.0)
    real = BatchEncoder.start

    def slow_start(self: BatchEncoder, *arguments: object, **options: object) -> Callable[[], Encoded]:
        clock.now += BATCH_S
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchEncoder, "start", slow_start)
    fake = SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.now)
    for module in ("hpcdata.work.shardwork", "hpcdata.work.clock"):
        monkeypatch.setattr(f"{module}.time", fake)
    return clock


def lost_seconds(folder: Path, clock: SimpleNamespace) -> Iterator[float]:
    """Kills a run in the worst moment of each batch, when the checkpoint that may follow has not been made."""
    real = ShardWriter.note_work
    for kill_at in range(1, NUM_SAMPLES // BATCH):
        clock.now, notes = 0.0, 0

        def note_work(writer: ShardWriter, *, left: bool = False) -> None:
            nonlocal notes
            real(writer, left=left)
            notes += 1
            if notes == kill_at + 1:  # noqa: B023 - called in this turn of the loop only
                raise Crash

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Crash):
            patch.setattr(ShardWriter, "note_work", note_work)
            run_task(folder, StopAfter())  # type: ignore[arg-type]
        (attempt,) = list_attempts(folder / "shards", "00000-of-00001")
        progress = read_progress(attempt)
        assert progress is not None
        yield clock.now - progress.samples_read / BATCH * BATCH_S
        shutil.rmtree(folder / "shards")
        shutil.rmtree(folder / "claims", ignore_errors=True)


def test_a_kill_costs_at_most_the_interval_and_a_batch(tmp_path: Path, clock: SimpleNamespace) -> None:
    options = (*SETTINGS, f"data.save_tmp_interval={INTERVAL_S}", f"loader.batch_size={BATCH}")
    prepare(small_config(tmp_path / "run", *options))
    lost = list(lost_seconds(tmp_path / "run", clock))
    assert max(lost) <= INTERVAL_S + BATCH_S
    assert max(lost) > INTERVAL_S, "otherwise there are more checkpoints than the interval asks for"


@pytest.mark.slow
def test_status_reports_what_kills_have_cost(tmp_path: Path) -> None:
    """Real kills of a run whose batches take 0.2 s, with checkpoints every 0.6 s; 1 s for a busy machine."""
    folder, rng = tmp_path / "run", random.Random(5)
    prepare(
        small_config(folder, *SETTINGS, "data.n_train_samples=96", "data.shard_size=96", "data.save_tmp_interval=0.6")
    )
    site = install(tmp_path / "site", "pause", members("text", 96), where=READING)
    for _ in range(4):
        task = start_task(folder, PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
        while task.poll() is None and not has_unsaved_work(folder, task.pid):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.8))
        task.kill()
        task.wait()
    assert start_task(folder).wait(120) == 0
    events = [event for _, events in read_ledgers(folder / "ledger") for event in events]
    lost = [event["lost_s"] for event in events if event.get("lost_s")]
    assert lost
    assert max(lost) <= 0.6 + 0.2 + 1
    status = read_status(folder)
    assert status.lost_s == pytest.approx(sum(lost), abs=0.06)
    assert status.useful_s > 1


def has_unsaved_work(folder: Path, pid: int) -> bool:
    """Whether a task has done more batches than its checkpoint holds."""
    for attempt in (folder / "shards").glob(f"tmp_*-{pid}-*"):
        progress, at = read_progress(attempt), read_work_note(attempt)
        return progress is not None and at is not None and at > progress.samples_read
    return False
