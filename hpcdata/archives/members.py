"""A member of an archive, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


class Damaged(Exception):
    """The bytes of a member or an archive are not what they should be; the message says how."""


class Exceeded(Damaged):
    """A limit is, which says nothing about a member."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    number: int
    """Its place in the archive, from 0."""
    name: bytes
    """With `/` between folders, as the archive has it."""
    size: int
    pieces: Callable[[], Iterator[bytes]]
    """Its bytes, `size` of them, to be read before the next entry is asked for. Raises Damaged."""
    problem: str = ""
    """Why it is not unpacked, whatever its name is: `link`, `device`, `encrypted`, ..."""
