"""Faults of writing, in real system calls: from the n-th on, what changes files below a path fails with an errno.

`build` makes a library of writefault.c. In a process that was started with it in LD_PRELOAD, `Injector` steers it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from tests import readfaults

NEVER = 1 << 40
_SOURCE = Path(__file__).with_name("writefault.c")


def build(folder: Path) -> Path:
    return readfaults.build(folder, _SOURCE)


class Injector:
    """The library, in a process that was started with it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.writefault_set.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
        self._library.writefault_seen.restype = ctypes.c_long

    def set(self, path: Path, *, first: int, kind: int) -> None:
        self._library.writefault_set(os.fsencode(path), first, kind)

    def stop(self) -> int:
        """How many changes there were since `set`."""
        seen = int(self._library.writefault_seen())
        self._library.writefault_set(b"", NEVER, 0)
        return seen
