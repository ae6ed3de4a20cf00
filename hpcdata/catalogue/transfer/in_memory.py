"""A small file: in memory until it is whole and right, so that it needs no checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from hpcdata.base import files
from hpcdata.catalogue.faults import Wanted, require_content
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.transfer.part import published
from hpcdata.catalogue.web import Answer


class InMemory:
    """A part, and its only lane. wanted: its size is known."""

    def __init__(self, wanted: Wanted) -> None:
        assert wanted.size is not None
        self._wanted = wanted
        self._data = bytearray(wanted.size)
        self.size: int | None = wanted.size
        self.place = self.num_restarts = 0
        self.validator: str | None = None

    @property
    def num_bytes(self) -> int:
        return self.place

    def missing(self) -> tuple[int, int | None] | None:
        return (self.place, self.size) if self.place < len(self._data) else None

    def lane(self, begin: int, end: int | None) -> InMemory:
        assert begin == self.place
        return self

    def room(self) -> memoryview:
        return memoryview(self._data)[self.place :]

    def received(self, count: int) -> None:
        self.place += count

    def begin(self, answer: Answer) -> None:
        self.validator = answer.validator

    def end(self, size: int) -> None:
        """It is known already."""

    def close(self) -> None:
        """What is not whole is forgotten."""

    def restart(self) -> None:
        self.place, self.validator = 0, None
        self.num_restarts += 1

    def is_whole(self, wait: Callable[[float], bool]) -> bool:
        return self.place == len(self._data)

    def require_right(self) -> None:
        require_content(self._wanted, self.place, self._sha256(), self._read, self._git_sha1)

    def publish(self, target: str | Path, parts: Path) -> Here:
        temporary = f"{parts}/{self._wanted.key()}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                files.write_all(descriptor, self._data)
            finally:
                os.close(descriptor)
            return published(temporary, target, self._sha256(), is_sure=False)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _read(self, count: int, begin: int) -> bytes:
        return bytes(self._data[begin : begin + count])

    def _sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def _git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self._data) + self._data).hexdigest()
