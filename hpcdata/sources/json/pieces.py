"""A file of JSON as its records and what is between them: all bytes, in order, with one record in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at
from hpcdata.sources.json.marks import Marks

NAME_OF_LIST = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\Z')
"""Of a list that is open now, at the end of what is before it, its bracket with it."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 20


class Piece(NamedTuple):
    data: bytes
    is_record: bool
    opens: int = 0
    """The level of the array or object that its last byte opens, 1 for the outer one."""


def chunks_of(descriptor: int) -> Iterator[bytes]:
    """The bytes of a file. Raises OSError."""
    offset = 0
    while chunk := read_at(descriptor, _CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)


def objects(stream: Iterator[bytes], *, level: int, limit: int) -> Iterator[Piece]:
    """Records are the objects in arrays of a level: 1 is the outer one; all else is between them.

    Raises UserError for a record of more than `limit` bytes, and for JSON that does not end.
    """
    marks, depth, number, record, size = Marks(b"[]{}"), 0, 0, list[bytes](), 0
    in_array = in_record = False
    for chunk in stream:
        start = 0
        for match in marks.of(chunk):
            mark, position = match[0], match.end()
            if mark in (b"]", b"}"):
                depth -= 1
                if depth == level and in_record:
                    yield Piece(b"".join([*record, chunk[start:position]]), is_record=True)
                    record, size, start, in_record = [], 0, position, False
                continue
            if depth == level and in_array and mark == b"{":
                yield Piece(chunk[start : position - 1], is_record=False)
                start, number, in_record = position - 1, number + 1, True
            depth += 1
            if depth <= level:
                in_array = mark == b"["
                yield Piece(chunk[start:position], is_record=False, opens=depth)
                start = position
        if in_record:
            record.append(chunk[start:])
            size += len(chunk) - start
            _require_small(size, number, limit)
        else:
            yield Piece(chunk[start:], is_record=False)
    if depth or marks.is_string:
        raise UserError(f"its JSON does not end: it is cut short behind its record {number}")


def lines(stream: Iterator[bytes], *, limit: int) -> Iterator[Piece]:
    """Records are the lines that are not blank. Raises UserError for one of more than `limit` bytes."""
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


def _require_small(size: int, number: int, limit: int) -> None:
    if size > limit:
        raise UserError(f"record {number} has more than {limit} bytes")
