"""Records of a set as lines, and lines that say why something is no record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import orjson

from hpcdata.samples import BadSample, Reason

REJECTED = "hpcdata: rejected"
"""The field of a line that is a reject: its reason and what is wrong."""


class Lines:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.left_out: Counter[str] = Counter()
        """What of annotations is in no record, by reason."""

    def record(self, record: dict[str, Any]) -> None:
        self._out.write(orjson.dumps(record) + b"\n")

    def reject(self, reason: Reason, message: str) -> None:
        self._out.write(reject_line(reason, message) + b"\n")


def reject_line(reason: Reason, message: str) -> bytes:
    return orjson.dumps({REJECTED: {"reason": reason.value, "message": message}})


def require_taken(value: object) -> None:
    """Raises BadSample for a line that is a reject."""
    if isinstance(value, dict) and isinstance(said := value.get(REJECTED), dict):
        raise BadSample(Reason(said["reason"]), said["message"])


NO_MASKS: tuple[tuple[str, Any], ...] = ()


def masks_in(value: object) -> tuple[tuple[str, Any], ...]:
    """Category and mask of each object of a record, if its masks are kept."""
    objects = value.get("objects") if isinstance(value, dict) else None
    if not isinstance(objects, list):
        return NO_MASKS
    return tuple((item["category"], item["segmentation"]) for item in objects if "segmentation" in item)


@contextmanager
def lines_at(path: str) -> Iterator[Lines]:
    """A file of lines that takes its name when it is whole."""
    partial = f"{path}.{os.getpid()}.partial"
    with open(partial, "wb") as out:
        yield Lines(out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)
