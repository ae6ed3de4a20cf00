"""The bytes of one file so far: in memory or on disk, checked when they are whole, and put under its name.

    SET/.hpcdata/parts/KEY          the bytes so far
    SET/.hpcdata/parts/KEY.jsonl    checkpoints: how many bytes there were, and the sha256 of these

A process that goes on hashes what is there, up to the longest checkpoint whose sha256 it finds: so a part that a lost
power, a disk or another process has damaged is noticed at once, and nothing needs to be synced on the way.

Small files have no checkpoint: they are held in memory, and written when they are whole and right.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hpcdata.base import files
from hpcdata.catalogue.faults import Wanted, require_content
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.web import Answer

_INTERVAL_S = 20.0
_BLOCK = 1 << 20


class InMemory:
    """In memory until it is whole."""

    validator: str | None = None

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._data = bytearray()
        self.num_restarts = 0
        self.is_complete = wanted.size == 0

    @property
    def offset(self) -> int:
        return len(self._data)

    def is_whole(self) -> bool:
        return self.is_complete

    def begin(self, answer: Answer) -> None:
        self.validator = answer.validator

    def write(self, chunk: bytes) -> None:
        self._data += chunk

    def checkpoint(self) -> None:
        """There is none."""

    def restart(self) -> None:
        self._data.clear()
        self.num_restarts += 1
        self.validator, self.is_complete = None, False

    def require_right(self) -> None:
        require_content(self._wanted, len(self._data), self._sha256(), self._read, self._git_sha1)

    def publish(self, target: Path, parts: Path) -> Here:
        temporary = parts / f"{self._wanted.key()}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            with open(temporary, "wb", buffering=0) as file:
                files.write_all(file.fileno(), bytes(self._data))
            return _published(temporary, target, self._sha256(), is_sure=False)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _read(self, count: int, begin: int) -> bytes:
        return bytes(self._data[begin : begin + count])

    def _sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def _git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self._data) + self._data).hexdigest()


class OnDisk:
    """On disk, with checkpoints."""

    def __init__(self, wanted: Wanted, path: Path, interval: int) -> None:
        self._wanted = wanted
        self._path = path
        self._interval = interval
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._notes = os.open(f"{path}.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._hasher = _Hasher()
        self._pending: list[bytes] = []
        """Received, and not written yet."""
        self._pending_bytes = 0
        self.offset = self.num_restarts = 0
        self._checked, self._checked_at = 0, time.monotonic()
        self.validator: str | None = None
        self.is_complete = False
        self._resume()

    def close(self) -> None:
        self._hasher.close()
        os.close(self._file)
        os.close(self._notes)

    def is_whole(self) -> bool:
        return self.is_complete or (self._wanted.size is not None and self.offset == self._wanted.size)

    def begin(self, answer: Answer) -> None:
        if answer.validator != self.validator:
            self.validator = answer.validator
            self.checkpoint()

    def write(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        self.offset += len(chunk)
        if self._pending_bytes >= _BLOCK:
            self._flush()
            if self.offset - self._checked >= self._interval or time.monotonic() - self._checked_at > _INTERVAL_S:
                self.checkpoint()

    def checkpoint(self) -> None:
        self._flush()
        self._note({"bytes": self.offset, "sha256": self._hasher.sha256(), "validator": self.validator})
        self._checked, self._checked_at = self.offset, time.monotonic()

    def restart(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0
        self.num_restarts += 1
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._notes, 0)
        self._note({"identity": self._wanted.identity()})
        self._hasher.restart()
        self.offset, self.validator, self.is_complete = 0, None, False
        self._checked, self._checked_at = 0, time.monotonic()

    def _flush(self) -> None:
        if self._pending:
            if os.writev(self._file, self._pending) != self._pending_bytes:  # a disk that is full: as much as fits
                os.lseek(self._file, self.offset - self._pending_bytes, os.SEEK_SET)
                for chunk in self._pending:
                    files.write_all(self._file, chunk)
            self._hasher.add(self._pending)
            self._pending, self._pending_bytes = [], 0

    def require_right(self) -> None:
        self._flush()
        read = functools.partial(os.pread, self._file)
        require_content(self._wanted, self.offset, self._hasher.sha256(), read, self._git_sha1)

    def publish(self, target: Path, parts: Path) -> Here:
        self._flush()
        os.fsync(self._file)
        here = _published(self._path, target, self._hasher.sha256(), is_sure=True)
        files.sync_folder(target.parent)
        Path(f"{self._path}.jsonl").unlink(missing_ok=True)
        return here

    def _git_sha1(self) -> str:
        digest = hashlib.sha1(b"blob %d\0" % self.offset)
        for start in range(0, self.offset, _BLOCK):
            digest.update(os.pread(self._file, _BLOCK, start))
        return digest.hexdigest()

    def _resume(self) -> None:
        """Goes to the longest checkpoint that the bytes on disk bear out."""
        with open(f"{self._path}.jsonl", "rb") as file:
            data = file.read()
        marks, size = _checkpoints(data, self._wanted.identity()), os.fstat(self._file).st_size
        good = _longest(self._file, [mark for mark in marks if mark["bytes"] <= size], self._hasher)
        if good is None:
            self.restart()
            return
        if not data.endswith(b"\n"):
            files.write_all(self._notes, b"\n")
        self.offset, self.validator = good["bytes"], good["validator"]
        self._checked = self.offset
        os.ftruncate(self._file, self.offset)
        os.lseek(self._file, self.offset, os.SEEK_SET)

    def _note(self, values: dict[str, Any]) -> None:
        files.write_all(self._notes, json.dumps(values).encode() + b"\n")


class _Hasher:
    """sha256 in a thread of its own, begun with the first bytes: hashing and receiving take about equally long."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._queue: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._room = threading.Semaphore(16)
        self._pending = 0
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, chunks: list[bytes]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
            self._thread.start()
        self._room.acquire()
        with self._idle:
            self._pending += 1
        self._queue.put(chunks)

    def sha256(self) -> str:
        with self._idle:
            self._idle.wait_for(lambda: self._pending == 0)
            return self._digest.hexdigest()

    def restart(self, digest: Any = None) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._pending == 0)
            self._digest = digest or hashlib.sha256()

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (chunks := self._queue.get()) is not None:
            for chunk in chunks:
                self._digest.update(chunk)
            self._room.release()
            with self._idle:
                self._pending -= 1
                if not self._pending:
                    self._idle.notify_all()


def _published(source: Path, target: Path, sha256: str, *, is_sure: bool) -> Here:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    found = target.stat()
    return Here(found.st_size, found.st_mtime_ns, sha256, is_sure)


def _checkpoints(data: bytes, identity: str) -> list[dict[str, Any]]:
    """Those of this file, and of no other revision of it. Lines that are damaged are left out."""
    values = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            values.append(json.loads(line))
    if not values or not isinstance(values[0], dict) or values[0].get("identity") != identity:
        return []
    return [mark for mark in values[1:] if isinstance(mark, dict) and {"bytes", "sha256", "validator"} <= mark.keys()]


def _longest(file: int, marks: list[dict[str, Any]], hasher: _Hasher) -> dict[str, Any] | None:
    digest, place, good, kept = hashlib.sha256(), 0, None, None
    for mark in sorted(marks, key=lambda mark: int(mark["bytes"])):
        while place < mark["bytes"]:
            block = os.pread(file, min(4 * _BLOCK, mark["bytes"] - place), place)
            if not block:
                break
            digest.update(block)
            place += len(block)
        if digest.hexdigest() != mark["sha256"]:
            break
        good, kept = mark, digest.copy()
    if kept is not None:
        hasher.restart(kept)
    return good
