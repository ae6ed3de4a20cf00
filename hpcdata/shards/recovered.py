"""Retry parts: what `hpcdata.rejects --retry` has added to a run, and the rejects that it takes back.

    shards/retry-00001/   a committed shard like others, and recovered.jsonl: the reject rows that its samples had

Committed shards are never touched. The account of a retry part corrects theirs: 0 inputs, n written, -n rejected, so
sums over all parts balance. `combine` and `verify` check that every recovered sample is rejected by its shard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from hpcdata.base.errors import Failed, UserError
from hpcdata.shards.reject_ledger import RejectRow, read_lines

RECOVERED = "recovered.jsonl"
PREFIX = "retry-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovered:
    """A sample that a retry wrote: which retry, and the reason why it was rejected before."""

    retry: int
    reason: str


def retry_number(name: str) -> int:
    return int(name.removeprefix(PREFIX))


def read_recovered(folders: Iterable[Path]) -> dict[int, Recovered]:
    """Plan index -> what a retry made of it, of all the folders that hold a recovered.jsonl."""
    found: dict[int, Recovered] = {}
    for folder in folders:
        for values in read_lines(folder / RECOVERED):
            try:
                index, row = values["index"], Recovered(retry=values["retry"], reason=values["reason"])
            except KeyError as error:
                raise Failed(f"{folder / RECOVERED} is damaged: no {error}") from None
            if index in found:
                raise UserError(f"sample {index} is in two retries: remove {folder} and combine again")
            found[index] = row
    return found


def to_line(row: RejectRow, number: int) -> bytes:
    values = {**row.to_mapping(), "retry": number}
    return (json.dumps(values, ensure_ascii=False) + "\n").encode(errors="replace")
