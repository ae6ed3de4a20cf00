"""Batches of rows -> what is written of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcdata.base import digest
from hpcdata.formats.tokens.base import Piece, Writer, Written
from hpcdata.formats.tokens.rows import Order, Rows
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Batch, Kind, PreparedBatch, Reject, RowRange, refusal
from hpcdata.shards.counts import Counts, count_batch
from hpcdata.shards.made import Before, Laid
from hpcdata.shards.reject_ledger import RejectRow, reject_row
from hpcdata.shards.schema import Schema

_THREADS = 2
"""Batches that are made at a time: while one is written, the next one is gathered. One more where both is theirs."""


class Exporting:
    """A dataset and a format in one process."""

    device = "none"

    def __init__(self, plan: Plan, order: Order, writer: Writer, ending: str, *, writes_itself: bool) -> None:
        """writes_itself: the writer puts what it makes on the disk."""
        self.plan, self._order, self._writer, self._ending = plan, order, writer, ending
        self.num_ahead = _THREADS + writes_itself
        self._threads = ThreadPoolExecutor(self.num_ahead, thread_name_prefix="export")

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Exported]:
        rows, rejects = self._rows(batch, first_index, source)
        return self._threads.submit(self._made, rows, rejects, first_index, source).result

    def _rows(self, batch: Batch, first_index: int, source: str) -> tuple[Rows, list[RejectRow]]:
        if isinstance(batch, RowRange):
            positions = np.arange(batch.first, batch.first + batch.count)
            return self._order.rows(positions, start=batch.first, count=batch.count), []
        assert isinstance(batch, PreparedBatch)
        kept, rejects = [], []
        for record, prepared in zip(batch.records, batch.prepared, strict=True):
            if bad := refusal(record, prepared):
                rejects.append(reject_row(record, bad.reason, bad.message, first_index, source))
            else:
                kept.append(record.position)
        start = batch.records[0].position
        return self._order.rows(np.array(kept, np.int64), start=start, count=len(batch.records)), rejects

    def _made(self, rows: Rows, rejects: list[RejectRow], first_index: int, source: str) -> Exported:
        written = self._writer.write(rows)
        for number, reason, message in written.rejects:
            position = int(rows.position[number])
            bad, (key,) = BadSample(reason, message), rows.dataset.keys(rows.row[number : number + 1])
            record = Reject(position=position, key=key, reason=reason, message=message, offset=int(rows.row[number]))
            rejects.append(reject_row(record, bad.reason, bad.message, first_index, source))
        kept = rows.without([number for number, _, _ in written.rejects])
        made = Exported(
            rows=kept,
            result=written,
            rejects=sorted(rejects, key=lambda row: row.index),
            first_index=first_index,
            name=f"{first_index + rows.start:012d}",
            ending=self._ending,
            writer=self._writer,
        )
        _ = made.pieces  # which takes their digests: in this thread
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """A batch that is written, and the rejects in it."""

    rows: Rows
    """Those that are written."""
    result: Written
    rejects: Sequence[RejectRow]
    first_index: int
    name: str
    """How its files begin, from the plan."""
    ending: str
    writer: Writer

    def counts(self) -> Counts:
        table = self.rows.table
        is_image = table.kind == Kind.IMAGE
        return count_batch(
            len(self.rows),
            self.rejects,
            text_tokens=int(table.length[table.kind == Kind.TEXT].sum()),
            image_tokens=int(table.length[is_image].sum()),
            images=int(is_image.sum()),
        )

    def written(self) -> Sequence[tuple[int, str]]:
        indices = (self.first_index + self.rows.position).tolist()
        return list(zip(indices, self.rows.keys(), strict=True))

    def written_place(self, index: int) -> int:
        """Which of the rows that are written it is."""
        return int(np.searchsorted(self.rows.position, index - self.first_index))

    def only(self, indices: Container[int]) -> Exported:
        gone = [
            n for n, position in enumerate(self.rows.position.tolist()) if self.first_index + position not in indices
        ]
        rows = self.rows.without(gone)
        return dataclasses.replace(self, rows=rows, result=self.writer.write(rows), rejects=())

    @cached_property
    def pieces(self) -> list[Piece]:
        """What it adds to its shard, in order."""
        written = self.result
        if any(map(len, written.stream)):
            return [_piece(len(self.rows), *written.stream)]
        return [*written.pieces, *(_piece(rows, data) for rows, data in written.files)]

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        pieces = self.pieces
        columns = {
            "samples/index.memmap": (self.first_index + self.rows.position).astype("<i8"),
            "pieces/num_rows.memmap": np.array([piece.num_rows for piece in pieces], "<i8"),
            "pieces/num_bytes.memmap": np.array([piece.size for piece in pieces], "<i8"),
            "pieces/sha256.memmap": np.frombuffer(b"".join(piece.sha256 for piece in pieces), "u1").reshape(-1, 32),
            **self.result.columns,
        }
        return Laid(
            columns=columns,
            content=digest.add(*(content_of(piece.sha256) for piece in pieces)),
            streams={stream.path: self.result.stream for stream in schema.streams},
            files=[
                (f"{self.name}-{number:04d}{self.ending}", data) for number, (_, data) in enumerate(self.result.files)
            ],
        )


def content_of(sha256: bytes) -> int:
    """What a piece adds to the content digest."""
    return int.from_bytes(sha256, "little")


def _piece(num_rows: int, *data: bytes | memoryview) -> Piece:
    hasher = hashlib.sha256()
    for item in data:
        hasher.update(item)
    return Piece(num_rows=num_rows, size=sum(map(len, data)), sha256=hasher.digest())
