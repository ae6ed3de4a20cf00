"""Retry parts: what `hpcdata.rejects --retry` has added to a run, and the rejects that it takes back.

    shards/retry-00001/   a committed shard like others, and recovered.jsonl: the reject rows that its samples had

Committed shards are never touched. The account of a retry part corrects theirs: 0 inputs, n written, -n rejected, so
sums over all parts balance. `combine` and `verify` check that every recovered sample is rejected by its shard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hpcdata.errors import UserError
from hpcdata.plan import Plan
from hpcdata.shard import REJECTS, ShardHeader
from hpcdata.tables import RejectRow

RECOVERED = "recovered.jsonl"
PREFIX = "retry-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recovered:
    """A sample that a retry wrote: which retry, and the reason why it was rejected before."""

    retry: int
    reason: str


def retry_header(plan: Plan, number: int) -> ShardHeader:
    """The header of the `number`-th retry part of a run, from 1."""
    return ShardHeader(
        name=f"{PREFIX}{number:05d}",
        shard=plan.num_shards + number - 1,
        num_shards=plan.num_shards,
        fingerprint=plan.fingerprint,
        id_dtype=plan.id_dtype,
        source="*",
        first_index=0,
        num_inputs=0,
    )


def retry_number(name: str) -> int:
    return int(name.removeprefix(PREFIX))


def read_rejects(folder: Path) -> Iterator[RejectRow]:
    """The reject rows of a committed shard, one at a time; duplicates are among them."""
    for values in read_lines(folder / REJECTS):
        try:
            yield RejectRow(**values)
        except TypeError as error:
            raise UserError(f"{folder / REJECTS} is damaged ({error})") from None


def read_recovered(folders: Iterable[Path]) -> dict[int, Recovered]:
    """Plan index -> what a retry made of it, of all the folders that hold a recovered.jsonl."""
    found: dict[int, Recovered] = {}
    for folder in folders:
        for values in read_lines(folder / RECOVERED):
            try:
                index, row = values["index"], Recovered(retry=values["retry"], reason=values["reason"])
            except KeyError as error:
                raise UserError(f"{folder / RECOVERED} is damaged: no {error}") from None
            if index in found:
                raise UserError(f"sample {index} is in two retries: remove {folder} and combine again")
            found[index] = row
    return found


def to_line(row: RejectRow, number: int) -> bytes:
    values = {**dataclasses.asdict(row), "retry": number}
    return (json.dumps(values, ensure_ascii=False) + "\n").encode(errors="replace")


def not_rejected(recovered: Mapping[int, Recovered], plan: Plan, folders: Mapping[str, Path]) -> list[int]:
    """Recovered samples that their shard does not reject for the reason the retry says. folders: name -> shard."""
    by_shard: dict[str, set[int]] = {}
    strangers = [index for index in recovered if not 0 <= index < plan.num_samples]
    for index in recovered.keys() - set(strangers):
        by_shard.setdefault(plan.shard_of(index).name, set()).add(index)
    for name, indices in by_shard.items():
        rows = read_rejects(folders[name]) if name in folders else ()
        found = {row.index for row in rows if row.index in indices and row.reason == recovered[row.index].reason}
        strangers += indices - found
    return sorted(strangers)


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
        raise UserError(f"{path} is damaged ({error})") from None
