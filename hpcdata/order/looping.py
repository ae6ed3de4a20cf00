"""The loops over a loader: all epochs, or the rest of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.order.place import S
from hpcdata.order.state import Cursor


class Looping(Cursor[S]):
    """A cursor whose `_next` makes the batch at its place and moves on; it sets `_is_over` to False."""

    _is_over = False

    def _next(self) -> dict[str, Any]:
        raise NotImplementedError

    def batch_at(self, epoch: int, step: int) -> dict[str, Any]:
        """The batch of any step, without moving the loader."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises UserError where an earlier loop has delivered the last of `num_epochs`: nothing would come."""
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
        epoch = self.epoch
        while self.epoch == epoch:
            yield self._next()
