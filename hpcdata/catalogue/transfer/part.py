"""What fetching needs of a file that is on its way, in memory or on the disk, and how it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hpcdata.catalogue.record import Here
from hpcdata.catalogue.web import Answer


class Lane(Protocol):
    """Where the bytes of one connection go."""

    @property
    def place(self) -> int:
        """Of the next byte in the file."""

    def room(self) -> memoryview:
        """Where the next bytes are to be put, at least one."""

    def received(self, count: int) -> None:
        """So many bytes were put there."""

    def close(self) -> None: ...


class Part(Protocol):
    """A file so far. size: once it is known. validator: of the answers that its bytes are from."""

    size: int | None
    validator: str | None
    num_restarts: int

    @property
    def num_bytes(self) -> int:
        """That are here."""

    def missing(self) -> tuple[int, int | None] | None:
        """The first bytes that are neither here nor in work: [begin, end), end None while no size is known."""

    def lane(self, begin: int, end: int | None) -> Lane:
        """Takes these bytes in work, until the lane is closed."""

    def begin(self, answer: Answer) -> None: ...

    def end(self, size: int) -> None:
        """The file ends here."""

    def restart(self) -> None:
        """Nothing is here. No lane may be open."""

    def is_whole(self, wait: Callable[[float], bool]) -> bool:
        """Waits until all that is here is hashed and written; False when something is missing then."""

    def require_right(self) -> None:
        """Raises Fault for bytes that are not the file that is wanted."""

    def publish(self, target: Path, parts: Path) -> Here: ...

    def close(self) -> None: ...


def published(source: str | Path, target: str | Path, sha256: str, *, is_sure: bool) -> Here:
    try:
        os.replace(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(source, target)
    found = os.stat(target)
    return Here(found.st_size, found.st_mtime_ns, sha256, is_sure)
