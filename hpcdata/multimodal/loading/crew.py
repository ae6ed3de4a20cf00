"""The threads of a loader, and the patience that they have with the machine."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hpcdata.base.errors import UserError

T = TypeVar("T")

PAUSES_S = (0.1, 1.0)
"""Before a read that the machine failed is tried again."""


class Crew:
    """The threads of a loader, begun in the process that uses them: a child of a fork has its own."""

    def __init__(self, num_threads: int | None) -> None:
        if num_threads is not None and num_threads < 0:
            raise UserError(f"num_threads={num_threads}, expected at least 1, or 0 for as many as there are cores")
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Crew], tuple[int]]:
        return Crew, (self.num_threads,)

    @property
    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():
            if self._process != os.getpid():
                self._lock = threading.Lock()  # a thread may have held it when this process was forked
            with self._lock:
                if self._pool is None or self._process != os.getpid():
                    self._pool = ThreadPoolExecutor(self.num_threads, "hpcdata-decode")
                    self._process = os.getpid()
                    weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        return self._pool

    def map(self, function: Callable[[Any], T], values: Sequence[Any]) -> list[T]:
        return list(self.pool.map(function, values))


def patiently(make: Callable[[], T]) -> T:
    """What it returns; errors with a number, and of memory that is not there, are raised the third time."""
    for pause_s in PAUSES_S:
        try:
            return make()
        except (OSError, MemoryError):
            time.sleep(pause_s)
    return make()
