"""Which fields of a row hold URLs: the one that is named, or the first of the usual names that does.

{"image_url": "https://..."}  {"URL": "https://...", "TEXT": "..."}  {"images": [{"url": "https://..."}, ...]}
{"image_url_1": "https://...", "image_url_2": "https://..."}
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import json_type
from hpcdata.sources.pictures.numbered import base_of, numbered

NAMES = ("image_url", "img_url", "image_urls", "url", "urls", "image_link", "coco_url", "image", "images", "img")
"""In order of preference, whatever their case."""
_OF_PICTURES = ("image", "img")
MOST_URLS = 1000
"""Of one row."""
_MOST_NAMES, _MOST_CHARACTERS = 64, 4096
"""Of a row whose names are remembered."""
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


def is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.match(value) is not None


def urls_of(record: Mapping[str, Any], wanted: str | None) -> list[str] | None:
    """The URLs of a row, those of fields of the same name with a number too; None where no field holds any.

    Raises BadSample for what is none.
    """
    name = field_of(record, wanted)
    if name is None:
        return None
    base = base_of(name)
    has_others = wanted is None and base.lower().startswith(_OF_PICTURES)
    others = numbered(record).get(base, []) if has_others else []
    names = [field for field in (base, *others) if field in record and _holds_urls(record[field])] if others else [name]
    return [url for field in names for url in urls_in(record, field)]


def field_of(record: Mapping[str, Any], wanted: str | None) -> str | None:
    """The name of the field that holds the URLs of a row; None where none does."""
    if wanted is not None:
        return wanted if record.get(wanted) else None
    names = tuple(record)
    for name in _usual(names) if len(names) <= _MOST_NAMES and sum(map(len, names)) < _MOST_CHARACTERS else _in(names):
        if _holds_urls(record[name]):
            return name
    return None


def _holds_urls(value: object) -> bool:
    return is_url(value) or (not isinstance(value, str) and any(map(is_url, _values(value))))


def _in(names: tuple[str, ...]) -> list[str]:
    """Those of a row that may hold URLs."""
    lower: dict[str, list[str]] = {}
    for name in names:
        lower.setdefault(key_of(name), []).append(name)
    return [name for known in NAMES for name in lower.get(known, ())]


def key_of(name: str) -> str:
    """What is looked for in `NAMES`: fields of pictures may have numbers."""
    lower = name.lower()
    return base_of(lower) if lower.startswith(_OF_PICTURES) else lower


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
