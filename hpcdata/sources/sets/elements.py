"""The lists of one large JSON object, `{"images": [...], "annotations": [...]}`, element by element, with their places.

Nothing is held but the element that is read. Values of the object that are no lists are told whole, if they are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from hpcdata.base.errors import UserError
from hpcdata.sources.json.pieces import NAME_OF_LIST, chunks_of, objects

_MOST_NAME = 4096
MOST_BYTES = 64 << 20
"""Of one element."""


class Element(NamedTuple):
    name: str
    """Of the list that it stands in."""
    place: int
    data: bytes


def elements(descriptor: int, path: str, lists: set[str] | None = None) -> Iterator[Element]:
    """The objects in the lists of a file's object. Raises UserError for what is no such object.

    lists: gets the name of each list, also of those without an element.
    """
    tail, name, place = b"", "", 0
    try:
        for piece in objects(chunks_of(descriptor), level=2, limit=MOST_BYTES):
            data = piece.data
            if piece.is_record:
                if name:
                    yield Element(name, place, data)
                tail = b""
            else:
                tail = (tail + data)[-_MOST_NAME:]
                if piece.opens:
                    name = _opened(tail, piece.opens)
                    if lists is not None and name:
                        lists.add(name)
                    tail = b""
            place += len(data)
        if not place:
            raise UserError("it is cut short: it is empty")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _opened(tail: bytes, level: int) -> str:
    """The name of the list that is open now. tail: what is before its bracket."""
    if level == 1 and tail.strip(b" \t\r\n\xef\xbb\xbf") != b"{":
        raise UserError("it is no JSON object with lists in it")
    found = NAME_OF_LIST.search(tail) if level == 2 else None
    return found[1].decode("utf-8", "replace") if found else ""


def parsed(element: bytes, path: str, place: int) -> dict[str, Any]:
    """Raises UserError for what is no JSON object."""
    try:
        value = orjson.loads(element)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path}: what begins at byte {place} is no JSON")
    return value


def number_in(values: dict[str, Any], name: str, path: str, place: int) -> int:
    """Raises UserError for a field that is no number of 64 bits."""
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 63) <= value < 1 << 63:
        raise UserError(f"{path}: what begins at byte {place} has {name} {value!r}, expected a number")
    return value
