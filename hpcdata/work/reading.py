"""The records of a shard as they were planned, and what becomes of them when their input is not what it was.

An input that is gone, or whose size or time of change is not the plan's, is never read as if it were the planned one:
its shards are refused, or with `data.on_changed_input=reject` their samples are rejected by the file's name. What a
checkpoint holds was read before the change and stays. JSON arrays and folders of pictures were copied and listed when
they were planned (`inputs/`): with `reject` these are read, and each picture that is gone is a reject of its own.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, ShardSpec
from hpcdata.runs.stage import find_stage
from hpcdata.samples import Batch, Reason, Record
from hpcdata.shards.made import Rejected
from hpcdata.shards.reject_ledger import DUPLICATE, RejectRow
from hpcdata.work.clock import WorkClock
from hpcdata.work.preparing import Prepare, prepare_batches

Policy = Literal["refuse", "reject"]
ROWS_AT_ONCE = 4096


class InputChanged(UserError):
    """An input is gone or not what was planned; `what` says so without a path or a time."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


def read_shard(
    plan: Plan, paths: RunPaths, spec: ShardSpec, *, skip: int = 0, policy: Policy = "refuse"
) -> Iterator[Record]:
    """The records of a shard from its `skip`-th on. Raises InputChanged when the input is not what was planned."""
    require_unchanged(spec, paths.root, policy)
    return sources.read(
        _file(paths, spec),
        spec.source.scan,
        first=spec.first + skip,
        count=spec.count - skip,
        options=find_stage(plan.config.stage).options(plan.config),
    )


def read_batches(
    plan: Plan,
    paths: RunPaths,
    spec: ShardSpec,
    *,
    start: int,
    end: int,
    threads: Executor,
    prepare: Prepare | None,
    policy: Policy = "refuse",
    clock: WorkClock | None = None,
) -> Iterator[Batch]:
    """Samples `start` to `end` of a shard in batches, documents in bulk. The clock gets what reading takes.

    threads: do what `prepare` says, see `decoding_threads`.
    """
    clock, size, stage = clock or WorkClock(), plan.batch_size, find_stage(plan.config.stage)
    if stage.takes_documents(plan, spec.source.file.format):
        require_unchanged(spec, paths.root, policy)
        documents = sources.read_documents(
            _file(paths, spec),
            spec.source.scan,
            first=spec.first + start,
            count=end - start,
            batch_size=size,
            options=stage.options(plan.config),
        )
        return clock.timed(documents, "read_s")
    records = clock.timed(read_shard(plan, paths, spec, skip=start, policy=policy), "read_s")
    records = itertools.islice(records, end - start)
    return prepare_batches(records, batch_size=size, threads=threads, prepare=prepare)


def _file(paths: RunPaths, spec: ShardSpec) -> sources.InputFile:
    return dataclasses.replace(spec.source.file, path=str(paths.root / spec.source.file.path))


def require_unchanged(spec: ShardSpec, root: Path, policy: Policy = "refuse") -> None:
    """Raises InputChanged, or UserError when it cannot be told: a file system that is not there changes no file."""
    label, origin = spec.source.file.label, root / spec.source.origin
    if policy == "reject" and not Path(spec.source.file.path).is_absolute():
        return
    advice = "restore it, use a new data.token_output_dir, or have its samples rejected (data.on_changed_input=reject)"
    try:
        is_like = spec.source.is_like(origin.stat())
    except OSError as error:
        message = f"input {label} ({origin}) cannot be read: {error.strerror}; "
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and origin.parent.is_dir():
            raise InputChanged(message + advice, f"{label} was removed after it was planned") from None
        raise UserError(message + "restore it, run again") from None
    if not is_like:
        what = "has changed since it was planned"
        raise InputChanged(f"input {label} ({origin}) {what} (size or time of change): {advice}", f"{label} {what}")


def rejected_batches(spec: ShardSpec, change: InputChanged, skip: int) -> Iterator[Rejected]:
    """Rejects for the samples of a shard from its `skip`-th on, under their positions: their keys cannot be read."""
    duplicates, label = set(spec.source.scan.duplicates), spec.source.file.label
    for start in range(spec.first + skip, spec.first + spec.count, ROWS_AT_ONCE):
        positions = range(start, min(start + ROWS_AT_ONCE, spec.first + spec.count))
        rows = [
            RejectRow(
                index=spec.source_index + position,
                key=f"{label}#{position}",
                source=label,
                offset=0,
                reason=DUPLICATE if position in duplicates else Reason.CHANGED_INPUT,
                message=change.what,
            )
            for position in positions
        ]
        yield Rejected(rejects=rows)
