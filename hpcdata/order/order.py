"""The order of samples as a pure function of (seed, epoch, position): nothing is stored, any place is O(1) away.

    SequentialOrder   as the samples are stored
    ShuffledOrder     a permutation of all, see hpcdata.order.permutation
    BlockOrder        for data larger than RAM: it shuffles blocks of neighbouring rows, and the rows of some blocks

A block is what is read in one go. Two windows of blocks have to fit in the page cache, as one is read ahead.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.permutation import keys_for, permute, round_keys


class Order(Protocol):
    """Which row stands at which position of an epoch."""

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """positions: [n] integers in [0, num_samples) -> rows: [n] int64."""
        ...


@dataclass(frozen=True, kw_only=True)
class SequentialOrder:
    """The order of the dataset, the same in every epoch."""

    num_samples: int

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return _checked(positions, self.num_samples)


@dataclass(frozen=True, kw_only=True)
class ShuffledOrder:
    """A permutation of all rows, another one for every seed and epoch."""

    num_samples: int
    seed: int = 0

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return permute(_checked(positions, self.num_samples), self.num_samples, round_keys(self.seed, epoch))

    def rows_of_epochs(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """`rows` of as many epochs as there are positions: [n] int64 each; for sources with many short epochs."""
        positions = _checked(positions, self.num_samples)
        if len(epochs) and epochs.min() == epochs.max():
            return self.rows(int(epochs[0]), positions)
        found, which = np.unique(epochs, return_inverse=True)
        keys = np.stack([np.array(round_keys(self.seed, epoch)) for epoch in found.tolist()], axis=1)[:, which]
        return permute(positions, self.num_samples, keys)


@dataclass(frozen=True, kw_only=True)
class BlockOrder:
    """A permutation that reads `block_rows` neighbouring rows in one go and shuffles `window_blocks` blocks at a time.

    Every epoch cuts the rows into blocks elsewhere (the first begins at a pseudo-random row, the last may go on at row
    0), permutes the blocks, and permutes the rows of each window of consecutive blocks. What is left over when the rows
    are no whole number of blocks is one shorter block at the end: other rows in every epoch.
    """

    num_samples: int
    seed: int = 0
    block_rows: int = 4096
    window_blocks: int = 64

    def __post_init__(self) -> None:
        if self.block_rows < 1 or self.window_blocks < 1:
            raise UserError(
                f"block_rows={self.block_rows}, window_blocks={self.window_blocks}: expected at least 1 each"
            )

    @property
    def window_rows(self) -> int:
        return self.block_rows * self.window_blocks

    def slots_needed(self, position: int) -> int:
        """The slot behind the window of a position."""
        window = position // self.window_rows
        return min((window + 1) * self.window_blocks, -(-self.num_samples // self.block_rows))

    def slots_ahead(self, position: int) -> int:
        """Up to which slot blocks are wanted in memory at a position: those of its window, and of the next one as
        many as have gone by of this one.
        """
        window, within = divmod(position, self.window_rows)
        return min(
            (window + 1) * self.window_blocks + within // self.block_rows, -(-self.num_samples // self.block_rows)
        )

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        positions = _checked(positions, self.num_samples)
        within = np.empty_like(positions)
        windows = positions // self.window_rows
        for window in np.unique(windows).tolist():  # consecutive positions are of one or two windows
            at = windows == window
            first = window * self.window_rows
            size = min(self.window_rows, self.num_samples - first)
            keys = keys_for(f"block seed={self.seed} epoch={epoch} window={window}")
            within[at] = first + permute(positions[at] - first, size, keys)
        return self._rows_of(epoch, within // self.block_rows, within % self.block_rows)

    def ranges(self, epoch: int, first_slot: int, last_slot: int) -> np.ndarray:
        """[num_ranges, 2] int64: first row and number of rows of the blocks in these slots, the last not included."""
        stop = min(last_slot * self.block_rows, self.num_samples)
        starts = np.arange(first_slot * self.block_rows, stop, self.block_rows)
        rows = self._rows_of(epoch, starts // self.block_rows, np.zeros_like(starts))
        sizes = np.minimum(self.block_rows, stop - starts)
        over = np.maximum(0, rows + sizes - self.num_samples)
        ranges = np.stack([np.concatenate([rows, np.zeros_like(rows)]), np.concatenate([sizes - over, over])], axis=1)
        return ranges[ranges[:, 1] > 0]

    def _rows_of(self, epoch: int, slots: np.ndarray, within: np.ndarray) -> np.ndarray:
        """The rows at place `within` of the blocks that stand in `slots` of the epoch's order of blocks."""
        num_whole = self.num_samples // self.block_rows
        blocks = slots.copy()
        whole = slots < num_whole
        if num_whole:
            keys = keys_for(f"blocks seed={self.seed} epoch={epoch}")
            blocks[whole] = permute(slots[whole], num_whole, keys)
        shift = int(keys_for(f"shift seed={self.seed} epoch={epoch}")[0]) % self.num_samples
        return (blocks * self.block_rows + within + shift) % self.num_samples


def find_order(name: str, num_samples: int, seed: int) -> Order:
    """`shuffled`, `sequential`, `blocks` or `blocks:ROWSxBLOCKS`, as in blocks:4096x64, for so many samples.

    What fits into one window of blocks is simply shuffled.
    """
    if name == "sequential":
        return SequentialOrder(num_samples=num_samples)
    shuffled = ShuffledOrder(num_samples=num_samples, seed=seed)
    if name == "shuffled":
        return shuffled
    match = re.fullmatch(r"blocks(?::([1-9]\d*)x([1-9]\d*))?", name)
    if not match:
        raise UserError(f"order {name!r}: expected shuffled, sequential, blocks or blocks:ROWSxBLOCKS")
    blocks = BlockOrder(num_samples=num_samples, seed=seed)
    if match[1]:
        blocks = dataclasses.replace(blocks, block_rows=int(match[1]), window_blocks=int(match[2]))
    return blocks if num_samples > blocks.window_rows else shuffled


def rows_of_epochs(order: Order, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`rows` of as many epochs as there are positions: [n] int64 each; for sources with many short epochs."""
    if isinstance(order, SequentialOrder):
        return order.rows(0, positions)
    if isinstance(order, ShuffledOrder):
        return order.rows_of_epochs(epochs, positions)
    rows = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs).tolist():
        at = epochs == epoch
        rows[at] = order.rows(epoch, positions[at])
    return rows


def _checked(positions: np.ndarray, num_samples: int) -> np.ndarray:
    positions = np.asarray(positions, dtype=np.int64)
    if positions.size and not 0 <= positions.min() <= positions.max() < num_samples:
        raise IndexError(f"positions {positions.min()} to {positions.max()} of an order of {num_samples} samples")
    return positions
