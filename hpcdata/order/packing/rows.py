"""Rows of a fixed length: whole samples that fill them best, or documents that are cut where a row ends.

BestFit leaves under 1 % of the room where lengths differ. Samples of nearly one length leave what their multiples
leave: captions of 10 to 80 ids, each with an image of 256, fill 4,096 columns to 0.98 in any order, as 13 or 14 of them
fit and nothing shorter is there to fill the rest. With two budgets, one is filled to more than 0.96 as measured: the
one that is scarce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.compiled import kernels
from hpcdata.order.bins import Bins
from hpcdata.order.packing.base import check, check_balance, check_multiple, describe
from hpcdata.order.packing.best_fit import best_fit, best_fit_two, in_units, rows_of


@dataclass(frozen=True, kw_only=True)
class BestFit:
    """Whole samples, the longest first, so that they leave the least room. Bins stand in the order of their samples.

    `max_images` is a second budget of each bin. What counts as an image is the loader's to say: for TokenLoader it is
    an image of the sample, for a loader of raw examples it may be a crop. Where the bins that have no such budget keep
    to it, these are the bins; else see `best_fit_two`.
    """

    length: int
    window: int = 4096
    cuts: bool = False
    max_images: int | None = None
    multiple: int | None = None
    """Room for each sample to be padded to a multiple of this: see hpcdata.loading.context_parallel."""
    balance: str | None = None
    """`squares`: ranks get about the same sum of squared lengths of samples."""
    carries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(length=self.length, window=self.window, max_images=1 if self.max_images is None else self.max_images)
        check_multiple(self.length, self.multiple)
        check_balance(self.balance)

    def __repr__(self) -> str:
        return describe(self)

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        if self.multiple is not None:
            lengths = -(-lengths // self.multiple) * self.multiple
        units, capacity = in_units(lengths, self.length)
        bins, budget = self._bins(*_rows(units, capacity)), self.max_images
        if images is not None and budget is not None and bins.totals(images).max(initial=0) > budget:
            bins = self._bins(*rows_of(best_fit_two(units, capacity, images, budget)))
        return bins.with_squares(lengths) if self.balance else bins

    def _bins(self, sample: np.ndarray, first_row: np.ndarray) -> Bins:
        return Bins(sample=sample, first_row=first_row, width=np.full(len(first_row) - 1, self.length))


@dataclass(frozen=True, kw_only=True)
class Concat:
    """The samples of a window end to end, cut every `length` ids; only the last bin of a window has padding, and with a
    `multiple` what follows a sample. An id that would be left over for it takes the one before it along: alone in a row
    it teaches nothing, and a rank with that row alone would have no loss. (Rows of three ids have no room for that.)
    """

    length: int
    window: int = 4096
    cuts: bool = True
    multiple: int | None = None
    """Room for each piece to be padded to a multiple of this: see hpcdata.loading.context_parallel."""
    balance: str | None = None
    """`squares`: ranks get about the same sum of squared lengths of pieces."""
    max_images: ClassVar[None] = None
    carries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(length=self.length, window=self.window)
        check_multiple(self.length, self.multiple)
        check_balance(self.balance)

    def __repr__(self) -> str:
        return describe(self)

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        if grids.any():
            raise UserError("Concat cuts samples anywhere, and images must not be cut: use BestFit, or layout text")
        rooms = lengths if self.multiple is None else -(-lengths // self.multiple) * self.multiple
        ends = np.cumsum(rooms)
        total = int(ends[-1]) if len(ends) else 0
        edges = self._edges(total, ends, lengths)
        cuts = np.unique(np.concatenate([(ends - rooms)[lengths > 0], edges]))
        sample = np.searchsorted(ends, cuts, side="right")
        start = cuts - (ends - rooms)[sample]
        bins = Bins(
            sample=sample,
            first_row=np.append(np.searchsorted(cuts, edges), len(cuts)),
            width=np.full(len(edges), self.length),
            start=start,
            length=np.minimum(np.diff(cuts, append=total), lengths[sample] - start),
        )
        return bins.with_squares(lengths) if self.balance else bins

    def _edges(self, total: int, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Where bins begin. ends: of the rooms of samples."""
        edges, unit = np.arange(0, total, self.length), self.multiple or 1
        if len(edges) < 2 or self.length < 3 * unit:
            return edges
        last = int(np.flatnonzero(lengths)[-1])
        start = int(ends[last]) - -(-int(lengths[last]) // unit) * unit
        if start < edges[-1] and start + lengths[last] - edges[-1] == 1:
            edges[-1] -= unit
        return edges


def _rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(sample, first_row) of best fit bins of one budget."""
    compiled = kernels()
    if compiled is None:
        return rows_of(best_fit(lengths, capacity))
    return compiled.best_fit(lengths, capacity)
