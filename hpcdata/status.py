"""Status of a run: shards done, running and waiting, the account so far, rejects by reason, rate and time left.

It reads the plan, the names in `shards/`, checkpoints and ledgers, and no data; the run is not disturbed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata import shard
from hpcdata.claims import Claims, Owner
from hpcdata.errors import UserError
from hpcdata.ledger import read_ledgers
from hpcdata.loading.manifest import read_manifest
from hpcdata.plan import Plan, RunPaths, ShardSpec, load_plan
from hpcdata.tables import Counts

RATE_WINDOW_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Status:
    num_shards: int
    done: int
    running: int
    """Claimed by a process that is alive, as far as its heartbeat tells."""
    interrupted: int
    """With a checkpoint, and nobody at work on it."""
    waiting: int
    num_samples: int
    samples_done: int
    """Committed or in a checkpoint."""
    counts: dict[str, Any]
    samples_per_s: float
    """Over the last ten minutes of work in the ledger."""
    seconds_left: float | None
    conflicts: int
    combined: str | None
    """The complete dataset, when there is one."""

    @property
    def is_finished(self) -> bool:
        return self.done == self.num_shards


def read_status(output_dir: Path | str) -> Status:
    """Raises UserError when `output_dir` is not a run."""
    plan, paths = load_plan(output_dir), RunPaths(Path(output_dir))
    dataset = paths.complete_dataset()
    if dataset is not None:
        counts = read_manifest(dataset).counts
        return _status(plan, done=plan.num_shards, samples_done=plan.num_samples, counts=counts, combined=str(dataset))
    committed, started = paths.list_shards()
    specs = plan.shards()
    counts, samples_done = _account(plan, paths, specs, committed, started)
    running = _running(paths, {spec.name for spec in specs} - committed)
    rate, conflicts = _read_ledger(paths)
    done = len(committed & {spec.name for spec in specs})
    return _status(
        plan,
        done=done,
        running=len(running),
        interrupted=len(started.keys() - running),
        samples_done=samples_done,
        counts=counts,
        rate=rate,
        conflicts=conflicts,
    )


def _status(
    plan: Plan,
    *,
    done: int,
    samples_done: int,
    counts: Counts,
    running: int = 0,
    interrupted: int = 0,
    rate: float = 0.0,
    conflicts: int = 0,
    combined: str | None = None,
) -> Status:
    left = plan.num_samples - samples_done
    return Status(
        num_shards=plan.num_shards,
        done=done,
        running=running,
        interrupted=interrupted,
        waiting=max(0, plan.num_shards - done - running - interrupted),
        num_samples=plan.num_samples,
        samples_done=samples_done,
        counts=counts.to_mapping(),
        samples_per_s=round(rate, 2),
        seconds_left=round(left / rate, 1) if rate and left else (0.0 if not left else None),
        conflicts=conflicts,
        combined=combined,
    )


def _account(
    plan: Plan, paths: RunPaths, specs: Sequence[ShardSpec], committed: set[str], started: dict[str, list[Path]]
) -> tuple[Counts, int]:
    counts, samples_done = Counts(), 0
    for spec in specs:
        if spec.name in committed:
            folder = paths.find_shard(spec.name)
            if folder is not None:
                counts = counts + shard.read_summary(folder).counts
                samples_done += spec.count
        elif spec.name in started:
            header = plan.header(spec)
            progress = [shard.valid_progress(old, header) for old in started[spec.name]]
            best = max((item for item in progress if item), key=lambda item: item.samples_read, default=None)
            if best is not None:
                counts, samples_done = counts + best.counts, samples_done + best.samples_read
    return counts, samples_done


def _running(paths: RunPaths, unfinished: set[str]) -> set[str]:
    if not paths.claims.is_dir():
        return set()
    observer = Claims(paths.claims, Owner.of_this_process("status"), timeout_s=120.0)
    names = {path.name for path in paths.claims.iterdir()} & unfinished
    return {name for name in names if observer.looks_alive(name)}


def _read_ledger(paths: RunPaths) -> tuple[float, int]:
    """(samples per second of wall time in the recent past, number of conflicts).

    Each checkpoint and commit says how many seconds of work it made safe: its samples are spread over these.
    """
    done: list[tuple[float, float, int]] = []
    conflicts = 0
    for _, events in read_ledgers(paths.ledger):
        before: dict[str, int] = {}
        for event in events:
            kind, name = event.get("event"), event.get("shard", "")
            if kind == "claim":
                before[name] = event.get("resumed", 0)
            elif kind in ("checkpoint", "commit"):
                done.append((event["time"] - event["busy_s"], event["time"], event["samples"] - before.get(name, 0)))
                before[name] = event["samples"]
            elif kind == "conflict":
                conflicts += 1
    return rate(done), conflicts


def rate(done: Sequence[tuple[float, float, int]]) -> float:
    """Samples per second in the last `RATE_WINDOW_S` before the latest end of (start, end, samples)."""
    if not done:
        return 0.0
    until = max(end for _, end, _ in done)
    since = max(until - RATE_WINDOW_S, min(start for start, _, _ in done))
    samples = sum(
        number * (end - max(start, since)) / (end - start) for start, end, number in done if end > since and end > start
    )
    return samples / (until - since) if until > since else 0.0


def describe(status: Status) -> str:
    """A few lines for a terminal."""
    counts = status.counts
    share = 100 * status.samples_done / max(1, status.num_samples)
    rejected = ", ".join(f"{reason} {number}" for reason, number in counts["rejected"].items()) or "none"
    lines = [
        f"shards   {status.done} of {status.num_shards} done, {status.running} running, "
        f"{status.interrupted} interrupted, {status.waiting} waiting",
        f"samples  {status.samples_done} of {status.num_samples} ({share:.1f} %): {counts['written']} written, "
        f"{sum(counts['rejected'].values())} rejected, {counts['duplicate']} duplicate",
        f"rejects  {rejected}",
        f"tokens   {counts['text_tokens']} text, {counts['image_tokens']} image in {counts['images']} images; "
        f"{counts['truncated_texts']} texts cut at data.block_size",
    ]
    if status.combined:
        return "\n".join([*lines, f"dataset  {status.combined}"])
    left = "unknown" if status.seconds_left is None else f"{status.seconds_left / 60:.1f} min"
    lines.append(f"rate     {status.samples_per_s} samples/s, time left {left}")
    if status.conflicts:
        lines.append(f"WARNING  {status.conflicts} shards came out with other bytes on two tasks, see ledger/")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hpcdata.status", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="output directory of the run (data.token_output_dir)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        status = read_status(options.run)
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(status), indent=1) if options.json else describe(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
