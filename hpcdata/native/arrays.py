"""Fast steps of batch assembly: padded blocks from ragged ids without a temporary per id.

They keep to 16 bits as long as they can, widen last, and touch only the columns that some row does not fill.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hpcdata.native.recycled import empty

if TYPE_CHECKING:
    import torch

IGNORED_LABEL = -100


def position_dtype(id_dtype: str, width: int) -> str:
    """Positions are as wide as ids, unless the row is too long for that."""
    return "int32" if id_dtype == "uint16" and width > 2**16 else id_dtype


def prefix_mask(lengths: np.ndarray, width: int, out: np.ndarray | None = None) -> np.ndarray:
    """[num_rows, width] bool, set on the first `lengths[row]` <= width columns."""
    mask = empty((len(lengths), width), bool) if out is None else out
    _put_steps(lengths, True, False, mask)
    return mask


def prefix_positions(lengths: np.ndarray, out: np.ndarray) -> None:
    """out[row] = 0, 1... on the first `lengths[row]` <= width columns, 0 behind them: made narrow, widened last."""
    import torch

    width = out.shape[1]
    narrow = empty(out.shape, np.int16 if width <= 2**15 else np.int32)
    _put_steps(lengths, -1, 0, narrow)
    narrow &= np.arange(width, dtype=narrow.dtype)
    torch.from_numpy(out).copy_(torch.from_numpy(narrow))


def fill_behind(block: np.ndarray, lengths: np.ndarray, value: int) -> None:
    """block[row, lengths[row]:] = value, for [num_rows, width] integers and lengths <= width."""
    Behind(lengths, block.shape[1]).fill(block, value)


class Behind:
    """What is behind the `lengths` ([num_rows], <= width) of rows: found once for the blocks of several steps."""

    def __init__(self, lengths: np.ndarray, width: int) -> None:
        import torch

        self._first, self._width = int(lengths.min(initial=width)), width
        self._at = torch.from_numpy(width - lengths)

    def fill(self, block: np.ndarray, value: int, first: int = 0) -> None:
        """block[row, lengths[first + row]:] = value.

        By bit masks: a branch-free pass over the columns that some row does not fill.
        """
        if not block.size or self._first == self._width:
            return
        import torch

        signed = block.view(f"i{block.itemsize}")[:, self._first :]
        tail, at = torch.from_numpy(signed), self._at[first : first + len(block)]
        width, dtype = signed.shape[1], signed.dtype.str
        steps = torch.from_numpy(empty(signed.shape, signed.dtype))
        torch.index_select(_step_windows(width, -1, 0, dtype), 0, at, out=steps)
        tail.bitwise_and_(steps)
        if value:
            value = int(np.array(value).astype(block.dtype).view(signed.dtype))
            torch.index_select(_step_windows(width, 0, value, dtype), 0, at, out=steps)
            tail.bitwise_or_(steps)


def widen(ids: np.ndarray, out: np.ndarray, shift: int = 0) -> None:
    """out[...] = ids + shift, from 16 or 32 bits to 64 (or as they are): torch widens faster than numpy."""
    if not ids.size:
        return
    if ids.itemsize == out.itemsize:
        out[...] = ids
    else:
        import torch

        torch.from_numpy(out).copy_(torch.from_numpy(ids))
    if shift:
        out += out.dtype.type(shift)


def as_signed(block: np.ndarray) -> np.ndarray:
    """The same memory for torch, whose uint16 lacks most operations."""
    return block.view(np.int16) if block.dtype == np.uint16 else block


def totals_before(values: np.ndarray) -> np.ndarray:
    """[n + 1] int64: the sum of the values before each, and of all."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def ragged(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which run, place in it) of every element of runs of these lengths that stand end to end."""
    if len(lengths) and lengths.min() == lengths.max() == 1:
        return np.arange(len(lengths)), np.zeros(len(lengths), np.int64)
    ends = np.cumsum(lengths, dtype=np.int64)
    run = np.repeat(np.arange(len(lengths)), lengths)
    return run, np.arange(len(run)) - np.repeat(ends - lengths, lengths)


def before_in_row(row: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[num_spans]: the sum of `lengths` of the spans before each in its row; `row` is ascending."""
    if not len(row):
        return np.zeros(0, np.int64)
    before = np.cumsum(lengths) - lengths
    first = np.ones(len(row), bool)
    first[1:] = row[1:] != row[:-1]
    return before - before[first][np.cumsum(first) - 1]


def windows_of(values: np.ndarray, width: int) -> np.ndarray:
    """[len(values) - width + 1, width]: all windows of contiguous values, as the rows of a view that may be written."""
    return np.ndarray((len(values) - width + 1, width), values.dtype, values.data, strides=values.strides * 2)


def _put_steps(lengths: np.ndarray, before: int, behind: int, out: np.ndarray) -> None:
    """out[row] = `before` on the first `lengths[row]` columns, `behind` on the others: windows of one step."""
    if out.size:
        import torch

        windows = _step_windows(out.shape[1], before, behind, out.dtype.str)
        torch.index_select(windows, 0, torch.from_numpy(out.shape[1] - lengths), out=torch.from_numpy(out))


@lru_cache(maxsize=64)
def _step_windows(width: int, before: int, behind: int, dtype: str) -> torch.Tensor:
    """[width + 1, width]: row w - n has n values `before` and then `behind`."""
    import torch

    steps = np.full(2 * width, behind, dtype)
    steps[:width] = before
    return torch.from_numpy(steps).as_strided((width + 1, width), (1, 1))
