"""Which of consecutive intervals holds a value, for many values at once and without a search for each."""

from __future__ import annotations

import numpy as np

_BUCKETS = 8
"""Of each interval, on average."""
_FEW = 64
"""Edges that a binary search is as fast for."""
_MOST_STEPS = 4


class Intervals:
    """As `np.searchsorted(edges, values, side="right") - 1`. The range is cut into equal buckets: where a bucket begins
    says which interval it can be at least, and few steps lead to the right one. Where intervals are so unequal that
    they are many, it searches after all.
    """

    def __init__(self, edges: np.ndarray) -> None:
        """edges: [n + 1] int64, ascending from 0; empty intervals may be among them."""
        self._edges, self._steps = edges, _MOST_STEPS + 1
        if len(edges) <= _FEW or not edges[-1]:
            return
        self._shift = max(0, (int(edges[-1]) // (_BUCKETS * len(edges))).bit_length() - 1)
        starts = np.arange((int(edges[-1]) >> self._shift) + 2) << self._shift
        self._first = np.searchsorted(edges, starts, side="right") - 1
        self._steps = int(np.diff(self._first).max())

    def of(self, values: np.ndarray) -> np.ndarray:
        """values: [n] int64, from 0 to less than the last edge -> [n] int64."""
        if self._steps > _MOST_STEPS:
            return np.searchsorted(self._edges, values, side="right") - 1
        found = self._first.take(values >> self._shift)
        for _ in range(self._steps):
            found += values >= self._edges.take(found + 1, mode="clip")
        return found
