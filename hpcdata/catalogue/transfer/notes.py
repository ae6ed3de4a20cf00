"""What is written beside a part, one JSON line each; nothing of it needs to be durable.

    {"identity": ...}                                   of which content the part is; the first line
    {"bytes": N, "sha256": ..., "validator": ...}       a checkpoint: the first N bytes
    {"from": A, "to": B, "crc32": ..., "validator": ...}  a block that came before its turn to be hashed

A line is a claim that the next process checks by the bytes on disk: so what a lost power, a disk or another process has
damaged is noticed, and only it is fetched again.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcdata.base import files


@dataclass
class Found:
    """marks: (bytes, sha256) of the prefixes, ascending. blocks: begin -> (end, crc32), behind the last mark."""

    marks: list[tuple[int, str]] = field(default_factory=list)
    blocks: dict[int, tuple[int, int]] = field(default_factory=dict)
    validator: str | None = None


class Notes:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        os.close(self._file)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def read(self, identity: str, size: int) -> Found | None:
        """Those of this content within the first `size` bytes; None when there are none of it."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if data and not data.endswith(b"\n"):
            files.write_all(self._file, b"\n")
        lines = _parsed(data)
        if not lines or lines[0].get("identity") != identity:
            return None
        found, marks = Found(), dict[int, str]()
        for line in lines[1:]:
            if "validator" not in line:
                continue
            if line["validator"] != found.validator:  # the bytes before were of another answer, and were dropped
                found.validator = line["validator"]
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                if "bytes" in line and 0 < int(line["bytes"]) <= size:
                    marks[int(line["bytes"])] = str(line["sha256"])
                elif "from" in line and 0 <= int(line["from"]) < int(line["to"]) <= size:
                    found.blocks[int(line["from"])] = (int(line["to"]), int(line["crc32"]))
        found.marks = sorted(marks.items())
        last, blocks = found.marks[-1][0] if found.marks else 0, dict[int, tuple[int, int]]()
        for begin, (end, crc32) in sorted(found.blocks.items()):
            if begin >= last:
                blocks[begin], last = (end, crc32), end
        found.blocks = blocks
        return found

    def restart(self, identity: str) -> None:
        os.ftruncate(self._file, 0)
        self._write({"identity": identity})

    def mark(self, num_bytes: int, sha256: str, validator: str | None) -> None:
        self._write({"bytes": num_bytes, "sha256": sha256, "validator": validator})

    def block(self, begin: int, end: int, crc32: int, validator: str | None) -> None:
        self._write({"from": begin, "to": end, "crc32": crc32, "validator": validator})

    def _write(self, values: dict[str, Any]) -> None:
        files.write_all(self._file, json.dumps(values).encode() + b"\n")


def _parsed(data: bytes) -> list[dict[str, Any]]:
    """Lines that are damaged are left out."""
    values = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(value := files.parse_json(line, "a line"), dict):
                values.append(value)
    return values
