"""Documents in Parquet: one text column, read row group by row group in small batches.

A row group that cannot be decoded loses its own rows only; a file whose footer makes no sense is one reject. That holds
for bytes that were all read: what reading itself raises goes up, as does memory that is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at
from hpcdata.samples import BadSample, Blob, Documents, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources.base import (
    DOCUMENT_FIELDS,
    Each,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    checked_text,
    gathered,
    is_plain,
)
from hpcdata.sources.limits import LARGE_TEXT_BYTES, most_large, most_records, most_unpacked, require_few_records
from hpcdata.sources.streams import open_input

_BATCH_ROWS, _BATCH_BYTES = 256, 1 << 28
_BUFFER_BYTES = 1 << 20
"""Of a column that is read; beside it stands a page, and the dictionary of the column."""
_PAGE_HEADER = re.compile(rb"\x15.\x15([\x80-\xff]*[\0-\x7f])", re.DOTALL)
"""In Thrift's compact protocol: the kind of the page, then its size once it is unpacked."""
_MOST_HEADER_BYTES = 16
_DAMAGED = (pa.ArrowException, OSError, ValueError, IndexError)
"""What pyarrow raises for bytes that are not what they should be, and for faults of the machine: see `telling`.

Names that are not UTF-8 are ValueErrors; two schemas of one file that contradict each other are IndexErrors.
"""
_MOST_ROWS_A_BYTE = 4096
"""More than the densest encoding of anything useful: a footer that promises more is damaged."""


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts rows from the footer. Raises UserError if there is no text column."""
    with Bytes(file) as data:
        try:
            parquet = opened(data)
        except BadSample:
            return scan_of_rows(1, every, each)
        _column(parquet, file, options)
        num_rows = parquet.metadata.num_rows
        require_few_records(file.path, num_rows, most_records(data.size()))
        return scan_of_rows(num_rows, every, each)


def scan_of_rows(num_rows: int, every: int, each: Each | None) -> Scan:
    for row in range(num_rows) if each is not None else ():
        each(row)  # type: ignore[misc]
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
    rows = _texts(file, first, _values(file, first, count, options), options)
    return gathered(file, rows, first=first, count=count, batch_size=batch_size)


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
    end = first + count
    with Bytes(file) as data:
        try:
            parquet = opened(data)
        except BadSample as bad:
            if end > 1:
                raise changed_since_planned(file, got=1, expected=end) from None
            yield from [("", bad)] * count
            return
        if end > parquet.metadata.num_rows:
            raise changed_since_planned(file, got=parquet.metadata.num_rows, expected=end)
        column = _column(parquet, file, options)
        for group, begin, stop in groups(parquet, first, end):
            limits = _Limits.of(data, parquet, group, column, options)
            rows = group_rows(data, parquet, group, [column], begin, stop, limits.batch_rows, limits.values)
            yield from ((column, value) for value in rows)


@dataclass(kw_only=True)
class _Limits:
    """What the large texts of a row group may take: a dictionary holds a text once, and rows repeat it for nothing."""

    num_rows: int
    """Of a batch, so that it has `_BATCH_BYTES` whatever its rows refer to."""
    most: int
    """Of a text."""
    most_of_group: int
    excess: int
    """Bytes of all pages, by the footer, beyond what a file of its size may hold."""
    taken: int = 0

    @classmethod
    def of(cls, data: Bytes, parquet: pq.ParquetFile, group: int, column: str, options: Options) -> _Limits:
        found = parquet.metadata.row_group(group)
        chunks = [found.column(number) for number in range(found.num_columns)]
        stored = unpacked = largest = 0
        for chunk in chunks:
            if chunk.path_in_schema == column:
                stored, unpacked = max(0, chunk.total_compressed_size), max(0, chunk.total_uncompressed_size)
                largest = max(unpacked // max(found.num_rows, 1), dictionary_bytes(data, chunk))
        return cls(
            num_rows=max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(largest, 1))),
            most=4 * options.max_record_bytes,
            most_of_group=most_large(stored),
            excess=unpacked - most_unpacked(stored),
        )

    def batch_rows(self) -> int:
        """Raises BadSample for a group that unpacks to more than it may."""
        if self.excess > 0:
            raise self.refusal()
        return self.num_rows

    def values(self, batch: pa.RecordBatch, first: int, end: int) -> Iterator[object]:
        return self.texts(plain(batch.column(0)), first, end)

    def texts(self, values: pa.Array, first: int, end: int) -> Iterator[object]:
        """Values `first` to `end - 1` of a batch. All before the last are counted, whatever slice is asked for."""
        if not is_text(values.type):
            yield from python_values(values.slice(first, end - first))
            return
        sizes = pc.binary_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        if sizes.max(initial=0) <= LARGE_TEXT_BYTES:
            yield from python_values(values.slice(first, end - first))
            return
        totals = self.taken + np.cumsum(np.where(sizes > LARGE_TEXT_BYTES, sizes, 0), dtype=np.int64)
        self.taken = int(totals[-1])
        for row in range(first, end):
            if sizes[row] > self.most:
                message = f"{sizes[row]} bytes, the limit is {self.most // 4} characters"
                yield BadSample(Reason.OVERSIZED_TEXT, message)
            elif sizes[row] > LARGE_TEXT_BYTES and totals[row] > self.most_of_group:
                yield self.refusal()
            else:
                yield _value(values[row])

    def refusal(self) -> BadSample:
        message = f"large texts of its row group unpack to more than {self.most_of_group} bytes, the limit"
        return BadSample(Reason.OVERSIZED_TEXT, message)


def dictionary_bytes(data: Bytes, chunk: pq.ColumnChunkMetaData) -> int:
    """The size of a column's dictionary, which no text in it exceeds, from the header of its page."""
    if not chunk.has_dictionary_page:
        return 0
    found = _PAGE_HEADER.match(data.beginning_of_page(chunk.dictionary_page_offset))
    number = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(found[1])) if found else 0
    return number >> 1  # zigzag


def groups(table: pq.ParquetFile, first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The row groups of rows `first` to `end - 1`: (group, the first of these in it, the one behind the last)."""
    start = 0
    for group in range(table.num_row_groups):
        stop = start + table.metadata.row_group(group).num_rows
        if start < end and stop > first:
            yield group, max(first - start, 0), min(end, stop) - start
        start = stop


def group_rows(
    data: Bytes,
    table: pq.ParquetFile,
    group: int,
    columns: list[str],
    first: int,
    end: int,
    batch_rows: Callable[[], int],
    rows_of: Callable[[pa.RecordBatch, int, int], Iterable[object]],
) -> Iterator[object]:
    """Rows `first` to `end - 1` of a row group, or one BadSample for each that cannot be decoded.

    batch_rows: how many to decode at a time, or it raises BadSample; rows_of: (batch, begin, stop) -> these of its
    rows, also asked of batches before `first`, for none.
    """
    row = 0
    try:
        size = batch_rows()
        with telling(data, f"row group {group} cannot be decoded"):
            for batch in table.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
                stop = row + batch.num_rows
                begin = min(max(first, row), stop)
                yield from rows_of(batch, begin - row, max(begin, min(end, stop)) - row)
                row = stop
                if row >= end:
                    return
        damaged = BadSample(Reason.DAMAGED_ARCHIVE, f"row group {group} has fewer rows than the footer says")
    except BadSample as bad:
        damaged = bad
    for _ in range(max(first, row), end):
        yield damaged


def is_text(kind: pa.DataType) -> bool:
    """By their names, as views came with pyarrow 16."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"


def is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or str(kind) == "binary_view"


def plain(values: pa.Array) -> pa.Array:
    """A batch of a column that is stored as a dictionary or as views, as the texts that they stand for."""
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    return values.cast(pa.large_string()) if str(values.type) == "string_view" else values


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

    def stat(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence] + offset
        if target < 0:
            raise ValueError(f"offset {target}")  # of a damaged footer: the system would call it an error of its own
        self._offset = target
        return target

    def beginning_of_page(self, offset: int) -> bytes:
        """Bytes of a page's header; none of a place that is not in the file."""
        if not 0 < offset < self._size:
            return b""
        self.seek(offset)
        return self.read(_MOST_HEADER_BYTES)

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
def telling(data: Bytes, message: str) -> Iterator[None]:
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
    with telling(data, "the Parquet file cannot be opened"):
        parquet = pq.ParquetFile(data, pre_buffer=False, buffer_size=_BUFFER_BYTES)  # else a column chunk is read whole
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
            if not (is_text(kind) or pa.types.is_dictionary(kind)):
                raise UserError(f"{file.path}: column {name} has type {kind}, expected strings: set data.text_field")
            return name
    raise UserError(
        f"{file.path} has no column {' or '.join(wanted)}: set data.text_field to one of {', '.join(schema.names)}"
    )
