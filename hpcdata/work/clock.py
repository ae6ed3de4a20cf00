"""The clock of one claim: seconds of work since the last checkpoint, in sum, and what they went into."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hpcdata.work.gpumeter import GpuMeter

_T = TypeVar("_T")


class WorkClock:
    """Starts when it is made."""

    def __init__(self, gpu: GpuMeter | None = None) -> None:
        self.started = self.since = time.monotonic()
        """Of the claim; of the last checkpoint."""
        self._cpu_started = time.process_time()
        self._gpu = gpu
        self._gpu_started = (gpu.busy_s() if gpu else None) or 0.0
        self._spent: dict[str, float] = {}

    def restart(self) -> float:
        """Seconds since the last checkpoint; the next one counts from now."""
        now = time.monotonic()
        busy, self.since = now - self.since, now
        return round(busy, 3)

    @contextlib.contextmanager
    def spending(self, name: str) -> Iterator[None]:
        """Adds what happens inside to `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(name, started)

    def timed(self, items: Iterator[_T], name: str, *, without: str | None = None) -> Iterator[_T]:
        """The same items; the time that getting them takes is added to `name`, except what goes into `without`."""
        while True:
            before, started = self._spent.get(without or "", 0.0), time.monotonic()
            try:  # not `spending`: this runs for every record
                item = next(items, None)
            finally:
                self._add(name, started)
            if without:
                self._spent[name] -= self._spent.get(without, 0.0) - before
            if item is None:
                return
            yield item

    def mark_safe(self) -> dict[str, float]:
        """Fields for the ledger when all work so far has become safe: `busy_s` since the last time, sums otherwise."""
        busy_s = self.restart()
        cpu_s = time.process_time() - self._cpu_started
        sums = {"useful_s": self.since - self.started, "cpu_s": cpu_s, **self._spent}
        if self._gpu and (gpu_s := self._gpu.busy_s()) is not None:
            sums["gpu_s"] = gpu_s - self._gpu_started
        return {"busy_s": busy_s, **{name: round(value, 3) for name, value in sums.items()}}

    def _add(self, name: str, started: float) -> None:
        self._spent[name] = self._spent.get(name, 0.0) + time.monotonic() - started
