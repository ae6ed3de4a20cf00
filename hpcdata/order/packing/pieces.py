"""The bins of a step, as pieces of packed windows, and which of them a rank gets."""

from __future__ import annotations

import heapq
from typing import Protocol, TypeVar

import numpy as np

from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.steps import Share


class Window(Protocol):
    """A packed window, whatever else a loader knows of it."""

    bins: Bins

    @property
    def draws(self) -> Draws:
        """Of the rows of its bins, bin after bin."""
        ...


W = TypeVar("W", bound=Window)
Piece = tuple[W, int, int]
"""Bins of a window: the first, and the one behind the last."""


def draws_of(pieces: list[Piece[W]]) -> Draws:
    """The samples of some bins of windows."""
    found = []
    for window, first, stop in pieces:
        rows = slice(*window.bins.first_row[[first, stop]].tolist())
        found.append(window.draws.take(rows))
    return Draws.join(found)


def balanced(pieces: list[Piece[W]], share: Share) -> list[Piece[W]] | None:
    """Of the bins of a step those of the share, by what they cost; None where that is not asked for."""
    costs = [window.bins.cost[first:stop] for window, first, stop in pieces if window.bins.cost is not None]
    if not costs:
        return None
    wanted, found, before = rows_of_ranks(np.concatenate(costs), share.world_size)[share.rank], [], 0
    for window, first, stop in pieces:
        bins = wanted[(before <= wanted) & (wanted < before + stop - first)] - before + first
        runs = np.split(bins, np.flatnonzero(np.diff(bins) > 1) + 1)
        found += [(window, int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
        before += stop - first
    return found


def rows_of_ranks(costs: np.ndarray, num_ranks: int) -> list[np.ndarray]:
    """costs: [num_rows] of a step -> int64, the rows of each rank, ascending, so that all have about the same to
    compute. How many each has is its share: the numbers differ by at most one.

    Packed rows have equal numbers of tokens, but attention within a segment of n tokens costs n^2: a row of one long
    document costs several times what a row of short ones does, and all ranks wait for the slowest.

    The most expensive first, each to the rank that has least so far and still has room (Graham's "longest processing
    time"); of equal ones the first row, and the first rank.
    """
    edges = [Share(rank=rank, world_size=num_ranks).of(0, len(costs)) for rank in range(num_ranks)]
    ranks = [(0, rank) for rank, (first, stop) in enumerate(edges) if first < stop]
    rows: list[list[int]] = [[] for _ in range(num_ranks)]
    values = costs.tolist()
    for row in np.argsort(-costs, kind="stable").tolist():
        total, rank = heapq.heappop(ranks)
        rows[rank].append(row)
        if len(rows[rank]) < edges[rank][1] - edges[rank][0]:
            heapq.heappush(ranks, (total + values[row], rank))
    return [np.sort(np.array(of_rank, np.int64)) for of_rank in rows]
