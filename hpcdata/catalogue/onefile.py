"""One file: fetched byte by byte to its end, whatever is killed in between, checked, and put under its name.

    SET/.hpcdata/parts/KEY          the bytes so far
    SET/.hpcdata/parts/KEY.jsonl    checkpoints: how many bytes there were, and the sha256 of these

A process that goes on hashes what is there, up to the longest checkpoint whose sha256 it finds: so a part that a lost
power, a disk or another process has damaged is noticed at once, and nothing needs to be synced on the way. It asks the
server for the rest. A byte is fetched once, and those after the last checkpoint once more.

Small files have no checkpoint: they are held in memory, and written when they are whole and right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hpcdata.base import files
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.web import Answer, Web

SMALL = 8 << 20
INTERVAL = 64 << 20
_INTERVAL_S = 20.0
_BLOCK = 1 << 20
_MARKS = {
    ".zip": b"PK",
    ".parquet": b"PAR1",
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".png": b"\x89PNG",
    ".jpg": b"\xff\xd8",
    ".jpeg": b"\xff\xd8",
}
"""What files begin with: a page of words under such a name is not one."""
_NO_FILE = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of a set. path: below its folder. size, sha256, git_sha1 (of a git blob): what is known of it before."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    def key(self) -> str:
        return hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def identity(self) -> str:
        """Of its content, as far as it is known: a part of another revision is not continued."""
        return f"{self.sha256 or self.git_sha1 or self.url} {self.size}"


@dataclass
class Fetcher:
    """What all files of a process share. patience_s: how long a file may bring no new byte before it is given up.
    interval: bytes between checkpoints, which is what a kill may cost of a file.
    """

    web: Web
    wait: Callable[[float], bool]
    patience_s: float = 900.0
    interval: int = INTERVAL
    num_bytes: int = 0
    """Received for this process."""

    def fetch(self, wanted: Wanted, target: Path, parts: Path) -> Here:
        """Brings a file. Raises Fault when it does not come, OSError when it cannot be written."""
        if wanted.size is not None and wanted.size <= min(SMALL, self.interval):
            return self._patiently(wanted, _Small(wanted), target, parts)
        with contextlib.closing(_Part(wanted, parts / wanted.key(), self.interval)) as part:
            return self._patiently(wanted, part, target, parts)

    def _patiently(self, wanted: Wanted, part: _Small | _Part, target: Path, parts: Path) -> Here:
        last, tries, mismatches = time.monotonic(), 0, 0
        while True:
            before = part.offset
            try:
                if not part.is_whole():
                    self._receive(wanted, part)
                part.require_right()
                return part.publish(target, parts)
            except Fault as fault:
                if fault.kind == "wrong":
                    mismatches += 1
                    part.restart()
                    if mismatches > 1:
                        raise
                elif fault.kind != "busy" or fault.reason == "stopped":
                    raise
                if part.offset > before:
                    last, tries = time.monotonic(), 0
                tries += 1
                if time.monotonic() - last > self.patience_s:
                    raise
                seconds = fault.retry_after_s if fault.retry_after_s is not None else min(0.25 * 2**tries, 30.0)
                if self.wait(min(seconds, max(0.0, last + self.patience_s - time.monotonic()))):
                    raise Fault("busy", "stopped", "the process is to stop") from None

    def _receive(self, wanted: Wanted, part: _Small | _Part) -> None:
        offset = part.offset
        with self.web.open(wanted.url, offset=offset, validator=part.validator) as answer:
            skip = _bytes_to_skip(answer, part)
            _require_promise(answer, wanted)
            part.begin(answer)
            room = None if wanted.size is None else wanted.size - part.offset
            for chunk in answer.chunks:
                self.num_bytes += len(chunk)
                if skip:
                    skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
                    if not chunk:
                        continue
                if room is not None and (room := room - len(chunk)) < 0:
                    raise Fault(
                        "wrong", "size", f"{wanted.path}: more bytes come than the {wanted.size} of its listing"
                    )
                part.write(chunk)
                if self.wait(0):
                    part.checkpoint()
                    raise Fault("busy", "stopped", "the process is to stop")
            end = wanted.size if answer.total is None else answer.total
            if end is not None and part.offset < end:
                raise Fault("busy", "cut", f"{wanted.path}: {part.offset} of {end} bytes came")
            part.is_complete = True


class _Small:
    """In memory until it is whole."""

    validator: str | None = None

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._data = bytearray()
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
        self.validator, self.is_complete = None, False

    def require_right(self) -> None:
        _require_content(self._wanted, len(self._data), self._sha256(), bytes(self._data[:512]), self._git_sha1)

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

    def _sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def _git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self._data) + self._data).hexdigest()


class _Part:
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
        self.offset = 0
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
        begin = os.pread(self._file, 512, 0)
        _require_content(self._wanted, self.offset, self._hasher.sha256(), begin, self._git_sha1)

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


def hash_file(path: Path, wait: Callable[[float], bool] = lambda _: False) -> str:
    """sha256 at the speed of the disk. Raises OSError, and Fault when the process is to stop."""
    digest, block = hashlib.sha256(), memoryview(bytearray(4 * _BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            if wait(0):
                raise Fault("busy", "stopped", "the process is to stop")
    return digest.hexdigest()


def is_right(path: Path, wanted: Wanted, wait: Callable[[float], bool]) -> str | None:
    """The sha256 of a file that is there already, when what is known of it says that it is the one; else None."""
    if wanted.size is not None and path.stat().st_size != wanted.size:
        return None
    found = hash_file(path, wait)
    if wanted.sha256 is not None:
        return found if found == wanted.sha256 else None
    if wanted.git_sha1 is not None:
        data = path.read_bytes()
        return found if hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == wanted.git_sha1 else None
    return None


def _bytes_to_skip(answer: Answer, part: _Small | _Part) -> int:
    """How much of the body is here already: all of the part where the server has ignored the range."""
    if answer.begin == part.offset:
        return 0
    if answer.begin == 0 and answer.validator is not None and answer.validator == part.validator:
        return part.offset
    changed = answer.begin == 0
    part.restart()
    if changed:
        return 0
    raise Fault("busy", "range", f"asked for the bytes from {part.offset} on, got those from {answer.begin} on")


def _require_promise(answer: Answer, wanted: Wanted) -> None:
    is_page = answer.content_type in _NO_FILE and not re.search(r"\.x?html?$", wanted.path)
    if wanted.size is not None and answer.total is not None and answer.total != wanted.size:
        what = "a page of words" if is_page else f"{answer.total} bytes"
        raise Fault("wrong", "page" if is_page else "size", f"{wanted.path}: {what}, expected {wanted.size} bytes")
    if is_page and wanted.size is None:
        raise Fault("wrong", "page", f"{wanted.path}: the server sends a page of words ({answer.content_type})")


def _require_content(wanted: Wanted, size: int, sha256: str, begin: bytes, git_sha1: Callable[[], str]) -> None:
    """Raises Fault for bytes that are not the file that is wanted."""
    if wanted.size is not None and size != wanted.size:
        raise Fault("wrong", "size", f"{wanted.path}: {size} bytes, expected {wanted.size}")
    if wanted.sha256 is not None:
        if sha256 != wanted.sha256:
            raise Fault("wrong", "sha256", f"{wanted.path}: sha256 {sha256}, expected {wanted.sha256}")
    elif wanted.git_sha1 is not None:
        if (found := git_sha1()) != wanted.git_sha1:
            raise Fault("wrong", "sha1", f"{wanted.path}: git blob {found}, expected {wanted.git_sha1}")
    else:
        mark = _MARKS.get(os.path.splitext(wanted.path)[1].lower())
        if mark is not None and not begin.startswith(mark):
            raise Fault("wrong", "content", f"{wanted.path} begins with {begin[:16]!r}, expected {mark!r}")


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
