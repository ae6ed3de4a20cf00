"""A member of an archive, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpcdata.sources.base import clean_name


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


def first_fault(entries: Iterator[Entry]) -> str | None:
    """Reads members until one is damaged: which, and how."""
    for entry in entries:
        try:
            for _ in () if entry.problem else entry.pieces():
                pass
        except Damaged as damaged:
            return f"its member {clean_name(entry.name)} is damaged: {damaged}"
    return None
