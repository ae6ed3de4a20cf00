"""Fast steps of batch assembly: padded blocks from ragged ids without a temporary per id.

Fresh memory is what costs most: the kernel clears every page of a new array, which takes longer than the gather that
fills it. `empty` hands out memory of earlier batches that nobody holds any more. The steps then keep to 16 bits as
long as they can, widen last, and touch only the columns that some row does not fill.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_MIN_BYTES = 2**16
_MAX_BUFFERS = 48
_MAX_TOTAL_BYTES = 2**28
_lock = threading.Lock()
_buffers: deque[np.ndarray] = deque()


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """np.empty, on recycled memory: that of an array made here is used again when no view or tensor of it is left."""
    element = np.dtype(dtype)
    num_bytes = element.itemsize * math.prod(shape)
    if num_bytes < _MIN_BYTES:
        return np.empty(shape, element)
    with _lock:
        return np.ndarray(shape, element, _buffer(num_bytes))


def prefix_mask(lengths: np.ndarray, width: int) -> np.ndarray:
    """[num_rows, width] bool, set on the first `lengths[row]` <= width columns: one copy of a window a row."""
    steps = np.zeros(2 * width, bool)
    steps[:width] = True
    mask = empty((len(lengths), width), bool)
    if mask.size:
        mask[:] = _windows(steps, width)[width - lengths]
    return mask


def fill_behind(block: np.ndarray, lengths: np.ndarray, value: int) -> None:
    """block[row, lengths[row]:] = value, for [num_rows, width] integers and lengths <= width.

    By bit masks, which are windows of a step again: a branch-free pass over the columns that some row does not fill.
    """
    first, width = int(lengths.min(initial=block.shape[1])), block.shape[1]
    if not block.size or first == width:
        return
    import torch

    signed = np.dtype(f"i{block.itemsize}")
    tail = torch.from_numpy(block.view(signed))[:, first:]
    at = torch.from_numpy(width - lengths)
    tail &= _step_windows(width - first, -1, 0, signed).index_select(0, at)
    if value:
        behind = int(np.array(value).astype(block.dtype).view(signed))
        tail |= _step_windows(width - first, 0, behind, signed).index_select(0, at)


def widen(ids: np.ndarray, out: np.ndarray, shift: int = 0) -> None:
    """out[...] = ids + shift, from 16 or 32 bits to 64: torch does it faster than numpy."""
    if ids.size:
        import torch

        target = torch.from_numpy(out)
        target.copy_(torch.from_numpy(ids))
        if shift:
            target += shift


def _step_windows(width: int, before: int, behind: int, dtype: np.dtype) -> torch.Tensor:
    """[width + 1, width]: row w - n has n values `before` and then `behind`."""
    import torch

    steps = np.full(2 * width, behind, dtype)
    steps[:width] = before
    return torch.from_numpy(steps).as_strided((width + 1, width), (1, 1))


def _windows(values: np.ndarray, width: int) -> np.ndarray:
    """All windows of `width` values as the rows of a view."""
    return np.ndarray((len(values) - width + 1, width), values.dtype, values, strides=values.strides * 2)


def _buffer(num_bytes: int) -> np.ndarray:
    """A free buffer of this size, or a new one in place of the one that was not wanted for longest."""
    for place in range(len(_buffers)):
        found = _buffers[place]
        if found.nbytes == num_bytes and sys.getrefcount(found) == _FREE:
            del _buffers[place]
            _buffers.append(found)
            return found
    new = np.empty(num_bytes, np.uint8)
    _buffers.append(new)
    while len(_buffers) > _MAX_BUFFERS or sum(buffer.nbytes for buffer in _buffers) > _MAX_TOTAL_BYTES:
        _buffers.popleft()
    return new


_FREE = 3
"""References to a buffer that nobody uses: the deque, the local name, and the argument of getrefcount."""
