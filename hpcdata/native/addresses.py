"""Arrays as C takes them: their addresses, once length and dtype are as expected; and what a loop answers."""

from __future__ import annotations

import numpy as np

DAMAGED = "a sample points outside of its part, or a batch is too small: the dataset is damaged"


def at(array: np.ndarray, size: int, dtype: type = np.int64) -> int:
    """Raises TypeError for an array of another length or dtype, or with gaps."""
    if array.dtype != dtype or array.shape != (size,) or not array.flags.c_contiguous:
        raise TypeError(f"expected {size} contiguous {np.dtype(dtype)}, got {array.shape} {array.dtype}")
    return array.ctypes.data


def address_of(array: np.ndarray) -> int:
    """`array.ctypes.data`, which is several objects and functions of Python."""
    return array.__array_interface__["data"][0]


def ids_at(ids: np.ndarray) -> tuple[int, int, int]:
    """(address, length, bytes of each)."""
    return ids.ctypes.data, len(ids), ids.itemsize


def check(answer: int) -> None:
    """Raises IndexError where a loop has found a place outside of its array."""
    if answer < 0:
        raise IndexError(DAMAGED)
