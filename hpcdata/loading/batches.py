"""The batches of steps that give every sample a row. For the other way see packed_batches.py."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.block_prefetch import SourcesAhead
from hpcdata.loading.layouts.base import Batch, Layout, MakeBatch
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.steps import Mark, RowSteps, Share, Steps
from hpcdata.order.streams import Stream

Make = Callable[[Later | None], Batch]

_SPANS_AHEAD = 4096
"""Rows whose spans are looked up at a time."""


class TokenSteps(Steps, Protocol):
    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        """What makes the batch of the share, and what finds the sources of its samples: later, and in any thread."""
        ...


class PlainSteps(RowSteps):
    """Every sample a row."""

    def __init__(self, dataset: TokenDataset, stream: Stream, layout: Layout, size: int, *, drop_last: bool) -> None:
        super().__init__(stream, size, drop_last=drop_last)
        self.dataset, self.layout, self._blocks = dataset, layout, SourcesAhead(dataset, stream)
        self._ahead: _Ahead | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was looked up belongs to the process that has the dataset mapped."""
        return {**vars(self), "_ahead": None}

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        ahead = self._ahead
        if ahead is None or not ahead.has(epoch, step, share):
            ahead = self._ahead = self._look_ahead(epoch, step, share)
        if self.layout.pad == "max_len" or share.world_size == 1:
            batch, first, stop = ahead.step(step, self.dataset, self.layout)
            return lambda later: batch(first, stop, later), lambda: ahead.source(step)
        draws = ahead.draws(step)

        def make(later: Later | None) -> Batch:
            lineup = self.layout.lineup(self.dataset.spans(draws.rows), self.layout.seeds_of(draws))
            self.layout.check_length(lineup.index, lineup.too_long)
            width, num_rows = self.layout.width(self._lengths(epoch, step)), lineup.num_rows
            arranged = self.layout.arrange(self.dataset, lineup, Bins.one_each(num_rows))
            return arranged.batch(0, num_rows, width, later)

        return make, lambda: draws.source

    def restore(self, epoch: int, mark: Mark) -> None:
        self._ahead = None

    def _lengths(self, epoch: int, step: int) -> np.ndarray:
        """Of the whole global batch: a width that depended on the world size would change what a model sees."""
        draws = self.draws(epoch, step, Share())
        return self.layout.lineup(self.dataset.spans(draws.rows), self.layout.seeds_of(draws)).length

    def _look_ahead(self, epoch: int, step: int, share: Share) -> _Ahead:
        positions, edges = self.ahead(epoch, step, share)
        is_asked = self._blocks.reach(epoch, int(positions[0]), int(positions[-1]) + 1) if len(positions) else False
        draws = self.stream.draws(epoch, positions)
        num_spans = 1 if self._ahead is None else _SPANS_AHEAD  # the first batch is waited for
        return _Ahead(epoch, step, share, draws, edges.tolist(), num_spans, is_asked)


class _Ahead:
    """The draws of one share of consecutive steps; of some of them, what makes their batches."""

    def __init__(
        self,
        epoch: int,
        first_step: int,
        share: Share,
        draws: Draws,
        edges: list[int],
        num_spans: int,
        is_asked: bool,
    ) -> None:
        """`num_spans`: rows whose spans are looked up first; then more. `is_asked`: whether the kernel reads them."""
        self._epoch, self._first_step, self._share, self._draws, self._edges = epoch, first_step, share, draws, edges
        self._batch: MakeBatch | None = None
        self._start = self._stop = 0
        self._num_spans_ahead, self._is_asked = num_spans, is_asked

    def has(self, epoch: int, step: int, share: Share) -> bool:
        is_mine = share is self._share or share == self._share  # the first is faster, and nearly always so
        return is_mine and self._epoch == epoch and 0 <= step - self._first_step < len(self._edges) - 1

    def draws(self, step: int) -> Draws:
        return self._draws.take(self._rows(step))

    def source(self, step: int) -> np.ndarray:
        return self._draws.source[self._rows(step)]

    def step(self, step: int, dataset: TokenDataset, layout: Layout) -> tuple[MakeBatch, int, int]:
        """What makes batches, and the rows of it that the step is."""
        at = step - self._first_step
        start, stop = self._edges[at], self._edges[at + 1]
        if self._batch is None or not self._start <= start <= stop <= self._stop:
            last = max(at + 1, bisect.bisect_right(self._edges, start + self._num_spans_ahead) - 1)
            draws = self._draws.take(slice(start, self._edges[last]))
            table = dataset.spans(draws.rows)
            if not self._is_asked:
                dataset.will_need(table)
            prepared = layout.prepare(dataset, table, layout.seeds_of(draws))
            self._batch, self._start, self._stop = prepared, start, self._edges[last]  # all, or as it was before
            self._num_spans_ahead = min(_SPANS_AHEAD, 4 * (self._edges[last] - start))
        return self._batch, start - self._start, stop - self._start

    def _rows(self, step: int) -> slice:
        at = step - self._first_step
        return slice(self._edges[at], self._edges[at + 1])
