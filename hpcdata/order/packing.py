"""Which samples share a row: pure functions of the lengths of one window of the canonical order.

    BestFit(length=4096)     whole samples, best-fit-decreasing: rows nearly full, nothing cut
    Concat(length=4096)      documents end to end, cut where a row ends: language data
    Buckets(multiple=128)    one sample a row, batches of samples that are about equally long and of one image grid

BestFit leaves under 1 % of the room where lengths differ. Samples of nearly one length leave what their multiples
leave: captions of 10 to 80 ids, each with an image of 256, fill 4,096 columns to 0.98 in any order, as 13 or 14 of them
fit and nothing shorter is there to fill the rest.

A window is a fixed number of consecutive samples. Its rows depend on nothing else, so any window can be computed alone:
that is what makes packing exact after a restart, and equal on every rank.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.arrays import totals_before
from hpcdata.native.compiled import kernels
from hpcdata.order.bins import Bins

_UNITS_OF_MEAN = 384
"""Lengths are rounded up to units of this part of their mean: it costs about 0.1 % of the room."""
_NUM_PAIRS = 6
"""Pairs that are looked at before a bin is closed."""


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

    def place(self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int) -> Bins:
        """The bins of a window, all that are `bins_per_step` to a step; sequences of length 0 are in none.

        lengths, grids: [num_samples], of its sequences and of their first images.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BestFit:
    """Whole samples, the longest first, so that they leave the least room. Bins stand in the order of their samples."""

    length: int
    window: int = 4096
    cuts: bool = False

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window)

    def place(self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int) -> Bins:
        mean = int(lengths.sum()) // max(1, int(np.count_nonzero(lengths)))
        unit = max(1, mean // _UNITS_OF_MEAN)
        capacity, compiled = self.length // unit, kernels()
        lengths = np.minimum(-(-lengths // unit), capacity)
        if compiled is None:
            sample, first_row = _rows_of(best_fit_decreasing(lengths, capacity))
        else:
            sample, first_row = compiled.best_fit(lengths, capacity)
        return Bins(sample=sample, first_row=first_row, width=np.full(len(first_row) - 1, self.length))


@dataclass(frozen=True, kw_only=True)
class Concat:
    """The samples of a window end to end, cut every `length` ids; only the last bin of a window has padding."""

    length: int
    window: int = 4096
    cuts: bool = True

    def __post_init__(self) -> None:
        _check(length=self.length, window=self.window)

    def place(self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int) -> Bins:
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

    def __post_init__(self) -> None:
        _check(multiple=self.multiple, window=self.window)

    def place(self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int) -> Bins:
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


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """bin_of: [num_samples] int64, -1 for samples of length 0; no length is greater than `capacity`.

    One bin after the other takes the longest samples that fit; where that would close it with room left, the last of
    them makes way for the pair that fits best. As many bins are filled alike as there are samples for: lengths were
    rounded up a little, so that many are equal. The work grows with the number of bins that are different.
    """
    counts = np.bincount(lengths, minlength=1)
    by_length = _sorting(lengths, capacity)[counts[0] :]
    counts[0] = 0
    placed = _contents(counts, capacity)
    _, per_bin, first_bin, num_alike = placed[_sorting(placed[:, 0], capacity)].T
    total = per_bin * num_alike
    within = np.arange(int(total.sum())) - np.repeat(np.cumsum(total) - total, total)
    bin_of = np.full(len(lengths), -1, np.int64)
    bin_of[by_length] = np.repeat(first_bin, total) + within // np.repeat(per_bin, total)
    return bin_of


def _rows_of(bin_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sample, first_row) of a placement: bins in the order of their first samples."""
    num_bins = int(bin_of.max(initial=-1)) + 1
    sample = np.flatnonzero(bin_of >= 0)
    bins = bin_of[sample]
    first_seen = np.full(num_bins, len(bin_of))
    first_seen[bins[::-1]] = sample[::-1]
    rank = np.empty(num_bins, np.int64)
    rank[_sorting(first_seen, len(bin_of))] = np.arange(num_bins)
    ranks = rank[bins]
    first_row = totals_before(np.bincount(ranks, minlength=num_bins))
    return sample[_sorting(ranks, num_bins)], first_row


def _sorting(values: np.ndarray, most: int) -> np.ndarray:
    """Stable argsort of integers from 0 to `most`: numpy has one in linear time for 16 bits."""
    return np.argsort(values.astype(np.uint16) if most < 2**16 else values, kind="stable")


def _contents(counts: np.ndarray, capacity: int) -> np.ndarray:
    """[n, 4] int64: a length, how many of it in a bin, the first bin, how many bins are alike."""
    values, count = np.flatnonzero(counts).tolist(), counts.tolist()
    used: list[int] = []
    num_bins = 0
    while values:
        content = _best_content(values, count, capacity)
        repeats = min([count[length] // number for length, number in content.items()])
        for length, number in content.items():
            used += (length, number, num_bins, repeats)
            left = count[length] = count[length] - number * repeats
            if not left:
                del values[bisect_left(values, length)]
        num_bins += repeats
    return np.array(used, np.int64).reshape(-1, 4)


def _best_content(values: list[int], count: list[int], capacity: int) -> dict[int, int]:
    """Lengths and how often they are in the next bin. `values` are ascending, and there are `count` of each."""
    content: dict[int, int] = {}
    room, above, least = capacity, len(values), values[0]
    while above and room >= least:
        above = bisect_right(values, room, 0, above) - 1
        length = values[above]
        number = room // length
        if number > count[length]:
            number = count[length]
        content[length] = number
        room -= number * length
        if 0 < room < least:
            pair = _closing_pair(values, count, content, room + length, length)
            if pair is not None:
                content[length] -= 1
                for last in pair:
                    content[last] = content.get(last, 0) + 1
                return {length: number for length, number in content.items() if number}
    return content


def _closing_pair(
    values: list[int], count: list[int], content: dict[int, int], room: int, instead_of: int
) -> tuple[int, int] | None:
    """The pair near the middle that leaves the least room, if it is less than `instead_of` leaves."""
    least, found = room - instead_of, None
    half = bisect_right(values, room // 2) - 1
    for place in range(half, max(-1, half - _NUM_PAIRS), -1):
        small = values[place]
        large = values[bisect_right(values, room - small) - 1]
        if (
            room - small - large < least
            and count[small] - content.get(small, 0) > (small == large)
            and count[large] > content.get(large, 0)
        ):
            least, found = room - small - large, (small, large)
            if not least:
                break
    return found


def _check(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise UserError(f"packing: {name}={value}, expected at least 1")
