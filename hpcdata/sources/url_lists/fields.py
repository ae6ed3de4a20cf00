"""Which fields of a row hold URLs: the one that is named, or the first of the usual names that does.

{"image_url": "https://..."}  {"URL": "https://...", "TEXT": "..."}  {"images": [{"url": "https://..."}, ...]}
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import json_type

NAMES = ("image_url", "img_url", "image_urls", "url", "urls", "image_link", "coco_url", "image", "images", "img")
"""In order of preference, whatever their case."""
MOST_URLS = 1000
"""Of one row."""
_MOST_NAMES, _MOST_CHARACTERS = 64, 4096
"""Of a row whose names are remembered."""
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


def is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.match(value) is not None


def field_of(record: Mapping[str, Any], wanted: str | None) -> str | None:
    """The name of the field that holds the URLs of a row; None where none does."""
    if wanted is not None:
        return wanted if record.get(wanted) else None
    names = tuple(record)
    for name in _usual(names) if len(names) <= _MOST_NAMES and sum(map(len, names)) < _MOST_CHARACTERS else _in(names):
        value = record[name]
        if is_url(value) or (not isinstance(value, str) and any(map(is_url, _values(value)))):
            return name
    return None


def _in(names: tuple[str, ...]) -> list[str]:
    """Those of a row that may hold URLs."""
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    return [lower[name] for name in NAMES if name in lower]


_usual = functools.lru_cache(256)(_in)


def urls_in(record: Mapping[str, Any], name: str) -> list[str]:
    """The URLs of a field, without spaces around them. Raises BadSample for what is none."""
    if isinstance(value := record[name], str):
        return [value.strip()]
    values = _values(value)
    if len(values) > MOST_URLS:
        raise BadSample(Reason.BAD_RECORD, f"{name} has {len(values)} URLs, the limit is {MOST_URLS}")
    found = list[str]()
    for value in values:
        if not isinstance(value, str):
            raise BadSample(Reason.BAD_RECORD, f"{name} is {json_type(value)}, expected a URL or a list of URLs")
        found.append(value.strip())
    return found


def _values(value: object) -> list[object]:
    """The URLs of a value as they are, one or a list, each alone or in an object."""
    values = value if isinstance(value, list) else [value]
    return [item.get("url") if isinstance(item, dict) and "url" in item else item for item in values]
