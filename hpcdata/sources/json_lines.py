"""JSON lines, plain or compressed: pairs, conversations and text rows (`jsonl`), documents (`text`), folder `listing`s.

Every line that is not blank is one record, the last one with or without its line break. Lines above the limit are
skipped without being held; a compressed stream that breaks ends in one reject.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from itertools import compress, islice

from hpcdata.samples import BadSample, Documents, Reason, Record, Reject, Sample
from hpcdata.sources import parsing, records
from hpcdata.sources.base import Each, InputFile, Options, Scan, changed_since_planned, gathered
from hpcdata.sources.limits import LARGE_TEXT_BYTES, bounded, most_records, require_few_large, require_few_records
from hpcdata.sources.mixes import parts as parts_taken
from hpcdata.sources.pictures import listed
from hpcdata.sources.pictures.placeholders import KEEP
from hpcdata.sources.sets.settings import keeps_masks
from hpcdata.sources.sets.writing import NO_MASKS, masks_in, require_taken
from hpcdata.sources.streams import BrokenStream, chunks

Line = tuple[int, bytes, BadSample | None]
"""(offset in the uncompressed file, the line, what is wrong with it); the line is empty if something is."""

_NEVER = 1 << 62
_SCAN_LIMIT_BYTES = LARGE_TEXT_BYTES
_LOOKED_AT = 100
"""Of the first records it is said, when a run is planned, which fields with pictures are not read."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts lines; the options cannot change how many there are. Raises UserError for what unpacks to too much."""
    if parts_taken.is_part(file):
        whole = dataclasses.replace(file, take="")

        def count_lines(each: Each | None) -> int:
            return scan(whole, every=_NEVER, options=options, each=each).num_samples

        return parts_taken.scan(file, count_lines, every=every, each=each)
    cuts = []
    num_samples = 0
    large = 0
    most = most_records(os.stat(file.path).st_size)
    num_looked_at = _LOOKED_AT if records.are_looked_at(file, options) else 0
    for offset, line, problem in lines(bounded(file, chunks(file)), 0, _SCAN_LIMIT_BYTES):
        if num_samples < num_looked_at:
            records.tell_unread(line.removeprefix(_BYTE_ORDER_MARK))
        if isinstance(problem, _LargeLine) and problem.size <= options.max_record_bytes:  # longer ones are not read
            large += problem.size
            require_few_large(file, large)
        if num_samples % every == 0:
            cuts.append(offset)
            require_few_records(file.path, num_samples, most)
        if each is not None:
            each(offset)
        num_samples += 1
    require_few_records(file.path, num_samples, most)
    return Scan(num_samples=num_samples, every=every, cuts=tuple(cuts))


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    position = first
    for row in rows_of(file, scan, first, count, options.max_record_bytes):
        yield _record(file, position, row, options)
        position += 1
    if position != first + count:
        raise changed_since_planned(file, got=position, expected=first + count)


def read_documents(
    file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
) -> Iterator[Documents]:
    """What `read` yields for a file of documents, in batches and without an object for each of them."""
    rows = _texts(file, first, rows_of(file, scan, first, count, options.max_record_bytes), options)
    return gathered(file, rows, first=first, count=count, batch_size=batch_size)


def record_at(file: InputFile, position: int, offset: int, data: bytes, options: Options) -> Record:
    """The record of the line that `data`, from `offset` on, begin with."""
    row = next(lines(iter([data]), offset, options.max_record_bytes), None)
    if row is None or row[0] != offset:
        raise changed_since_planned(file, got=position, expected=position + 1)
    return _record(file, position, row, options)


def rows_of(file: InputFile, scan: Scan, first: int, count: int, limit: int) -> Iterator[Line]:
    """The lines `first` to `first + count - 1` of a file, or of its part that is taken, as far as there are so many."""
    start, seek = scan.cut(first)
    if parts_taken.is_part(file):
        skipped, is_taken = parts_taken.start(file, scan, first)
        taken = compress(lines(chunks(file, seek=seek), seek, limit), is_taken)
        return islice(taken, skipped, skipped + count)
    return islice(lines(chunks(file, seek=seek), seek, limit), first - start, first - start + count)


def lines(stream: Iterator[bytes], offset: int, limit: int) -> Iterator[Line]:
    """The lines that are not blank of a stream that begins at `offset` of its file: the same ones for any limit."""
    pending = _Pending(limit)
    try:
        for chunk in stream:
            if pending.blank and b"\n" in chunk and chunk.isspace():  # line breaks by the million
                offset, pending = _passed(offset + pending.size, chunk, limit)
                continue
            head, *whole = chunk.split(b"\n")
            pending.add(head)
            if not whole:
                continue
            tail = whole.pop()
            if not pending.blank:
                yield pending.line(offset)
            offset += pending.size + 1
            for line in whole:
                if line and not line.isspace():
                    yield (offset, line, None) if len(line) <= limit else (offset, b"", _LargeLine(len(line), limit))
                offset += len(line) + 1
            pending = _Pending(limit)
            pending.add(tail)
        if not pending.blank:
            yield pending.line(offset)
    except BrokenStream as problem:
        yield offset, b"", problem


def _passed(start: int, blanks: bytes, limit: int) -> tuple[int, _Pending]:
    """(offset, what is begun) of the line that blanks lead to: `start` is their own offset."""
    pending, tail = _Pending(limit), blanks.rpartition(b"\n")[2]
    pending.add(tail)
    return start + len(blanks) - len(tail), pending


class _Pending:
    """A line whose end has not come yet, held up to the limit."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.blank = True
        self._limit = limit
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self.blank = self.blank and (not piece or piece.isspace())
        if self.size <= self._limit:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def line(self, offset: int) -> Line:
        if self.size > self._limit:
            return offset, b"", _LargeLine(self.size, self._limit)
        return offset, b"".join(self._pieces), None


class _LargeLine(BadSample):
    def __init__(self, size: int, limit: int) -> None:
        super().__init__(Reason.OVERSIZED_RECORD, f"a line of {size} bytes, the limit is {limit}")
        self.size = size


def _texts(file: InputFile, first: int, rows: Iterator[Line], options: Options) -> Iterator[tuple[int, str | Record]]:
    for position, row in enumerate(rows, first):
        text = records.plain_document(row[1], options)
        yield row[0], _record(file, position, row, options) if text is None else text


def _record(file: InputFile, position: int, row: Line, options: Options) -> Record:
    offset, line, problem = row
    is_fixed, masks = False, NO_MASKS
    key = f"{file.label}#{position}"
    try:
        if problem is not None:
            raise problem
        if file.format == "listing":
            entry = listed.load(line)
            key = f"{file.label}/{entry['key']}"
            parts = listed.parts(entry, file, options)
            members = listed.members(entry, file) if options.keeps_members else ()
        elif options.is_of_urls:
            parts, members = (), records.whole(line.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else line)
        else:
            line = line.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else line
            is_new = bool(options.mapping) or (options.keeps_members and options.placeholders != KEEP)
            value = parsing.load_exact(line) if is_new else parsing.load(line)
            require_taken(value)
            if file.settings:
                masks = masks_in(value) if keeps_masks(file.settings) else NO_MASKS
            value = records.mapped(value, position, options)
            value, is_fixed = records.with_markers(value, options)
            line = parsing.dumped(value) if (is_fixed or options.mapping) and options.keeps_members else line
            parts = (
                records.sample_parts(value, file, options)
                if file.format.startswith("jsonl")
                else records.document_parts(value, file, options)
            )
            members = records.members_of(line, value, file) if options.keeps_members else ()
        return Sample(
            position=position, key=key, parts=parts, offset=offset, members=members, is_fixed=is_fixed, masks=masks
        )
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=offset)
