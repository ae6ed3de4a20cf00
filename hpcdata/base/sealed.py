"""JSON files with a seal: whoever reads one finds any change of its bytes, a flipped bit or an edit.

The last entry is the sha256 of all bytes before it, and another entry says that there is one, so that neither can be
damaged in silence. It is no signature: who edits a file on purpose can seal it again. Files of versions before 0.2.0
have none, and are read as they are.

Lines of JSON that are appended have a sum each (`line_with_sum`), which goes on from that of the line before.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcdata.base import files

MARK, SEAL = "sealed", "sealed_sha256"
_MARK = f'\n "{MARK}": true,\n'.encode()
_SEAL = re.compile(rb',\n "sealed_sha256": "([0-9a-f]{64})"\n}\n\Z')
_FAULT = "its bytes are not those that were written: it was edited, or damaged"
_SEAL_BYTES = len(b',\n "sealed_sha256": ""\n}\n') + 64
_SUM = re.compile(rb', "sealed": "crc32:([0-9a-f]{8})"}')
_SUM_BYTES = len(b', "sealed": "crc32:"}') + 8
_SIGNS_OF_A_SUM = (b', "sealed": ', b'"crc32:')
"""One flipped bit leaves one of them."""


def to_json(values: Mapping[str, Any]) -> bytes:
    """`files.to_json` of an object, with a seal."""
    body = files.to_json({**values, MARK: True}).removesuffix(b"\n}\n")
    return body + f',\n "{SEAL}": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def fault_of(data: bytes) -> str | None:
    """What is wrong with the bytes of a file: None where they have their seal, or none ever."""
    seal = _SEAL.search(data, max(0, len(data) - _SEAL_BYTES))
    if seal is None:
        return _FAULT if _MARK in data or SEAL.encode() in data else None
    if hashlib.sha256(memoryview(data)[: seal.start()]).hexdigest().encode() != seal[1]:
        return _FAULT
    return None


def fault_of_json(data: bytes, name: str) -> str | None:
    """The same, also where it is no JSON, as of a file that was cut."""
    try:
        files.parse_json(data, name)
    except ValueError as error:
        return f"it is no JSON: {error}"
    return fault_of(data)


def read_json(path: Path) -> Any:
    """The object without its seal. Raises ValueError for what is no JSON, or was changed."""
    data = path.read_bytes()
    values = files.parse_json(data, path.name)
    if (fault := fault_of(data)) is not None:
        raise ValueError(fault)
    return without_seal(values)


def line_with_sum(line: bytes, before: int) -> tuple[bytes, int]:
    """A JSON object in one line with its sum as the last entry, and that sum. before: the sum of the line before, 0."""
    body = line.removesuffix(b"}")
    total = zlib.crc32(body, before)
    return body + f', "{MARK}": "crc32:{total:08x}"}}'.encode(), total


def fault_of_lines(data: bytes) -> str | None:
    """The first line that is not what was written, or behind which one is missing; None where all are, or have no sum.

    The end of a process that was killed in writing, a last line that is not whole, is no fault.
    """
    if not any(sign in data for sign in _SIGNS_OF_A_SUM):
        return None
    total = 0
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        found = _SUM.search(line, max(0, len(line) - _SUM_BYTES))
        if found is None or found.end() != len(line) or zlib.crc32(line[: found.start()], total) != int(found[1], 16):
            return f"line {number}: {_FAULT}, or a line before it is missing"
        total = int(found[1], 16)
    if (found := _SUM.search(rest)) is not None:  # its line break, then
        return f"line {len(lines) + 1}: {_FAULT}"
    return None


def without_seal(values: Any) -> Any:
    if isinstance(values, dict):
        values.pop(MARK, None)
        values.pop(SEAL, None)
    return values
