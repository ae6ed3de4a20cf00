"""Values read from files are what their dataclass says: a damaged file is found where it is read, not later."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")
_PLAIN = frozenset((str, int, float, bool))
"""Nothing more is asked of a value whose type is one of these."""


def checked(value: T) -> T:
    """Returns a dataclass value whose fields have their annotated types. Raises TypeError naming the one that has not.

    Knows what the records of this package consist of: int, float, str, bool, None, unions, Literal, tuple, list, dict,
    Counter, Mapping and dataclasses. An int is no bool.
    """
    cls: type = type(value)
    for name, hint in _hints(cls).items():
        found = getattr(value, name)
        if (type(found) is not hint or hint not in _PLAIN) and not _matches(found, hint):
            raise TypeError(f"{name} is {type(found).__name__}, expected {getattr(hint, '__name__', hint)}")
    return value


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
    """A plan has thousands of values of one class."""
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def _matches(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_matches(item, arguments[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and _tuple_matches(value, arguments)
    if origin is Counter:
        return isinstance(value, Counter) and all(_matches(k, str) and _matches(n, int) for k, n in value.items())
    if origin in (dict, Mapping):
        key, item = arguments
        return isinstance(value, Mapping) and all(_matches(k, key) and _matches(v, item) for k, v in value.items())
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            checked(value)
            return True
        return False
    if hint is int and isinstance(value, bool):
        return False
    return isinstance(value, hint)


def _tuple_matches(value: tuple[object, ...], arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if {*map(type, value)} <= {arguments[0]}:  # a plan has a hundred thousand ints
            return not dataclasses.is_dataclass(arguments[0]) or all(map(checked, value))
        return all(_matches(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(_matches, value, arguments))
