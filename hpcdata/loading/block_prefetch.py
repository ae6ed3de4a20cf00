"""Reading ahead in block order: a thread asks for the blocks, the loader waits for those of its own window alone.

To ask for a block takes time: pages are made for it, and the call blocks while the queue of the device is full. So
batches are made meanwhile. What the thread cannot open is an error where it is read.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.order import BlockOrder, Order
from hpcdata.order.streams import Stream


class Readable(Protocol):
    def will_read(self, ranges: np.ndarray) -> None:
        """As `TokenDataset.will_read`."""
        ...


class SourcesAhead:
    """The blocks of all sources of a stream, whose rows are those of a dataset."""

    def __init__(self, dataset: Readable, stream: Stream) -> None:
        self._dataset, self._stream = dataset, stream
        self._ahead = [BlocksAhead() for _ in stream.names]

    def reach(self, epoch: int, start: int, stop: int) -> bool:
        """Positions `start` to `stop` - 1 are next: what blocks need is read ahead. True when they need no more."""
        asked = [
            self._ahead[part.source].reach(self._dataset, *part[1:]) or part.start >= part.stop
            for part in self._stream.stretches(epoch, start, stop)
        ]
        return bool(asked) and all(asked)


class BlocksAhead:
    """Which blocks of one source were asked for. A copy, or one in a child process, begins anew."""

    def __init__(self) -> None:
        self._order: tuple[Order, int] | None = None
        self._position = self._slot = 0
        self._done = 0
        self._asked: list[tuple[int, threading.Thread]] = []
        """(the slot behind its last one, who asks) of requests that may be under way."""

    def __reduce__(self) -> tuple[type[BlocksAhead], tuple[()]]:
        return BlocksAhead, ()

    def reach(self, dataset: Readable, first_row: int, order: Order, epoch: int, start: int, stop: int) -> bool:
        """Positions `start` to `stop` - 1 of an epoch are next. `first_row`: where the source begins in the dataset.

        True when all that they need was asked for.
        """
        if not isinstance(order, BlockOrder) or start >= stop:
            return False
        if self._order != (order, epoch) or start + order.window_rows < self._position:  # or gone back far
            self._wait()
            self._order, self._position, self._slot, self._done = (order, epoch), start, 0, 0
        self._position = max(self._position, start)
        self._slot = max(self._slot, start // order.window_rows * order.window_blocks)
        own = order.slots_needed(stop - 1)
        for slot in (own, order.slots_ahead(stop - 1)):
            if slot > self._slot:
                self._ask(dataset, order.ranges(epoch, self._slot, slot) + np.array([first_row, 0]), slot)
                self._slot = slot
        self._wait(own)
        return True

    def _ask(self, dataset: Readable, ranges: np.ndarray, slot: int) -> None:
        before = self._asked[-1][1] if self._asked else None

        def ask() -> None:
            if before is not None:
                before.join()
            with contextlib.suppress(UserError, OSError):
                dataset.will_read(ranges)

        thread = threading.Thread(target=ask, name="hpcdata-blocks")
        self._asked.append((slot, thread))
        thread.start()

    def _wait(self, slot: int | None = None) -> None:
        """Until everything before `slot` was asked for, or everything."""
        while self._asked and (slot is None or self._done < slot):
            self._done, thread = self._asked.pop(0)
            thread.join()
