"""The steps of an epoch: which samples a step consists of, and the arrays of one rank's share of it.

`PlainSteps` gives every sample a row: step s is positions s * size onwards. For the other way see packed.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hpcdata.loading.dataset import SpanTable
from hpcdata.loading.layoutbase import Batch, Layout
from hpcdata.loading.runs import Bins
from hpcdata.loading.streams import Draws, Stream

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


class Steps(Protocol):
    stream: Stream

    def num_steps(self, epoch: int) -> int | None:
        """Steps of an epoch, None if it has no end."""
        ...

    def has_step(self, epoch: int, step: int) -> bool: ...

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        """The samples of the share, in the order of its batch."""
        ...

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Callable[[], Batch], Draws]:
        """The samples of the share, and what makes their batch: it may run later, in any thread."""
        ...

    def mark(self, epoch: int, step: int) -> Mark: ...

    def restore(self, epoch: int, mark: Mark) -> None: ...


class PlainSteps:
    """Every sample a row."""

    def __init__(self, stream: Stream, layout: Layout, size: int, *, drop_last: bool) -> None:
        self.stream, self.layout, self.size, self._drop_last = stream, layout, size, drop_last
        self._ahead: _Ahead | None = None

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

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Callable[[], Batch], Draws]:
        ahead = self._ahead
        if ahead is None or not ahead.has(epoch, step, share):
            ahead = self._ahead = self._look_ahead(epoch, step, share)
        draws, table = ahead.step(step, self.stream)

        def make() -> Batch:
            if self.layout.pad == "max_len":
                return self.layout.batch(self.stream.dataset, draws.rows, draws.seeds, table)
            sequences = self.layout.sequences(table, draws.seeds)
            width = self.layout.width(self._lengths(epoch, step, share, sequences.length))
            return self.layout.assemble(self.stream.dataset, sequences, Bins.one_each(len(draws.rows), width))

        return make, draws

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

    def _lengths(self, epoch: int, step: int, share: Share, own: np.ndarray) -> np.ndarray:
        """Of the whole global batch: a width that depended on the world size would change what a model sees."""
        if share.world_size == 1:
            return own
        draws = self.draws(epoch, step, Share())
        return self.layout.lineup(self.stream.dataset.spans(draws.rows), draws.seeds).length

    def _look_ahead(self, epoch: int, step: int, share: Share) -> _Ahead:
        num_steps = max(1, _ROWS_AHEAD * share.world_size // self.size)
        ranges: list[tuple[int, int]] = []
        while len(ranges) < num_steps and self.has_step(epoch, step + len(ranges)):
            ranges.append(share.of(*self._range(epoch, step + len(ranges))))
        if not ranges:
            self._range(epoch, step)
        self.stream.will_draw(epoch, ranges[0][0], ranges[-1][1])
        positions = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        edges = np.cumsum([0] + [stop - start for start, stop in ranges])
        return _Ahead(epoch, step, share, self.stream.draws(epoch, positions), edges.tolist())


class _Ahead:
    """The draws of one share of consecutive steps, and the spans of some of them."""

    def __init__(self, epoch: int, first_step: int, share: Share, draws: Draws, edges: list[int]) -> None:
        self._epoch, self._first_step, self._share, self._draws, self._edges = epoch, first_step, share, draws, edges
        self._table: SpanTable | None = None
        self._table_start = self._table_stop = 0
        self._num_spans_ahead = 1

    def has(self, epoch: int, step: int, share: Share) -> bool:
        return self._epoch == epoch and self._share == share and 0 <= step - self._first_step < len(self._edges) - 1

    def step(self, step: int, stream: Stream) -> tuple[Draws, SpanTable]:
        at = step - self._first_step
        start, stop = self._edges[at], self._edges[at + 1]
        if self._table is None or not self._table_start <= start <= stop <= self._table_stop:
            last = max(at + 1, bisect.bisect_right(self._edges, start + self._num_spans_ahead) - 1)
            self._num_spans_ahead = min(_SPANS_AHEAD, 4 * (self._edges[last] - start))  # the first batch comes soon
            self._table_start, self._table_stop = start, self._edges[last]
            self._table = stream.dataset.spans(self._draws.rows[start : self._table_stop])
            stream.dataset.will_need(self._table)
        table = self._table.between(start - self._table_start, stop - self._table_start)
        return self._draws.take(slice(start, stop)), table
