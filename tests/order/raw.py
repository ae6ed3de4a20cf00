"""The smallest loader of raw examples: it knows how long they are and how many crops they have, and hpcdata.order.

MixtureStream -> WindowSteps -> Cursor: epochs, ranks, two budgets a row, state, weights and account come from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcdata.order.account import past_steps, sum_by_source
from hpcdata.order.bins import Bins
from hpcdata.order.checking import digest
from hpcdata.order.draws import Draws
from hpcdata.order.packing import Packing
from hpcdata.order.state import Cursor
from hpcdata.order.steps import Share
from hpcdata.order.streams import MixtureStream, SizedMixture, SizedSource
from hpcdata.order.window_steps import Place, WindowSteps


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A source: the length and the crops of each of its examples."""

    name: str
    lengths: list[int]
    crops: list[int]
    weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RawWindow:
    bins: Bins
    draws: Draws


class RawSteps(WindowSteps[RawWindow]):
    def __init__(
        self, measures: tuple[np.ndarray, ...], stream: MixtureStream, packing: Packing, size: int, num_ranks: int
    ):
        super().__init__(stream, packing, size, drop_last=False, num_ranks=num_ranks)
        self.lengths, self.crops = measures

    def pack(self, draws: Draws, place: Place) -> RawWindow:
        lengths, crops = self.lengths[draws.rows], self.crops[draws.rows]
        bins = place(lengths, np.zeros_like(lengths), crops)
        return RawWindow(bins=bins, draws=draws.take(bins.sample))


class RawLoader(Cursor[RawSteps]):
    """Each batch is a list of rows, each row a list of examples: (row of the stream, seed of the example)."""

    def __init__(self, sources: list[Measured], *, size: int, packing: Packing, rank: int = 0, world_size: int = 1):
        sized = [SizedSource(name=s.name, size=len(s.lengths), weight=s.weight) for s in sources]
        self.lengths = np.concatenate([source.lengths for source in sources]).astype(np.int64)
        self.crops = np.concatenate([source.crops for source in sources]).astype(np.int64)
        super().__init__(
            MixtureStream(SizedMixture(sized, policy="stop_all"), seed=7, shuffle=True),
            share=Share(rank=rank, world_size=world_size),
            global_batch_size=size,
            packing=packing,
            seed=7,
            shuffle=True,
            has_own_order=False,
            drop_last=False,
            num_epochs=None,
        )

    def __iter__(self) -> Iterator[list[list[tuple[int, int]]]]:
        while True:
            pieces = self._steps.pieces(self.epoch, self.step, self._share)
            self.epoch, self.step = self._following()
            yield [row for window, first, stop in pieces for row in _rows(window, first, stop)]

    def account(self) -> dict[str, dict[str, int]]:
        steps = self._make_steps()
        windows = (steps.windows(epoch, num_steps) for epoch, num_steps in past_steps(steps, self.epoch, self.step))
        draws = (window.draws.take(slice(0, window.bins.first_row[num])) for part in windows for window, num in part)
        values = ((d.source, {"examples": np.ones(len(d.rows)), "crops": self.crops[d.rows]}) for d in draws)
        totals = sum_by_source(values, ("examples", "crops"), len(self.stream.names))
        return {
            name: {column: int(total[source]) for column, total in totals.items()}
            for source, name in enumerate(self.stream.names)
        }

    def _make_steps(self) -> RawSteps:
        assert isinstance(self.stream, MixtureStream)
        assert self.packing is not None
        measures = self.lengths, self.crops
        return RawSteps(measures, self.stream, self.packing, self.global_batch_size, self.world_size)

    def _identity(self) -> dict[str, str]:
        measures = {"lengths": self.lengths.tolist(), "crops": self.crops.tolist()}
        return {"data": digest(measures), "plan": digest({"names": self.stream.names})}

    def _own_settings(self) -> dict[str, Any]:
        return {}


def _rows(window: RawWindow, first: int, stop: int) -> Iterator[list[tuple[int, int]]]:
    edges, draws = window.bins.first_row, window.draws
    for at in range(first, stop):
        rows = slice(edges[at], edges[at + 1])
        yield list(zip(draws.rows[rows].tolist(), draws.seeds[rows].tolist(), strict=True))
