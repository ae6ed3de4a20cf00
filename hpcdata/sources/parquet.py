"""Documents in Parquet: one text column, read row group by row group in small batches.

A row group that cannot be decoded loses its own rows only; a file whose footer cannot be read is one reject.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata.base.errors import UserError
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

_BATCH_ROWS = 256
_DAMAGED = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises for bytes that are not what they should be; names that are not UTF-8 are ValueErrors."""
_MOST_ROWS_A_BYTE = 4096
"""More than the densest encoding of anything useful: a footer that promises more is damaged."""


def scan(file: InputFile, *, every: int, options: Options) -> Scan:
    """Counts rows from the footer. Raises UserError if there is no text column."""
    try:
        parquet = _opened(file)
    except BadSample:
        return Scan(num_samples=1, every=every, cuts=(0,))
    with parquet:
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
    end = first + count
    try:
        parquet = _opened(file)
    except BadSample as bad:
        if end > 1:
            raise changed_since_planned(file, got=1, expected=end) from None
        yield from [("", bad)] * count
        return
    with parquet:
        if end > parquet.metadata.num_rows:
            raise changed_since_planned(file, got=parquet.metadata.num_rows, expected=end)
        column = _column(parquet, file, options)
        start = 0
        for group in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            if start < end and stop > first:
                rows = _rows(parquet, group, column, max(first - start, 0), min(end, stop) - start)
                yield from ((column, value) for value in rows)
            start = stop


def _rows(parquet: pq.ParquetFile, group: int, column: str, first: int, end: int) -> Iterator[object]:
    """Rows `first` to `end - 1` of a row group: their values, or one BadSample for each that cannot be decoded."""
    row = 0
    try:
        batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False)
        for batch in batches:
            stop = row + batch.num_rows
            begin = max(first, row)
            if begin < min(end, stop):
                yield from _python(batch.column(0).slice(begin - row, min(end, stop) - begin))
            row = stop
            if row >= end:
                return
        damaged = BadSample(Reason.DAMAGED_ARCHIVE, f"row group {group} has fewer rows than the footer says")
    except _DAMAGED:
        damaged = BadSample(Reason.DAMAGED_ARCHIVE, f"row group {group} cannot be decoded")
    for _ in range(max(first, row), end):
        yield damaged


def _python(values: pa.Array) -> list[object]:
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


def _opened(file: InputFile) -> pq.ParquetFile:
    """Raises BadSample when there is no footer, or one that cannot be true."""
    try:
        parquet = pq.ParquetFile(file.path, memory_map=False)
        _ = parquet.schema_arrow
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"cannot read {file.path}: {type(error).__name__}") from None
    except _DAMAGED:
        raise BadSample(Reason.DAMAGED_ARCHIVE, "the Parquet file cannot be opened") from None
    metadata = parquet.metadata
    rows = [metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    most = _MOST_ROWS_A_BYTE * os.path.getsize(file.path)
    if min(rows, default=0) < 0 or metadata.num_rows != sum(rows) or metadata.num_rows > most:
        parquet.close()
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
