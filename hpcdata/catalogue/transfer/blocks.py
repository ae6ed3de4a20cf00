"""Buffers of a part, and how they get to the disk: past the page cache where that is fast.

A write past the page cache (O_DIRECT) costs no copy, is durable but for the file's size, and leaves no debt that a
sync at the end would have to pay. Where it is refused or slow, as on some network file systems, the page cache takes
over, and the kernel is asked to write behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from pathlib import Path

from hpcdata.base import files

ALIGNED = 4096
_DIRECT_FLAG = getattr(os, "O_DIRECT", 0)
_TRIAL_BYTES, _FAST = 16 << 20, 300e6
"""Bytes, and bytes a second, that direct writes must reach over them."""


class Block:
    """begin: which byte of the file is its first. filled: bytes in it, of `capacity`."""

    def __init__(self, size: int) -> None:
        self.data = memoryview(mmap.mmap(-1, size))
        self.begin, self.filled, self.capacity = 0, 0, size
        self.is_kept = False
        """In memory until it is hashed."""

    @property
    def end(self) -> int:
        return self.begin + self.filled

    def bytes(self) -> memoryview:
        return self.data[: self.filled]


class Disk:
    """A file that one thread writes and one reads."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._direct = -1
        if _DIRECT_FLAG:
            with contextlib.suppress(OSError):  # not on this file system
                self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | _DIRECT_FLAG)
        self._is_direct = self._direct >= 0
        self._direct_bytes, self._direct_s = 0, 0.0

    def close(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
        os.close(self.file)

    def write(self, block: Block) -> None:
        """Raises OSError."""
        data, begin = block.bytes(), block.begin
        if self._is_direct and begin % ALIGNED == 0 and len(data) % ALIGNED == 0:
            count = self._write_direct(data, begin)
            data, begin = data[count:], begin + count
        while data:
            count = os.pwrite(self.file, data, begin)
            data, begin = data[count:], begin + count
        if not self._is_direct:
            files.start_writing(self.file, block.begin, block.filled)

    def read_into(self, data: memoryview, begin: int) -> int:
        """Some of the bytes from `begin` on, by one thread; 0 at the end of the file. Raises OSError."""
        if self._is_direct and begin % ALIGNED == 0 and len(data) >= ALIGNED:
            with contextlib.suppress(OSError):
                return os.preadv(self._direct, [data[: len(data) // ALIGNED * ALIGNED]], begin)
        return os.preadv(self.file, [data], begin)

    def _write_direct(self, data: memoryview, begin: int) -> int:
        """How much is written; the page cache is to take the rest."""
        started = time.monotonic()
        try:
            count = os.pwrite(self._direct, data, begin)
        except OSError:  # refused; or a disk that is full, which is said by the other way
            self._is_direct = False
            return 0
        self._direct_bytes, self._direct_s = self._direct_bytes + count, self._direct_s + time.monotonic() - started
        self._is_direct = self._direct_bytes < _TRIAL_BYTES or self._direct_bytes > _FAST * self._direct_s
        return count
