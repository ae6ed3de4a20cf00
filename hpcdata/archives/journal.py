"""What became of each member, as `OUT.members.csv`: the account, and where to go on after a kill.

    archive,number,member,size,sha256,result
    images.zip,-1,,123456,1234/5678,begins            sizes and times of its files
    images.zip,0,a/0001.jpg,2345,9f86...,written
    images.zip,1,../x,10,,outside
    images.zip,-1,,558128,,complete                   how many members there were

Lines are appended when the files that they speak of are durable. A line that a kill has cut is cut off.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.errors import Failed

HEADER = ("archive", "number", "member", "size", "sha256", "result")
BEGINS, COMPLETE, WRITTEN, DUPLICATE, DAMAGED = "begins", "complete", "written", "duplicate", "damaged"

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Line:
    archive: str
    number: int = -1
    member: str = ""
    size: int = 0
    sha256: str = ""
    result: str

    def fields(self) -> tuple[str, ...]:
        return self.archive, str(self.number), self.member, str(self.size), self.sha256, self.result


class Journal:
    """A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Journal:
        is_new = not self._path.exists()
        self._file = open(self._path, "ab")
        self._cut()
        if not self._file.tell():
            self.append([])
        if is_new:
            files.sync_folder(self._path.parent)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def lines(self, archive: str) -> Iterator[Line]:
        """Those of one archive. Raises Failed where the file is damaged."""
        with open(self._path, newline="", encoding="utf-8") as file:
            try:
                for fields in csv.reader(file):
                    if len(fields) != len(HEADER):
                        raise ValueError(f"{len(fields)} fields in a line")
                    if fields[0] == archive and fields[1] != HEADER[1]:
                        name, number, member, size, sha256, result = fields
                        yield Line(
                            archive=name,
                            number=int(number),
                            member=member,
                            size=int(size),
                            sha256=sha256,
                            result=result,
                        )
            except (ValueError, csv.Error) as error:
                advice = "remove it, and unpack again: files that are there are compared"
                raise Failed(f"{self._path} is damaged ({error}): {advice}") from None

    def append(self, lines: Sequence[Line]) -> None:
        """Durable when it returns."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if not self._file.tell():
            writer.writerow(HEADER)
        writer.writerows(line.fields() for line in lines)
        self._file.write(out.getvalue().encode(errors="backslashreplace"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut(self) -> None:
        size = whole = os.path.getsize(self._path)
        with open(self._path, "rb") as file:
            while whole:
                begin = max(0, whole - _TAIL_BYTES)
                file.seek(begin)
                if (end := file.read(whole - begin).rfind(b"\n")) >= 0:
                    whole = begin + end + 1
                    break
                whole = begin
        if whole < size:
            os.ftruncate(self._file.fileno(), whole)
        self._file.seek(0, os.SEEK_END)
