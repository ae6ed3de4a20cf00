"""Read-only memory maps of column files that hold no file descriptor.

`mmap.mmap` and `np.memmap` keep a descriptor open for every map, so a dataset of a few hundred parts would run into
the usual limit of 1,024 open files. Here the file is closed at once and the array owns the mapping: it is unmapped
when the last view of it is gone. Maps survive fork; nothing about them is pickled.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

from hpcdata.errors import UserError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def map_column(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The file as a read-only array. Raises UserError when it is missing or its size is not that of `shape`."""
    element = np.dtype(dtype).newbyteorder("<")
    expected = element.itemsize * int(np.prod(shape, dtype=np.int64))
    if not expected:
        return np.zeros(shape, element)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the part is damaged, restore it or run hpcdata.combine again") from None
    try:
        found = os.fstat(descriptor).st_size
        if found != expected:
            raise UserError(
                f"{path} has {found} bytes, the manifest says {expected} ({shape} {dtype}): "
                "the part is damaged, restore it or run hpcdata.combine again"
            )
        return np.asarray(_Mapping(descriptor, expected, element.str, shape))
    finally:
        os.close(descriptor)


class _Mapping:
    """One mapping; numpy keeps it alive as the base of the array made from it."""

    def __init__(self, descriptor: int, num_bytes: int, typestr: str, shape: tuple[int, ...]) -> None:
        self._num_bytes = num_bytes
        self._address = _libc.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if self._address == _FAILED:
            number, self._address = ctypes.get_errno(), None
            raise OSError(number, f"mmap of {num_bytes} bytes: {os.strerror(number)}")
        self.__array_interface__ = {
            "data": (self._address, True),
            "shape": shape,
            "typestr": typestr,
            "version": 3,
        }

    def __del__(self) -> None:
        if self._address:
            _libc.munmap(self._address, self._num_bytes)
