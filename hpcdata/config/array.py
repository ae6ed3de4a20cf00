"""SLURM array notation, of which only the count and the limit behind % matter here.

Array tasks are interchangeable: each claims the next free shard. So `--array=3,17` means two tasks, whatever their
indices, and a run may be resubmitted with any other array, or as several arrays where a cluster caps the index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcdata.base.errors import UserError

MAX_INDEX = 4_000_000
"""The largest index that SLURM can be configured for (MaxArraySize is at most 4,000,001)."""

_RANGE = re.compile(r"(?P<first>\d+)(-(?P<last>\d+)(:(?P<step>\d+))?)?", re.ASCII)
_LIMIT = re.compile(r"[1-9]\d*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    num_tasks: int
    max_running: int
    """How many tasks may run at a time, 1 to `num_tasks`."""


def parse_array(text: str) -> ArraySpec:
    """`0-100%25` is 101 tasks, 25 at a time; also `3,17`, `0-15:4`, `5`. Raises UserError."""
    indices, has_limit, limit = text.strip().partition("%")
    if has_limit and not _LIMIT.fullmatch(limit):
        raise _refusal(text, f"behind % stands {limit!r} where a positive number belongs")
    parts = [_parse_range(part, text) for part in indices.split(",")]
    num_tasks = len(parts[0]) if len(parts) == 1 else len(set().union(*parts))
    return ArraySpec(num_tasks=num_tasks, max_running=min(int(limit), num_tasks) if has_limit else num_tasks)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One SLURM array of several that are one for the user."""

    num_tasks: int
    max_running: int
    after: int | None
    """The piece that must have ended before this one starts, by its position."""


def split(spec: ArraySpec, max_array_size: int) -> list[Piece]:
    """The array as pieces of at most `max_array_size` tasks, of which never more than `spec.max_running` run.

    Each piece gets a share of the limit. Where that is below the number of pieces, they queue up in as many lanes.
    """
    num_pieces = -(-spec.num_tasks // max(1, max_array_size))
    num_lanes = min(num_pieces, spec.max_running)
    sizes, shares = _even(spec.num_tasks, num_pieces), _even(spec.max_running, num_lanes)
    return [
        Piece(
            num_tasks=size,
            max_running=min(size, shares[position % num_lanes]),
            after=position - num_lanes if position >= num_lanes else None,
        )
        for position, size in enumerate(sizes)
    ]


def _even(total: int, num_parts: int) -> list[int]:
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]


def _parse_range(part: str, text: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise _refusal(text, f"{part!r} is no index or range" if part else "an index is missing")
    first, last, step = int(match["first"]), int(match["last"] or match["first"]), int(match["step"] or 1)
    if last > MAX_INDEX or first > MAX_INDEX:
        raise _refusal(text, f"SLURM knows no index above {MAX_INDEX}")
    if last < first:
        raise _refusal(text, f"the range {part!r} ends before it begins")
    if step < 1:
        raise _refusal(text, f"the step of {part!r} must be at least 1")
    return range(first, last + 1, step)


def _refusal(text: str, reason: str) -> UserError:
    return UserError(f"cluster.array={text!r}: {reason}; write it as SLURM does: 7, 0-15, 0-100%25, 3,17 or 0-15:4")
