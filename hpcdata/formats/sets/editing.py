"""Records of JSON whose fields are changed where they stand: all other bytes stay as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import orjson

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)


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
