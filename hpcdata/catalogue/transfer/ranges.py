"""Which bytes of a file are here: sorted ranges [begin, end) that do not touch."""

from __future__ import annotations

import bisect
from collections.abc import Iterator


class Ranges:
    """Of few pieces: each change looks at those beside it."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._begins, self._ends, strict=True))

    def clear(self) -> None:
        self._begins.clear()
        self._ends.clear()

    @property
    def num_bytes(self) -> int:
        return sum(self._ends) - sum(self._begins)

    def add(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        first, last = bisect.bisect_left(self._ends, begin), bisect.bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last], self._ends[first:last] = [begin], [end]

    def remove(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        first, last = bisect.bisect_right(self._ends, begin), bisect.bisect_left(self._begins, end)
        rest = [(self._begins[at], self._ends[at]) for at in range(first, last)]
        kept = [piece for old in rest for piece in ((old[0], begin), (end, old[1])) if piece[0] < piece[1]]
        self._begins[first:last], self._ends[first:last] = [piece[0] for piece in kept], [piece[1] for piece in kept]

    def end_from(self, place: int) -> int:
        """How far everything from `place` on is here; `place` when its byte is not."""
        at = bisect.bisect_right(self._begins, place) - 1
        return max(place, self._ends[at]) if at >= 0 else place

    def gaps(self, size: int) -> Iterator[tuple[int, int]]:
        """What of [0, size) is not here."""
        place = 0
        for begin, end in self:
            if place < min(begin, size):
                yield place, min(begin, size)
            place = max(place, end)
        if place < size:
            yield place, size
