"""The ledger: one append-only JSONL file per process, `ledger/<attempt>.jsonl`, of what it did and when.

Everything that may differ between two runs with the same bytes (times, hosts, devices) stands here and nowhere
else. A line is written by one `write`, so that a killed process leaves at most one incomplete last line, which
readers skip.

Events and their fields, besides `event` and `time` (seconds since 1970):
    start       attempt, host, pid, slurm (the ids that are set), version, libraries
    claim       shard; resumed: samples already done by an earlier attempt; lost_s: work that died with it; device
    checkpoint  shard, samples, busy_s: seconds of work that this checkpoint made safe
    commit      shard, samples, busy_s, seconds
    lost        shard: another attempt took it over or committed it first; busy_s: work thrown away
    conflict    shard: another attempt committed other bytes; files: the ones that differ
    crash       shard, sample (its position in the shard), how: the sample killed a process of its own
    failed      shard, error: it could not be read or written; the process goes on with others
    signal      name: the process stops after a checkpoint
    error       error: the whole process could not go on, the last event then
    end         outcome
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Ledger:
    """Appends events of one process."""

    def __init__(self, folder: Path, attempt: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            folder / f"{attempt}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}, ensure_ascii=False)
        os.write(self._descriptor, (line + "\n").encode())

    def close(self) -> None:
        os.close(self._descriptor)


def read_ledgers(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(attempt, events) of every process that wrote a ledger."""
    for path in sorted(folder.glob("*.jsonl")):
        events = []
        for line in path.read_bytes().splitlines():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue  # the incomplete last line of a killed process
            if isinstance(event, dict):
                events.append(event)
        yield path.stem, events
