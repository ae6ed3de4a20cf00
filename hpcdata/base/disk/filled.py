"""A file of a known size that threads and processes fill side by side, each a stretch of its own.

A stretch is gathered in memory that is laid out as direct writes need it, and written past the page cache; the page
cache gets the parts of blocks at both ends, and all of it where direct writes are not used. The file has its room from
the start: ext4 lets only one thread at a time write where there is none yet.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.disk.direct import ALIGNED, Direct
from hpcdata.base.reads import naming

_LARGE_PAGE, _MOST_KEPT = 1 << 21, 1 << 23
"""Bytes of memory of a stretch: what it is a multiple of, and what is kept for the next one."""


class FilledFile:
    """A file of a given size, which threads and processes fill side by side, each a stretch of its own."""

    def __init__(self, path: Path, size: int) -> None:
        """Makes it, durably, or opens the one that is there."""
        self.path = path
        with naming(path):
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            weakref.finalize(self, os.close, self.descriptor)
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
                files.allocate(self.descriptor, size)
            os.fsync(self.descriptor)
            files.sync_folder(path.parent)
        self.direct = Direct(path)
        weakref.finalize(self, self.direct.close)
        if os.fstatvfs(self.descriptor).f_frsize > ALIGNED:  # a block at an end would be written in both ways at once
            self.direct.is_used = False
        self._unused: list[memoryview] = []

    def stretch(self, begin: int) -> Stretch:
        """From this byte on."""
        try:
            return Stretch(self, begin, self._unused.pop())
        except IndexError:
            return Stretch(self, begin, memoryview(b""))

    def done_with(self, memory: memoryview) -> None:
        if len(memory) <= _MOST_KEPT:
            self._unused.append(memory)


class Stretch:
    """Consecutive bytes of a file: put into `room`, then taken by `add`; all are durable after `sync`."""

    def __init__(self, file: FilledFile, begin: int, memory: memoryview) -> None:
        self._file, self._memory = file, memory
        self._place = self._written = begin
        """Of the next byte, and up to where they are written."""
        self._base = begin // ALIGNED * ALIGNED
        """Of the first byte of the memory."""

    def room(self, num_bytes: int) -> memoryview:
        """Where the next bytes are to be put."""
        first = self._place - self._base
        end = first + num_bytes
        if end > len(self._memory):
            memory = _in_large_pages(end)
            held = min(first, len(self._memory))
            memory[:held] = self._memory[:held]
            self._memory = memory
        return self._memory[first:end]

    def add(self, num_bytes: int) -> None:
        """So many bytes were put there. Raises OSError."""
        self._place += num_bytes
        self._write(self._place // ALIGNED * ALIGNED if self._file.direct.is_used else self._place)

    def sync(self) -> None:
        """The end of the stretch. Raises OSError."""
        self._write(self._place)
        with naming(self._file.path):
            os.fdatasync(self._file.descriptor)
        self._file.done_with(self._memory)

    def _write(self, end: int) -> None:
        """Up to `end`; what stands behind it moves to the beginning of the memory."""
        if end <= self._written:
            return
        data, begin = self._memory[self._written - self._base : end - self._base], self._written
        before = min(-begin % ALIGNED, len(data))
        self._write_cached(data[:before], begin)
        count = before + self._file.direct.write(data[before:], begin + before)
        self._write_cached(data[count:], begin + count)
        base = end // ALIGNED * ALIGNED
        self._memory[: self._place - base] = self._memory[base - self._base : self._place - self._base]
        self._written, self._base = end, base

    def _write_cached(self, data: memoryview, begin: int) -> None:
        with naming(self._file.path):
            files.write_all_at(self._file.descriptor, data, begin)
        if len(data) >= ALIGNED:
            files.start_writing(self._file.descriptor, begin, len(data))


def _in_large_pages(num_bytes: int) -> memoryview:
    """A disk takes few pieces of memory at once: of small pages a write would be many requests."""
    memory = mmap.mmap(-1, -(-num_bytes // _LARGE_PAGE) * _LARGE_PAGE)
    with contextlib.suppress(AttributeError, OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
