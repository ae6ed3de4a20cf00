"""A file that only grows, with a running sha256 of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcdata.base import files
from hpcdata.base.reads import naming

_START_BYTES = 2**23
"""So many that are written are sent on to the disk: the kernel would wait with them until it is asked to sync."""
_FEW_BYTES = 2**20


class AppendFile:
    """A file that only grows, with a running sha256 of its content."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed with the writer
        self._hasher = hashlib.sha256()
        self._buffer = bytearray()
        self._written = self._started = 0
        self.size = 0

    def append(self, data: bytes | memoryview | np.ndarray) -> None:
        """data: bytes, or rows that lie together in memory."""
        view = data.reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else memoryview(data)
        self._hasher.update(view)
        self.size += len(view)
        if len(self._buffer) + len(view) < 2**20:
            self._buffer += view
        else:
            self.flush()
            self._write(view)

    def append_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Small ones as one, which is hashed in one go."""
        if len(pieces) > 1 and sum(map(len, pieces)) < _FEW_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.append(piece)

    def append_prefix(self, source: Path, size: int) -> None:
        if not size:
            return  # `seal` removes empty files, and may be killed before it is done
        with open(source, "rb") as file:
            while size and (chunk := file.read(min(size, 2**20))):
                self.append(chunk)
                size -= len(chunk)

    def sha256(self) -> str:
        return self._hasher.hexdigest()

    def sync(self) -> None:
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def flush(self) -> None:
        with memoryview(self._buffer) as view:
            self._write(view)
        self._buffer.clear()

    def _write(self, view: memoryview) -> None:
        with naming(self._file.name):
            while view:
                done = self._file.write(view)
                view, self._written = view[done:], self._written + done
        if self._written - self._started >= _START_BYTES:
            files.start_writing(self._file.fileno(), self._started, self._written - self._started)
            self._started = self._written
