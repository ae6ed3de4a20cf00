"""What stands in a JSON file, told from its beginning: an array, or a record in each line. All else is refused here.

Read line by line, an object that is spread over lines would be a hundred rejects that say nothing of the cause.
"""

from __future__ import annotations

import json
import re

from hpcdata.base.errors import UserError

SNIFF_BYTES = 1 << 20
"""How much of the (uncompressed) file `find_shape` is given, if there is so much."""
_MOST_ROWS = 100
_MOST_KEYS = 5
_RECORD_FIELDS = frozenset(("conversations", "messages", "image", "images"))
"""Fields of a record whose value may be a list: an object that has one of them is a record."""
_LIST_OF_OBJECTS = re.compile(rb'\{\s*"(\w+)"\s*:\s*\[\s*\{')


def find_shape(path: str, beginning: bytes) -> str:
    """`array` or `lines`. Raises UserError for objects that are spread over lines or hold the records."""
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    rows = [line.strip() for line in text.splitlines() if line.strip()][:_MOST_ROWS]
    is_whole, promises_one = len(beginning) < SNIFF_BYTES, _promises_one(path)
    if text[:1] == b"[":
        first = _parsed(rows[0]) if is_whole or len(rows) > 1 else None
        return "array" if promises_one or not isinstance(first, list) else "lines"
    if text[:1] == b"{":
        if len(rows) > 1:
            _require_lines(path, text, rows, is_whole)
        elif promises_one and is_whole:
            _require_record(path, text)
        elif promises_one and (match := _LIST_OF_OBJECTS.match(text)) and match[1].decode() not in _RECORD_FIELDS:
            raise _refusal(path, f"one object ({match[1].decode()}, ...)", f"write its list {match[1].decode()} alone")
    return "lines"


def _require_lines(path: str, text: bytes, rows: list[bytes], is_whole: bool) -> None:
    value, end = _first_value(text)
    spans_lines = isinstance(value, dict) and value and b"\n" in text[:end].rstrip()
    if isinstance(value, dict) and spans_lines and is_whole and not text[end:].strip():
        raise _refusal(path, _described(value), _remedy(value))
    has_records = any(isinstance(_parsed(line), dict) for line in rows)
    if spans_lines or (not is_whole and not has_records and rows[0][-1:] in b"{[,:"):
        raise _refusal(path, "objects that are spread over several lines", "write each in one line")
    if not has_records and _promises_one(path):
        raise _refusal(path, "one object, cut short or damaged", "repair it")


def _require_record(path: str, text: bytes) -> None:
    """Raises UserError for an object that is cut short or is no record itself: it has nothing but lists and objects."""
    whole = _parsed(text)
    if not isinstance(whole, dict):
        raise _refusal(path, "one object, cut short or damaged", "repair it")
    is_record = not whole or not whole.keys().isdisjoint(_RECORD_FIELDS)
    if not is_record and all(isinstance(item, list | dict) for item in whole.values()):
        raise _refusal(path, _described(whole), _remedy(whole))


def _refusal(path: str, found: str, remedy: str) -> UserError:
    return UserError(f"{path} holds {found}, expected an array of records, or a record in each line: {remedy}")


def _described(value: dict[str, object]) -> str:
    keys = ", ".join(list(value)[:_MOST_KEYS]) + (", ..." if len(value) > _MOST_KEYS else "")
    items = list(value.values())
    if len(items) > 1 and all(isinstance(item, list) for item in items):
        return f"one object with a list for each field ({keys})"
    if items and all(isinstance(item, dict) for item in items):
        return f"one object with a record for each key ({keys})"
    return f"one object ({keys})"


def _remedy(value: dict[str, object]) -> str:
    """What to write instead."""
    lists = [key for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)]
    if len(lists) == 1:
        return f"write its list {lists[0]} alone"
    return "convert it"


def _promises_one(path: str) -> bool:
    """Whether the name promises one JSON value, not lines."""
    name = path.lower()
    return ".json" in name and ".jsonl" not in name


def _first_value(text: bytes) -> tuple[object, int]:
    """The JSON value that the text begins with, and where it ends; (None, 0) if there is none."""
    try:
        decoded = text.decode("utf-8", "ignore")
        value, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError):
        return None, 0
    return value, len(decoded[:end].encode())


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
