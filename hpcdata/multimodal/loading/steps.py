"""Which examples each row of a step consists of: hpcdata.order with the lengths of raw examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.collation import Shape
from hpcdata.multimodal.loading.lengths import Lengths, Rooms
from hpcdata.multimodal.values import count_reasons, number_of
from hpcdata.native.arrays import totals_before
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing.base import Packing
from hpcdata.order.steps import RowSteps, Share
from hpcdata.order.streams import Stream
from hpcdata.order.window_steps import Place, WindowSteps, draws_of
from hpcdata.samples import Reason

_MOST_OUT = 2**15
"""Examples in a row that have no place, before this is an error."""


class Batch(NamedTuple):
    """The examples of a share of a step."""

    draws: Draws
    edges: np.ndarray
    """[num_rows + 1]: row r has the draws from edges[r] to edges[r + 1] - 1."""
    is_packed: bool
    shape: Shape
    """Of the largest row of the whole step, as far as it must be known before."""
    left_out: Draws
    """What is in no row of the windows that begin here, as it would be rejected, or no row has room for it."""
    reasons: np.ndarray
    """[n]: why, see `Rooms.reason`."""


class PlainSteps(RowSteps):
    """Every example a row. `needs_shape`: whether columns or crops depend on what other ranks have."""

    def __init__(self, stream: Stream, lengths: Lengths, size: int, *, drop_last: bool, needs_shape: bool) -> None:
        super().__init__(stream, size, drop_last=drop_last)
        self._lengths, self._needs_shape = lengths, needs_shape

    def batch(self, epoch: int, step: int, share: Share) -> Batch:
        draws, shape = self.draws(epoch, step, share), Shape()
        if self._needs_shape and share.world_size > 1:
            rooms = self._lengths.of(self.draws(epoch, step, Share()))
            shape = Shape(*(int(column.max(initial=0)) for column in rooms[:4]))
        return Batch(draws, np.arange(len(draws.rows) + 1), False, shape, draws.take(slice(0, 0)), np.empty(0, int))


@dataclass(kw_only=True, eq=False)
class RawWindow:
    """A packed window: its bins, what they hold, and what each of that takes."""

    bins: Bins
    all_draws: Draws
    all_rooms: Rooms
    _draws: Draws | None = None

    @property
    def draws(self) -> Draws:
        """Of its rows, bin after bin."""
        if self._draws is None:
            self._draws = self.all_draws.take(self.bins.sample)
        return self._draws

    @property
    def rooms(self) -> Rooms:
        """The same."""
        return self.all_rooms.take(self.bins.sample)

    @property
    def left_out(self) -> tuple[Draws, np.ndarray]:
        """What is in no bin and never will be, and why, see `Rooms.reason`."""
        at = np.flatnonzero(self.all_rooms.reason)
        return self.all_draws.take(at), self.all_rooms.reason[at]


class PackedSteps(WindowSteps[RawWindow]):
    """Several examples a row, window by window, within the budgets of `packing`."""

    def __init__(
        self, stream: Stream, lengths: Lengths, packing: Packing, size: int, *, drop_last: bool, num_ranks: int
    ) -> None:
        super().__init__(stream, packing, size, drop_last=drop_last, num_ranks=num_ranks)
        self._lengths, self._num_out = lengths, 0

    def left_out(self, epoch: int) -> Counter[str]:
        """By reason, of the first examples of an epoch that has an end."""
        draws = self.stream.draws(epoch, np.arange(min(self.stream.num_samples(epoch) or 0, _MOST_OUT)))
        return count_reasons(_fitting(self._lengths.of(draws), self.packing).reason)

    def pack(self, draws: Draws, place: Place) -> RawWindow:
        """Raises UserError where an order without end has nothing that a row has room for."""
        rooms = _fitting(self._lengths.of(draws), self.packing)
        self._num_out = self._num_out + len(rooms.reason) if rooms.reason.all() else 0
        if self._num_out >= _MOST_OUT:
            reasons = ", ".join(f"{number} {reason}" for reason, number in count_reasons(rooms.reason).items())
            raise UserError(f"none of {self._num_out} examples that follow each other has a place in a row: {reasons}")
        crops = rooms.num_crops if self.packing.max_images is not None else None
        bins = place(rooms.num_tokens, np.zeros(len(draws.rows), np.int64), crops)
        return RawWindow(bins=bins, all_draws=draws, all_rooms=rooms)

    def batch(self, epoch: int, step: int, share: Share) -> Batch:
        pieces = self.pieces(epoch, step, share)
        draws = draws_of(pieces)
        sizes = np.concatenate([np.diff(window.bins.first_row[first : stop + 1]) for window, first, stop in pieces])
        shape = [0 if self.packing.length is None else self.packing.length, 0, 0, 0]
        for window, first, stop in self.pieces(epoch, step, Share()):
            columns = window.bins.width if self.packing.length is None else np.zeros(stop, np.int64)
            rooms = window.all_rooms
            totals = map(window.bins.totals, (rooms.num_crops, rooms.num_pooled, rooms.is_tree))
            found = (columns, *totals)
            most = [int(values[first:stop].max(initial=0)) for values in found]
            shape = [max(pair) for pair in zip(shape, most, strict=True)]
        left_out = [window.left_out for window in self.begun(epoch, step)]
        return Batch(
            draws,
            totals_before(sizes),
            self.packing.length is not None,
            Shape(*shape),
            Draws.join([draws.take(slice(0, 0)), *(found for found, _ in left_out)]),
            np.concatenate([np.empty(0, int), *(reasons for _, reasons in left_out)]),
        )


def _fitting(rooms: Rooms, packing: Packing) -> Rooms:
    """The same, with what no row has room for left out as `too_long`."""
    is_large = np.zeros(len(rooms.num_tokens), bool)
    for values, most in ((rooms.num_tokens, packing.length), (rooms.num_crops, packing.max_images)):
        if most is not None:
            is_large |= values > most
    if not is_large.any():
        return rooms
    reason = np.where(is_large, number_of(Reason.TOO_LONG), rooms.reason)
    return rooms._replace(num_tokens=np.where(is_large, 0, rooms.num_tokens), reason=reason)
