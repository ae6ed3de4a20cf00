"""Which samples share a row: pure functions of the lengths of one window of the canonical order.

    BestFit(length=4096)                  whole samples, best-fit-decreasing: rows nearly full, nothing cut
    BestFit(length=4096, max_images=8)    the same with two budgets: no row has more images
    Concat(length=4096)                   documents end to end, cut where a row ends: language data
    Buckets(multiple=128)                 one sample a row, batches of samples of about one length and one image grid

BestFit leaves under 1 % of the room where lengths differ. Samples of nearly one length leave what their multiples
leave: captions of 10 to 80 ids, each with an image of 256, fill 4,096 columns to 0.98 in any order, as 13 or 14 of them
fit and nothing shorter is there to fill the rest. With two budgets, one is filled to more than 0.96 as measured: the
one that is scarce.

A window is a fixed number of consecutive samples. Its rows depend on nothing else, so any window can be computed alone:
that is what makes packing exact after a restart, and equal on every rank.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.arrays import totals_before
from hpcdata.native.compiled import kernels
from hpcdata.order.best_fit import best_fit, best_fit_two, in_units, rows_of
from hpcdata.order.bins import Bins


class Packing(Protocol):
    @property
    def window(self) -> int:
        """Samples of a window."""
        ...

    @property
    def length(self) -> int | None:
        """Columns of every bin; None where they differ."""
        ...

    @property
    def cuts(self) -> bool:
        """Whether a sample may go on in another bin."""
        ...

    @property
    def max_images(self) -> int | None:
        """The most images of a bin; None where they are not counted."""
        ...

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        """The bins of a window, all that are `bins_per_step` to a step; sequences of length 0 are in none.

        lengths, grids: [num_samples], of its sequences and of their first images. images: [num_samples], how many each
        has, none more than `max_images`; only there where `max_images` is.
        """
        ...


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

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window, max_images=1 if self.max_images is None else self.max_images)

    def __repr__(self) -> str:
        """Part of the state of a loader: the same as before there were images."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return f"BestFit({', '.join(f'{name}={value!r}' for name, value in values.items() if value is not None)})"

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        lengths, capacity = in_units(lengths, self.length)
        bins, budget = self._bins(*_rows(lengths, capacity)), self.max_images
        if images is None or budget is None or bins.totals(images).max(initial=0) <= budget:
            return bins
        return self._bins(*rows_of(best_fit_two(lengths, capacity, images, budget)))

    def _bins(self, sample: np.ndarray, first_row: np.ndarray) -> Bins:
        return Bins(sample=sample, first_row=first_row, width=np.full(len(first_row) - 1, self.length))


@dataclass(frozen=True, kw_only=True)
class Concat:
    """The samples of a window end to end, cut every `length` ids; only the last bin of a window has padding."""

    length: int
    window: int = 4096
    cuts: bool = True
    max_images: ClassVar[None] = None

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window)

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        if grids.any():
            raise UserError("Concat cuts samples anywhere, and images must not be cut: use BestFit, or layout text")
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        edges = np.arange(0, total, self.length)
        cuts = np.unique(np.concatenate([(ends - lengths)[lengths > 0], edges]))
        sample = np.searchsorted(ends, cuts, side="right")
        return Bins(
            sample=sample,
            first_row=np.append(np.searchsorted(cuts, edges), len(cuts)),
            width=np.full(len(edges), self.length),
            start=cuts - (ends - lengths)[sample],
            length=np.diff(cuts, append=total),
        )


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """One sample a bin. The samples of a window that have one image grid and one length, rounded up to `multiple`,
    make batches of that width. The last batch of each bucket is filled up with empty bins, so the window should hold
    many batches for each bucket.
    """

    multiple: int = 128
    window: int = 16384
    cuts: bool = False
    length: None = None
    max_images: ClassVar[None] = None

    def __post_init__(self) -> None:
        _check(multiple=self.multiple, window=self.window)

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        sample = np.flatnonzero(lengths)
        keys = np.stack([grids[sample], -(-lengths[sample] // self.multiple)], axis=1)
        found, bucket = np.unique(keys, axis=0, return_inverse=True)
        bucket = bucket.reshape(-1)
        by_bucket = np.argsort(bucket, kind="stable")
        sizes = np.bincount(bucket, minlength=len(found))
        in_bucket = np.arange(len(sample)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        is_first = in_bucket % bins_per_step == 0
        first = np.flatnonzero(is_first)
        order = np.argsort(sample[by_bucket[first]])  # batches stand in the order of their first samples
        batch_sizes = np.diff(first, append=len(sample))[order]
        at = np.repeat(first[order] - (np.cumsum(batch_sizes) - batch_sizes), batch_sizes) + np.arange(len(sample))
        is_full = np.arange(bins_per_step) < batch_sizes[:, None]
        widths = found[bucket[by_bucket[first[order]]], 1] * self.multiple
        return Bins(
            sample=sample[by_bucket[at]],
            first_row=totals_before(is_full.reshape(-1)),
            width=np.repeat(widths, bins_per_step),
        )


def find_packing(packing: int | Packing | None) -> Packing | None:
    """A number is the length of best-fit bins."""
    return BestFit(length=packing) if isinstance(packing, int) else packing


def _rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(sample, first_row) of best fit bins of one budget."""
    compiled = kernels()
    if compiled is None:
        return rows_of(best_fit(lengths, capacity))
    return compiled.best_fit(lengths, capacity)


def _check(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise UserError(f"packing: {name}={value}, expected at least 1")
