"""The ledger: one append-only JSONL file per process, `ledger/<attempt>.jsonl`, of what it did and when.

Everything that may differ between two runs with the same bytes (times, hosts, devices) stands here and nowhere
else. A line is written by one `write`, so that a killed process leaves at most one incomplete last line, which
readers skip. They also skip lines that no process wrote (`events`), and name them.

Events and their fields, besides `event`, `time` (seconds since 1970) and `sealed` (the sum of the lines so far, by
which `verify` finds one that was changed or removed):
    start       attempt, host, pid, slurm (the ids that are set), version, libraries
    claim       shard; resumed: samples already done by an earlier attempt; lost_s: work that died with it; device
    checkpoint  shard, samples, busy_s: seconds of work that this checkpoint made safe; and sums since the claim:
                useful_s: of busy_s, cpu_s: of all threads, read_s: reading records, decode_s: waiting for the threads
                that decode, encode_s: text and image tokenizers, write_s: writing, syncing, publishing; and, where it
                is known, gpu_s: in which the GPU was busy
    seal        shard, shard_sha256: of the shard.json that is about to be committed
    commit      like checkpoint; seconds, counts: the shard's account
    lost        shard: another attempt took it over or committed it first; busy_s: work thrown away
    conflict    shard: another attempt committed other bytes; files: the ones that differ
    crash       shard, sample (its position in the shard), how: the sample killed a process of its own
    failed      shard, error: it could not be read or written; the process goes on with others
    signal      name: the process stops after a checkpoint
    error       error: the whole process could not go on, the last event then
    end         outcome
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from hpcdata.base import files, sealed
from hpcdata.history.events import fault_of

_UNREADABLE = "cannot be read"


class Ledger:
    """Appends events of one process."""

    def __init__(self, folder: Path, attempt: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{attempt}.jsonl"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._sum = 0

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}, ensure_ascii=False)
        data, total = sealed.line_with_sum(files.to_bytes(line), self._sum)
        size = os.fstat(self._descriptor).st_size
        if (written := os.write(self._descriptor, data + b"\n")) <= len(data):
            os.ftruncate(self._descriptor, size)
            raise OSError(errno.ENOSPC, f"took {written} bytes of a line", str(self.path))
        self._sum = total

    def close(self) -> None:
        os.close(self._descriptor)


def read_ledgers(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(attempt, events) of every process that wrote a ledger."""
    for path in sorted(folder.glob("*.jsonl")):
        yield path.stem, _parse(_read_from(str(path), 0))[0]


class LedgerReader:
    """Reads what has been added to the ledgers since the last time, fast enough for a run of 100,000 shards.

    Of checkpoints that follow each other only the last is read: it holds the sums since the claim.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offsets: dict[str, int] = {}
        """File name -> bytes read of it, up to the end of a line."""
        self.damaged: dict[str, str] = {}
        """File name -> why some of it, or all, is left out; the first reason."""

    def list_new(self) -> list[str]:
        """Names of the files that have something to read."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if entry.name.endswith(".jsonl")]
        except FileNotFoundError:
            return []
        offsets = self.offsets
        return [item.name for item in entries if item.name not in offsets or item.stat().st_size > offsets[item.name]]

    def read(self, names: Sequence[str] | None = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """(attempt, new events in their order) of every process that has any; of all, or of some files."""
        for name in self.list_new() if names is None else names:
            start = self.offsets.get(name, 0)
            try:
                data = _read_from(f"{self.folder}/{name}", start)
            except OSError as error:  # others can be read; this one is tried again at the next look
                self.damaged[name] = f"{_UNREADABLE}: {error.strerror}"
                continue
            if self.damaged.get(name, "").startswith(_UNREADABLE):
                del self.damaged[name]
            data = data[: data.rfind(b"\n") + 1]  # the rest is being written, or was cut by a kill
            if data:
                self.offsets[name] = start + len(data)
                events, fault = _parse(_without_outdated(data))
                if fault:
                    self.damaged[name] = _locate(f"{self.folder}/{name}") or fault
                yield name.removesuffix(".jsonl"), events


def _read_from(path: str, start: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name has nothing to say
    try:
        return os.pread(descriptor, max(0, os.fstat(descriptor).st_size - start), start)
    finally:
        os.close(descriptor)


_CHECKPOINT, _SEAL, _COMMIT = (b'\n{"event": "%s"' % name for name in (b"checkpoint", b"seal", b"commit"))


def _without_outdated(data: bytes) -> bytes:
    """Lines without the checkpoints that a checkpoint or commit follows at once."""
    data = b"\n" + data
    kept, start = [], 0
    while (commit := data.find(_COMMIT, start + 1)) >= 0:
        first = data.find(_CHECKPOINT, start, commit)
        seal = max(data.rfind(_SEAL, start, commit), 0) or commit
        first = seal if first < 0 else first
        if data.count(_CHECKPOINT, first, seal) + data.count(_SEAL, seal, commit) == data.count(b"\n", first, commit):
            kept.append(data[start:first])  # the usual case, made fast: nothing but checkpoints up to the commit
        else:
            kept += _without_checkpoints(data[start:commit])
        start = commit
    return b"".join([*kept, *_without_checkpoints(data[start:])])


def _without_checkpoints(lines: bytes) -> list[bytes]:
    """Lines up to the next commit, without the checkpoints that end where another or that commit begins."""
    before, *pieces = lines.split(_CHECKPOINT)
    return [before, *(_CHECKPOINT + piece for piece in pieces if b"\n" in piece)]


def _parse(data: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """(events of the lines that are some, what is wrong with another)."""
    try:
        values = orjson.loads(b"[" + data.strip().replace(b"\n", b",") + b"]")
    except ValueError:
        values = [_parse_line(line) for line in data.splitlines() if line]
    faults = list(map(fault_of, values))
    fault = next(filter(None, faults), None)
    if fault is None:
        return values, None
    return [value for value, found in zip(values, faults, strict=True) if found is None], fault


def _parse_line(line: bytes) -> Any:
    """None for what is no JSON: the end of a killed process, or damage."""
    try:
        return files.parse_lenient(line)
    except ValueError:
        return None


def _locate(path: str) -> str | None:
    """What is wrong with the first line that is no event."""
    for number, line in enumerate(_read_from(path, 0).split(b"\n")[:-1], start=1):
        if line and (fault := fault_of(_parse_line(line))):
            return f"line {number}: {fault}"
    return None
