"""YAML -> entries. Whatever is wrong is told with the file and the field."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hpcdata.base.errors import UserError
from hpcdata.catalogue.entry import Entry

T = TypeVar("T")
_HEX = set("0123456789abcdef")


def read_entry(path: Path) -> Entry:
    """Raises UserError."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(path.read_bytes(), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    entry = _made(Entry, values, f"{path}")
    _require_sense(entry, path)
    return entry


def _require_sense(entry: Entry, path: Path) -> None:
    if not any(letter.isalnum() for letter in entry.name):
        raise UserError(f"{path}: name: {entry.name!r} has no letter and no digit")
    for name, given in (("folder", [entry.folder, *entry.also_in]), ("files", [item.path for item in entry.files])):
        for item in given:
            require_below(item, f"{path}: {name}")
    for into in entry.unpack.values():
        if into != ".":
            require_below(into, f"{path}: unpack")
    for file in entry.files:
        if urlsplit(file.url).scheme not in ("http", "https"):
            raise UserError(f"{path}: files: {file.url!r} is no address that begins with http:// or https://")
        if file.sha256 is not None and (len(file.sha256) != 64 or not set(file.sha256) <= _HEX):
            raise UserError(f"{path}: files: sha256 of {file.path} is no 64 small hexadecimal digits")
    for tree in entry.hub:
        if tree.repo.count("/") != 1:
            raise UserError(f"{path}: hub: repo is {tree.repo!r}, expected OWNER/NAME")
    unknown = [name for name in entry.unchecked if name not in _names(Entry)]
    if unknown:
        raise UserError(f"{path}: unchecked: there is no field {unknown[0]}")
    if entry.access == "manual" and not (entry.steps and entry.needs):
        raise UserError(f"{path}: access is manual: it needs steps, and needs (patterns of what is to lie there)")
    if entry.access == "open" and not (entry.hub or entry.files):
        raise UserError(f"{path}: access is open, and nothing says where it comes from: give hub or files")
    if entry.access not in ("open", "gated", "manual") and not entry.note:
        raise UserError(f"{path}: access is {entry.access}: note has to say what to do")


def require_below(name: str, where: str) -> None:
    """Raises UserError for a path that leads out of its folder, or into what is ours there."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or ".hpcdata" in parts:
        raise UserError(f"{where}: {name!r} is no path below the folder of the set")


def _names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]


def _made(cls: type[T], values: Any, where: str) -> T:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected fields with values, found {type(values).__name__}")
    known = _names(cls)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise UserError(f"{where}: there is no field {name}{hint}")
    needed = [
        item.name
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in needed if name not in values]:
        raise UserError(f"{where}: the field {missing[0]} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(value, hints[name], f"{where}: {name}") for name, value in values.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where} is {value!r}, expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where} is {value!r}, expected a list")
        return tuple(_value(item, arguments[0], where) for item in value)
    if origin is Mapping:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{where} is {value!r}, expected names with values")
        return {key: _value(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    if type(None) in arguments:
        return None if value is None else _value(value, arguments[0], where)
    if dataclasses.is_dataclass(hint):
        return _made(typing.cast(type, hint), value, where)
    if not isinstance(value, hint) or isinstance(value, bool):
        raise UserError(f"{where} is {value!r}, expected {hint.__name__}")
    return value
