"""How long a training waited for its batches: `loader.waits`, of what this process was given. No part of a state."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Waits:
    """Seconds between asking for a batch and having it. The first one is apart: it opens files and starts threads."""

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
