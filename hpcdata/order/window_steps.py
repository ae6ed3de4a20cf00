"""Steps whose rows hold several samples, or samples of one grid: an epoch is cut into windows of samples, and each is
packed by itself.

Step s of an epoch is bins s * size onwards, none of them empty. Only the windows before it tell in which window a bin
is, and which samples wait there for others of their grid (`Packing.carries`). So a `Mark` notes one window, its first
bin, and how many wait: from there on, any step is found without looking back. Those that wait are the last of their
grid before the window.

At the end of an epoch some bins may not fill a step. With `drop_last` they are left out. Otherwise:

- The last step takes their samples in as many rows as it may have, or one for each sample where these are fewer.
- What waits makes a smaller step for each grid, the largest first.
- Ranks get shares of these rows that differ by at most one. Steps with fewer rows than ranks are left out.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple

import numpy as np

from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing.base import Packing
from hpcdata.order.packing.buckets import Buckets, last_buckets
from hpcdata.order.packing.pieces import Piece, W, balanced, draws_of
from hpcdata.order.steps import Mark, Share, windows_ahead
from hpcdata.order.streams import Stream

_MAX_WINDOWS = 4

Place = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], Bins]
"""(lengths, grids, images) of some sequences -> the bins that they stand in: see `Packing.place`."""


class _Waiting(NamedTuple):
    """The samples that no bin of a window holds, in their order."""

    draws: Draws
    grids: np.ndarray

    def numbers(self) -> dict[int, int]:
        grids, numbers = np.unique(self.grids, return_counts=True)
        return dict(zip(grids.tolist(), numbers.tolist(), strict=True))


class WindowSteps(Generic[W]):
    """Several samples a row, window by window. `num_ranks`: no step has fewer rows."""

    def __init__(self, stream: Stream, packing: Packing, size: int, *, drop_last: bool, num_ranks: int = 1) -> None:
        self.stream, self.packing, self.size, self._drop_last = stream, packing, size, drop_last
        self._num_ranks = num_ranks
        self._ahead: tuple[tuple[int, int], Draws] | None = None
        self._windows: dict[tuple[int, int], tuple[W, _Waiting | None]] = {}
        self._last: tuple[int, _Rest[W]] | None = None
        self.restore(0, Mark())

    def pack(self, draws: Draws, place: Place) -> W:
        """The window of some samples: a loader says how long they are."""
        raise NotImplementedError

    def will_draw(self, epoch: int, start: int, stop: int) -> None:
        """Called before these positions are drawn."""

    def __getstate__(self) -> dict[str, Any]:
        """What was looked up belongs to the process that has the dataset mapped."""
        return {**vars(self), "_windows": {}, "_ahead": None, "_last": None}

    def num_steps(self, epoch: int) -> int | None:
        """Found by packing the whole epoch: a pass over the lengths of all samples."""
        if self._num_windows(epoch) is None:
            return None
        self._see(epoch)
        return self._num_full(epoch) + self._rest(epoch).num_steps(self._num_ranks)

    def has_step(self, epoch: int, step: int) -> bool:
        return self._is_full(epoch, step) or self._rest_has(epoch, step, self._num_ranks)

    def is_left_out(self, epoch: int, step: int) -> bool:
        return not self.has_step(epoch, step) and self._rest_has(epoch, step, 1)

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        """The samples of its bins, bin after bin."""
        return draws_of(self.pieces(epoch, step, share))

    def mark(self, epoch: int, step: int) -> Mark:
        """Of the window in which the step begins."""
        if not step:
            return Mark()
        bin_index = step * self.size
        self._see(epoch, bin_index=bin_index + 1)
        place = min(bisect.bisect_right(self._edges, bin_index), len(self._edges)) - 1
        return Mark(self._first_window + place, self._edges[place], tuple(sorted(self._waiting[place].items())))

    def restore(self, epoch: int, mark: Mark) -> None:
        self._windows.clear()
        self._epoch, self._first_window, self._edges = epoch, mark.window, [mark.first_bin]
        self._waiting = [dict(mark.waiting)]

    def windows(self, epoch: int, num_steps: int) -> Iterator[tuple[W, int]]:
        """(window, how many of its bins) for the first `num_steps` steps of an epoch."""
        self.restore(epoch, Mark())
        self._see(epoch, bin_index=num_steps * self.size)
        num_full = min(num_steps, self._num_full(epoch))
        for window, first in enumerate(self._edges[:-1]):
            if first >= num_steps * self.size:
                return
            yield self._window(epoch, window), max(0, min(self._edges[window + 1], num_full * self.size) - first)
        if num_steps > num_full and (rest := self._rest(epoch)).window is not None:
            yield rest.window, rest.edges[num_steps - num_full]

    def pieces(self, epoch: int, step: int, share: Share) -> list[Piece[W]]:
        """The bins of the share, in the order of the step: of one window, or of some that follow each other."""
        if epoch == self._epoch and step * self.size < self._edges[0]:  # begins before the window that a state notes
            self.restore(epoch, Mark())
        if step < 0 or not self.has_step(epoch, step):
            raise IndexError(f"step {step} is behind the end of epoch {epoch}")
        if self._is_full(epoch, step):
            start, stop = step * self.size, (step + 1) * self.size
            of_share = None if share.world_size == 1 else balanced(self._bins(epoch, start, stop), share)
            return self._bins(epoch, *share.of(start, stop)) if of_share is None else of_share
        rest, at = self._rest(epoch), step - self._num_full(epoch)
        assert rest.window is not None
        of_share = balanced([(rest.window, rest.edges[at], rest.edges[at + 1])], share)
        return of_share or [(rest.window, *share.of(rest.edges[at], rest.edges[at + 1]))]

    def begun(self, epoch: int, step: int) -> list[W]:
        """The windows that begin in a step whose pieces are known, those without a bin among them."""
        first, last = (bisect.bisect_left(self._edges, at * self.size) for at in (step, step + 1))
        return [self._window(epoch, self._first_window + at) for at in range(first, min(last, len(self._edges) - 1))]

    def _bins(self, epoch: int, start: int, stop: int) -> list[Piece[W]]:
        """Bins `start` to `stop` - 1 of an epoch, which are known."""
        place, pieces = bisect.bisect_right(self._edges, start) - 1, []
        while place < len(self._edges) - 1 and self._edges[place] < stop:
            window, first = self._window(epoch, self._first_window + place), self._edges[place]
            pieces.append((window, max(0, start - first), min(stop, self._edges[place + 1]) - first))
            place += 1
        return [piece for piece in pieces if piece[1] < piece[2]]

    def _is_full(self, epoch: int, step: int) -> bool:
        """Whether it is a step of `size` bins of windows."""
        self._see(epoch, bin_index=(step + 1) * self.size)
        return self._edges[-1] >= (step + 1) * self.size

    def _rest_has(self, epoch: int, step: int, num_ranks: int) -> bool:
        """Whether it is one of the steps behind, all windows being known."""
        at = step - self._num_full(epoch)
        return 0 <= at < self._rest(epoch).num_steps(num_ranks)

    def _num_full(self, epoch: int) -> int:
        """Steps of `size` bins, of those that are known."""
        return self._edges[-1] // self.size

    def _num_windows(self, epoch: int) -> int | None:
        num_samples = self.stream.num_samples(epoch)
        return None if num_samples is None else -(-num_samples // self.packing.window)

    def _see(self, epoch: int, *, bin_index: int | None = None) -> None:
        """Packs windows until `bin_index` bins are known, or all of the epoch."""
        if epoch != self._epoch or (bin_index is not None and bin_index <= self._edges[0] and self._first_window):
            self.restore(epoch, Mark())
        while bin_index is None or self._edges[-1] < bin_index:
            num_seen, num_windows = self._first_window + len(self._edges) - 1, self._num_windows(epoch)
            if num_windows is not None and num_seen >= num_windows:
                return
            num_bins = self._window(epoch, num_seen).bins.num_bins
            waiting = self._windows[epoch, num_seen][1]
            self._edges.append(self._edges[-1] + num_bins)
            self._waiting.append({} if waiting is None else waiting.numbers())

    def _window(self, epoch: int, window: int) -> W:
        if (epoch, window) not in self._windows:
            packed = self._pack(epoch, window)
            while len(self._windows) >= _MAX_WINDOWS:
                self._windows.pop(next(iter(self._windows)))
            self._windows[epoch, window] = packed
        return self._windows[epoch, window][0]

    def _pack(self, epoch: int, window: int) -> tuple[W, _Waiting | None]:
        """The window, and what waits behind it."""
        draws = self._draws(epoch, window)
        if not self.packing.carries:
            return self.pack(draws, self._place), None
        draws = Draws.join([*self._carried(epoch, window), draws])
        waiting: list[_Waiting] = []

        def place(lengths: np.ndarray, grids: np.ndarray, images: np.ndarray | None) -> Bins:
            bins = self._place(lengths, grids, images)
            waits = lengths > 0
            waits[bins.sample] = False
            waiting.append(_Waiting(draws.take(np.flatnonzero(waits)), grids[waits]))
            return bins

        return self.pack(draws, place), waiting[0]

    def _place(self, lengths: np.ndarray, grids: np.ndarray, images: np.ndarray | None) -> Bins:
        return self.packing.place(lengths, grids, self.size, images)

    def _carried(self, epoch: int, window: int) -> list[Draws]:
        """The samples that wait for a window, in their order: they are of windows before it."""
        known = self._windows.get((epoch, window - 1))
        if known is not None:
            return [] if known[1] is None else [known[1].draws]
        wanted, found = dict(self._waiting[window - self._first_window]), []
        while any(wanted.values()) and window:
            window -= 1
            draws = self._drawn(epoch, window * self.packing.window, (window + 1) * self.packing.window)
            grids = self._grids(draws)
            at = [np.flatnonzero(grids == grid)[-number:] for grid, number in wanted.items() if number]
            for (grid, number), places in zip([item for item in wanted.items() if item[1]], at, strict=True):
                wanted[grid] = number - len(places)
            found.append(draws.take(np.sort(np.concatenate(at))))
        return found[::-1]

    def _grids(self, draws: Draws) -> np.ndarray:
        """[n]: of each sample, -1 where it is in no bin."""
        found: list[np.ndarray] = []

        def place(lengths: np.ndarray, grids: np.ndarray, images: np.ndarray | None) -> Bins:
            found.append(np.where(lengths > 0, grids, -1))
            return Bins(sample=np.zeros(0, np.int64), first_row=np.zeros(1, np.int64), width=np.zeros(0, np.int64))

        self.pack(draws, place)
        return found[0]

    def _rest(self, epoch: int) -> _Rest[W]:
        """The steps behind the full ones, all windows being known."""
        if self._drop_last:
            return _Rest(None, [0])
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._make_rest(epoch)
        return self._last[1]

    def _make_rest(self, epoch: int) -> _Rest[W]:
        if isinstance(self.packing, Buckets) and self.packing.carries:
            draws = self._carried(epoch, self._first_window + len(self._edges) - 1)
            if not draws:
                return _Rest(None, [0])
            multiple, edges = self.packing.multiple, []

            def place(lengths: np.ndarray, grids: np.ndarray, images: np.ndarray | None) -> Bins:
                bins, first_bin = last_buckets(lengths, grids, multiple)
                edges.extend(first_bin.tolist())
                return bins

            return _Rest(self.pack(Draws.join(draws), place), edges)
        pieces = self._bins(epoch, self._num_full(epoch) * self.size, self._edges[-1])
        if not pieces:
            return _Rest(None, [0])
        bins = Bins.join([window.bins.between(first, stop) for window, first, stop in pieces]).split(self.size)
        bins = dataclasses.replace(bins, sample=np.arange(bins.num_rows))
        has_costs = pieces[0][0].bins.cost is not None

        def place_rest(lengths: np.ndarray, grids: np.ndarray, images: np.ndarray | None) -> Bins:
            return bins.with_squares(lengths) if has_costs else bins

        return _Rest(self.pack(draws_of(pieces), place_rest), [0, bins.num_bins])

    def _draws(self, epoch: int, window: int) -> Draws:
        """Of the samples of a window; those of some windows behind it are found at the same time."""
        size, num_ahead = self.packing.window, windows_ahead(self.packing.window)
        group = window // num_ahead
        if self._ahead is None or self._ahead[0] != (epoch, group):
            start, stop = group * num_ahead * size, (group + 1) * num_ahead * size
            num_samples = self.stream.num_samples(epoch)
            self.will_draw(epoch, start, stop if num_samples is None else min(stop, num_samples))
            self._ahead = (epoch, group), self._drawn(epoch, start, stop)
        first = window % num_ahead * size
        return self._ahead[1].take(slice(first, first + size))

    def _drawn(self, epoch: int, start: int, stop: int) -> Draws:
        """Of the positions, as far as the epoch has them."""
        num_samples = self.stream.num_samples(epoch)
        return self.stream.draws(epoch, np.arange(start, stop if num_samples is None else min(stop, num_samples)))


class _Rest(NamedTuple, Generic[W]):
    """The steps at the end of an epoch, the largest first: their bins, and the first bin of each."""

    window: W | None
    edges: list[int]

    def num_steps(self, num_ranks: int) -> int:
        return sum(stop - first >= num_ranks for first, stop in itertools.pairwise(self.edges))
