"""The batches of steps that give every sample a row. For the other way see packed_batches.py."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.block_prefetch import SourcesAhead
from hpcdata.loading.layouts.baked_rows import baked_rows
from hpcdata.loading.layouts.base import Batch, Layout, MakeBatch
from hpcdata.loading.widths import widths_of_steps
from hpcdata.native.threads import Later
from hpcdata.order.draws import Draws
from hpcdata.order.steps import Mark, RowSteps, Share, Steps
from hpcdata.order.streams import Stream

Make = Callable[[Later | None], Batch]

_SPANS_AHEAD = 4096
"""Rows whose spans are looked up at a time."""
_LENGTHS_AHEAD = 65_536
"""The same of rows whose lengths alone are wanted: those of all ranks."""


class TokenSteps(Steps, Protocol):
    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        """What makes the batch of the share, and what finds the sources of its samples: later, and in any thread."""
        ...


class PlainSteps(RowSteps):
    """Every sample a row."""

    def __init__(self, dataset: TokenDataset, stream: Stream, layout: Layout, size: int, *, drop_last: bool) -> None:
        super().__init__(stream, size, drop_last=drop_last)
        self.dataset, self.layout, self._baked = dataset, layout, baked_rows(dataset, layout)
        self._blocks = SourcesAhead(dataset if self._baked is None else self._baked, stream)
        self._ahead: _Ahead | None = None
        self._widths: _Widths | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was looked up belongs to the process that has the dataset mapped."""
        return {**vars(self), "_ahead": None, "_widths": None}

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        ahead = self._ahead
        if ahead is None or not ahead.has(epoch, step, share):
            ahead = self._ahead = self._look_ahead(epoch, step, share)
        batch, first, stop = ahead.step(step, self._prepare)
        width = None
        if self.layout.pad != "max_len" and share.world_size > 1:
            width = self._width(epoch, step)
        return lambda later: batch(first, stop, later, width), lambda: ahead.source(step)

    @property
    def are_baked(self) -> bool:
        """Whether rows are copied as they are stored."""
        return self._baked is not None

    def restore(self, epoch: int, mark: Mark) -> None:
        self._ahead = self._widths = None

    def _width(self, epoch: int, step: int) -> int:
        """Of the whole global batch: a width that depended on the world size would change what a model sees."""
        known = self._widths
        if known is None or not known.has(epoch, step):
            num_rows = self.size if known is None else min(_LENGTHS_AHEAD, 4 * self.size * len(known.widths))
            known = self._widths = self._look_up_widths(epoch, step, num_rows)
        return known.widths[step - known.first_step]

    def _look_up_widths(self, epoch: int, step: int, num_rows: int) -> _Widths:
        """Of this step and those behind it, as far as `num_rows` go."""
        positions, edges = self.ahead(epoch, step, Share(), num_rows)
        draws = partial(self.stream.draws, epoch)
        return _Widths(epoch, step, widths_of_steps(self.dataset, self.layout, draws, positions, edges))

    def _prepare(self, draws: Draws, *, is_asked: bool) -> MakeBatch:
        """`is_asked`: whether the kernel reads the samples already."""
        if self._baked is not None:
            return self._baked.prepare(draws.rows, is_asked=is_asked)
        table = self.dataset.spans(draws.rows)
        if not is_asked:
            self.dataset.will_need(table)
        return self.layout.prepare(self.dataset, table, self.layout.seeds_of(draws))

    def _look_ahead(self, epoch: int, step: int, share: Share) -> _Ahead:
        positions, edges = self.ahead(epoch, step, share)
        is_asked = (
            self._blocks.reach(epoch, int(positions.min()), int(positions.max()) + 1) if len(positions) else False
        )
        draws = self.stream.draws(epoch, positions)
        most = min(_SPANS_AHEAD, self.dataset.most_ahead)
        num_spans = 1 if self._ahead is None else most  # the first batch is waited for
        return _Ahead(epoch, step, share, draws, edges.tolist(), num_spans, most, is_asked)


class _Widths(NamedTuple):
    """The columns of the batches of consecutive steps, by the lengths of their global batches."""

    epoch: int
    first_step: int
    widths: list[int]

    def has(self, epoch: int, step: int) -> bool:
        return self.epoch == epoch and 0 <= step - self.first_step < len(self.widths)


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
        most: int,
        is_asked: bool,
    ) -> None:
        """`num_spans`: rows whose spans are looked up first; then up to `most`. `is_asked`: the kernel reads them."""
        self._epoch, self._first_step, self._share, self._draws, self._edges = epoch, first_step, share, draws, edges
        self._batch: MakeBatch | None = None
        self._start = self._stop = 0
        self._num_spans_ahead, self._most, self._is_asked = num_spans, most, is_asked

    def has(self, epoch: int, step: int, share: Share) -> bool:
        is_mine = share is self._share or share == self._share  # the first is faster, and nearly always so
        return is_mine and self._epoch == epoch and 0 <= step - self._first_step < len(self._edges) - 1

    def source(self, step: int) -> np.ndarray:
        return self._draws.source[self._rows(step)]

    def step(self, step: int, prepare: Callable[..., MakeBatch]) -> tuple[MakeBatch, int, int]:
        """What makes batches, and the rows of it that the step is."""
        at = step - self._first_step
        start, stop = self._edges[at], self._edges[at + 1]
        if self._batch is None or not self._start <= start <= stop <= self._stop:
            last = max(at + 1, bisect.bisect_right(self._edges, start + self._num_spans_ahead) - 1)
            draws = self._draws.take(slice(start, self._edges[last]))
            prepared = prepare(draws, is_asked=self._is_asked)
            self._batch, self._start, self._stop = prepared, start, self._edges[last]  # all, or as it was before
            self._num_spans_ahead = min(self._most, 4 * (self._edges[last] - start))
        return self._batch, start - self._start, stop - self._start

    def _rows(self, step: int) -> slice:
        at = step - self._first_step
        return slice(self._edges[at], self._edges[at + 1])
