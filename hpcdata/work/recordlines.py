"""Records as values of JSON and back, every field of them, whichever they have.

    {"Sample": {"position": 3, "parts": [{"TextPart": {"text": "a cat", "role": {"Role": 2}, ...}}], ...}}

A dataclass or an enum of `hpcdata.samples` stands under its name. A list of JSON is a tuple; lists and mappings stand
under `list` and `map`. Bytes stay where they are: a `Blob` loses where they stand, and cannot be read again.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, cast

from hpcdata.samples import Blob, Duplicate, ImagePart, Member, Place, Reason, Record, Reject, Role, Sample, TextPart

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Sample, Reject, Duplicate, TextPart, ImagePart, Member, Blob, Place)
}
_ENUMS: dict[str, Any] = {kind.__name__: kind for kind in (Role, Reason)}
_LIST, _MAP = "list", "map"


def to_values(record: Record) -> dict[str, Any]:
    return cast("dict[str, Any]", _packed(record))


def from_values(values: dict[str, Any]) -> Record:
    """Raises KeyError or TypeError for what `to_values` has not made."""
    found = _unpacked(values)
    if not isinstance(found, Record):
        raise TypeError(f"expected a record, found {type(found).__name__}")
    return found


def _packed(value: object) -> object:
    match value:
        case Blob():
            value = dataclasses.replace(value, path="", offset=0, size=None, data=None)
        case enum.Enum():
            return {_known(_ENUMS, value): value.value}
        case tuple():
            return [_packed(item) for item in value]
        case list():
            return {_LIST: [_packed(item) for item in value]}
        case dict():
            return {_MAP: {name: _packed(item) for name, item in value.items()}}
        case None | bool() | int() | float() | str():
            return value
    fields = dataclasses.fields(cast("Any", value))
    return {_known(_KINDS, value): {field.name: _packed(getattr(value, field.name)) for field in fields}}


def _known(kinds: dict[str, Any], value: object) -> str:
    name = type(value).__name__
    if kinds.get(name) is not type(value):
        raise TypeError(f"{name} is no part of a record")
    return name


def _unpacked(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_unpacked, value))
    if not isinstance(value, dict):
        return value
    ((name, held),) = value.items()
    if name == _LIST:
        return list(map(_unpacked, held))
    if name == _MAP:
        return {key: _unpacked(item) for key, item in held.items()}
    if name in _ENUMS:
        return _ENUMS[name](held)
    return _KINDS[name](**{key: _unpacked(item) for key, item in held.items()})
