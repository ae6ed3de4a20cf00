"""Encoding batches of a run once more, exactly as an array task does: for retries of rejects and for proofs.

A batch holds the same samples as in the run, because their number can change the arithmetic of a network: the caller
says which of its samples take part, and gets what the encoder makes of them.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig
from hpcdata.runs.inputs.planned import Segment, ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import find_stage, with_runtime
from hpcdata.samples import Reason, Record, Reject
from hpcdata.sources.base import RECORDS
from hpcdata.work.preparing import decoding_threads, end_preparing, prepare_batches
from hpcdata.work.reading import place
from hpcdata.work.unreadable import Everything, Unreadable

if TYPE_CHECKING:
    from hpcdata.shards.made import Made

log = logging.getLogger(__name__)

_Source = tuple[sources.InputFile, sources.Scan]


_KEPT = ("label", "base", "roots", "take", "take_seed", "settings")
"""Of an input that is scanned again, what does not depend on its content."""


class Remaker:
    """The encoders of a run, for single batches. `accept_changed` reads inputs that changed since they were planned.

    rejects_unreadable: what cannot be read is a reject, and no OSError.
    """

    def __init__(
        self,
        plan: Plan,
        paths: RunPaths,
        runtime: RunConfig,
        *,
        accept_changed: bool = False,
        rejects_unreadable: bool = False,
    ) -> None:
        self.changed_inputs: set[str] = set()
        """Labels of inputs that were read although they changed."""
        self._plan, self._paths, self._runtime = plan, paths, runtime
        self._accept_changed, self._condemned = accept_changed, Everything() if rejects_unreadable else ()
        self._rejects_changed = rejects_unreadable
        self._sources: dict[str, _Source] = {}
        self._listings = tempfile.TemporaryDirectory(prefix="hpcdata-")
        self._stage = find_stage(plan.config.stage)
        self._maker = self._stage.open(plan, paths, runtime)
        self._prepare = self._stage.preparing(with_runtime(plan, runtime))
        self.device = self._maker.device

    def __enter__(self) -> Remaker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end_preparing(self._prepare)
        self._listings.cleanup()

    def batches(
        self, spec: ShardSpec, taking_part: Mapping[int, frozenset[int]], may_lack: Set[int] = frozenset()
    ) -> Iterator[tuple[list[Record], Made]]:
        """(records, what they became) of batches of a shard. taking_part: batch number -> plan indices. may_lack:
        indices of samples that were rejected: one of several inputs that only they are taken from need not be there.

        Raises UserError when the input is gone or, unless that is accepted, has changed.
        """
        size = self._plan.batch_size
        first, last = min(taking_part), max(taking_part) + 1
        wanted = frozenset().union(*taking_part.values())
        records = self._records(spec, first * size, min(last * size, spec.count), wanted, may_lack)
        for number in range(first, last):
            batch = list(islice(records, size))
            if number in taking_part:
                kept = [_left_out_unless(record, spec, taking_part[number]) for record in batch]
                yield batch, self._make(spec, kept)

    def _records(
        self, spec: ShardSpec, start: int, end: int, wanted: frozenset[int], may_lack: Set[int]
    ) -> Iterator[Record]:
        """Samples `start` to `end` of a shard. An input of which none takes part need not be there."""
        options, unreadable = self._stage.options(self._plan.config), self._unreadable(spec)
        options = dataclasses.replace(options, rejects_changed=self._rejects_changed)
        for segment in spec.between(start, end):
            low = segment.source_index + segment.first
            if len(spec.segments) > 1 and wanted.isdisjoint(range(low, low + segment.count)):
                yield from place(_stand_ins(segment), spec, segment)
                continue
            try:
                file, scan = self._source(segment)
            except UserError as error:
                taken = wanted.intersection(range(low, low + segment.count))
                if len(spec.segments) == 1 or not taken <= may_lack:
                    raise
                log.warning("%s; its samples stay rejected", error)
                yield from place(_stand_ins(segment, Reason.CHANGED_INPUT), spec, segment)
                continue
            records = unreadable.records(file, scan, options, first=segment.first, count=segment.count, begin=0)
            yield from place(records, spec, segment)

    def _make(self, spec: ShardSpec, records: list[Record]) -> Made:
        prepare = self._unreadable(spec).preparing(self._prepare)
        with decoding_threads(self._runtime.loader.num_workers) as threads:
            (batch,) = prepare_batches(records, batch_size=len(records), threads=threads, prepare=prepare)
        return self._maker.start(batch, first_index=spec.source_index, source=spec.source)()

    def _unreadable(self, spec: ShardSpec) -> Unreadable:
        return Unreadable(spec=spec, condemned=self._condemned)

    def _source(self, segment: Segment) -> _Source:
        """An input of a shard as planned; after a fresh scan where it changed and that is accepted."""
        label, origin = segment.source.file.label, self._paths.root / segment.source.origin
        try:
            changed = segment.source.changed_file(self._paths.root)
        except OSError as error:
            raise UserError(
                f"input {label} ({error.filename or origin}) cannot be read: {error.strerror}; restore it"
            ) from None
        if changed is None or segment.source.vouches:
            path = str(self._paths.root / segment.source.file.path)
            return dataclasses.replace(segment.source.file, path=path), segment.source.scan
        if not self._accept_changed:
            raise UserError(
                f"input {label} ({changed}) has changed since it was planned: restore it, or add --accept_changed if "
                "it was changed on purpose"
            )
        if label not in self._sources:
            self._sources[label] = self._scan_again(segment, str(origin))
            self.changed_inputs.add(label)
        return self._sources[label]

    def _scan_again(self, segment: Segment, origin: str) -> _Source:
        planned, config = segment.source, self._plan.config
        source = config.data.source
        if planned.file.take:  # of a mix
            source = "parquet" if planned.file.format == RECORDS else "jsonl"
        (listed,) = sources.list_inputs(
            origin, source, without=str(self._paths.root), listed=(), mapping=config.data.mapped_by or ""
        )
        kept = {name: getattr(planned.file, name) for name in _KEPT}
        listed = dataclasses.replace(listed, **kept)
        options = self._stage.options(config)
        file = sources.prepare(listed, Path(self._listings.name), without=str(self._paths.root), options=options)
        scan = sources.scan(file, every=config.data.shard_size, options=options)
        is_limited = config.data.n_train_samples is not None
        if scan.num_samples != planned.scan.num_samples and not (
            is_limited and scan.num_samples > planned.scan.num_samples
        ):
            raise UserError(
                f"input {planned.file.label} has {scan.num_samples} samples now, {planned.scan.num_samples} were "
                "planned: what is where in it cannot be told any more, plan it again into a new output directory"
            )
        return file, scan


def _stand_ins(segment: Segment, reason: Reason = Reason.BAD_RECORD) -> Iterator[Record]:
    for position in range(segment.first, segment.first + segment.count):
        key = f"{segment.source.file.label}#{position}"
        yield Reject(position=position, key=key, reason=reason, message="left out")


def _left_out_unless(record: Record, spec: ShardSpec, taking_part: frozenset[int]) -> Record:
    if spec.source_index + record.position in taking_part:
        return record
    return Reject(
        position=record.position, key=record.key, reason=Reason.BAD_RECORD, message="left out", source=record.source
    )
