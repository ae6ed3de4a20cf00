"""The categories of a set: their numbers, which need not follow each other, and their names, as questions say them.

Categories of one name are one, as a question tells them by nothing else.
"""

from __future__ import annotations

from typing import Any

from hpcdata.base.errors import UserError


class Categories:
    """Numbers are those of the file; a category of a name that came before is its number."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[int, str] = {}
        self._first: dict[str, int] = {}
        self._keypoints: dict[int, list[str]] = {}
        self._stuff = set[int]()
        self.is_lvis = False

    def add(self, number: int, values: dict[str, Any]) -> None:
        """Raises UserError for a number that has another name already."""
        name = str(values.get("name", number)).replace("_", " ")
        known = self._names.setdefault(number, name)
        if known != name:
            raise UserError(f"{self._path} has two categories with id {number}, {known!r} and {name!r}: expected one")
        self.is_lvis |= "frequency" in values or "synset" in values
        if not values.get("isthing", 1):
            self._stuff.add(number)
        points = values.get("keypoints")
        self._keypoints.setdefault(self._first.setdefault(name, number), _texts(points))

    def number_of(self, value: object) -> int | None:
        """The category that a field names; None where there is no such."""
        if not isinstance(value, int) or value not in self._names:
            return None
        return self._first[self._names[value]]

    def numbers_of(self, values: object) -> list[int]:
        """Those that a list of a picture names and that are known, each once."""
        found = map(self.number_of, values if isinstance(values, list) else [])
        return list(dict.fromkeys(number for number in found if number is not None))

    def name(self, number: int) -> str:
        return self._names[number]

    def is_thing(self, number: int) -> bool:
        """Whether it can be counted; what panoptic annotations call stuff, such as sky, cannot."""
        return number not in self._stuff

    def keypoints(self, number: int) -> list[str]:
        """Names of the keypoints of its objects, in order."""
        return self._keypoints[number]


def _texts(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
