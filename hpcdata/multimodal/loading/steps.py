"""Which examples each row of a step consists of: hpcdata.order with the lengths of raw examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.collation import Shape
from hpcdata.multimodal.loading.lengths import Lengths, Rooms
from hpcdata.native.forks import Lazy
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing import Packing
from hpcdata.order.steps import RowSteps, Share
from hpcdata.order.streams import Stream
from hpcdata.order.window_steps import Place, WindowSteps, draws_of


class Batch(NamedTuple):
    """The examples of a share of a step."""

    draws: Draws
    edges: np.ndarray
    """[num_rows + 1]: row r has the draws from edges[r] to edges[r + 1] - 1."""
    is_packed: bool
    shape: Shape
    """Of the largest row of the whole step, as far as it must be known before."""
    left_out: Draws
    """What is in no row of the windows that begin here, as it would be rejected or is too large."""


class PlainSteps(RowSteps):
    """Every example a row. `needs_shape`: whether columns or crops depend on what other ranks have."""

    def __init__(self, stream: Stream, lengths: Lengths, size: int, *, drop_last: bool, needs_shape: bool) -> None:
        super().__init__(stream, size, drop_last=drop_last)
        self._lengths, self._needs_shape = lengths, needs_shape

    def batch(self, epoch: int, step: int, share: Share) -> Batch:
        draws, shape = self.draws(epoch, step, share), Shape()
        if self._needs_shape and share.world_size > 1:
            rooms = self._lengths.of(self.draws(epoch, step, Share()))
            shape = Shape(*(int(column.max(initial=0)) for column in rooms))
        return Batch(draws, np.arange(len(draws.rows) + 1), False, shape, draws.take(slice(0, 0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class RawWindow:
    """A packed window: its bins, what they hold, and what each of that takes."""

    bins: Bins
    all_draws: Draws
    all_rooms: Rooms

    @Lazy
    def draws(self) -> Draws:
        """Of its rows, bin after bin."""
        return self.all_draws.take(self.bins.sample)

    @property
    def rooms(self) -> Rooms:
        """The same."""
        return self.all_rooms.take(self.bins.sample)

    @property
    def left_out(self) -> Draws:
        is_placed = np.zeros(len(self.all_draws.rows), bool)
        is_placed[self.bins.sample] = True
        return self.all_draws.take(np.flatnonzero(~is_placed & (self.all_rooms.num_tokens == 0)))


class PackedSteps(WindowSteps[RawWindow]):
    """Several examples a row, window by window, within the budgets of `packing`."""

    def __init__(
        self, stream: Stream, lengths: Lengths, packing: Packing, size: int, *, drop_last: bool, num_ranks: int
    ) -> None:
        super().__init__(stream, packing, size, drop_last=drop_last, num_ranks=num_ranks)
        self._lengths = lengths

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__()}

    def pack(self, draws: Draws, place: Place) -> RawWindow:
        rooms = self._lengths.of(draws)
        self._check(draws, rooms)
        crops = rooms.num_crops if self.packing.max_images is not None else None
        bins = place(rooms.num_tokens, np.zeros(len(draws.rows), np.int64), crops)
        return RawWindow(bins=bins, all_draws=draws, all_rooms=rooms)

    def batch(self, epoch: int, step: int, share: Share) -> Batch:
        pieces = self.pieces(epoch, step, share)
        draws = draws_of(pieces)
        sizes = np.concatenate([np.diff(window.bins.first_row[first : stop + 1]) for window, first, stop in pieces])
        crops, pooled, columns = 0, 0, self.packing.length or 0
        for window, first, stop in self.pieces(epoch, step, Share()):
            crops = max(crops, int(window.bins.totals(window.all_rooms.num_crops)[first:stop].max(initial=0)))
            pooled = max(pooled, int(window.bins.totals(window.all_rooms.num_pooled)[first:stop].max(initial=0)))
            if self.packing.length is None:
                columns = max(columns, int(window.bins.width[first:stop].max(initial=0)))
        left_out = [window.left_out for window in self.begun(epoch, step)]
        edges = np.append(0, np.cumsum(sizes))
        none = draws.take(slice(0, 0))
        is_packed = self.packing.length is not None
        return Batch(draws, edges, is_packed, Shape(columns, crops, pooled), Draws.join([none, *left_out]))

    def _check(self, draws: Draws, rooms: Rooms) -> None:
        """Raises UserError for what no row has room for: a preprocessor with `truncation` never makes it."""
        for what, values, most in (
            ("tokens", rooms.num_tokens, self.packing.length),
            ("crops", rooms.num_crops, self.packing.max_images),
        ):
            if most is not None and len(values) and int(values.max()) > most:
                at = int(values.argmax())
                source, row = self.stream.names[int(draws.source[at])], int(draws.rows[at])
                raise UserError(
                    f"row {row} (of {source}) takes {int(values[at])} {what}, a packed row has {most}: set the limits "
                    "of the preprocessor (sequence_length, max_crops, max_images, truncation) so that it fits, or a "
                    "larger packing"
                )
