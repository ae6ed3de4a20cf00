"""Buffers of a part, and how they get to the disk: past the page cache where that is fast (`base.disk`)."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.disk.direct import ALIGNED, Direct


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
        self._direct = Direct(path)

    def close(self) -> None:
        self._direct.close()
        os.close(self.file)

    def write(self, block: Block) -> None:
        """Raises OSError."""
        data = block.bytes()
        count = self._direct.write(data, block.begin)
        files.write_all_at(self.file, data[count:], block.begin + count)
        if not self._direct.is_used:
            files.start_writing(self.file, block.begin, block.filled)

    def read_into(self, data: memoryview, begin: int) -> int:
        """Some of the bytes from `begin` on, by one thread; 0 at the end of the file. Raises OSError."""
        if self._direct.is_used and begin % ALIGNED == 0 and len(data) >= ALIGNED:
            with contextlib.suppress(OSError):
                return os.preadv(self._direct.descriptor, [data[: len(data) // ALIGNED * ALIGNED]], begin)
        return os.preadv(self.file, [data], begin)
