"""The lists of one large JSON object, `{"images": [...], "annotations": [...]}`, element by element, with their places.

Nothing is held but the element that is read. Values of the object that are no lists are told whole, if they are small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at

_STRUCTURE = re.compile(rb'["\[\]{}]')
_STRING_END = re.compile(rb'["\\]')
_NAME = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\Z')
_CHUNK_BYTES = 1 << 20
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
    before, name, record = b"", "", list[bytes]()
    offset = depth = place = size = 0
    is_string = is_escaped = in_record = False
    while chunk := read_at(descriptor, _CHUNK_BYTES, offset):
        start, position = 0, int(is_escaped)
        is_escaped = False
        while match := (_STRING_END if is_string else _STRUCTURE).search(chunk, position):
            mark, position = match[0], match.end()
            if is_string:
                is_string = mark == b"\\"
                if is_string:
                    is_escaped = position == len(chunk)
                    position += 1
            elif mark == b'"':
                is_string = True
            elif mark in (b"{", b"["):
                if depth == 0 and (mark != b"{" or (before + chunk[: match.start()]).strip(b" \t\r\n\xef\xbb\xbf")):
                    raise UserError(f"{path} is no JSON object with lists in it")
                if depth == 1 and mark == b"[":
                    found = _NAME.search((before + chunk[start : match.start()])[-4096:])
                    name = found[1].decode("utf-8", "replace") if found else ""
                    if lists is not None:
                        lists.add(name)
                elif depth == 2 and mark == b"{" and name:
                    start, place, in_record = match.start(), offset + match.start(), True
                depth += 1
            else:
                depth -= 1
                if depth == 2 and in_record:
                    yield Element(name, place, b"".join([*record, chunk[start:position]]))
                    record, size, in_record, start = [], 0, False, position
                elif depth == 1:
                    name, start = "", position
        if in_record:
            record.append(chunk[start:])
            size += len(chunk) - start
            if size > MOST_BYTES:
                raise UserError(f"{path}: an element of {name} at byte {place} has more than {MOST_BYTES} bytes")
        before = (before + chunk[start:])[-4096:] if not in_record else b""
        offset += len(chunk)
    if depth or is_string or not offset:
        raise UserError(f"{path} is cut short: its object does not end")


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
