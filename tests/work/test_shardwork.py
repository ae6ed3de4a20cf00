"""A GPU computes a batch while the one before is written.   pytest tests/work/test_shardwork.py

Nothing here needs a GPU: on a CPU a result is there once its batch was started, and the order of the steps is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcdata.encoders.examples import BatchEncoder
from hpcdata.runs.planning import prepare
from hpcdata.shards.tables import Encoded
from hpcdata.shards.writing import ShardWriter
from hpcdata.work.poison import CrashNotes
from hpcdata.work.shardwork import ShardWork
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import tree


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has tasks work as on a GPU; returns what they do, in order."""
    steps: list[str] = []
    init, start, append = ShardWork.__init__, BatchEncoder.start, ShardWriter.append

    def as_on_a_gpu(work: ShardWork, *arguments: object) -> None:
        init(work, *arguments)  # type: ignore[arg-type]
        work._maker.num_ahead = 1

    def noted_start(encoder: BatchEncoder, *arguments: object, **options: object) -> Callable[[], Encoded]:
        steps.append("start")
        return start(encoder, *arguments, **options)  # type: ignore[arg-type]

    def noted_append(writer: ShardWriter, batch: Encoded) -> None:
        append(writer, batch)
        steps.append(f"written to {writer.samples_read}")

    monkeypatch.setattr(ShardWork, "__init__", as_on_a_gpu)
    monkeypatch.setattr(BatchEncoder, "start", noted_start)
    monkeypatch.setattr(ShardWriter, "append", noted_append)
    return steps


def test_the_next_batch_is_started_before_the_last_is_written(tmp_path: Path, steps: list[str]) -> None:
    small_run(tmp_path / "run", "data.shard_size=12", "data.n_train_samples=12")
    assert steps[:2] == ["start", "written to 4"], "the first one is made safe at once"
    assert steps[2:] == ["start", "start", "written to 8", "written to 12"]


@pytest.mark.slow
def test_bytes_are_those_of_a_cpu_wherever_it_is_stopped(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    small_run(tmp_path / "cpu", "data.shard_size=24")
    request.getfixturevalue("steps")
    for polls in range(2, 9):
        folder = tmp_path / str(polls)
        prepare(small_config(folder, "data.shard_size=24"))
        assert run_task(folder, StopAfter(polls)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
        assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
        assert tree(folder / "shards") == tree(tmp_path / "cpu/shards")


def test_an_error_is_blamed_on_its_batch_and_what_was_pending_is_kept(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, suspect, suspected = BatchEncoder.start, CrashNotes.suspect, []

    def fail_in_the_third(encoder: BatchEncoder, *arguments: object, **options: object) -> Callable[[], Encoded]:
        if steps.count("start") == 2:
            steps.append("start")
            raise RuntimeError("of this batch")
        return start(encoder, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchEncoder, "start", fail_in_the_third)
    monkeypatch.setattr(CrashNotes, "suspect", lambda notes, at: suspected.append(at) or suspect(notes, at))
    prepare(small_config(tmp_path / "run", "data.shard_size=24"))
    assert run_task(tmp_path / "run", StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert steps[:5] == ["start", "written to 4", "start", "start", "written to 8"]
    assert suspected[0] == 8, "where the batch that failed begins"
