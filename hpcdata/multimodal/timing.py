"""What the time of making examples goes into: seconds by phase, summed over threads.

    with phase("decode"):
        ...

Phases lie within each other: the time of an inner one is not counted for the outer one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Times:
    """Seconds of each phase of the threads that work for one loader. Adding a number is one step of the interpreter
    for each thread, which has numbers of its own.
    """

    def __init__(self) -> None:
        self._of_threads: list[dict[str, float]] = []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Also makes this the place where `phase` of this thread counts."""
        mine = _local.__dict__.setdefault("times", {}).get(id(self))
        if mine is None:
            mine = _local.times[id(self)] = {}
            self._of_threads.append(mine)
        before, _local.now = getattr(_local, "now", None), mine
        try:
            with phase(name):
                yield
        finally:
            _local.now = before

    def seconds(self) -> dict[str, float]:
        """By phase."""
        total: dict[str, float] = {}
        for mine in list(self._of_threads):
            for name, seconds in list(mine.items()):
                total[name] = total.get(name, 0.0) + seconds
        return total


_local = threading.local()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Counts for the loader that this thread works for, if it works for one."""
    now: dict[str, float] | None = getattr(_local, "now", None)
    if now is None:
        yield
        return
    outer, _local.inner_s = getattr(_local, "inner_s", 0.0), 0.0
    began = time.perf_counter()
    try:
        yield
    finally:
        elapsed_s = time.perf_counter() - began
        now[name] = now.get(name, 0.0) + elapsed_s - _local.inner_s
        _local.inner_s = outer + elapsed_s
