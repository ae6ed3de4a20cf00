"""Why shards are missing, as inputs and ledgers tell: what no repetition can write, and what tasks failed with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcdata.history.ledger import read_ledgers
from hpcdata.runs.inputs.planned import PlannedInput, ShardSpec
from hpcdata.runs.paths import RunPaths


def hopeless(missing: Sequence[ShardSpec]) -> Iterator[str]:
    """For each shard of which an input is not what was planned, that it is so: no repetition can write it."""
    faults: dict[str, str] = {}
    for spec in missing:
        for segment in spec.segments:
            origin = segment.source.origin
            if origin not in faults:
                faults[origin] = _fault(segment.source)
            if faults[origin]:
                yield faults[origin]
                break


def failures(paths: RunPaths, job_ids: set[str]) -> Iterator[str]:
    """What the processes of these jobs have noted as failed, shards and whole processes."""
    for _, events in read_ledgers(paths.ledger):
        slurm = events[0].get("slurm", {}) if events else {}
        if job_ids & {slurm.get("SLURM_ARRAY_JOB_ID"), slurm.get("SLURM_JOB_ID")}:
            yield from (str(item.get("error")) for item in events if item.get("event") in ("failed", "error"))


def shard_failures(paths: RunPaths, missing: Sequence[ShardSpec]) -> Iterator[str]:
    names = {spec.name for spec in missing}
    for _, events in read_ledgers(paths.ledger):
        for event in events:
            if event.get("event") == "failed" and event.get("shard") in names:
                yield f"shard {event['shard']}: {event.get('error')}"


def _fault(source: PlannedInput) -> str:
    """What is wrong with an input; empty if nothing is, or if that cannot be told."""
    try:
        is_like = source.is_like(Path(source.origin).stat())
    except FileNotFoundError:
        return f"input {source.origin} is gone: restore it"
    except OSError:
        return ""  # perhaps only from here
    return "" if is_like else f"input {source.origin} has changed since it was planned: restore it"
