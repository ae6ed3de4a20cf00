"""Which elements of a file belong together, by a number that they have: places alone are held, 24 bytes an element."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcdata.base.reads import read_at
from hpcdata.sources.sets.elements import parsed


class Places:
    """Where elements are, in the order of the file, each with a number."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor, self._path = descriptor, path
        self._numbers, self._places, self._sizes = array("q"), array("q"), array("q")
        self._order = np.zeros(0, np.int64)
        self._sorted = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, place: int, size: int) -> None:
        self._numbers.append(number)
        self._places.append(place)
        self._sizes.append(size)

    def close(self) -> None:
        """All are added."""
        numbers = np.array(self._numbers, np.int64)
        self._order = np.argsort(numbers, kind="stable")
        self._sorted = numbers[self._order]

    @property
    def numbers(self) -> np.ndarray:
        """[n] int64, in the order of the file."""
        return np.array(self._numbers, np.int64)

    def repeated(self) -> frozenset[int]:
        """Numbers that several elements have."""
        return frozenset(self._sorted[1:][self._sorted[1:] == self._sorted[:-1]].tolist())

    def get(self, index: int) -> dict[str, Any]:
        place, size = self._places[index], self._sizes[index]
        return parsed(read_at(self._descriptor, size, place), self._path, place)

    def of(self, number: int) -> Iterator[dict[str, Any]]:
        """The elements with a number, in the order of the file."""
        begin, end = (np.searchsorted(self._sorted, np.int64(number), side) for side in ("left", "right"))
        for index in self._order[begin:end].tolist():
            yield self.get(index)

    def lonely(self, others: Places) -> Iterator[dict[str, Any]]:
        """Those whose number none of the others has."""
        missing = np.flatnonzero(~np.isin(self.numbers, others.numbers))
        for index in missing.tolist():
            yield self.get(index)
