"""The part of a Parquet file that a mix takes: its rows as records, numbered by what is taken of it.

Row groups of which nothing is taken are not read; of others the rows that are left out become no objects.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator, Sequence
from itertools import accumulate, compress, count, groupby

import numpy as np
import pyarrow as pa

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Record
from hpcdata.sources import parquet_files
from hpcdata.sources.base import Each, InputFile, Options, Scan, changed_since_planned
from hpcdata.sources.limits import most_records, require_few_records
from hpcdata.sources.mixes import parts
from hpcdata.sources.pictures import tables


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts rows from the footer. Raises UserError where it cannot be read: nobody knows then what the part is."""
    with parquet_files.Bytes(file) as data:
        try:
            found = parquet_files.opened(data)
        except BadSample as bad:
            raise UserError(f"{file.path}: {bad.message}, so {file.take} of it cannot be counted") from None
        tables.tell_left_out(found.schema_arrow, options)
        num_rows = found.metadata.num_rows
        require_few_records(file.path, num_rows, most_records(data.size()))
    return parts.scan_rows(file, num_rows, every=every, each=each)


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    position = first
    with parquet_files.Bytes(file) as data:
        try:
            found = parquet_files.opened(data)
        except BadSample:
            raise changed_since_planned(file, got=0, expected=first + count) from None
        columns = [field.name for field in found.schema_arrow if tables.is_read(field, options)]
        media = tables.other_media(found.schema_arrow)
        wanted = parts.rows_taken(file, scan, first, count, found.metadata.num_rows)
        ends = list(accumulate(found.metadata.row_group(group).num_rows for group in range(found.num_row_groups)))
        for number, rows in groupby(wanted, functools.partial(bisect.bisect_right, ends)):
            begin = ends[number - 1] if number else 0
            group = tables.Group(data=data, table=found, group=number, columns=columns, notes_ids=options.notes_ids)
            for row, value in _rows_at(group, [row - begin for row in rows]):
                yield tables.record_of(file, position, value, options, media, at=begin + row)
                position += 1
    if position != first + count:
        raise changed_since_planned(file, got=position, expected=first + count)


def _rows_at(group: tables.Group, wanted: Sequence[int]) -> Iterator[tuple[int, object]]:
    """(row, record or why it cannot be decoded) for each of some rows, which are sorted."""
    is_wanted = np.zeros(wanted[-1] + 1, bool)
    is_wanted[list(wanted)] = True
    done = wanted[0]

    def rows_between(batch: pa.RecordBatch, begin: int, stop: int) -> list[object]:
        nonlocal done
        its = is_wanted[done : done + stop - begin].tolist()
        done += stop - begin
        return [group.rows_of(batch.slice(row, 1))[0] if its[row - begin] else None for row in range(begin, stop)]

    place = group.data, group.table, group.group, group.columns
    values = parquet_files.group_rows(*place, wanted[0], wanted[-1] + 1, group.batch_rows, rows_between)
    return compress(zip(count(wanted[0]), values, strict=False), is_wanted[wanted[0] :].tolist())
