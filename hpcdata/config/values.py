"""Plain nested values <-> the typed configuration, with one clear line for what does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from hpcdata.base.errors import UserError
from hpcdata.config.schema import REQUIRED, RunConfig, leaves

T = TypeVar("T")
_hints = functools.cache(typing.get_type_hints)


def from_mapping(values: Mapping[str, Any]) -> RunConfig:
    """The typed configuration of nested plain values. Raises UserError for unknown keys, wrong types, gaps."""
    config = _build(RunConfig, values, "")
    missing = [name for name, value, _ in leaves(config) if value == REQUIRED]
    if missing:
        raise UserError(f"{missing[0]} is required: pass {missing[0]}=...")
    return config


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of plain values and groups. Raises UserError for unknown or missing keys and wrong types."""
    missing = [
        item.name
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and values.get(item.name, REQUIRED) == REQUIRED
    ]
    if missing:
        raise UserError(f"{missing[0]} is required: pass {missing[0]}=...")
    result: T = _build(cls, values, "")
    return result


def to_mapping(config: Any) -> dict[str, Any]:
    """Nested plain values, the inverse of `from_mapping`."""
    return dataclasses.asdict(config)


@functools.cache
def key_types() -> Mapping[str, Any]:
    """Every key with its type: `{"data.resolution": int, ...}`."""
    return types.MappingProxyType(dict(_key_types(RunConfig, "")))


@functools.cache
def list_keys() -> frozenset[str]:
    """Keys that a list may be given for."""
    return frozenset(
        f"{group}.{item.name}"
        for group, values in vars(RunConfig()).items()
        if dataclasses.is_dataclass(values)
        for item in dataclasses.fields(values)
        if item.metadata.get("joined") or "list" in str(item.type)
    )


def unknown_key(name: str) -> UserError:
    known = list(key_types())
    group, _, last = name.rpartition(".")
    leaf = [key for key in known if key.rsplit(".", 1)[-1] == last]
    close = difflib.get_close_matches(name, ["+experiments", *known], n=1, cutoff=0.75)
    siblings = [key for key in known if group and key.startswith(f"{group}.")]
    if leaf or close:
        hint = f"did you mean {(leaf or close)[0]}?"
    elif siblings:
        hint = "known keys are " + ", ".join(siblings)
    else:
        hint = "python -m hpcdata.launch --help lists all"
    return UserError(f"unknown configuration key {name}: {hint}")


def _key_types(cls: type, prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for name, hint in _hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _key_types(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.')} must be a group of keys, got {values!r}")
    hints = _hints(cls)
    joined = {item.name for item in dataclasses.fields(typing.cast(Any, cls)) if item.metadata.get("joined")}
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise unknown_key(f"{prefix}{name}")
        hint = hints[name]
        if name in joined and isinstance(value, list):
            value = ",".join(map(str, value)) or None
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(typing.cast(type, hint), value, f"{prefix}{name}.")
        else:
            arguments[name] = _convert(value, hint, f"{prefix}{name}")
    return cls(**arguments)


def _convert(value: Any, hint: Any, name: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        matched, converted = _match(value, option)
        if matched:
            return converted
    raise UserError(f"{name}={value!r}: expected {_describe(hint)}")


def _match(value: Any, option: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(option)
    if option is type(None):
        return value is None, None
    if origin is Literal:
        return value in typing.get_args(option), value
    if origin is list:
        item = typing.get_args(option)[0]
        return isinstance(value, list | tuple) and all(_match(part, item)[0] for part in value), list(value or ())
    if origin is dict:
        return isinstance(value, Mapping), dict(value) if isinstance(value, Mapping) else None
    if option is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if option is str and isinstance(value, int | float) and not isinstance(value, bool):
        return True, str(value)
    if option is int and isinstance(value, bool):
        return False, None
    return isinstance(value, option), value


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
