"""The loops of jpegs.c, where this installation has them: `loops()` is None where it has not, see `compiled`.

They write to nothing of Python's. `walk` leaves the interpreter's lock, unless it takes less than to get it again.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path

from hpcdata.native.compiled import built

_log = logging.getLogger(__name__)
_SIDE_BITS = 16
FEW_BYTES = 1 << 14
"""Of a file that is walked over in less than half a millisecond, whatever its codes."""


@cache
def loops() -> Loops | None:
    path = built("_jpegs")
    try:
        return None if path is None else Loops(path)
    except (OSError, AttributeError) as error:  # built elsewhere, or from another version
        _log.warning("the compiled check of JPEGs is not used, install hpcdata again: %s", error)
        return None


class Loops:
    """See jpegs.c."""

    def __init__(self, path: Path) -> None:
        with_the_lock = ctypes.PyDLL(str(path))
        self._walk, self._walk_few = ctypes.CDLL(str(path)).walk_jpeg, with_the_lock.walk_jpeg
        self._count = with_the_lock.count_marks  # shorter than to wait for the lock again
        self._walk.argtypes = self._walk_few.argtypes = [ctypes.c_char_p, ctypes.c_int64]
        self._count.argtypes = [*self._walk.argtypes, *self._walk.argtypes]
        self._walk.restype = self._walk_few.restype = self._count.restype = ctypes.c_int64

    def walk(self, data: bytes) -> tuple[int, int, int] | None:
        """(width, height, components) of a baseline JPEG whose data libjpeg decodes without a warning.

        None: not known.
        """
        found = (self._walk if len(data) > FEW_BYTES else self._walk_few)(data, len(data))
        side = (1 << _SIDE_BITS) - 1
        return (found & side, found >> _SIDE_BITS & side, found >> 2 * _SIDE_BITS) if found else None

    def count(self, data: bytes, mark: bytes) -> int:
        """`data.count(mark)`, of a mark of at least a byte."""
        return self._count(data, len(data), mark, len(mark))
