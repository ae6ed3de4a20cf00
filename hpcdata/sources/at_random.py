"""Single records, in any order: the record that `read` yields for a position, from its place in the file.

    file, scan, seeks = places(file, options, folder)      where each record stands; compressed files are unpacked
    reader = RecordReader([Listed(file=file, scan=scan, ...)], options)
    reader.record(0, position=17, seek=seeks[17], end=seeks[18])

Of plain tars and lines a record is one read of its bytes, a tar's pictures included; of Parquet the row groups that
were used last are kept. A compressed stream cannot be sought, so it has to be unpacked once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.base.reads import naming, read_at
from hpcdata.native.forks import ForkLock
from hpcdata.samples import BadSample, Record
from hpcdata.sources.base import RECORDS, InputFile, Options, Scan, changed_since_planned, refusing_faults
from hpcdata.sources.limits import bounded
from hpcdata.sources.mixes.parts import around, is_part
from hpcdata.sources.streams import chunks, open_input

logger = logging.getLogger(__name__)

_PACKED = (".gz", ".zst")
_NEVER = 1 << 62
_OF_ROWS = ("parquet", RECORDS, "arrow", "textarrow", "arrow.exported")
_LINES = ("jsonl", "text", "listing")
_MOST_AHEAD = 16 << 20
"""Bytes of one record that are read at once; of a larger one, what is asked for."""
_BEHIND = 1 << 12
"""Bytes behind a sample of a tar that are read with it: the header which shows that it has ended."""
_FIRST_BYTES = 1 << 18
"""What is read of a record whose end is not known."""
_MOST_OPEN = 128
_MOST_ROWS_BYTES = 256 << 20
"""Unpacked bytes of the row groups that are kept; a larger one is read anew for each of its rows."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file whose records are read one by one."""

    file: InputFile
    scan: Scan
    """What it says of single samples: names that come again, duplicates, rules. Its cuts are not needed."""
    size: int
    mtime_ns: int


def is_packed(file: InputFile) -> bool:
    """Whether its records can only be reached by unpacking all before them."""
    return file.format.endswith(_PACKED) and not file.format.startswith("document")


def unpacked(file: InputFile, folder: Path) -> InputFile:
    """A compressed file as a plain one, written into `folder` unless it is there; any other as it is.

    Raises UserError, also for a stream that is damaged: `stage=copy` keeps what can be read of it.
    """
    if not is_packed(file):
        return file
    folder.mkdir(parents=True, exist_ok=True)
    with refusing_faults(file.path):
        stat = os.stat(file.path)
        mark = f"{file.path}\0{stat.st_size}\0{stat.st_mtime_ns}"
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.label)[:64]
        path = folder / f"{name}-{hashlib.sha256(mark.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
        if not path.exists():
            logger.warning("%s is unpacked into %s: compressed files cannot be read at random", file.label, folder)
            _unpack(file, path)
    return dataclasses.replace(file, path=str(path), format=file.format.removesuffix(".gz").removesuffix(".zst"))


def _unpack(file: InputFile, path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as out:
            try:
                for chunk in bounded(file, chunks(file)):
                    out.write(chunk)
            except BadSample as broken:
                raise UserError(
                    f"{file.path} cannot be unpacked: {broken.message}; stage=copy writes what can be read of it anew"
                ) from None
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def places(file: InputFile, options: Options) -> tuple[Scan, np.ndarray]:
    """What a scan finds, without its cuts, and [num_samples] int64: where each sample begins. Raises UserError."""
    from hpcdata import sources

    seeks = array("q")
    found = sources.scan(file, every=_NEVER, options=options, each=seeks.append)
    return dataclasses.replace(found, cuts=(), numbers=()), np.array(seeks, np.int64)


class RecordReader:
    """Safe in several threads, and in processes that are forked from this one."""

    def __init__(self, files: Sequence[Listed], options: Options) -> None:
        self._files, self._options = files, options
        self._kept: dict[int, int] = {}
        """Of the files that were used first: descriptors that stay open."""
        self._tables: OrderedDict[tuple[int, int], _Rows] = OrderedDict()
        self._groups: dict[int, list[tuple[int, int, int]]] = {}
        self._lock = ForkLock()

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RecordReader.__init__(self, state["files"], state["options"])

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        """close: `os` may be gone when Python ends."""
        for descriptor in self.__dict__.get("_kept", {}).values():
            close(descriptor)

    def record(self, which: int, *, position: int, seek: int, end: int | None = None) -> Record:
        """The record at `position` of file `which`. end: where the next one begins, as far as that is known.

        Raises UserError if the file is no longer the one that was listed, OSError for a fault of the machine.
        """
        listed = self._files[which]
        file = listed.file
        with naming(file.path):
            if file.format in _OF_ROWS:
                return self._row(which, position, seek)
            if file.format != "tar" and file.format != "documents" and file.format not in _LINES:
                return self._alone(listed, position)
            with self._opened(which) as descriptor:
                if file.format == "tar":
                    return self._sample_of_tar(listed, descriptor, position, seek, end)
                return self._line(listed, descriptor, position, seek, end)

    def _line(self, listed: Listed, descriptor: int, position: int, seek: int, end: int | None) -> Record:
        from hpcdata.sources import documents, json_lines

        module = documents if listed.file.format == "documents" else json_lines
        most = self._options.max_record_bytes + 1  # with its break
        end = None if is_part(listed.file) else end  # where the next one begins that is taken
        left = listed.size - seek if end is None else end - seek
        size = min(left, _FIRST_BYTES if end is None else most)
        data = read_at(descriptor, size, seek)
        while size < min(left, most) and b"\n" not in data:
            more = min(size, min(left, most) - size)
            data += read_at(descriptor, more, seek + size)
            size += more
        if size < left and b"\n" not in data:  # too long: it is said how long
            return self._alone(listed, position, seek)
        return module.record_at(listed.file, position, seek, data, self._options)

    def _sample_of_tar(self, listed: Listed, descriptor: int, position: int, seek: int, end: int | None) -> Record:
        from hpcdata.sources.tar.groups import Rules, tar_of_sample
        from hpcdata.sources.tar.reading import read_open

        file, scan = listed.file, listed.scan.at(position, seek)
        ahead = _FIRST_BYTES if end is None else min(end - seek + _BEHIND, _MOST_AHEAD)
        data = read_at(descriptor, ahead, seek)
        with tar_of_sample(descriptor, file.path, Rules.of(scan), seek, data) as source:
            return next(read_open(source, file, scan, first=position, count=1, options=self._options))

    def _alone(self, listed: Listed, position: int, seek: int = 0) -> Record:
        from hpcdata import sources

        scan = listed.scan.at(position, seek)
        return next(sources.read(listed.file, scan, first=position, count=1, options=self._options))

    def _row(self, which: int, position: int, seek: int) -> Record:
        row = seek if is_part(self._files[which].file) else position
        group, begin, stop = self._group(which, row)
        with self._lock:
            rows = self._tables.get((which, group))
            if rows is None:
                rows = self._tables[which, group] = _Rows(self._row_bytes(which, group))
                self._drop_rows()
            self._tables.move_to_end((which, group))
        listed = self._files[which]
        return rows.record(listed, position, row, begin, stop, self._options)

    def _drop_rows(self) -> None:
        total = sum(rows.num_bytes for rows in self._tables.values())
        while total > _MOST_ROWS_BYTES and len(self._tables) > 1:
            _, rows = self._tables.popitem(last=False)
            total -= rows.num_bytes

    def _group(self, which: int, row: int) -> tuple[int, int, int]:
        """(row group, its first row, the one behind its last) of a row."""
        if which not in self._groups:
            self._groups[which] = self._groups_of(self._files[which])
        for group, (begin, stop, _) in enumerate(self._groups[which]):
            if begin <= row < stop:
                return group, begin, stop
        raise changed_since_planned(self._files[which].file, got=0, expected=row + 1)

    def _row_bytes(self, which: int, group: int) -> int:
        return self._groups[which][group][2]

    def _groups_of(self, listed: Listed) -> list[tuple[int, int, int]]:
        from hpcdata.sources import parquet_files

        with parquet_files.Bytes(listed.file) as data:
            _require_same(listed, data.stat())
            if "arrow" in listed.file.format:
                from hpcdata.sources.pictures import arrow

                batches = arrow.groups(data, listed.file)
                return [(batch.first, batch.first + batch.rows, batch.size) for batch in batches]
            try:
                metadata = parquet_files.opened(data).metadata
            except BadSample:
                return [(0, 1, 0)]
            found, start = [], 0
            for group in range(metadata.num_row_groups):
                of_group = metadata.row_group(group)
                num_bytes = sum(max(0, of_group.column(n).total_uncompressed_size) for n in range(of_group.num_columns))
                found.append((start, start + of_group.num_rows, num_bytes))
                start += of_group.num_rows
        return found

    @contextmanager
    def _opened(self, which: int) -> Iterator[int]:
        descriptor = self._kept.get(which)
        if descriptor is not None:
            yield descriptor
            return
        listed = self._files[which]
        descriptor = open_input(listed.file)
        try:
            _require_same(listed, os.fstat(descriptor))
            with self._lock:
                is_kept = which not in self._kept and len(self._kept) < _MOST_OPEN
                if is_kept:
                    self._kept[which] = descriptor
            yield descriptor
        finally:
            if self._kept.get(which) != descriptor:
                os.close(descriptor)


class _Rows:
    """The records of a row group, once somebody has asked for one of them."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._lock = ForkLock()
        self._records: list[Record] | None = None
        self._first = 0

    def record(self, listed: Listed, position: int, row: int, begin: int, stop: int, options: Options) -> Record:
        """The record of a row, one of rows `begin` to `stop - 1`."""
        from hpcdata import sources

        if self.num_bytes > _MOST_ROWS_BYTES:
            scan = listed.scan.at(position, row)
            return next(sources.read(listed.file, scan, first=position, count=1, options=options))
        with self._lock:
            if self._records is None:
                scan, self._first, number = listed.scan, begin, stop - begin
                if is_part(listed.file):
                    scan, self._first, number = around(listed.file, scan, position, row, begin, stop)
                self._records = list(sources.read(listed.file, scan, first=self._first, count=number, options=options))
            return self._records[position - self._first]


def _require_same(listed: Listed, stat: os.stat_result) -> None:
    if (stat.st_size, stat.st_mtime_ns) != (listed.size, listed.mtime_ns):
        raise UserError(
            f"{listed.file.path} has changed since its records were listed ({stat.st_size} bytes, it had "
            f"{listed.size}): restore it, or list or measure it again"
        )
