"""The rejects of a run, read from its shards' ledgers, and the parts that retries have added to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.samples import Reason
from hpcdata.shards.recovered import PREFIX, Recovered, read_recovered
from hpcdata.shards.reject_ledger import DUPLICATE, RejectRow, read_rejects
from hpcdata.shards.shard import ShardHeader


def rows_of(output_dir: Path) -> Iterator[RejectRow]:
    """Every reject that no retry has recovered, in the order of the plan, one at a time; duplicates are among them."""
    plan, paths = load_plan(output_dir), RunPaths(output_dir.absolute())
    recovered = read_recovered(paths.list_retries().values())
    dataset = paths.complete_dataset()
    for spec in plan.shards():
        folder = paths.find_shard(spec.name) or (dataset / "parts" / spec.name if dataset else None)
        if folder and folder.exists():
            yield from (row for row in read_rejects(folder) if row.index not in recovered)
        elif dataset:  # compact holds all of them, in one file
            yield from read_rejects(dataset / "parts" / "compact")
            return


def may_come(rejected: Mapping[str, int], output_dir: Path | str) -> list[str]:
    """In words, what of a run may succeed at another time, and the line for it; nothing where nothing may."""
    if not (number := rejected.get(Reason.URL_FAILED, 0)):
        return []
    return [f"{number} {Reason.URL_FAILED} may come another time: {to_type('rejects', output_dir, '--retry')}"]


def picture_folders(output_dir: Path) -> dict[str, str]:
    """Label of an input -> the folder that the pictures start from which its records name."""
    files = [item.file for item in load_plan(output_dir).inputs]
    return {file.label: file.base for file in files if file.format.startswith(("jsonl", "listing", "parquet"))}


def require_known(reason: str | None) -> None:
    """Raises UserError for what is no reason of any version: a misspelled one would find nothing, in silence."""
    known = [str(item) for item in Reason] + [DUPLICATE]
    if reason is not None and reason not in known:
        close = difflib.get_close_matches(reason, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"--reason {reason}: no such reason; {hint}known are {', '.join(known)}")


def retry_header(plan: Plan, number: int) -> ShardHeader:
    """The header of the `number`-th retry part of a run, from 1."""
    shard = plan.num_shards + number - 1
    return plan.header_of(f"{PREFIX}{number:05d}", shard, source="*", first_index=0, num_inputs=0)


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
