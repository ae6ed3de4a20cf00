"""Batches of samples of one image grid and about one length, a sample a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.arrays import totals_before
from hpcdata.order.bins import Bins
from hpcdata.order.packing.base import check


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
        check(multiple=self.multiple, window=self.window)
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
