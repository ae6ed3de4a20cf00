"""What the lines of a ledger may hold. A line that holds anything else is left out by name, and the rest is read.

A ledger may have been edited, or damaged by a disk; whoever reads a run must still be told of all other processes.
Fields that are not known here come from other versions, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpcdata.shards.counts import Counts

_MOST_SECONDS = 1e11
"""The year 5138: what is larger is no time, and no clock can show it."""
_MOST = 1 << 60
_WORDS = frozenset({"event", "shard", "shard_sha256", "attempt", "host", "version", "how", "error", "name", "outcome"})
_SECONDS = frozenset(
    {"time", "lost_s", "busy_s", "useful_s", "cpu_s", "read_s", "decode_s", "encode_s", "write_s", "gpu_s", "seconds"}
)
_NUMBERS = frozenset({"pid", "resumed", "samples", "sample"})
_OF_A_SHARD = ("time", "shard")
_REQUIRED = {
    "start": ("time",),
    "claim": _OF_A_SHARD,
    "checkpoint": _OF_A_SHARD,
    "seal": _OF_A_SHARD,
    "commit": _OF_A_SHARD,
    "lost": _OF_A_SHARD,
    "conflict": _OF_A_SHARD,
    "crash": _OF_A_SHARD,
    "failed": _OF_A_SHARD,
}
_COUNTS = frozenset(vars(Counts())) - {"rejected"}


def fault_of(event: object) -> str | None:
    """Why a line cannot be an event of this run, None for one that can."""
    if event is None:
        return "is not JSON"
    if type(event) is not dict:
        return f"is {_name(event)}, expected an object"
    kind = event.get("event")
    for name in _REQUIRED.get(kind, ("time",)) if type(kind) is str else ("event",):
        if name not in event:
            return f"has no {name!r}"
    for name, value in event.items():
        if name in _SECONDS:
            if type(value) not in (float, int) or not -_MOST_SECONDS < value < _MOST_SECONDS:
                return f"{name!r} is {_name(value)}, expected seconds"
        elif name in _WORDS:
            if type(value) is not str:
                return f"{name!r} is {_name(value)}, expected a text"
        elif name in _NUMBERS:
            if not _is_count(value):
                return f"{name!r} is {_name(value)}, expected a number"
        elif name in _NESTED and not _NESTED[name](value):
            return f"{name!r} is not what it should be"
    return None


def _name(value: object) -> str:
    """A number as it stands there, of other things what they are."""
    return str(value)[:40] if type(value) in (int, float) else f"of type {type(value).__name__}"


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_account(value: object) -> bool:
    if type(value) is not dict or not all(_is_count(value[name]) for name in _COUNTS & value.keys()):
        return False
    rejected = value.get("rejected", {})
    return type(rejected) is dict and all(map(_is_count, rejected.values()))


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(type(item) is str for item in value.values())


def _is_device(value: object) -> bool:
    return value is None or type(value) is str


_NESTED: dict[str, Callable[[Any], bool]] = {
    "counts": _is_account,
    "slurm": _is_texts,
    "libraries": _is_texts,
    "device": _is_device,
    "shards_sha256": _is_texts,
}
