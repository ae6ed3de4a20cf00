"""The reject ledger of a shard, `rejects.jsonl`: a line for every sample that was not written, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base.errors import Failed
from hpcdata.samples import Duplicate, Record

REJECTS = "rejects.jsonl"


@dataclass(frozen=True, kw_only=True)
class RejectRow:
    """One line of a shard's `rejects.jsonl`: where a sample that was not written came from, and why."""

    index: int
    key: str
    source: str
    offset: int
    reason: str
    message: str
    id: str = ""
    """What the record calls itself. In a line only where it is known."""

    def to_mapping(self) -> dict[str, str | int]:
        values = dict(vars(self))
        if not self.id:
            del values["id"]
        return values


DUPLICATE = "duplicate"
"""The `reason` of rows that are duplicates: listed with the rejects, counted apart from them."""


def reject_row(record: Record, reason: str, message: str, first_index: int, source: str) -> RejectRow:
    """first_index: plan index of position 0 of the batch's records; source: label of their input, if it is one."""
    return RejectRow(
        index=first_index + record.position,
        key=record.key,
        source=record.source or source,
        offset=record.offset,
        reason=DUPLICATE if isinstance(record, Duplicate) else str(reason),
        message=message,
        id="" if isinstance(record, Duplicate) else record.id,
    )


def read_rejects(folder: Path) -> Iterator[RejectRow]:
    """The reject rows of a committed shard, one at a time; duplicates are among them."""
    for values in read_lines(folder / REJECTS):
        try:
            yield RejectRow(**values)
        except TypeError as error:
            raise Failed(f"{folder / REJECTS} is damaged ({error})") from None


def read_lines(path: Path) -> Iterator[dict]:
    """The objects of a JSONL file of ours; nothing if there is none. Raises UserError when it is damaged."""
    try:
        with open(path, "rb") as file:
            for line in file:
                values = json.loads(line)
                if not isinstance(values, dict) or not isinstance(values.get("index"), int):
                    raise ValueError("a line is no reject row")
                yield values
    except FileNotFoundError:
        return
    except (ValueError, RecursionError) as error:
        raise Failed(f"{path} is damaged ({error})") from None
