"""Files of Parquet as pyarrow reads them: a page at a time, and what is damage told from what the machine did.

What reading raises goes up, as does memory that is not there; the rest of what pyarrow raises is damage, a BadSample.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata.base.reads import read_at
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import Each, InputFile, Scan
from hpcdata.sources.streams import open_input

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


def scan_of_rows(num_rows: int, every: int, each: Each | None) -> Scan:
    for row in range(num_rows) if each is not None else ():
        each(row)  # type: ignore[misc]
    return Scan(num_samples=num_rows, every=every, cuts=tuple(range(0, num_rows, every)))


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


_NO_VALUES = (ValueError, OverflowError, LookupError)
"""Dates beyond the year 9999, times of unknown zones, bytes that are no UTF-8."""


def python_values(values: pa.Array) -> list[object]:
    """The values of a column, with a BadSample for each that is no UTF-8, or that Python has no value for."""
    try:
        return values.to_pylist()
    except _NO_VALUES:
        return [python_value(value) for value in values]


def python_value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return BadSample(Reason.UNREADABLE_TEXT, f"not UTF-8 at byte {error.start}")
    except _NO_VALUES as error:
        return BadSample(Reason.BAD_RECORD, f"a value of type {scalar.type} cannot be read: {error}")
