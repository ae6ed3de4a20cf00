"""Best-fit-decreasing: which bin each sample of a window gets, as a pure function of their lengths and costs.

`best_fit` has one budget a bin, its length. `best_fit_two` has two: the length, and what else samples cost, such as
images or crops. Bins are numbered in the order in which they were filled; `rows_of` brings them into their final order.

Both fill one bin after the other, and fill as many bins alike as there are samples for. So the work grows with the
number of bins that are different, and lengths are rounded up a little to make many of them equal.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from hpcdata.native.arrays import totals_before

_UNITS_OF_MEAN = 384
"""Lengths are rounded up to units of this part of their mean: it costs about 0.1 % of the room."""
_NUM_PAIRS = 6
"""Pairs that are looked at before a bin is closed."""
_MAX_COSTS = 64
"""Costs are rounded up to as many different ones."""
_BITS_OF_WEIGHT = 24


def in_units(lengths: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """(lengths, capacity of a bin) in units: rounded up, but one that fits by itself still does."""
    mean = int(lengths.sum()) // max(1, int(np.count_nonzero(lengths)))
    unit = max(1, mean // _UNITS_OF_MEAN)
    capacity = length // unit
    return np.minimum(-(-lengths // unit), capacity), capacity


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """bin_of: [num_samples] int64, -1 for samples of length 0; no length is greater than `capacity`.

    A bin takes the longest samples that fit; where that would close it with room left, the last of them makes way for
    the pair that fits best.
    """
    counts = np.bincount(lengths, minlength=1)
    by_length = _sorting(lengths, capacity)[counts[0] :]
    counts[0] = 0
    bin_of = np.full(len(lengths), -1, np.int64)
    bin_of[by_length] = _spread(_contents(counts, capacity), capacity)
    return bin_of


def best_fit_two(lengths: np.ndarray, capacity: int, costs: np.ndarray, budget: int) -> np.ndarray:
    """As `best_fit`, where the samples of a bin also cost at most `budget` together; none costs more by itself.

    A bin takes, one by one, the sample that fits and has the greatest product with the room that is left, each side as
    a share of its budget and weighted by what the samples that have no bin yet need of it. So what is scarce is used
    evenly, and samples that need much of one budget meet samples that need little of it. Between equal products the
    smaller cost wins.
    """
    used = np.flatnonzero(lengths)
    costs, budget = _few_costs(costs[used], budget)
    kinds, kind_of, count = np.unique(costs * (capacity + 1) + lengths[used], return_inverse=True, return_counts=True)
    left = _Left(kinds // (capacity + 1), kinds % (capacity + 1), count)
    bin_of = np.full(len(lengths), -1, np.int64)
    placed = left.place_all(capacity, budget)
    bin_of[used[_sorting(kind_of.reshape(-1), len(kinds))]] = _spread(placed, len(kinds))
    return bin_of


def rows_of(bin_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _spread(placed: np.ndarray, most: int) -> np.ndarray:
    """The bins of all samples, sorted by kind. placed: [n, 4] int64: a kind (at most `most`), how many of it in a bin,
    the first bin, how many bins are alike.
    """
    _, per_bin, first_bin, num_alike = placed[_sorting(placed[:, 0], most)].T
    total = per_bin * num_alike
    within = np.arange(int(total.sum())) - np.repeat(np.cumsum(total) - total, total)
    return np.repeat(first_bin, total) + within // np.repeat(per_bin, total)


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


def _few_costs(costs: np.ndarray, budget: int) -> tuple[np.ndarray, int]:
    """(costs, budget) in units: exact where they have a common divisor, rounded up where many are different."""
    divisor = max(1, int(np.gcd.reduce(costs, initial=0)))
    costs, budget = costs // divisor, budget // divisor
    unit = max(1, -(-int(costs.max(initial=0)) // _MAX_COSTS))
    return np.minimum(-(-costs // unit), budget // unit), budget // unit


class _Kind(NamedTuple):
    """Samples of one length and cost."""

    cost: int
    length: int


class _Left:
    """The samples that have no bin yet: for each cost the lengths that are left, ascending."""

    def __init__(self, costs: np.ndarray, lengths: np.ndarray, count: np.ndarray) -> None:
        """Of each kind, in ascending order: its cost, its length, and how many samples are of it."""
        kinds = [_Kind(*pair) for pair in zip(costs.tolist(), lengths.tolist(), strict=True)]
        self._number = {kind: number for number, kind in enumerate(kinds)}
        self._count = dict(zip(kinds, count.tolist(), strict=True))
        self._lengths: dict[int, list[int]] = {}
        for kind in kinds:
            self._lengths.setdefault(kind.cost, []).append(kind.length)
        self._length, self._cost = int((lengths * count).sum()), int((costs * count).sum())

    def place_all(self, capacity: int, budget: int) -> np.ndarray:
        """[n, 4] int64: see `_spread`."""
        placed: list[tuple[int, int, int, int]] = []
        num_bins = 0
        while self._length:
            content = self._take_best(capacity, budget)
            num_alike = 1 + self._take_alike(content)
            for kind, number in content.items():
                placed.append((self._number[kind], number, num_bins, num_alike))
                self._length -= number * num_alike * kind.length
                self._cost -= number * num_alike * kind.cost
            num_bins += num_alike
        return np.array(placed, np.int64).reshape(-1, 4)

    def _take_best(self, room: int, budget: int) -> dict[_Kind, int]:
        """The content of one bin, whose samples are taken."""
        weight, cost_weight = _weights(self._length, room, self._cost, budget)
        content: dict[_Kind, int] = {}
        while (kind := self._best(room, budget, room * weight, budget * cost_weight)) is not None:
            content[kind] = content.get(kind, 0) + 1
            self._take(kind, 1)
            room, budget = room - kind.length, budget - kind.cost
        return content

    def _best(self, room: int, budget: int, per_length: int, per_cost: int) -> _Kind | None:
        """The kind that fits and is worth most. Of each cost only the longest that fits can be it."""
        most, found = -1, None
        for cost, lengths in self._lengths.items():
            if cost > budget:
                break
            at = bisect_right(lengths, room)
            if at:
                worth = lengths[at - 1] * per_length + cost * per_cost
                if worth > most:
                    most, found = worth, (cost, lengths[at - 1])
        return None if found is None else _Kind(*found)

    def _take_alike(self, content: dict[_Kind, int]) -> int:
        """Takes the samples of as many more bins of this content as there are; how many."""
        num_more = min(self._count[kind] // number for kind, number in content.items())
        for kind, number in content.items():
            if num_more:
                self._take(kind, num_more * number)
        return num_more

    def _take(self, kind: _Kind, number: int) -> None:
        self._count[kind] -= number
        if not self._count[kind]:
            lengths = self._lengths[kind.cost]
            del lengths[bisect_left(lengths, kind.length)]
            if not lengths:
                del self._lengths[kind.cost]


def _weights(length: int, capacity: int, cost: int, budget: int) -> tuple[int, int]:
    """What a unit of length, and of cost, is worth for each unit of it that is free in a bin: integers, so that they
    are the same on every machine. The bins that all samples need of a budget, by the square of the budget.
    """
    weight, cost_weight = length * budget**3, cost * capacity**3
    shift = max(0, max(weight, cost_weight).bit_length() - _BITS_OF_WEIGHT)
    return max(1, weight >> shift), cost_weight >> shift
