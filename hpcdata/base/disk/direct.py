"""Writing past the page cache (O_DIRECT), where that is fast.

Such a write costs no copy, is durable but for the file's size, and leaves no debt that a sync at the end would have to
pay. It takes whole blocks of the file, from memory that begins at one. Where direct writes are refused or slow, as on
some network file systems, the page cache is to take over.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from pathlib import Path

ALIGNED = max(4096, mmap.PAGESIZE)
_DIRECT_FLAG = getattr(os, "O_DIRECT", 0)
_TRIAL_BYTES, _FAST = 16 << 20, 300e6
"""Bytes, and bytes a second, that direct writes must reach over them."""


class Direct:
    """A file's way past the page cache, for any number of threads."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        if _DIRECT_FLAG:
            with contextlib.suppress(OSError):  # not on this file system
                self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | _DIRECT_FLAG)
        self.is_used = self.descriptor >= 0
        self._num_bytes, self._seconds = 0, 0.0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def write(self, data: memoryview, begin: int) -> int:
        """How many of the first bytes are written; the page cache is to take the rest. data: begins at a page."""
        size = len(data) // ALIGNED * ALIGNED
        if not self.is_used or begin % ALIGNED or not size:
            return 0
        started = time.monotonic()
        try:
            count = os.pwrite(self.descriptor, data[:size], begin)
        except OSError:  # refused; or a disk that is full, which is said by the other way
            self.is_used = False
            return 0
        self._num_bytes, self._seconds = self._num_bytes + count, self._seconds + time.monotonic() - started
        if self._num_bytes >= _TRIAL_BYTES and self._num_bytes <= _FAST * self._seconds:
            self.is_used = False
        return count
