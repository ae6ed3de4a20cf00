"""Parquet whose columns hold or name pictures: each row is a record, as a line of JSON is.

    image: struct<bytes: binary, path: string>, text: string          Hugging Face
    jpg: binary, caption: string
    image: struct<...>, conversations: list<struct<from: string, value: string>>        LLaVA

Read row group by row group in small batches, as documents are: see `sources.parquet`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata.samples import BadSample, Reason, Record, Reject, Sample
from hpcdata.sources import parquet_files, records
from hpcdata.sources.base import Each, InputFile, Options, Scan, changed_since_planned, refusing_faults
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.limits import most_records, most_unpacked, require_few_records
from hpcdata.sources.pictures import row_members
from hpcdata.sources.pictures.fields import BYTES_FIELDS, IMAGE_FIELDS, TALKS, holds_media, readable_row
from hpcdata.sources.pictures.numbered import base_of
from hpcdata.sources.pictures.places import shown
from hpcdata.sources.pictures.telling import tell

ID = row_members.ID
_METADATA = "metadata.parquet"
BATCH_ROWS, _BATCH_BYTES = 16, 1 << 28
"""Most rows that are in memory at once, and most bytes, as far as the footer tells."""
_BYTES = "BYTE_ARRAY"
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal, pa.types.is_decimal)


def holds_pictures(path: str) -> bool:
    """Whether a Parquet file has columns of pictures, other media or conversations. Raises UserError for faults."""
    with refusing_faults(path), parquet_files.Bytes(InputFile(path=path, label="", format="parquet")) as data:
        try:
            schema = parquet_files.opened(data).schema_arrow
        except BadSample:
            return False
    return names_pictures(schema, is_metadata=os.path.basename(path).lower() == _METADATA)


def names_pictures(schema: pa.Schema, *, is_metadata: bool = False) -> bool:
    """Whether columns hold pictures, other media or conversations."""
    names = (*TALKS, "file_name") if is_metadata else TALKS
    return any(holds_media(field.name) or field.name in names or _has_bytes(field.type) for field in schema)


def other_media(schema: pa.Schema) -> dict[str, str]:
    """Column -> what it holds, of columns that Hugging Face's features call sound or videos, whatever their names."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: kind for name, value in features.items() if (kind := _medium(value))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _medium(feature: object) -> str:
    if isinstance(feature, list):
        return next(filter(None, map(_medium, feature)), "")
    if not isinstance(feature, dict):
        return ""
    kind = feature.get("_type")
    return kind if kind in ("Audio", "Video") else next(filter(None, map(_medium, feature.values())), "")


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts rows from the footer."""
    with parquet_files.Bytes(file) as data:
        try:
            found = parquet_files.opened(data)
            num_rows = found.metadata.num_rows
            tell_left_out(found.schema_arrow, options)
        except BadSample:
            num_rows = 1
        require_few_records(file.path, num_rows, most_records(data.size()))
    return parquet_files.scan_of_rows(num_rows, every, each)


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    del scan  # any row can be sought

    end = first + count
    with parquet_files.Bytes(file) as data:
        try:
            found = parquet_files.opened(data)
        except BadSample as bad:
            if end > 1:
                raise changed_since_planned(file, got=1, expected=end) from None
            yield from [record_of(file, first, bad, options)] * count
            return
        if end > found.metadata.num_rows:
            raise changed_since_planned(file, got=found.metadata.num_rows, expected=end)
        columns = [field.name for field in found.schema_arrow if is_read(field, options)]
        media = other_media(found.schema_arrow)
        position = first
        for group, begin, stop in parquet_files.groups(found, first, end):
            part = Group(data=data, table=found, group=group, columns=columns, notes_ids=options.notes_ids)
            for row in part.rows(begin, stop):
                yield record_of(file, position, row, options, media)
                position += 1


def rows_without_bytes(file: InputFile) -> Iterator[object]:
    """All rows, without the columns that hold bytes: a dict each, or one BadSample for each that cannot be decoded."""
    with parquet_files.Bytes(file) as data:
        try:
            found = parquet_files.opened(data)
        except BadSample as bad:
            yield bad
            return
        columns = [field.name for field in found.schema_arrow if not _has_bytes(field.type)]
        for group, begin, stop in parquet_files.groups(found, 0, found.metadata.num_rows):
            yield from Group(data=data, table=found, group=group, columns=columns, notes_ids=False).rows(begin, stop)


def tell_left_out(schema: pa.Schema, options: Options) -> None:
    """Columns whose bytes have no place in a record: all but the id, and those of pictures that are read."""
    if options.mapping or not (options.needs_image or options.keeps_members):
        return
    is_kept = pa.types.is_fixed_size_binary if options.keeps_members else lambda kind: False
    names = [field.name for field in schema if _has_bytes(field.type) or is_kept(field.type)]
    of_pictures = next((name for name in (*IMAGE_FIELDS, *BYTES_FIELDS) if name in map(base_of, names)), None)
    tell((name for name in names if name != ID and base_of(name) != of_pictures), of_pictures or "")


def is_read(field: pa.Field, options: Options) -> bool:
    if options.mapping:
        names = parsed(options.mapping).fields()
        return any(name == field.name or name.startswith(f"{field.name}.") for name in names)
    return options.keeps_members or not _is_of_numbers(field.type)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The columns of a row group."""

    data: parquet_files.Bytes
    table: pq.ParquetFile
    group: int
    columns: list[str]
    notes_ids: bool

    def rows(self, first: int, end: int) -> Iterator[object]:
        """Rows `first` to `end - 1` as records, or one BadSample for each that cannot be decoded."""

        def rows_between(batch: pa.RecordBatch, begin: int, stop: int) -> list[object]:
            return self.rows_of(batch.slice(begin, stop - begin))

        place = self.data, self.table, self.group, self.columns
        return parquet_files.group_rows(*place, first, end, self.batch_rows, rows_between)

    def rows_of(self, batch: pa.RecordBatch) -> list[object]:
        return rows_of(batch, readable_ids=self.notes_ids)

    def batch_rows(self) -> int:
        """Rows that fit in memory together. Raises BadSample for a group that unpacks to more than it may."""
        found = self.table.metadata.row_group(self.group)
        chunks = [found.column(number) for number in range(found.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in self.columns]
        stored = sum(max(0, chunk.total_compressed_size) for chunk in chunks)
        unpacked = sum(max(0, chunk.total_uncompressed_size) for chunk in chunks)
        if unpacked > most_unpacked(stored):
            raise BadSample(Reason.OVERSIZED_RECORD, f"row group {self.group} unpacks to {unpacked} bytes of {stored}")
        texts = [chunk for chunk in chunks if chunk.physical_type == _BYTES]
        if (number := max([0, *(chunk.num_values for chunk in texts)])) > most_records(stored):  # lists of nothing
            message = (
                f"row group {self.group} has {number} values in {stored} bytes, the limit is {most_records(stored)}"
            )
            raise BadSample(Reason.OVERSIZED_RECORD, message)
        repeated = [parquet_files.dictionary_bytes(self.data, chunk) for chunk in chunks]
        largest = max([unpacked // max(found.num_rows, 1), *repeated])
        return max(1, min(BATCH_ROWS, _BATCH_BYTES // max(largest, 1)))


def rows_of(batch: pa.RecordBatch, *, readable_ids: bool = False) -> list[object]:
    """readable_ids: of ids that are no UTF-8 the bytes are escaped."""
    at = batch.schema.get_field_index(ID) if readable_ids else -1
    columns = [
        _readable_ids(column) if number == at else parquet_files.python_values(column)
        for number, column in enumerate(batch.columns)
    ]
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _readable_ids(column: pa.Array) -> list[object]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        column = parquet_files.plain(column)
        if pa.types.is_nested(column.type):
            return parquet_files.python_values(column)
        values = column.cast(pa.large_binary()).to_pylist()
    return [row_members.readable(value) for value in values]


def record_of(
    file: InputFile,
    position: int,
    row: object,
    options: Options,
    media: Mapping[str, str] | None = None,
    *,
    at: int | None = None,
) -> Record:
    """media: columns that hold other media than pictures, which nobody who wants pictures loses in silence. at: its
    row, where that is another one than its position.
    """
    key, found_id = f"{file.label}#{position}", ""
    offset = position if at is None else at
    try:
        if options.notes_ids and isinstance(row, dict) and row.get(ID) is not None:
            found_id = str(row[ID])
        row = readable_row(row)
        if media and (options.needs_image or options.keeps_members):
            _require_no_other_media(row, media)
        value, is_fixed = records.with_markers(records.mapped(row, position, options), options)
        assert isinstance(value, dict)
        parts = records.sample_parts(value, file, options)
        members = row_members.members_of(value, file, options) if options.keeps_members else ()
        return Sample(
            position=position,
            key=key,
            parts=parts,
            offset=offset,
            members=members,
            is_fixed=is_fixed,
            leaves_out=options.notes_ids and row_members.leaves_out(value, members),
            id=found_id,
        )
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=offset, id=found_id)


def _require_no_other_media(row: dict[str, Any], media: Mapping[str, str]) -> None:
    for name, kind in media.items():
        if row.get(name):
            message = f"the record holds {kind} ({shown(name)}), which is not read"
            raise BadSample(Reason.UNSUPPORTED_MEDIA, message)


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    return parquet_files.is_bytes(kind)


def _is_of_numbers(kind: pa.DataType) -> bool:
    """Also lists of them: embeddings are large, and name no picture."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_of_numbers(kind.value_type)
    return any(is_one(kind) for is_one in _NUMBERS)
