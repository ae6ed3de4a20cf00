"""The steps of an epoch: which samples, or which bins of samples, each consists of, and what one rank gets of it.

    RowSteps       every sample a row: step s is positions s * size onwards
    WindowSteps    several samples a row: the epoch is cut into windows of samples, and each is packed by itself

Step s of a packed epoch is bins s * size onwards. Only the windows before it tell in which window a bin is, so a `Mark`
notes one window and its first bin: from there on, any step is found without looking back.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcdata.native.arrays import ragged, totals_before
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing import Packing
from hpcdata.order.streams import Stream

_MAX_WINDOWS = 4
_ROWS_AHEAD = 16_384
"""Rows of the order that are computed at a time."""


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

    def mark(self, epoch: int, step: int) -> Mark: ...

    def restore(self, epoch: int, mark: Mark) -> None: ...


class RowSteps:
    """Every sample a row. The last step of an epoch is smaller, or dropped."""

    def __init__(self, stream: Stream, size: int, *, drop_last: bool) -> None:
        self.stream, self.size, self._drop_last = stream, size, drop_last

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

    def mark(self, epoch: int, step: int) -> Mark:
        return Mark()

    def restore(self, epoch: int, mark: Mark) -> None:
        """There is nothing to note."""

    def ahead(self, epoch: int, step: int, share: Share) -> tuple[np.ndarray, np.ndarray]:
        """(positions, edges) of the share of this step and of some behind it: the k-th of them has the positions
        from edges[k] to edges[k + 1] - 1.
        """
        self._range(epoch, step)
        num_steps, num_samples = self.num_steps(epoch), self.stream.num_samples(epoch)
        last = step + max(1, _ROWS_AHEAD * share.world_size // self.size)
        edges = np.arange(step, 1 + (last if num_steps is None else min(last, num_steps))) * self.size
        if num_samples is not None:
            np.minimum(edges, num_samples, out=edges)
        starts, stops = share.of_each(edges[:-1], edges[1:])
        sizes = stops - starts
        if share.world_size == 1:
            return np.arange(edges[0], edges[-1]), totals_before(sizes)
        of_step, within = ragged(sizes)
        return starts[of_step] + within, totals_before(sizes)

    def _range(self, epoch: int, step: int) -> tuple[int, int]:
        if step < 0 or not self.has_step(epoch, step):
            raise IndexError(f"step {step} of an epoch of {self.num_steps(epoch)}")
        num_samples = self.stream.num_samples(epoch)
        stop = (step + 1) * self.size
        return step * self.size, stop if num_samples is None else min(stop, num_samples)


class Window(Protocol):
    """A packed window, whatever else a loader knows of it."""

    bins: Bins

    @property
    def draws(self) -> Draws:
        """Of the rows of its bins, bin after bin."""
        ...


W = TypeVar("W", bound=Window)


class WindowSteps(Generic[W]):
    """Several samples a row, window by window. The last step of an epoch is dropped, or filled up with empty bins."""

    def __init__(self, stream: Stream, packing: Packing, size: int, *, drop_last: bool) -> None:
        self.stream, self.packing, self.size, self._drop_last = stream, packing, size, drop_last
        self._ahead: tuple[tuple[int, int], Draws] | None = None
        self._windows: dict[tuple[int, int], W] = {}
        self._epoch, self._first_window, self._edges = 0, 0, [0]

    def pack(self, draws: Draws) -> W:
        """The window of some samples: a loader says how long they are."""
        raise NotImplementedError

    def will_draw(self, epoch: int, start: int, stop: int) -> None:
        """Called before these positions are drawn."""

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
        """The samples of its bins, bin after bin."""
        return draws_of(self.pieces(epoch, step, share))

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

    def windows(self, epoch: int, num_bins: int) -> Iterator[tuple[W, int]]:
        """(window, how many of its bins) for the first `num_bins` bins of an epoch."""
        self.restore(epoch, Mark())
        self._see(epoch, bin_index=num_bins)
        for window, (first, last) in enumerate(itertools.pairwise(self._edges)):
            yield self._window(epoch, window), min(last, num_bins) - first

    def pieces(self, epoch: int, step: int, share: Share) -> list[tuple[W, int, int]]:
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
        pieces: list[tuple[W, int, int]] = []
        while place < len(self._edges) - 1 and (self._edges[place] < stop or not pieces):
            window, first = self._window(epoch, self._first_window + place), self._edges[place]
            pieces.append((window, max(0, start - first), min(stop, self._edges[place + 1]) - first))
            place += 1
        return pieces

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

    def _window(self, epoch: int, window: int) -> W:
        if (epoch, window) not in self._windows:
            while len(self._windows) >= _MAX_WINDOWS:
                self._windows.pop(next(iter(self._windows)))
            self._windows[epoch, window] = self._pack(epoch, window)
        return self._windows[epoch, window]

    def _pack(self, epoch: int, window: int) -> W:
        return self.pack(self._draws(epoch, window))

    def _draws(self, epoch: int, window: int) -> Draws:
        """Of the samples of a window; those of some windows behind it are found at the same time."""
        size, num_ahead = self.packing.window, max(1, _ROWS_AHEAD // self.packing.window)
        group = window // num_ahead
        if self._ahead is None or self._ahead[0] != (epoch, group):
            num_samples = self.stream.num_samples(epoch)
            stop = (group + 1) * num_ahead * size
            stop = stop if num_samples is None else min(stop, num_samples)
            self.will_draw(epoch, group * num_ahead * size, stop)
            self._ahead = (epoch, group), self.stream.draws(epoch, np.arange(group * num_ahead * size, stop))
        first = window % num_ahead * size
        return self._ahead[1].take(slice(first, first + size))


def draws_of(pieces: list[tuple[W, int, int]]) -> Draws:
    """The samples of some bins of windows."""
    found = []
    for window, first, stop in pieces:
        rows = slice(*window.bins.first_row[[first, stop]].tolist())
        found.append(window.draws.take(rows))
    return Draws.join(found)
