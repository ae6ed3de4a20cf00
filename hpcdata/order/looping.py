"""The loops over a loader: all epochs, or the rest of one; and how long they waited for batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from hpcdata.base.errors import UserError
from hpcdata.order.place import S
from hpcdata.order.state import Cursor

T = TypeVar("T")


class Waits:
    """How long a training waited: seconds between asking for a batch and having it. No part of a state.

    The first one is apart: it opens files and starts threads.
    """

    def __init__(self) -> None:
        self.steps = 0
        """Batches behind the first."""
        self.first_s = self.last_s = self.longest_s = self.total_s = 0.0
        """`longest_s` and `total_s`: of those behind the first."""
        self._began: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Since the first batch was there."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    @property
    def share(self) -> float:
        """Of the time since the first batch was there, 0 to 1."""
        elapsed_s = self.elapsed_s
        return min(1.0, self.total_s / elapsed_s) if elapsed_s > 0 else 0.0

    def add(self, seconds: float) -> None:
        self.last_s = seconds
        if self._began is None:
            self.first_s, self._began = seconds, time.perf_counter()
            return
        self.steps += 1
        self.total_s += seconds
        self.longest_s = max(self.longest_s, seconds)

    def counted(self, batches: Iterable[T]) -> Iterator[T]:
        """The same, each added as it is there."""
        left = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(left)
            except StopIteration:
                return
            self.add(time.perf_counter() - asked)
            yield batch

    def __repr__(self) -> str:
        return (
            f"waited {self.total_s:.3f} s for {self.steps} batches, {100 * self.share:.1f} % of the time; "
            f"{self.first_s:.3f} s for the first, at most {self.longest_s:.3f} s for another"
        )


class Looping(Cursor[S]):
    """A cursor whose `_next` makes the batch at its place and moves on; it sets `_is_over` to False."""

    waits: Waits
    """Of the batches that this process was given, in whatever way."""
    _is_over = False

    def _next(self) -> dict[str, Any]:
        raise NotImplementedError

    def batch_at(self, epoch: int, step: int) -> dict[str, Any]:
        """The batch of any step, without moving the loader."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises UserError where an earlier loop has delivered the last of `num_epochs`: nothing would come."""
        self._check_worker()
        while self.num_epochs is None or self.epoch < self.num_epochs:
            yield self._next()
        self.end()

    def end(self) -> None:
        """Called by a loop that comes to the end; raises UserError where it came to it without a batch once more."""
        if self._is_over:
            raise UserError(
                f"the loader has delivered all of num_epochs={self.num_epochs}: for more epochs leave num_epochs out "
                "and loop over loader.iter_epoch(), or go back with set_epoch(0) or load_state_dict"
            )
        self._is_over = True

    def iter_epoch(self) -> Iterator[dict[str, Any]]:
        """The rest of the current epoch, for `for epoch in range(...)` loops."""
        self._check_worker()
        epoch = self.epoch
        while self.epoch == epoch:
            yield self._next()

    def account(self) -> Any:
        """What each source has contributed up to the next batch, on all ranks, by its name."""
        raise NotImplementedError
