"""Memory of earlier batches that nobody holds any more, for new ones.

Fresh memory is what costs most: the kernel clears every page of a new array, which takes longer than the gather that
fills it. What is large is in pages of 2 MiB: to look up 512 small ones costs about a tenth of what writing them does.

Whether somebody holds it is asked of the interpreter, which counts references: every array, tensor or view of a buffer
refers to it, by whatever ways it was made. Interpreters count differently, so what is free is measured once. Without
a count that can be relied on, in a Python of free threads, nothing is used again.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hpcdata.native.forks import ForkLock

_MIN_BYTES = 2**16
_MAX_BUFFERS = 48
_MAX_TOTAL_BYTES = 2**28
_LINE, _HUGE_PAGE = 64, 2**21
"""Bytes. Rows begin where lines of the processor's cache do, so that no wide store is cut in two."""


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """np.empty, on recycled memory: that of an array made here is used again when no view or tensor of it is left."""
    return empty_at(shape, dtype)[0]


def empty_at(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> tuple[np.ndarray, int]:
    """The same, and its address, which an array tells slowly."""
    element = np.dtype(dtype)
    size = _size_of_buffer(shape, element.itemsize)
    if size < _MIN_BYTES:
        array = np.empty(shape, element)
        return array, array.ctypes.data
    memory, offset, address = first_free(_buffers.get(size, ())) or _new(size)
    return np.ndarray(shape, element, memory, offset), address


Memory = tuple[np.ndarray, int, int]
"""A buffer's bytes, where an array in it begins, and the address of that."""


class Buffer:
    """Memory for one array at a time."""

    __slots__ = ("address", "memory", "offset", "size", "used")

    def __init__(self, size: int) -> None:
        align = _HUGE_PAGE if size >= _HUGE_PAGE else _LINE  # numpy asks for huge pages where 4 MiB are wanted
        self.memory = np.empty(size + align, np.uint8)
        self.offset = -self.memory.ctypes.data % align
        self.address = self.memory.ctypes.data + self.offset
        self.size, self.used = size, _num_new
        """`used`: how many buffers there were when it was wanted last."""


def first_free(buffers: Sequence[Buffer]) -> Memory | None:
    """Of the first buffer that nobody uses: it was used last, and may still be in the processor's cache.

    Without a lock: its memory has a name here before it is asked for, so that others who come in between, threads or
    signal handlers, find it used. If two come at once, neither gets it.
    """
    for buffer in buffers:
        memory = buffer.memory
        if sys.getrefcount(memory) == _free:
            buffer.used = _num_new
            return memory, buffer.offset, buffer.address
    return None


_buffers: dict[int, list[Buffer]] = {}
"""By their size."""
_lock = ForkLock()
_num_new = 0
_free = -1
"""References to the memory of a buffer that nobody uses, as `first_free` sees it."""


def _new(size: int) -> Memory:
    global _num_new
    new = Buffer(size)
    found = new.memory, new.offset, new.address
    with _lock:
        _num_new += 1
        new.used = _num_new
        _buffers.setdefault(size, []).append(new)
        _forget_some()
    return found


def _forget_some() -> None:
    """Lets go of the buffers that were not wanted for longest, where there are too many. Who holds one keeps it."""
    known, total = [buffer for of_size in list(_buffers.values()) for buffer in of_size], 0
    for number, buffer in enumerate(sorted(known, key=lambda buffer: -buffer.used), 1):
        total += buffer.size
        if number > _MAX_BUFFERS or total > _MAX_TOTAL_BYTES:
            with contextlib.suppress(ValueError):  # a signal handler may have come in between
                _buffers[buffer.size].remove(buffer)


@lru_cache(maxsize=256)
def _size_of_buffer(shape: tuple[int, ...], item_bytes: int) -> int:
    """Bytes: there are four sizes for each power of two."""
    num_bytes = item_bytes * math.prod(shape)
    unit = 1 << max(0, num_bytes.bit_length() - 3)
    return -(-num_bytes // unit) * unit


def _count_of_free() -> int:
    """What `first_free` finds of a buffer that nobody uses, and not of one that somebody does; else -1."""
    global _free
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return -1
    unused, used = Buffer(1), Buffer(1)
    array = used.memory[:1]
    for _free in range(1, 9):
        if first_free([unused]) is not None:
            return _free if first_free([used]) is None and len(array) else -1
    return -1


_free = _count_of_free()
os.register_at_fork(after_in_child=_buffers.clear)
"""A child that wrote to its parent's buffers would copy them first, in small pages."""
