"""Small files: asked for by coroutines of one thread, which costs a third of what threads do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from hpcdata.net.loop import Loop

T = TypeVar("T")


class Batch(Generic[T]):
    """fetch: of one item, in the loop. must_stop: asked before each."""

    def __init__(
        self, items: Iterable[T], fetch: Callable[[T], Coroutine[Any, Any, None]], must_stop: Callable[[], bool]
    ) -> None:
        self._items, self._fetch, self._must_stop = iter(items), fetch, must_stop
        self._changed = threading.Condition()
        self._at_work = 0
        self._error: BaseException | None = None

    def run(self, loop: Loop, num_at_once: int) -> None:
        """Returns when all are done, or it was to stop. Raises what a fetch has raised."""
        self._at_work = num_at_once
        for _ in range(num_at_once):
            loop.start(self._work(), self._done)
        with self._changed:
            self._changed.wait_for(lambda: self._at_work == 0)
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        for item in self._items:
            if self._error is not None or self._must_stop():
                return
            await self._fetch(item)

    def _done(self, _: object, error: BaseException | None) -> None:
        with self._changed:
            self._error = self._error or error
            self._at_work -= 1
            self._changed.notify_all()
