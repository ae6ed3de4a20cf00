"""The steps of an epoch: which samples each consists of, and what one rank gets of it.

    RowSteps    every sample a row: step s is positions s * size onwards

Where several samples share a row: see hpcdata.order.window_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hpcdata.native.arrays import ragged, totals_before
from hpcdata.order.draws import Draws
from hpcdata.order.streams import Stream

_ROWS_AHEAD = 16_384
"""Rows of the order that are computed at a time."""


class Mark(NamedTuple):
    """A window of an epoch and its first bin, and how many samples of each grid wait for it."""

    window: int = 0
    first_bin: int = 0
    waiting: tuple[tuple[int, int], ...] = ()


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

    def is_left_out(self, epoch: int, step: int) -> bool:
        """Whether it has fewer rows than there are ranks; fewer ranks have it as a step."""
        ...

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        """The samples of the share, in the order of its batch."""
        ...

    def mark(self, epoch: int, step: int) -> Mark: ...

    def restore(self, epoch: int, mark: Mark) -> None: ...


class RowSteps:
    """Every sample a row. The last step of an epoch is smaller, or dropped.

    The sources of a mixture stand at regular distances. So its steps are turned, each by another number of rows
    (`Stream.turns`): what is pushed out at the end comes in at the beginning. Otherwise, of two sources of equal
    weight, the first of two ranks could see one alone.
    """

    def __init__(self, stream: Stream, size: int, *, drop_last: bool) -> None:
        self.stream, self.size, self._drop_last = stream, size, drop_last
        self._known: tuple[int, int | None] = (-1, None)

    def num_steps(self, epoch: int) -> int | None:
        num_samples = self.stream.num_samples(epoch)
        if num_samples is None:
            return None
        whole, rest = divmod(num_samples, self.size)
        return whole + bool(rest and not self._drop_last)

    def has_step(self, epoch: int, step: int) -> bool:
        known = self._known
        if known[0] != epoch:  # asked for every step
            known = self._known = epoch, self.num_steps(epoch)
        return known[1] is None or step < known[1]

    def is_left_out(self, epoch: int, step: int) -> bool:
        return False

    def draws(self, epoch: int, step: int, share: Share) -> Draws:
        positions = np.arange(*share.of(*self._range(epoch, step)))
        return self.stream.draws(epoch, self._turned(epoch, positions, step, np.array([len(positions)])))

    def mark(self, epoch: int, step: int) -> Mark:
        return Mark()

    def restore(self, epoch: int, mark: Mark) -> None:
        """There is nothing to note."""

    def ahead(self, epoch: int, step: int, share: Share, num_rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(positions, edges) of the share of this step and of some behind it: the k-th of them has the positions
        from edges[k] to edges[k + 1] - 1, in the order of its batch. `num_rows`: at most, but for this step.
        """
        self._range(epoch, step)
        num_steps, num_samples = self.num_steps(epoch), self.stream.num_samples(epoch)
        last = step + max(1, (num_rows or _ROWS_AHEAD) * share.world_size // self.size)
        last = last if num_steps is None else min(last, num_steps)
        edges = np.arange(step, 1 + last) * self.size
        if num_samples is not None:
            np.minimum(edges, num_samples, out=edges)
        starts, stops = share.of_each(edges[:-1], edges[1:])
        sizes = stops - starts
        if share.world_size == 1:
            positions = np.arange(edges[0], edges[-1])
        else:
            of_step, within = ragged(sizes)
            positions = starts[of_step] + within
        return self._turned(epoch, positions, step, sizes), totals_before(sizes)

    def _turned(self, epoch: int, positions: np.ndarray, first_step: int, num_positions: np.ndarray) -> np.ndarray:
        """What stands at these positions of some steps once they are turned: other positions of the same steps.

        num_positions: of each step, from the first on; the positions of a step stand together.
        """
        steps = np.arange(first_step, first_step + len(num_positions))
        turns = None if self.size == 1 else self.stream.turns(epoch, steps)
        if turns is None:
            return positions
        stops, num_samples = (steps + 1) * self.size, self.stream.num_samples(epoch)
        if num_samples is not None:
            np.minimum(stops, num_samples, out=stops)
        sizes = stops - steps * self.size
        moved = positions + np.repeat((turns * sizes).astype(np.int64), num_positions)
        is_over = moved >= np.repeat(stops, num_positions)
        return np.subtract(moved, np.repeat(sizes, num_positions), out=moved, where=is_over)

    def _range(self, epoch: int, step: int) -> tuple[int, int]:
        if step < 0 or not self.has_step(epoch, step):
            raise IndexError(f"step {step} of an epoch of {self.num_steps(epoch)}")
        num_samples = self.stream.num_samples(epoch)
        stop = (step + 1) * self.size
        return step * self.size, stop if num_samples is None else min(stop, num_samples)


def windows_ahead(window: int) -> int:
    """How many windows of so many samples are drawn at a time."""
    return max(1, _ROWS_AHEAD // window)
