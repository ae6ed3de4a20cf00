"""Which pictures of a record are not read, as another of its fields is: said, so that nobody loses them in silence."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from hpcdata.sources.pictures.fields import ELSEWHERE, is_called_so, shown_name
from hpcdata.sources.pictures.numbered import base_of

logger = logging.getLogger(__name__)

_MOST = 64
"""Fields of a record whose names are remembered, and fields that are said."""
_told: set[tuple[str, str]] = set()


def tell_others(record: Mapping[str, Any], read: str) -> None:
    """Says which fields of a record hold pictures and are not read. read: a field that is."""
    names = tuple(record)
    others = _remembered(names, read) if len(names) <= _MOST else _others(names, read)
    if others:
        tell((name for name in others if _is_here(record[name])), read)


def tell(names: Iterable[str], read: str) -> None:
    """Each once in a process."""
    new = [name for name in names if (name, read) not in _told][: _MOST - len(_told)]
    _told.update((name, read) for name in new)
    if new:
        where = f"pictures are read from {shown_name(read)}" if read else "no picture is read from bytes"
        logger.warning("%s; what is in %s is left out", where, ", ".join(map(shown_name, new)))


def _others(names: tuple[str, ...], read: str) -> tuple[str, ...]:
    own = base_of(read)
    return tuple(name for name in names if base_of(name) != own and is_called_so(name))


_remembered = functools.lru_cache(256)(_others)


def _is_here(value: object) -> bool:
    """Whether a value may be a picture that could be read here: not one on the web."""
    if isinstance(value, str):
        return bool(value) and (value[:5].lower() == "data:" or not ELSEWHERE.match(value))
    if isinstance(value, list | dict):
        return any(map(_is_here, value if isinstance(value, list) else value.values()))
    return isinstance(value, bytes) and bool(value)
