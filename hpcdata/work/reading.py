"""The records of a shard as they were planned, and what becomes of them when their input is not what it was.

An input that is gone, or whose size or time of change is not the plan's, is never read as if it were the planned one:
its shards are refused, or with `data.on_changed_input=reject` its samples are rejected by the file's name. What a
checkpoint holds was read before the change and stays. JSON arrays and folders were copied and listed when they were
planned (`inputs/`): with `reject` these are read, and each picture that is gone is a reject of its own, as is each
document of a listed folder that is gone or has changed.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.runs.inputs.planned import Segment, ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import find_stage
from hpcdata.samples import Batch, Documents, Duplicate, Reason, Record, Reject, RowRange
from hpcdata.work.clock import WorkClock
from hpcdata.work.preparing import BATCHES_AHEAD, DecodingThreads, Prepare, prepare_batches
from hpcdata.work.unreadable import Unreadable

Policy = Literal["refuse", "reject"]


class InputChanged(UserError):
    """An input is gone or not what was planned; `what` says so without a path or a time."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


Changes = dict[str, InputChanged]
"""By the input's label."""


def read_shard(
    plan: Plan,
    paths: RunPaths,
    spec: ShardSpec,
    *,
    skip: int = 0,
    policy: Policy = "refuse",
    given_up: Changes | None = None,
    unreadable: Unreadable | None = None,
) -> Iterator[Record]:
    """The records of a shard from its `skip`-th on. Raises InputChanged when an input is not what was planned.

    Raises UnreadableRecord for a record whose own file cannot be read, unless `unreadable` has it rejected.

    given_up: inputs that are not read any more, their samples are rejects. Positions count as `ShardSpec.source_index`
    says, and where a shard has several inputs each record names its own.
    """
    unreadable = unreadable or Unreadable(spec=spec)
    options = find_stage(plan.config.stage).options(plan.config)
    options = dataclasses.replace(options, rejects_changed=policy == "reject")
    for segment in spec.between(skip, spec.count):
        if change := (given_up or {}).get(segment.source.file.label):
            yield from place(_rejects(segment, change), spec, segment)
            continue
        require_unchanged(segment, paths.root, policy)
        file, scan = _file(paths, segment), segment.source.scan
        begin = segment.source_index + segment.first - spec.source_index - spec.first
        records = unreadable.records(file, scan, options, first=segment.first, count=segment.count, begin=begin)
        yield from place(records, spec, segment)


def place(records: Iterable[Record], spec: ShardSpec, segment: Segment) -> Iterator[Record]:
    """Records of one of a shard's inputs, as its batches take them."""
    if len(spec.segments) == 1:
        yield from records
        return
    shift, label = segment.source_index - spec.source_index, segment.source.file.label
    for record in records:
        yield dataclasses.replace(record, position=record.position + shift, source=label)


def read_batches(
    plan: Plan,
    paths: RunPaths,
    spec: ShardSpec,
    *,
    start: int,
    end: int,
    threads: DecodingThreads,
    prepare: Prepare | None,
    policy: Policy = "refuse",
    given_up: Changes | None = None,
    unreadable: Unreadable | None = None,
    clock: WorkClock | None = None,
    ahead: int = BATCHES_AHEAD,
) -> Iterator[Batch]:
    """Samples `start` to `end` of a shard in batches, documents in several at once. The clock gets what reading takes.

    threads: do what `prepare` says, see `decoding_threads`; ahead: see `prepare_batches`.
    """
    clock, unreadable = clock or WorkClock(), unreadable or Unreadable(spec=spec)
    size, stage = plan.batch_size, find_stage(plan.config.stage)
    for low, high, segment in _runs(plan, spec, start, end, in_bulk=not given_up):
        if segment is not None:
            require_unchanged(segment, paths.root, policy)
            documents = sources.read_documents(
                _file(paths, segment),
                segment.source.scan,
                first=segment.first,
                count=segment.count,
                batch_size=size,
                options=stage.options(plan.config),
            )
            yield from clock.timed(_place_documents(documents, spec, segment), "read_s")
            continue
        found = read_shard(plan, paths, spec, skip=low, policy=policy, given_up=given_up, unreadable=unreadable)
        records = itertools.islice(clock.timed(found, "read_s"), high - low)
        prepared = unreadable.preparing(prepare)
        yield from prepare_batches(records, batch_size=size, threads=threads, prepare=prepared, ahead=ahead)


def longest_batch(plan: Plan, spec: ShardSpec) -> int:
    """Most samples of what `read_batches` gives at once of a shard."""
    stage, size = find_stage(plan.config.stage), plan.batch_size
    has_documents = any(stage.takes_documents(plan, segment.source.file.format) for segment in spec.segments)
    return -(-sources.MOST_AT_ONCE // size) * size if has_documents else size


def _runs(
    plan: Plan, spec: ShardSpec, start: int, end: int, *, in_bulk: bool
) -> Iterator[tuple[int, int, Segment | None]]:
    """Samples `start` to `end` of a shard in pieces of whole batches: (first, end, the input to take it of in bulk).

    None for what is read record by record: batches that take samples of several inputs, and other formats.
    """
    size, done, begin, stage = plan.batch_size, start, 0, find_stage(plan.config.stage)
    for segment in spec.segments if in_bulk else ():
        low, high = max(begin, start), min(begin + segment.count, end)
        first = start + -(-(low - start) // size) * size
        last = high if high == end else start + (high - start) // size * size
        if first < last and stage.takes_documents(plan, segment.source.file.format):
            if done < first:
                yield done, first, None
            yield first, last, dataclasses.replace(segment, first=segment.first + first - begin, count=last - first)
            done = last
        begin += segment.count
    if done < end:
        yield done, end, None


def _place_documents(
    batches: Iterator[Documents | RowRange], spec: ShardSpec, segment: Segment
) -> Iterator[Documents | RowRange]:
    """As `place`."""
    if len(spec.segments) == 1:
        return batches
    shift, label = segment.source_index - spec.source_index, segment.source.file.label
    return (dataclasses.replace(batch, shift=shift, source=label) for batch in batches)


def _file(paths: RunPaths, segment: Segment) -> sources.InputFile:
    return dataclasses.replace(segment.source.file, path=str(paths.root / segment.source.file.path))


def changes(spec: ShardSpec, root: Path, policy: Policy) -> Changes:
    """Those inputs of a shard that are gone or changed, by label; one of which that cannot be told is left out."""
    found: Changes = {}
    for segment in spec.segments:
        try:
            require_unchanged(segment, root, policy)
        except InputChanged as change:
            found[segment.source.file.label] = change
        except UserError:
            continue
    return found


def require_unchanged(segment: Segment, root: Path, policy: Policy = "refuse") -> None:
    """Raises InputChanged, or UserError when it cannot be told: a file system that is not there changes no file."""
    label, origin = segment.source.file.label, root / segment.source.origin
    is_listing = not Path(segment.source.file.path).is_absolute()
    if is_listing and (policy == "reject" or segment.source.vouches):
        return
    advice = "restore it, use a new data.token_output_dir, or have its samples rejected (data.on_changed_input=reject)"
    try:
        changed = segment.source.changed_file(root)
    except OSError as error:
        origin = Path(error.filename or origin)
        message = f"input {label} ({origin}) cannot be read: {error.strerror}; "
        if error.errno in (errno.ENOENT, errno.ENOTDIR) and origin.parent.is_dir():
            raise InputChanged(message + advice, f"{label} was removed after it was planned") from None
        raise UserError(message + "restore it, run again") from None
    if changed is not None:
        what = "has changed since it was planned"
        raise InputChanged(f"input {label} ({changed}) {what} (size or time of change): {advice}", f"{label} {what}")


def _rejects(segment: Segment, change: InputChanged) -> Iterator[Record]:
    """What stands for the samples of an input that cannot be read: their keys are their positions."""
    duplicates, label = set(segment.source.scan.duplicates), segment.source.file.label
    for position in range(segment.first, segment.first + segment.count):
        key = f"{label}#{position}"
        if position in duplicates:
            yield Duplicate(position=position, key=key)
        else:
            yield Reject(position=position, key=key, reason=Reason.CHANGED_INPUT, message=change.what)
