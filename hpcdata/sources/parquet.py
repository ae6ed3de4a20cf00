"""Documents in Parquet: one text column, read row group by row group in small batches.

A row group that cannot be decoded loses its own rows only; a file whose footer makes no sense is one reject. That holds
for bytes that were all read: what reading itself raises goes up, as does memory that is not there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at
from hpcdata.samples import BadSample, Blob, Documents, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources.base import (
    DOCUMENT_FIELDS,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    checked_text,
    gathered,
    is_plain,
)
from hpcdata.sources.streams import open_input

_BATCH_ROWS = 256
_DAMAGED = (pa.ArrowException, OSError, ValueError, IndexError)
"""What pyarrow raises for bytes that are not what they should be, and for faults of the machine: see `_telling`.

Names that are not UTF-8 are ValueErrors; two schemas of one file that contradict each other are IndexErrors.
"""
_MOST_ROWS_A_BYTE = 4096
"""More than the densest encoding of anything useful: a footer that promises more is damaged."""


def scan(file: InputFile, *, every: int, options: Options) -> Scan:
    """Counts rows from the footer. Raises UserError if there is no text column."""
    with Bytes(file) as data:
        try:
            parquet = opened(data)
        except BadSample:
            return Scan(num_samples=1, every=every, cuts=(0,))
        _column(parquet, file, options)
        num_rows = parquet.metadata.num_rows
    return Scan(num_samples=num_rows, every=every, cuts=tuple(range(0, num_rows, every)))


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    del scan  # any row can be sought
    for position, (column, value) in enumerate(_values(file, first, count, options), first):
        yield _record(file, position, value, column, options)


def read_documents(
    file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
) -> Iterator[Documents]:
    """What `read` yields, in batches and without an object for each of them."""
    del scan
    values, end = _values(file, first, count, options), first + count
    for start in range(first, end, batch_size):
        yield gathered(file, start, _texts(file, start, islice(values, min(batch_size, end - start)), options))


def _texts(
    file: InputFile, first: int, values: Iterator[tuple[str, object]], options: Options
) -> Iterator[tuple[int, str | Record]]:
    for position, (column, value) in enumerate(values, first):
        if is_plain(value) and len(value) <= options.max_record_bytes:
            yield position, value
        else:
            yield position, _record(file, position, value, column, options)


def _values(file: InputFile, first: int, count: int, options: Options) -> Iterator[tuple[str, object]]:
    """(name of the column, a row's value or the BadSample that stands for it) for every row."""
    with Bytes(file) as data:
        name = ""

        def read_batch(batch: pa.RecordBatch) -> list[object]:
            return python_values(batch.column(0))

        def choose(parquet: pq.ParquetFile) -> list[str]:
            nonlocal name
            name = _column(parquet, file, options)
            return [name]

        for value in rows(data, file, first, count, choose=choose, convert=read_batch):
            yield name, value


def rows(
    data: Bytes,
    file: InputFile,
    first: int,
    count: int,
    *,
    choose: Callable[[pq.ParquetFile], list[str]],
    convert: Callable[[pa.RecordBatch], list[object]],
    batch_rows: int = _BATCH_ROWS,
) -> Iterator[object]:
    """What `convert` makes of the chosen columns of each row, or the BadSample that stands for a row.

    Raises UserError when there are fewer rows than planned.
    """
    end = first + count
    try:
        parquet = opened(data)
    except BadSample as bad:
        if end > 1:
            raise changed_since_planned(file, got=1, expected=end) from None
        yield from [bad] * count
        return
    if end > parquet.metadata.num_rows:
        raise changed_since_planned(file, got=parquet.metadata.num_rows, expected=end)
    columns, start = choose(parquet), 0
    for group in range(parquet.num_row_groups):
        stop = start + parquet.metadata.row_group(group).num_rows
        if start < end and stop > first:
            batches = _Batches(data=data, parquet=parquet, group=group, columns=columns, batch_rows=batch_rows)
            yield from _rows(batches, convert, max(first - start, 0), min(end, stop) - start)
        start = stop


@dataclass(frozen=True, kw_only=True)
class _Batches:
    """The columns of a row group, in batches of rows."""

    data: Bytes
    parquet: pq.ParquetFile
    group: int
    columns: list[str]
    batch_rows: int

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.parquet.iter_batches(
            self.batch_rows, row_groups=[self.group], columns=self.columns, use_threads=False
        )


def _rows(
    batches: _Batches, convert: Callable[[pa.RecordBatch], list[object]], first: int, end: int
) -> Iterator[object]:
    """Rows `first` to `end - 1` of a row group: their values, or one BadSample for each that cannot be decoded."""
    row, group = 0, batches.group
    try:
        with _telling(batches.data, f"row group {group} cannot be decoded"):
            for batch in batches:
                stop = row + batch.num_rows
                begin = max(first, row)
                if begin < min(end, stop):
                    yield from convert(batch.slice(begin - row, min(end, stop) - begin))
                row = stop
                if row >= end:
                    return
        damaged = BadSample(Reason.DAMAGED_ARCHIVE, f"row group {group} has fewer rows than the footer says")
    except BadSample as bad:
        damaged = bad
    for _ in range(max(first, row), end):
        yield damaged


def python_values(values: pa.Array) -> list[object]:
    """The values of a column, with a BadSample for each that is no UTF-8."""
    try:
        return values.to_pylist()
    except UnicodeDecodeError:
        return [_value(value) for value in values]


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return BadSample(Reason.UNREADABLE_TEXT, f"not UTF-8 at byte {error.start}")


def _record(file: InputFile, position: int, value: object, column: str, options: Options) -> Record:
    try:
        if isinstance(value, BadSample):
            raise value
        if value is None:
            raise BadSample(Reason.MISSING_TEXT, f"{column} is null")
        text = checked_text(value, what=column)
        if len(text) > options.max_record_bytes:
            raise BadSample(Reason.OVERSIZED_TEXT, f"{len(text)} characters, the limit is {options.max_record_bytes}")
        key, parts = f"{file.label}#{position}", (TextPart(text=text),)
        members = (Member(extension="txt", blob=Blob(path="", data=text.encode())),) if options.keeps_members else ()
        return Sample(position=position, key=key, parts=parts, offset=position, members=members)
    except BadSample as bad:
        return _reject(file, position, bad)


def _reject(file: InputFile, position: int, bad: BadSample) -> Reject:
    key = f"{file.label}#{position}"
    return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=position)


class Bytes:
    """A file as pyarrow wants it. It keeps what reading raised, which pyarrow might swallow or call damage."""

    def __init__(self, file: InputFile) -> None:
        self.closed = False
        self.fault: OSError | MemoryError | None = None
        self._descriptor, self._offset = open_input(file), 0
        self._size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def size(self) -> int:
        return self._size

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence] + offset
        if target < 0:
            raise ValueError(f"offset {target}")  # of a damaged footer: the system would call it an error of its own
        self._offset = target
        return target

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._offset, 0)
        try:
            data = read_at(self._descriptor, left if size < 0 else min(size, left), self._offset)
        except (OSError, MemoryError) as error:
            self.fault = error
            raise
        self._offset += len(data)
        return data


@contextlib.contextmanager
def _telling(data: Bytes, message: str) -> Iterator[None]:
    """Raises what reading the bytes raised, MemoryError for want of memory, BadSample for what the bytes say."""
    try:
        yield
    except MemoryError:  # before ArrowException: ArrowMemoryError is both
        raise
    except _DAMAGED:
        if data.fault is None:
            raise BadSample(Reason.DAMAGED_ARCHIVE, message) from None
    if data.fault is not None:
        raise data.fault


def opened(data: Bytes) -> pq.ParquetFile:
    """Raises BadSample when there is no footer, or one that cannot be true."""
    with _telling(data, "the Parquet file cannot be opened"):
        parquet = pq.ParquetFile(data)
        _ = parquet.schema_arrow
    metadata = parquet.metadata
    rows = [metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    most = _MOST_ROWS_A_BYTE * data.size()
    if min(rows, default=0) < 0 or metadata.num_rows != sum(rows) or metadata.num_rows > most:
        raise BadSample(Reason.DAMAGED_ARCHIVE, "the numbers of rows in the Parquet footer contradict each other")
    return parquet


def _column(parquet: pq.ParquetFile, file: InputFile, options: Options) -> str:
    schema = parquet.schema_arrow
    wanted = (options.text_field,) if options.text_field else DOCUMENT_FIELDS
    for name in wanted:
        if name in schema.names:
            kind = schema.field(name).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
                raise UserError(f"{file.path}: column {name} has type {kind}, expected strings: set data.text_field")
            return name
    raise UserError(
        f"{file.path} has no column {' or '.join(wanted)}: set data.text_field to one of {', '.join(schema.names)}"
    )
