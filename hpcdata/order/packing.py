"""Which samples share a row: pure functions of the lengths of one window of the canonical order.

    BestFit(length=4096)                  whole samples, best-fit-decreasing: rows nearly full, nothing cut
    BestFit(length=4096, max_images=8)    the same with two budgets: no row has more images
    BestFit(length=4096, balance="squares")  and ranks get rows that cost about the same to train on
    Concat(length=4096)                   documents end to end, cut where a row ends: language data
    Buckets(multiple=128)                 one sample a row, batches of samples of about one length and one image grid

A bin of a batch is never empty. What does not fill a batch at the end of an epoch: see hpcdata.order.window_steps.

BestFit leaves under 1 % of the room where lengths differ. Samples of nearly one length leave what their multiples
leave: captions of 10 to 80 ids, each with an image of 256, fill 4,096 columns to 0.98 in any order, as 13 or 14 of them
fit and nothing shorter is there to fill the rest. With two budgets, one is filled to more than 0.96 as measured: the
one that is scarce.

`balance` chooses which rank gets which rows of a step: see hpcdata.order.steps. A step has the same rows without it.

A window is a fixed number of consecutive samples. Its rows depend on nothing else (with Buckets: and on how many
samples of each grid wait), so any window can be computed alone: that is what makes packing exact after a restart, and
equal on every rank.
"""

from __future__ import annotations

import dataclasses
import re
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

    @property
    def carries(self) -> bool:
        """Whether what `place` leaves out is placed with the next window: the last sequences of each grid."""
        ...

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        """The bins of a window; sequences of length 0 are in none.

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
    multiple: int | None = None
    """Room for each sample to be padded to a multiple of this: see hpcdata.loading.context_parallel."""
    balance: str | None = None
    """`squares`: ranks get about the same sum of squared lengths of samples."""
    carries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window, max_images=1 if self.max_images is None else self.max_images)
        _check(multiple=1 if self.multiple is None else self.multiple)
        _check_balance(self.balance)
        if self.length % (self.multiple or 1):
            raise UserError(f"packing: length={self.length} is no multiple of multiple={self.multiple}")

    def __repr__(self) -> str:
        return _describe(self)

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
    """The samples of a window end to end, cut every `length` ids; only the last bin of a window has padding."""

    length: int
    window: int = 4096
    cuts: bool = True
    balance: str | None = None
    """`squares`: ranks get about the same sum of squared lengths of pieces."""
    max_images: ClassVar[None] = None
    carries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window)
        _check_balance(self.balance)

    def __repr__(self) -> str:
        return _describe(self)

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
        bins = Bins(
            sample=sample,
            first_row=np.append(np.searchsorted(cuts, edges), len(cuts)),
            width=np.full(len(edges), self.length),
            start=cuts - (ends - lengths)[sample],
            length=np.diff(cuts, append=total),
        )
        return bins.with_squares(lengths) if self.balance else bins


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """One sample a bin. The samples of a window that have one image grid make batches, of neighbours in length: as wide
    as the longest of them, rounded up to `multiple`.

    `carry`: samples that do not fill a batch wait for the next ones of their grid, in the windows behind; every row of
    a batch is a sample. `pad`: batches are of one length, and empty bins fill up the last of each length: ranks may get
    no sample. It is there to go on with runs that began so.
    """

    multiple: int = 128
    window: int = 16384
    cuts: bool = False
    length: None = None
    rest: str = "carry"
    max_images: ClassVar[None] = None

    def __post_init__(self) -> None:
        _check(multiple=self.multiple, window=self.window)
        if self.rest not in ("carry", "pad"):
            raise UserError(f"packing: rest={self.rest!r}, expected carry or pad")

    def __repr__(self) -> str:
        """Part of the state of a loader: with `pad`, the same as before there was anything else."""
        rest = "" if self.rest == "pad" else f", rest={self.rest!r}"
        return f"Buckets(multiple={self.multiple}, window={self.window}, cuts=False, length=None{rest})"

    @property
    def carries(self) -> bool:
        return self.rest == "carry"

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        if self.carries:
            return _full_buckets(lengths, grids, bins_per_step, self.multiple)
        return _padded_buckets(lengths, grids, bins_per_step, self.multiple)


def last_buckets(lengths: np.ndarray, grids: np.ndarray, multiple: int) -> tuple[Bins, np.ndarray]:
    """A batch for each grid, the largest first; (bins, first_bin), [num_batches + 1], where they begin."""
    sample, of_grid, sizes = _by_grid(lengths, grids)
    first_seen = np.full(len(sizes), len(lengths))
    np.minimum.at(first_seen, of_grid, sample)
    by_size = np.lexsort((sample, first_seen[of_grid], -sizes[of_grid]))
    widths = np.zeros(len(sizes), np.int64)
    np.maximum.at(widths, of_grid, -(-lengths[sample] // multiple) * multiple)
    edges = totals_before(sizes[np.lexsort((first_seen, -sizes))])
    bins = Bins(sample=sample[by_size], first_row=np.arange(len(sample) + 1), width=widths[of_grid[by_size]])
    return bins, edges


def find_packing(packing: int | str | Packing | None, length: int | None = None) -> Packing | None:
    """A number is the length of best-fit bins. A name has one behind it, or takes `length`: `bestfit:4096`, `concat`,
    `buckets:128` (the multiple).
    """
    if isinstance(packing, int):
        return BestFit(length=packing)
    if not isinstance(packing, str):
        return packing
    match = re.fullmatch(r"(bestfit|concat|buckets)(?::([1-9]\d*))?", packing)
    if not match:
        raise UserError(f"packing {packing!r}: expected bestfit:4096, concat:4096, buckets or buckets:128")
    name, number = match[1], int(match[2]) if match[2] else None
    if name == "buckets":
        return Buckets() if number is None else Buckets(multiple=number)
    columns = number or length
    if columns is None:
        raise UserError(f"packing {packing!r} needs the columns of a row: {name}:4096, or a layout with max_length")
    return BestFit(length=columns) if name == "bestfit" else Concat(length=columns)


def _rows(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """(sample, first_row) of best fit bins of one budget."""
    compiled = kernels()
    if compiled is None:
        return rows_of(best_fit(lengths, capacity))
    return compiled.best_fit(lengths, capacity)


def _describe(packing: BestFit | Concat) -> str:
    """Part of the state of a loader: what is None is left out, as it was before there was such an option."""
    values = {field.name: getattr(packing, field.name) for field in dataclasses.fields(packing)}
    given = ", ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)
    return f"{type(packing).__name__}({given})"


def _check_balance(balance: str | None) -> None:
    if balance not in (None, "squares"):
        raise UserError(f"packing: balance={balance!r}, expected squares or None")


def _check(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise UserError(f"packing: {name}={value}, expected at least 1")


def _full_buckets(lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, multiple: int) -> Bins:
    """Batches without an empty bin, in the order of their first samples. The last samples of each grid that do not
    fill one are in no bin.
    """
    sample, of_grid, sizes = _by_grid(lengths, grids)
    kept = np.arange(len(sample)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(
        sizes - sizes % bins_per_step, sizes
    )
    sample, of_grid = sample[kept], of_grid[kept]
    by_length = sample[np.lexsort((-(-lengths[sample] // multiple), of_grid))].reshape(-1, bins_per_step)
    batches = np.sort(by_length, axis=1)
    batches = batches[np.argsort(batches[:, 0])]
    widths = -(-lengths[batches].max(axis=1, initial=0) // multiple) * multiple
    return Bins(
        sample=batches.reshape(-1), first_row=np.arange(batches.size + 1), width=np.repeat(widths, bins_per_step)
    )


def _padded_buckets(lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, multiple: int) -> Bins:
    """Batches of one length, rounded up; empty bins fill up the last of each grid and length."""
    sample = np.flatnonzero(lengths)
    keys = np.stack([grids[sample], -(-lengths[sample] // multiple)], axis=1)
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
    widths = found[bucket[by_bucket[first[order]]], 1] * multiple
    return Bins(
        sample=sample[by_bucket[at]],
        first_row=totals_before(is_full.reshape(-1)),
        width=np.repeat(widths, bins_per_step),
    )


def _by_grid(lengths: np.ndarray, grids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sample, of_grid, sizes): the samples that have ids, grid after grid, in their order; the number of its grid;
    how many each grid has.
    """
    sample = np.flatnonzero(lengths)
    found, of_grid = np.unique(grids[sample], return_inverse=True)
    of_grid = of_grid.reshape(-1)
    by_grid = np.argsort(of_grid, kind="stable")
    return sample[by_grid], of_grid[by_grid], np.bincount(of_grid, minlength=len(found))
