"""Memory of batches that nobody holds, used again: new pages cost more than what is written to them."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from hpcdata.native.forks import ForkLock

_SMALLEST = 1 << 20
"""Bytes; what is smaller the allocator keeps by itself."""
_MOST = 4
_OF_OURS = 3
"""References to a buffer that only this list has: its own, the loop's, and that of the question."""


class Buffers:
    """Safe in several threads; a copy by pickle is empty."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lock = ForkLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, ()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """As numpy.empty. A buffer is taken again when no array and no tensor has a view of it."""
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            found = next(
                (b for b in self._free if sys.getrefcount(b) <= _OF_OURS and size <= b.nbytes <= 2 * size), None
            )
            if found is None:
                found = np.empty(size, np.uint8)
                self._free = [*self._free[-_MOST + 1 :], found]
            return found[:size].view(dtype).reshape(shape)
