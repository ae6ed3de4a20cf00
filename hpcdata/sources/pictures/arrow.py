"""Arrow as Hugging Face's save_to_disk writes it: record batches one after another (IPC, as a stream or as a file).

Where batches are stands in small messages before them, so a batch is found without a look at those before it. A batch
that cannot be decoded loses its own rows only; a file that is cut short ends in one reject.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from hpcdata.base.errors import UserError
from hpcdata.base.files import parse_json
from hpcdata.base.reads import kind_of
from hpcdata.samples import BadSample, Documents, Reason, Record, Reject, Sample
from hpcdata.sources import parquet_files, records
from hpcdata.sources.base import (
    Each,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    gathered,
    is_plain,
    refusing_faults,
)
from hpcdata.sources.limits import most_records, require_few_records
from hpcdata.sources.pictures import exported, row_members, tables
from hpcdata.sources.pictures.fields import readable_row

PICTURES, TEXTS, EXPORTED = "arrow", "textarrow", "arrow.exported"
"""Formats: rows with pictures or conversations, documents, and rows of an export of ours."""
STATE = "state.json"
_FILE_MARK, _CONTINUATION = b"ARROW1\0\0", 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_MOST_METADATA = 64 << 20


class Group(NamedTuple):
    """A record batch."""

    place: int
    size: int
    """Bytes of its message with its body; 0: the file is cut short here, which is one row."""
    first: int
    rows: int


def data_files(folder: str) -> list[str]:
    """Names of the files that `state.json` of a folder lists; none where it is not of save_to_disk.

    Raises UserError where it cannot be read, is no JSON, or lists what is not there: none of that is less data.
    """
    path = os.path.join(folder, STATE)
    with refusing_faults(path):
        data = Path(path).read_bytes()
        try:
            state = parse_json(data, STATE)
        except ValueError as error:
            raise UserError(f"{path} is damaged, which lists the files of its data set: {error}") from None
        try:
            names = [item["filename"] for item in state["_data_files"] if isinstance(item["filename"], str)]
        except (KeyError, TypeError):
            return []
        if missing := [name for name in names if not kind_of(os.path.join(folder, name))]:
            raise UserError(f"{path} lists {missing[0]}, which is not there: the data set is not whole")
    return names


def format_of(path: str) -> str:
    """Raises UserError for what is no Arrow."""
    file = InputFile(path=path, label="", format=PICTURES)
    with refusing_faults(path), parquet_files.Bytes(file) as data:
        try:
            schema = _schema(data, file)
        except BadSample as bad:
            raise UserError(f"{path}: {bad.message}") from None
    if exported.holds_records(path, schema):
        return EXPORTED
    return PICTURES if tables.names_pictures(schema) else TEXTS


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts rows from the messages."""
    with parquet_files.Bytes(file) as data:
        found = groups(data, file)
        num_rows = found[-1].first + found[-1].rows if found else 0
        require_few_records(file.path, num_rows, most_records(data.size()))
        if file.format == PICTURES:
            with contextlib.suppress(BadSample):
                tables.tell_left_out(_schema(data, file), options)
    return parquet_files.scan_of_rows(num_rows, every, each)


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    del scan  # any row can be sought
    for position, row, media in _rows(file, first, count, options):
        yield _record(file, position, row, options, media)


def read_documents(
    file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
) -> Iterator[Documents]:
    del scan
    rows = ((position, _text(file, position, row, options)) for position, row, _ in _rows(file, first, count, options))
    return gathered(file, rows, first=first, count=count, batch_size=batch_size)


def groups(data: parquet_files.Bytes, file: InputFile) -> list[Group]:
    """The batches of a file, in order. Raises BadSample where there is no schema."""
    found, first = list[Group](), 0
    place = len(_FILE_MARK) if _has_mark(data) else 0
    kind = _SCHEMA
    while place < data.size():
        try:
            kind, metadata, body, rows = _message(data, place)
        except (struct.error, ValueError, IndexError):
            found.append(Group(place=place, size=0, first=first, rows=1))
            break
        if not kind:
            break
        if kind == _DICTIONARY:
            raise UserError(f"{file.path} has dictionaries, which are not read: write it anew with to_parquet")
        size = metadata + body
        if kind == _BATCH and place + size > data.size():
            found.append(Group(place=place, size=0, first=first, rows=1))
            break
        if kind == _BATCH:
            found.append(Group(place=place, size=size, first=first, rows=rows))
            first += rows
        place += size
    return found


def _rows(file: InputFile, first: int, count: int, options: Options) -> Iterator[tuple[int, object, dict[str, str]]]:
    """(position, row or why there is none, columns that hold other media)."""
    end, position = first + count, first
    with parquet_files.Bytes(file) as data:
        try:
            schema = _schema(data, file)
        except BadSample:
            raise changed_since_planned(file, got=0, expected=end) from None
        media = tables.other_media(schema)
        names = [field.name for field in schema if tables.is_read(field, options)]
        for group in groups(data, file):
            if group.first + group.rows <= first or group.first >= end:
                continue
            begin, stop = max(first - group.first, 0), min(end - group.first, group.rows)
            for row in _of_group(data, group, schema, names, begin, stop):
                yield position, row, media
                position += 1
    if position != end:
        raise changed_since_planned(file, got=position, expected=end)


def _of_group(
    data: parquet_files.Bytes, group: Group, schema: pa.Schema, names: list[str], begin: int, stop: int
) -> Iterator[object]:
    message = f"the record batch at byte {group.place} is damaged"
    try:
        if not group.size:
            raise BadSample(Reason.DAMAGED_ARCHIVE, f"the file is cut short behind byte {group.place}")
        data.seek(group.place)
        with parquet_files.telling(data, message):
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(pa.py_buffer(data.read(group.size))), schema)
            if batch.num_rows != group.rows:
                raise ValueError
            batch = batch.select(names)
            batch.validate(full=True)
    except BadSample as bad:
        yield from [bad] * (stop - begin)
        return
    for start in range(begin, stop, tables.BATCH_ROWS):
        yield from tables.rows_of(batch.slice(start, min(tables.BATCH_ROWS, stop - start)))


def _record(file: InputFile, position: int, row: object, options: Options, media: dict[str, str]) -> Record:
    if file.format == EXPORTED:
        return exported.record_of(file, position, row, options)
    if file.format == PICTURES or options.mapping:
        return tables.record_of(file, position, row, options, media)
    key = f"{file.label}#{position}"
    try:
        row = readable_row(row)
        parts = records.document_parts(row, file, options)
        members = row_members.members_of(row, file, options) if options.keeps_members else ()
        return Sample(position=position, key=key, parts=parts, offset=position, members=members)
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=position)


def _text(file: InputFile, position: int, row: object, options: Options) -> str | Record:
    found = _record(file, position, row, options, {})
    if isinstance(found, Sample) and is_plain(text := getattr(found.parts[0], "text", None)):
        return text
    return found


def _has_mark(data: parquet_files.Bytes) -> bool:
    data.seek(0)
    return data.read(len(_FILE_MARK)) == _FILE_MARK


def _schema(data: parquet_files.Bytes, file: InputFile) -> pa.Schema:
    """Raises BadSample."""
    place = len(_FILE_MARK) if _has_mark(data) else 0
    message = "is no Arrow, neither a stream nor a file of record batches"
    try:
        kind, metadata, body, _ = _message(data, place)
    except (struct.error, ValueError, IndexError):
        kind = 0
    if kind != _SCHEMA:
        raise BadSample(Reason.DAMAGED_ARCHIVE, message)
    data.seek(place)
    with parquet_files.telling(data, message):
        schema = pa.ipc.read_schema(pa.py_buffer(data.read(metadata + body)))
        _ = schema.names  # of UTF-8
    return schema


def _message(data: parquet_files.Bytes, place: int) -> tuple[int, int, int, int]:
    """(kind, bytes of the metadata with what is before it, bytes of the body, rows of a batch); kind 0 is the end.

    Arrow's format of encapsulated messages, whose metadata are a table of FlatBuffers. Raises ValueError, struct.error.
    """
    data.seek(place)
    (size,) = struct.unpack("<I", data.read(4))
    before = 4
    if size == _CONTINUATION:
        (size,) = struct.unpack("<I", data.read(4))
        before = 8
    if not size:
        return 0, before, 0, 0
    if size > _MOST_METADATA:
        raise ValueError(size)
    table = data.read(size)
    if len(table) < size:
        raise ValueError(size)
    (root,) = struct.unpack_from("<I", table)
    kind = _value(table, root, 1, "<B")
    body = _value(table, root, 3, "<q")
    header = _field(table, root, 2)
    rows = 0
    if kind == _BATCH and header is not None:
        rows = _value(table, header + struct.unpack_from("<I", table, header)[0], 0, "<q")
    if body < 0 or rows < 0:
        raise ValueError(body)
    return kind, before + size, body, rows


def _field(table: bytes, root: int, number: int) -> int | None:
    """Where a field of a table of FlatBuffers is; None for one that has its default."""
    (back,) = struct.unpack_from("<i", table, root)
    (size,) = struct.unpack_from("<H", table, root - back)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", table, root - back + 4 + 2 * number)
    return root + offset if offset else None


def _value(table: bytes, root: int, number: int, form: str) -> int:
    place = _field(table, root, number)
    return 0 if place is None else int(struct.unpack_from(form, table, place)[0])
