"""The steps of an epoch: which samples a step consists of, and the arrays of one rank's share of it.

`PlainSteps` gives every sample a row: step s is positions s * size onwards. For the other way see packed.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcdata.loading.layouts.base import Batch, Layout, MakeBatch
from hpcdata.loading.streams import Stream
from hpcdata.native.arrays import ragged, totals_before
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws

Make = Callable[[Later | None], Batch]

_ROWS_AHEAD = 16_384
"""Rows of the order that are computed at a time."""
_SPANS_AHEAD = 4096
"""Rows whose spans are looked up at a time."""


class Mark(NamedTuple):
    """A window of an epoch and its first bin."""

    window: int = 0
    first_bin: int = 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a rank gets of a step: the `rank`-th of `world_size` shares that differ by at most one."""

    rank: int = 0
    world_size: int = 1

    def of(self, start: int, stop: int) -> tuple[int, int]:
        size = stop - start
        return start + size * self.rank // self.world_size, start + size * (self.rank + 1) // self.world_size

    def of_each(self, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of many: [n] each."""
        sizes = stops - starts
        return starts + sizes * self.rank // self.world_size, starts + sizes * (self.rank + 1) // self.world_size


class Steps(Protocol):
    stream: Stream

    def num_steps(self, epoch: int) -> int | None:
        """Steps of an epoch, None if it has no end."""
        ...

    def has_step(self, epoch: int, step: int) -> bool: ...

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        """The samples of the share, in the order of its batch."""
        ...

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        """What makes the batch of the share, and what finds the sources of its samples: later, and in any thread."""
        ...

    def mark(self, epoch: int, step: int) -> Mark: ...

    def restore(self, epoch: int, mark: Mark) -> None: ...


class PlainSteps:
    """Every sample a row."""

    def __init__(self, stream: Stream, layout: Layout, size: int, *, drop_last: bool) -> None:
        self.stream, self.layout, self.size, self._drop_last = stream, layout, size, drop_last
        self._ahead: _Ahead | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What was looked up belongs to the process that has the dataset mapped."""
        return {**vars(self), "_ahead": None}

    def num_steps(self, epoch: int) -> int | None:
        num_samples = self.stream.num_samples(epoch)
        if num_samples is None:
            return None
        whole, rest = divmod(num_samples, self.size)
        return whole + bool(rest and not self._drop_last)

    def has_step(self, epoch: int, step: int) -> bool:
        num_steps = self.num_steps(epoch)
        return num_steps is None or step < num_steps

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        return self.stream.draws(epoch, np.arange(*share.of(*self._range(epoch, step))))

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        ahead = self._ahead
        if ahead is None or not ahead.has(epoch, step, share):
            ahead = self._ahead = self._look_ahead(epoch, step, share)
        if self.layout.pad == "max_len" or share.world_size == 1:
            batch, first, stop = ahead.step(step, self.stream, self.layout)
            return lambda later: batch(first, stop, later), lambda: ahead.source(step)
        draws = ahead.draws(step)

        def make(later: Later | None) -> Batch:
            lineup = self.layout.lineup(self.stream.dataset.spans(draws.rows), self.layout.seeds_of(draws))
            self.layout.check_length(lineup.index, lineup.too_long)
            width, num_rows = self.layout.width(self._lengths(epoch, step)), lineup.num_rows
            arranged = self.layout.arrange(self.stream.dataset, lineup, Bins.one_each(num_rows))
            return arranged.batch(0, num_rows, width, later)

        return make, lambda: draws.source

    def mark(self, epoch: int, step: int) -> Mark:
        return Mark()

    def restore(self, epoch: int, mark: Mark) -> None:
        self._ahead = None

    def _range(self, epoch: int, step: int) -> tuple[int, int]:
        if step < 0 or not self.has_step(epoch, step):
            raise IndexError(f"step {step} of an epoch of {self.num_steps(epoch)}")
        num_samples = self.stream.num_samples(epoch)
        stop = (step + 1) * self.size
        return step * self.size, stop if num_samples is None else min(stop, num_samples)

    def _lengths(self, epoch: int, step: int) -> np.ndarray:
        """Of the whole global batch: a width that depended on the world size would change what a model sees."""
        draws = self.draws(epoch, step, Share())
        return self.layout.lineup(self.stream.dataset.spans(draws.rows), self.layout.seeds_of(draws)).length

    def _look_ahead(self, epoch: int, step: int, share: Share) -> _Ahead:
        self._range(epoch, step)
        num_steps, num_samples = self.num_steps(epoch), self.stream.num_samples(epoch)
        last = step + max(1, _ROWS_AHEAD * share.world_size // self.size)
        edges = np.arange(step, 1 + (last if num_steps is None else min(last, num_steps))) * self.size
        if num_samples is not None:
            np.minimum(edges, num_samples, out=edges)
        starts, stops = share.of_each(edges[:-1], edges[1:])
        is_asked = self.stream.will_draw(epoch, int(starts[0]), int(stops[-1]))
        sizes = stops - starts
        if share.world_size == 1:
            positions = np.arange(edges[0], edges[-1])
        else:
            of_step, within = ragged(sizes)
            positions = starts[of_step] + within
        draws = self.stream.draws(epoch, positions)
        num_spans = 1 if self._ahead is None else _SPANS_AHEAD  # the first batch is waited for
        return _Ahead(epoch, step, share, draws, totals_before(sizes).tolist(), num_spans, is_asked)


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

    def step(self, step: int, stream: Stream, layout: Layout) -> tuple[MakeBatch, int, int]:
        """What makes batches, and the rows of it that the step is."""
        at = step - self._first_step
        start, stop = self._edges[at], self._edges[at + 1]
        if self._batch is None or not self._start <= start <= stop <= self._stop:
            last = max(at + 1, bisect.bisect_right(self._edges, start + self._num_spans_ahead) - 1)
            draws = self._draws.take(slice(start, self._edges[last]))
            table = stream.dataset.spans(draws.rows)
            if not self._is_asked:
                stream.dataset.will_need(table)
            prepared = layout.prepare(stream.dataset, table, layout.seeds_of(draws))
            self._batch, self._start, self._stop = prepared, start, self._edges[last]  # all, or as it was before
            self._num_spans_ahead = min(_SPANS_AHEAD, 4 * (self._edges[last] - start))
        return self._batch, start - self._start, stop - self._start

    def _rows(self, step: int) -> slice:
        at = step - self._first_step
        return slice(self._edges[at], self._edges[at + 1])
