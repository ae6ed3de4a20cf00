"""Memory of batches that nobody holds, used again: new pages cost more than what is written to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hpcdata.native.forks import ForkLock
from hpcdata.native.recycled import Buffer, first_free

_SMALLEST = 1 << 20
"""Bytes; what is smaller the allocator keeps by itself."""
_MOST = 4


class Buffers:
    """Safe in several threads; a copy by pickle is empty."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._lock = ForkLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, ()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """As numpy.empty. A buffer is taken again when no array and no tensor has a view of it."""
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            found = first_free([buffer for buffer in self._buffers if size <= buffer.size <= 2 * size])
            if found is None:
                new = Buffer(size)
                found = new.memory, new.offset, new.address
                self._buffers = [*self._buffers[-_MOST + 1 :], new]
            memory, offset, _ = found
            return np.ndarray(shape, dtype, memory, offset)
