"""JSON files with a seal: whoever reads one finds any change of its bytes, a flipped bit or an edit.

The last entry is the sha256 of all bytes before it, and another entry says that there is one, so that neither can be
damaged in silence. It is no signature: who edits a file on purpose can seal it again. Files of versions before 0.2.0
have none, and are read as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcdata.base import files

MARK, SEAL = "sealed", "sealed_sha256"
_MARK = f'\n "{MARK}": true,\n'.encode()
_SEAL = re.compile(rb',\n "sealed_sha256": "([0-9a-f]{64})"\n}\n\Z')
_FAULT = "its bytes are not those that were written: it was edited, or damaged"
_SEAL_BYTES = len(b',\n "sealed_sha256": ""\n}\n') + 64


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


def read_json(path: Path) -> Any:
    """The object without its seal. Raises ValueError for what is no JSON, or was changed."""
    data = path.read_bytes()
    values = files.parse_json(data, path.name)
    if (fault := fault_of(data)) is not None:
        raise ValueError(fault)
    return without_seal(values)


def without_seal(values: Any) -> Any:
    if isinstance(values, dict):
        values.pop(MARK, None)
        values.pop(SEAL, None)
    return values
