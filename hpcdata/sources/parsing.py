"""Bytes of JSON -> values, and back: quickly where that is exact, and as Python reads what other writers make."""

from __future__ import annotations

import json
import re

import orjson

from hpcdata.samples import BadSample, Reason

_LENIENT = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
"""What a line must hold for the slower parser to be worth its time."""
_LONG_NUMBER = b"0" * 19
"""Digits of the smallest number of more than 64 bits, and of no float that Python writes; see `_AS_ZEROS`."""
_AS_ZEROS = bytes(ord("0") if chr(byte) in "123456789" else byte for byte in range(256))
"""All digits as 0: looked for so, long numbers cost a third of parsing; by a regular expression four times as much."""
_HALF = re.compile("[\ud800-\udfff]")


def load(data: bytes) -> object:
    """JSON as Python writes it: NaN and Infinity too, but no lone surrogate and no nesting that overflows a stack."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        position = error.pos
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample(Reason.BAD_JSON, f"not UTF-8 at byte {error.start}") from None
    if _LENIENT.search(data) is None:
        raise BadSample(Reason.BAD_JSON, f"not JSON at character {position}")
    return _lenient(text, position)


def load_exact(data: bytes) -> object:
    """As `load`, for what is written again: a whole number of more than 64 bits is not made a float."""
    value = load(data)
    return _lenient(data.decode(), 0) if _LONG_NUMBER in data.translate(_AS_ZEROS) else value


def dumped(value: object) -> bytes:
    """JSON of what `load_exact` has made."""
    try:
        return orjson.dumps(value)
    except TypeError:  # of numbers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _lenient(text: str, position: int) -> object:
    """The value by the slower parser, for what the fast one refuses and other writers make."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        message = f"half a surrogate pair in {_half_pair(value)}: \\ud800 to \\udfff are no characters alone"
        raise BadSample(Reason.UNREADABLE_TEXT, message) from None
    except (ValueError, RecursionError):
        raise BadSample(Reason.BAD_JSON, f"not JSON at character {position}") from None
    return value


def _half_pair(value: object) -> str:
    """Where in parsed JSON the first text is that has one: `images[0]`, or a key."""
    ahead: list[tuple[str, object]] = [("", value)]
    while ahead:
        where, value = ahead.pop()
        if isinstance(value, str) and _HALF.search(value):
            return repr(where) if where else "the text"
        if isinstance(value, dict):
            if key := next(filter(_HALF.search, value), ""):
                return f"the key {key!a}"
            ahead += [(f"{where}.{key}".lstrip("."), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            ahead += [(f"{where}[{index}]", item) for index, item in reversed([*enumerate(value)])]
    return "it"
