"""Documents in Parquet: one text column, read row group by row group in small batches.

A row group that cannot be decoded loses its own rows only; a file whose footer makes no sense is one reject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcdata.base.errors import UserError
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
from hpcdata.sources.parquet_files import (
    Bytes,
    dictionary_bytes,
    group_rows,
    groups,
    is_text,
    opened,
    plain,
    python_value,
    python_values,
    scan_of_rows,
)

_BATCH_ROWS, _BATCH_BYTES = 256, 1 << 28


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
                yield python_value(values[row])

    def refusal(self) -> BadSample:
        message = f"large texts of its row group unpack to more than {self.most_of_group} bytes, the limit"
        return BadSample(Reason.OVERSIZED_TEXT, message)


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
