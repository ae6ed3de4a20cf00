"""What of a data set is here: path -> size, time and sha256, as the fetching processes have noted it.

    SET/.hpcdata/listing.json       what belongs to the set; frozen by the first process
    SET/.hpcdata/done/ATTEMPT.jsonl  one a process, append-only: a line for each file that it has finished
    SET/.hpcdata/record.json        all of them in one sealed file, once nothing is missing
    SET/.hpcdata/parts/             files that are not finished, see `parts`
    SET/.hpcdata/claims/            which process works on what
    SET/.hpcdata/questions/         where the questions of its large files stand

A file is as it was recorded when its size and its time are: nothing is read again for that. Lines stand before the file
is durable; `synced` says how many of these are by then. What a process that was killed has noted after its last
`synced` is hashed once before it is believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hpcdata.base import files, sealed
from hpcdata.base.errors import Failed

FOLDER = ".hpcdata"
_SYNC_FILES, _SYNC_THREADS = 256, 16


@dataclass(frozen=True)
class Here:
    """size in bytes, time: of the last change in ns. is_sure: durable when it was noted."""

    size: int
    time: int
    sha256: str
    is_sure: bool = True

    def is_as_recorded(self, path: Path) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        return found.st_size == self.size and found.st_mtime_ns == self.time


@dataclass
class Known:
    """All records of a set, by path; failed: path -> reason, of what another process has given up."""

    here: dict[str, Here]
    failed: dict[str, str]


class Record:
    """Of the set in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.own = folder / FOLDER
        self._path = self.own / "record.json"
        self._journals = self.own / "done"

    def read(self) -> Known:
        """Raises Failed for a sealed file that is damaged."""
        return Follower(self).update()

    def is_sealed(self) -> bool:
        return self._path.exists()

    def seal(self, here: Mapping[str, Here]) -> None:
        """Writes all records into one file, which is durable before the lines of the processes are removed."""
        old = list(self._journals.glob("*.jsonl"))
        values = {path: [item.size, item.time, item.sha256] for path, item in here.items()}
        files.write_atomic(self._path, sealed.to_json({"files": values}))
        for path in old:
            path.unlink(missing_ok=True)

    def stamp(self) -> tuple[int, int] | None:
        """Of the sealed file: another one, another stamp."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def sealed(self) -> dict[str, Here]:
        try:
            values = sealed.read_json(self._path)["files"]
            return {path: Here(int(size), int(time), str(sha256)) for path, (size, time, sha256) in values.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise Failed(f"{self._path}: {error}; remove it, and all files of the set are hashed again") from None


class Follower:
    """Keeps up with what all processes note; `known` is what it has read so far. Thread-safe."""

    def __init__(self, record: Record, *, without: str = "") -> None:
        """without: an attempt whose lines are not read, as they are known already."""
        self._record, self._folder = record, record.own / "done"
        self._without = f"{without}.jsonl"
        self._offsets: dict[str, int] = {}
        self._unsure: dict[str, list[tuple[str, Here]]] = {}
        self._noted_by: dict[str, str] = {}
        """Path -> file of the line that is believed; what the sealed file has is older than all lines."""
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self.known = Known(here={}, failed={})
        self._read_sealed()

    def update(self) -> Known:
        """Reads what has been added; all, where a process has sealed it meanwhile and removed the lines."""
        with self._lock:
            while True:
                self._read_lines()
                if not self._read_sealed():
                    return self.known

    def _read_sealed(self) -> bool:
        """False when it was read before."""
        stamp = self._record.stamp()
        if stamp is None or stamp == self._stamp:
            return False
        for path, here in self._record.sealed().items():
            former = self.known.here.get(path)
            if former is None or (here.time, here.is_sure) >= (former.time, former.is_sure):
                self.known.here[path] = here
                self._noted_by.pop(path, None)
        self._stamp = stamp
        return True

    def _read_lines(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".jsonl")):
                if name != self._without:
                    with contextlib.suppress(FileNotFoundError):
                        self._read(name)

    def _read(self, name: str) -> None:
        begin = self._offsets.get(name, 0)
        with open(self._folder / name, "rb") as file:
            file.seek(begin)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[name] = begin + len(whole)
        unsure = self._unsure.setdefault(name, [])
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):  # damage says nothing
                self._take(name, orjson.loads(line), unsure)

    def _take(self, name: str, values: dict[str, Any], unsure: list[tuple[str, Here]]) -> None:
        if "synced" in values:
            for path, here in unsure[: int(values["synced"])]:
                if self.known.here.get(path) == here:
                    self.known.here[path] = Here(here.size, here.time, here.sha256)
            del unsure[: int(values["synced"])]
        elif "failed" in values:
            self.known.failed[str(values["path"])] = str(values["failed"])
        else:
            path = str(values["path"])
            here = Here(int(values["size"]), int(values["time"]), str(values["sha256"]), bool(values["sure"]))
            if not here.is_sure:
                unsure.append((path, here))
            former, by = self.known.here.get(path), self._noted_by.get(path)
            if former is None or by in (None, name) or (here.time, here.is_sure) >= (former.time, former.is_sure):
                self.known.here[path], self._noted_by[path] = here, name
            self.known.failed.pop(path, None)


class Journal:
    """The lines of this process. Thread-safe. Its file is made with the first line."""

    def __init__(self, record: Record, attempt: str) -> None:
        self._root = str(record.root)
        self._path = record.own / "done" / f"{attempt}.jsonl"
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._unsure: list[str] = []

    def add(self, path: str, here: Here) -> None:
        """Notes a file under its final name."""
        with self._lock:
            line = {"path": path, "size": here.size, "time": here.time, "sha256": here.sha256, "sure": here.is_sure}
            self._write(line)
            if not here.is_sure:
                self._unsure.append(os.path.join(self._root, path))

    def add_failed(self, path: str, reason: str) -> None:
        with self._lock:
            self._write({"path": path, "failed": reason})

    def sync(self) -> None:
        """Makes durable what was noted before it was."""
        with self._syncing:
            with self._lock:
                paths, self._unsure = self._unsure, []
            if paths:
                for start in range(0, len(paths), _SYNC_FILES):
                    _sync(paths[start : start + _SYNC_FILES])
                with self._lock:
                    self._write({"synced": len(paths)})
                    os.fsync(self._opened())

    def close(self) -> None:
        self.sync()
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        return self._descriptor

    def _write(self, values: Mapping[str, Any]) -> None:
        try:
            line = orjson.dumps(values)
        except TypeError:  # a name that is no UTF-8
            line = files.to_bytes(json.dumps(values))
        files.write_all(self._opened(), line + b"\n")


def _sync(paths: list[str]) -> None:
    """All are on their way before the first is waited for: a file system writes its journal once for many."""

    descriptors = []
    try:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                files.start_writing(descriptors[-1], 0, 0)
        count = min(_SYNC_THREADS, len(descriptors))
        with ThreadPoolExecutor(max(1, count)) as pool:
            list(pool.map(_sync_all, [descriptors[start::count] for start in range(count)]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    for folder in {os.path.dirname(path) for path in paths}:
        files.sync_folder(Path(folder))


def _sync_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)
