"""The steps of a packed epoch: it is cut into windows of samples, and each is packed by itself.

Step s is bins s * size onwards. Only the windows before it tell in which window a bin is, so a `Mark` notes one window
and its first bin: from there on, any step is found without looking back.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hpcdata.loading.batches import Make, Mark, Share
from hpcdata.loading.layouts.assembly import Arranged, Batch, BatchCounts, make_batch
from hpcdata.loading.layouts.base import Layout
from hpcdata.loading.layouts.sequences import Lineup, Sequences
from hpcdata.loading.streams import Stream
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing import Packing

_MAX_WINDOWS = 4
_ROWS_AHEAD = 16_384
"""Rows of the order that are computed at a time."""


class _Window:
    """A packed window: its bins, and the draws of their rows, bin after bin; their batches are made when wanted."""

    def __init__(self, arrange: Callable[[Lineup, Bins], Arranged], lineup: Lineup, draws: Draws, bins: Bins) -> None:
        self._draws, self.bins = draws, bins
        self.skipped = draws.source[lineup.too_long]
        """Sources of the samples that are in no bin."""
        self._first_row = bins.first_row.tolist()
        self._arrange, self._lineup, self._lock = arrange, lineup, ForkLock()
        self._arranged: Arranged | None = None

    @Lazy
    def draws(self) -> Draws:
        """Of its rows."""
        return self._draws.take(self.bins.sample)

    @property
    def arranged(self) -> Arranged:
        """What makes batches of its bins."""
        with self._lock:
            if self._arranged is None:
                self._arranged = self._arrange(self._lineup, self.bins)
        return self._arranged

    def sequences(self) -> Sequences:
        """Of its rows."""
        return self._lineup.sequences().take(self.bins.sample)

    def rows(self, first: int, stop: int) -> slice:
        """The rows of bins `first` to `stop` - 1."""
        return slice(self._first_row[first], self._first_row[stop])


class PackedSteps:
    """Several samples a row, window by window. The last step of an epoch is dropped, or filled up with padding."""

    def __init__(self, stream: Stream, layout: Layout, packing: Packing, size: int, *, drop_last: bool) -> None:
        self.stream, self.layout, self.packing, self.size = stream, layout, packing, size
        self._drop_last = drop_last
        self.room = None if packing.cuts else packing.length
        self._ahead: tuple[tuple[int, int], Draws] | None = None
        self._windows: dict[tuple[int, int], _Window] = {}
        self._epoch, self._first_window, self._edges = 0, 0, [0]

    def __getstate__(self) -> dict[str, Any]:
        """What was looked up belongs to the process that has the dataset mapped."""
        return {**vars(self), "_windows": {}, "_ahead": None}

    def num_steps(self, epoch: int) -> int | None:
        """Found by packing the whole epoch: a pass over the lengths of all samples."""
        if self._num_windows(epoch) is None:
            return None
        self._see(epoch)
        return self._steps_of(self._edges[-1])

    def has_step(self, epoch: int, step: int) -> bool:
        needed = (step + 1) * self.size if self._drop_last else step * self.size + 1
        self._see(epoch, bin_index=needed)
        return self._edges[-1] >= needed

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        return _draws_of(self._pieces(epoch, step, share))

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        pieces = self._pieces(epoch, step, share)
        start, stop = share.of(0, self.size)
        num_skipped = 0
        if share.rank == 0:  # one rank counts what is in no bin
            whole = pieces if share.world_size == 1 else self._pieces(epoch, step, Share())
            num_skipped = sum(len(window.skipped) for window, first, _ in whole if first == 0)

        def make(later: Later | None) -> Batch:
            width = self.packing.length
            if width is None:
                window, first, _ = pieces[0]
                width = int(window.bins.width[first])
            arranged = [(window.arranged, first, last) for window, first, last in pieces]
            batch = make_batch(arranged, stop - start, width, later)
            if not num_skipped:
                return batch
            return batch._replace(counts=batch.counts + BatchCounts(skipped_samples=num_skipped))

        return make, lambda: _draws_of(pieces).source

    def mark(self, epoch: int, step: int) -> Mark:
        """Of the window in which the step begins."""
        if not step:
            return Mark()
        bin_index = step * self.size
        self._see(epoch, bin_index=bin_index + 1)
        place = min(bisect.bisect_right(self._edges, bin_index), len(self._edges)) - 1
        return Mark(self._first_window + place, self._edges[place])

    def restore(self, epoch: int, mark: Mark) -> None:
        self._windows.clear()
        self._epoch, self._first_window, self._edges = epoch, mark.window, [mark.first_bin]

    def windows(self, epoch: int, num_bins: int) -> Iterator[tuple[_Window, int]]:
        """(window, how many of its bins) for the first `num_bins` bins of an epoch."""
        self.restore(epoch, Mark())
        self._see(epoch, bin_index=num_bins)
        for window, (first, last) in enumerate(itertools.pairwise(self._edges)):
            yield self._window(epoch, window), min(last, num_bins) - first

    def _num_windows(self, epoch: int) -> int | None:
        num_samples = self.stream.num_samples(epoch)
        return None if num_samples is None else -(-num_samples // self.packing.window)

    def _steps_of(self, num_bins: int) -> int:
        return num_bins // self.size if self._drop_last else -(-num_bins // self.size)

    def _see(self, epoch: int, *, bin_index: int | None = None) -> None:
        """Packs windows until `bin_index` bins are known, or all of the epoch."""
        if epoch != self._epoch or (bin_index is not None and bin_index <= self._edges[0] and self._first_window):
            self.restore(epoch, Mark())
        while bin_index is None or self._edges[-1] < bin_index:
            num_seen, num_windows = self._first_window + len(self._edges) - 1, self._num_windows(epoch)
            if num_windows is not None and num_seen >= num_windows:
                return
            self._edges.append(self._edges[-1] + self._window(epoch, num_seen).bins.num_bins)

    def _pieces(self, epoch: int, step: int, share: Share) -> list[tuple[_Window, int, int]]:
        """(window, first bin, last bin + 1) of the share."""
        if epoch == self._epoch and step * self.size < self._edges[0]:  # begins before the window that a state notes
            self.restore(epoch, Mark())
        if step < 0 or not self.has_step(epoch, step):
            raise IndexError(f"step {step} is behind the end of epoch {epoch}")
        self._see(epoch, bin_index=(step + 1) * self.size)
        start, stop = share.of(step * self.size, (step + 1) * self.size)
        stop = min(stop, self._edges[-1])
        start = min(start, stop)
        place = min(bisect.bisect_right(self._edges, start), len(self._edges) - 1) - 1  # a share may have no bins
        pieces: list[tuple[_Window, int, int]] = []
        while place < len(self._edges) - 1 and (self._edges[place] < stop or not pieces):
            window, first = self._window(epoch, self._first_window + place), self._edges[place]
            pieces.append((window, max(0, start - first), min(stop, self._edges[place + 1]) - first))
            place += 1
        return pieces

    def _window(self, epoch: int, window: int) -> _Window:
        if (epoch, window) not in self._windows:
            while len(self._windows) >= _MAX_WINDOWS:
                self._windows.pop(next(iter(self._windows)))
            self._windows[epoch, window] = self._pack(epoch, window)
        return self._windows[epoch, window]

    def _pack(self, epoch: int, window: int) -> _Window:
        draws = self._draws(epoch, window)
        table = self.stream.dataset.spans(draws.rows)
        lineup = self.layout.lineup(table, self.layout.seeds_of(draws), room=self.room)
        self.layout.check_length(lineup.index, lineup.too_long)
        bins = self.packing.place(lineup.length, lineup.grid, self.size)
        return _Window(partial(self.layout.arrange, self.stream.dataset, packed=True), lineup, draws, bins)

    def _draws(self, epoch: int, window: int) -> Draws:
        """Of the samples of a window; those of some windows behind it are found at the same time."""
        size, num_ahead = self.packing.window, max(1, _ROWS_AHEAD // self.packing.window)
        group = window // num_ahead
        if self._ahead is None or self._ahead[0] != (epoch, group):
            num_samples = self.stream.num_samples(epoch)
            stop = (group + 1) * num_ahead * size
            stop = stop if num_samples is None else min(stop, num_samples)
            self.stream.will_draw(epoch, group * num_ahead * size, stop)
            self._ahead = (epoch, group), self.stream.draws(epoch, np.arange(group * num_ahead * size, stop))
        first = window % num_ahead * size
        return self._ahead[1].take(slice(first, first + size))


def _draws_of(pieces: list[tuple[_Window, int, int]]) -> Draws:
    return Draws.join([window.draws.take(window.rows(*bins)) for window, *bins in pieces])
