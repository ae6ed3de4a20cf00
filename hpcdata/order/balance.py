"""Which rank gets which rows of a step, so that all have about the same to compute: a pure function of what rows cost.

Packed rows have equal numbers of tokens, but attention within a segment of n tokens costs n^2: a row of one long
document costs several times what a row of short ones does, and all ranks wait for the slowest. A rank gets as many rows
as any other, in the order in which they stand in the step. The rows of a step are the same on any number of ranks.
"""

from __future__ import annotations

import heapq

import numpy as np


def rows_of_ranks(costs: np.ndarray, num_ranks: int) -> np.ndarray:
    """costs: [num_rows] of a step -> [num_ranks, num_rows / num_ranks] int64, the rows of each rank, ascending.

    The most expensive first, each to the rank that has least so far and still has room (Graham's "longest processing
    time"); of equal ones the first row, and the first rank.
    """
    room = len(costs) // num_ranks
    ranks = [(0, rank) for rank in range(num_ranks)]
    rows: list[list[int]] = [[] for _ in range(num_ranks)]
    values = costs.tolist()
    for row in np.argsort(-costs, kind="stable").tolist():
        total, rank = heapq.heappop(ranks)
        rows[rank].append(row)
        if len(rows[rank]) < room:
            heapq.heappush(ranks, (total + values[row], rank))
    return np.sort(np.array(rows, np.int64), axis=1)
