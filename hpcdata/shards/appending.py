"""How the files of a shard are written: those that only grow, and whole ones, behind the caller."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hpcdata.base import files
from hpcdata.base.reads import naming

SMALL_BYTES = 1 << 14
"""A smaller file is written before a thread would have begun."""
MOST_BYTES = 1 << 24
"""Of files that are not written yet; a larger one is alone."""
_START_BYTES = 2**23
"""So many that are written are sent on to the disk: the kernel would wait with them until it is asked to sync."""
_FEW_BYTES = 2**20


class AppendFile:
    """A file that only grows, with a running sha256 of its content: hashed as it is written, in large pieces."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed with the writer
        self._hasher = hashlib.sha256()
        self._buffer = bytearray()
        self._written = self._started = 0
        self.size = 0

    def append(self, data: bytes | memoryview | np.ndarray) -> None:
        """data: bytes, or rows that lie together in memory."""
        view = data.reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else memoryview(data)
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
        """Of all that was appended. Raises OSError where that cannot be written."""
        self.flush()
        return self._hasher.hexdigest()

    def sync(self) -> None:
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def flush(self) -> None:
        if self._buffer:
            with memoryview(self._buffer) as view:
                self._write(view)
            self._buffer.clear()

    def _write(self, view: memoryview) -> None:
        self._hasher.update(view)
        with naming(self._file.name):
            while view:
                done = self._file.write(view)
                view, self._written = view[done:], self._written + done
        if self._written - self._started >= _START_BYTES:
            files.start_writing(self._file.fileno(), self._started, self._written - self._started)
            self._started = self._written


class FilesBehind:
    """Files of their own: a thread writes them while the caller goes on.

    A checkpoint waits for them before it vouches for anything. What goes wrong is raised by a later call.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._size = 0

    def add(self, path: Path | str, data: bytes | memoryview) -> None:
        """Creates a file, now or later. Raises OSError, perhaps of one that was added before."""
        while self._pending and (self._pending[0][0].done() or self._size + len(data) > MOST_BYTES):
            self._wait_for_first()
        if len(data) < SMALL_BYTES:
            _write(path, data)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending.append((self._thread.submit(_write, path, data), len(data)))
        self._size += len(data)

    def wait(self) -> None:
        """Returns when all are written, not synced. Raises OSError."""
        while self._pending:
            self._wait_for_first()

    def close(self) -> None:
        """Leaves out what was not begun."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
        self._pending.clear()

    def _wait_for_first(self) -> None:
        future, size = self._pending.popleft()
        self._size -= size
        future.result()


def _write(path: Path | str, data: bytes | memoryview) -> None:
    with naming(path), open(path, "xb", buffering=0) as file:
        files.write_all(file.fileno(), data)
        files.start_writing(file.fileno(), 0, len(data))
