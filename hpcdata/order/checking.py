"""Whether a saved state is of this data and these settings; which option differs, where it is not.

Some settings are in a state as a digest alone, as it must be small. Which of their options differs is found by trying
values of one option at a time, until the digest is the one that was saved.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from hpcdata.base.errors import UserError

STATE_VERSION = 1
_WORDS = ("max_len", "batch_max", "raise", "skip", *(f"to_{1 << power}" for power in range(1, 14)))
_POLICIES = ("repeat", "stop_first", "stop_all", "max_repeats")
_NOT_SHOWN = {"Buckets": {"rest": "pad"}}
"""Arguments that old states have without a word."""
_MEANINGS = {
    "mixture_digest": "the mixture (its sources in their order, sampling, weights, policy and schedule)",
    "layout_digest": "the options of the layout",
}
_SHARES = tuple(share / 100 for share in range(101))


def check_state(state: dict[str, Any], own: dict[str, Any], behind: Mapping[str, dict[str, Any]] | None = None) -> None:
    """Raises UserError unless `state` is of the same version, data and settings as `own`.

    behind: the values that digests of this loader's settings were made of, by the names of these settings.
    """
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise UserError("not a state of this version's loaders: pass what state_dict() returned")
    for name, meaning in (("data", "content digest"), ("plan", "plan fingerprint")):
        if state.get(name) != own[name]:
            raise UserError(
                f"the loader state is of other data: {meaning} {str(state.get(name))[:16]}..., "
                f"this dataset has {own[name][:16]}...: open the dataset that the run was started with"
            )
    theirs = state.get("settings") or {}
    for name in {**own["settings"], **theirs}:
        value = own["settings"].get(name)
        if theirs.get(name) != value:
            differences = _differences(theirs.get(name), value, (behind or {}).get(name))
            options = ", ".join(f"{option} was {old!r}, is {new!r}" for option, old, new in differences)
            raise UserError(
                f"the loader state was saved with {name}={theirs.get(name)!r}, this loader has {value!r}"
                f"{f' ({options})' if options else ''}: restore "
                f"{differences[0][0] if differences else _MEANINGS.get(name, name)}, "
                "or start a new run without the state"
            )


def whole(name: str, value: Any) -> int:
    """The value as an int, also one of numpy or torch. Raises UserError for anything but a whole number."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise UserError(f"{name}={value!r}, expected a whole number")


def digest(values: dict[str, Any]) -> str:
    """32 hex digits."""
    return _digest(json.dumps(values, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _differences(old: Any, new: Any, values: dict[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """(option, its value in the state, its value here), where they can be told."""
    if values is not None:
        return list(itertools.islice(_tried(str(old), values), 1))
    before, after = _arguments(old), _arguments(new)
    if before is None or after is None or before[0] != after[0]:
        return []
    options = {**before[1], **after[1]}
    pairs = [(option, before[1].get(option), after[1].get(option)) for option in options]
    return [(f"{option} of {before[0]}", was, now) for option, was, now in pairs if was != now]


def _arguments(text: Any) -> tuple[str, dict[str, Any]] | None:
    """The name and the arguments of what is shown as NAME(OPTION=VALUE, ...)."""
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        found = {str(option.arg): ast.literal_eval(option.value) for option in call.keywords}
    except (SyntaxError, TypeError, ValueError, AssertionError):
        return None
    name = ast.unparse(call.func)
    return name, {**_NOT_SHOWN.get(name, {}), **found}


def _tried(wanted: str, values: dict[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    """The options whose value, in place of the one that they have, gives the digest that is wanted."""
    mark = "\0"
    for option, value in values.items():
        before, after = json.dumps({**values, option: mark}, sort_keys=True).split(json.dumps(mark))
        for other in _candidates(value):
            if _digest(before + json.dumps(other) + after) == wanted:
                yield option, other, value


def _candidates(value: Any) -> Iterable[Any]:
    """Values that an option may have in place of this one."""
    yield from (None, False, True)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        yield from range(-1, 4097)
        yield from range(4104, 1 << 17, 8)
    if isinstance(value, int):
        yield from range(value - 256, value + 257)
    if isinstance(value, float):
        yield from _SHARES
    if isinstance(value, str):
        yield from (*_WORDS, *_POLICIES)
