"""JSON whose fields are changed where they stand: all other bytes stay as they are, and one record is in memory.

for piece in pieces(stream, is_array=True):
    out.write(edited(piece.data, {"image"}, change) if piece.is_record else piece.data)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import orjson

from hpcdata.base.errors import UserError

_STRUCTURE = re.compile(rb'["\[\]{}]')
_STRING_END = re.compile(rb'["\\]')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    data: bytes
    is_record: bool
    """An object of the outer array, or a line; else what is between records."""


def pieces(stream: Iterator[bytes], *, is_array: bool, limit: int) -> Iterator[Piece]:
    """All bytes of a file of JSON, in order. Raises UserError for a record of more than `limit` bytes, and for an array
    that does not end.
    """
    return _of_array(stream, limit) if is_array else _of_lines(stream, limit)


def spans(record: bytes, fields: Collection[str]) -> list[tuple[int, int]]:
    """(start, end) of each JSON string that is the value of a field of the record, or stands in its list.

    record: an object that has been parsed before.
    """
    found = list[tuple[int, int]]()
    depth, is_key, is_wanted, in_list, name = 0, False, False, False, b""
    for token in _TOKEN.finditer(record):
        mark = token[0]
        if mark[:1] == b'"':
            if depth == 1 and is_key:
                name = mark
            elif is_wanted and (depth == 1 or (depth == 2 and in_list)):
                found.append(token.span())
        elif mark in (b"{", b"["):
            depth += 1
            is_key = depth == 1
            in_list = mark == b"[" if depth == 2 else in_list
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1:
            is_key = mark == b","
            is_wanted = not is_key and orjson.loads(name) in fields
    return found


def edited(record: bytes, fields: Collection[str], change: Callable[[str], str]) -> bytes:
    """The record with each text of these fields changed: what `change` puts in front of it is written, nothing else.

    change: the text -> what comes before it; nothing for one that stays.
    """
    out, done = [], 0
    for start, end in spans(record, fields):
        before = change(orjson.loads(record[start:end]))
        if before:
            out += [record[done : start + 1], orjson.dumps(before)[1:-1]]
            done = start + 1
    return b"".join([*out, record[done:]])


def _of_lines(stream: Iterator[bytes], limit: int) -> Iterator[Piece]:
    rest = list[bytes]()
    size = number = 0
    for chunk in stream:
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            line = b"".join([*rest, line])
            rest, size, number = [], 0, number + 1
            yield from _line(line, number)
            yield Piece(b"\n", is_record=False)
        rest.append(tail)
        size += len(tail)
        _require_small(size, number + 1, limit)
    yield from _line(b"".join(rest), number + 1)


def _line(line: bytes, number: int) -> Iterator[Piece]:
    mark = _BYTE_ORDER_MARK if number == 1 and line.startswith(_BYTE_ORDER_MARK) else b""
    if mark:
        yield Piece(mark, is_record=False)
    line = line[len(mark) :]
    if line:
        yield Piece(line, is_record=bool(line.strip()))


def _of_array(stream: Iterator[bytes], limit: int) -> Iterator[Piece]:
    """Objects at depth 1; other elements of the array are between records."""
    depth, number, record, size = 0, 0, list[bytes](), 0
    is_string = is_escaped = in_record = False
    for chunk in stream:
        start = position = 0
        if is_escaped:
            position, is_escaped = 1, False
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
                if depth == 1 and mark == b"{":
                    yield Piece(chunk[start : match.start()], is_record=False)
                    start, number, in_record = match.start(), number + 1, True
                depth += 1
            else:
                depth -= 1
                if depth == 1 and in_record:
                    yield Piece(b"".join([*record, chunk[start:position]]), is_record=True)
                    record, size, start, in_record = [], 0, position, False
        if in_record:
            record.append(chunk[start:])
            size += len(chunk) - start
            _require_small(size, number, limit)
        else:
            yield Piece(chunk[start:], is_record=False)
    if depth or is_string:
        raise UserError(f"the array does not end: it is cut short behind its record {number}")


def _require_small(size: int, number: int, limit: int) -> None:
    if size > limit:
        raise UserError(f"record {number} has more than {limit} bytes")
