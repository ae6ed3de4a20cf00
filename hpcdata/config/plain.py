"""Plain command lines as values, without Hydra: it takes 0.2 s to load and start, half of what a small command takes.

What is read here is read as Hydra reads it: presets that come with hpcdata and name no others, and values that are one
text, number or word. All else is left to Hydra.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.config.presets import GROUPS
from hpcdata.config.schema import REQUIRED

_OVERRIDE = re.compile(r"(?P<sign>\+{0,2})(?P<key>\w+(\.\w+)*)=(?P<value>[^\n]*)")
_NAMES = re.compile(r"(\w+)|\[(\w+(?:,\w+)*)\]")
_TEXT = re.compile(r"'([^'\"\\$\n]*)'")
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_OF_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+),(\w+)\}")
_CONSTANTS = {"null": None, "true": True, "false": False}
_NO_TEXT = ("nan", "inf", *_CONSTANTS)
_DEFAULTS = ["_self_", {"cluster": "inline"}, {"optional experiments": []}]


class NotPlain(Exception):
    """Hydra is to read it."""


def plain_values(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """The values of `folder`/config.yaml with overrides that `compose.normalise` has made. Raises NotPlain."""
    chosen, keys = dict[str, str](), list[tuple[str, Any]]()
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None:
            raise NotPlain(argument)
        key, value = match["key"], match["value"]
        if key not in GROUPS:
            keys.append((key, _value(value)))
        elif key in chosen:
            raise NotPlain(argument)
        else:
            chosen[key] = value
    base = _read(folder / "config.yaml")
    if base.pop("defaults", None) != _DEFAULTS:
        raise NotPlain("defaults")
    _merge(base, {"cluster": _preset(folder / "cluster", chosen.get("cluster", "inline"))})
    for name in _names(chosen.get("experiments")):
        _merge(base, _preset(folder / "experiments", name))
    for key, value in keys:
        *groups, last = key.split(".")
        _merge(base, _nested(groups, {last: value}))
    return base


def _value(text: str) -> Any:
    if (match := _TEXT.fullmatch(text)) and match[1] != REQUIRED:
        return match[1]
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if match := _NUMBER.fullmatch(text):
        return float(text) if match[2] else int(text)
    if _WORD.fullmatch(text) and text.lower() not in _NO_TEXT:
        return text
    raise NotPlain(text)


def _names(text: str | None) -> list[str]:
    if text is None:
        return []
    match = _NAMES.fullmatch(text)
    if match is None:
        raise NotPlain(text)
    names = (match[1] or match[2]).split(",")
    if len(set(names)) < len(names):
        raise NotPlain(text)
    return names


def _preset(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.yaml"
    if not name or not path.is_file():
        raise NotPlain(name)
    found = _read(path)
    if "defaults" in found:
        raise NotPlain(name)
    return found


def _read(path: Path) -> dict[str, Any]:
    import yaml

    found = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(_resolved(found))


def _resolved(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield key, dict(_resolved(value))
        elif isinstance(value, str) and "${" in value:
            match = _OF_ENVIRONMENT.fullmatch(value)
            if match is None:
                raise NotPlain(value)
            default = None if match[2] == "null" else match[2]
            yield key, os.environ.get(match[1], default)
        else:
            yield key, value


def _nested(groups: Sequence[str], values: dict[str, Any]) -> dict[str, Any]:
    for group in reversed(groups):
        values = {group: values}
    return values


def _merge(values: dict[str, Any], new: Mapping[str, Any]) -> None:
    """New values count, those of groups one by one."""
    for key, value in new.items():
        old = values.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            _merge(old, value)
        else:
            values[key] = value
