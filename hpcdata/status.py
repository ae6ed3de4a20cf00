"""Status of a run: shards done, running and waiting, the account so far, rejects by reason, rate and time left.

It reads the plan, the names in `shards/`, checkpoints and ledgers, and no data; the run is not disturbed.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
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
from hpcdata.livelock import History, batch_seconds
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
    useful_s: float
    """Work that checkpoints and commits made safe."""
    lost_s: float
    """Work that died with a process, from its last checkpoint to its last batch, or that another task had done."""
    queued_s: float
    """Between the end of a SLURM task and its next start after a requeue."""
    stuck: list[str]
    """Shards whose last attempts died before one batch was done, see `livelock`."""
    batch_s: float | None
    """What a batch takes, as far as the ledger knows."""
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
    work = _read_ledger(paths, plan.config.loader.batch_size)
    done = len(committed & {spec.name for spec in specs})
    return _status(
        plan,
        done=done,
        running=len(running),
        interrupted=len(started.keys() - running),
        samples_done=samples_done,
        counts=counts,
        work=work,
        committed=committed,
    )


def _status(
    plan: Plan,
    *,
    done: int,
    samples_done: int,
    counts: Counts,
    running: int = 0,
    interrupted: int = 0,
    work: _Work | None = None,
    committed: set[str] | None = None,
    combined: str | None = None,
) -> Status:
    work = work or _Work()
    left, rate = plan.num_samples - samples_done, work.samples_per_s
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
        conflicts=work.conflicts,
        useful_s=round(work.useful_s, 1),
        lost_s=round(work.lost_s, 1),
        queued_s=round(work.queued_s, 1),
        stuck=sorted(work.stuck - (committed or set())),
        batch_s=None if work.batch_s is None else round(work.batch_s, 2),
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
    for folder in paths.list_retries().values():
        counts = counts + shard.read_summary(folder).counts
    return counts, samples_done


def _running(paths: RunPaths, unfinished: set[str]) -> set[str]:
    if not paths.claims.is_dir():
        return set()
    observer = Claims(paths.claims, Owner.of_this_process("status"), timeout_s=120.0)
    names = {path.name for path in paths.claims.iterdir()} & unfinished
    return {name for name in names if observer.looks_alive(name)}


@dataclass(kw_only=True)
class _Work:
    """What the ledgers of all processes say together."""

    samples_per_s: float = 0.0
    conflicts: int = 0
    useful_s: float = 0.0
    lost_s: float = 0.0
    queued_s: float = 0.0
    stuck: set[str] = dataclasses.field(default_factory=set)
    batch_s: float | None = None


def _read_ledger(paths: RunPaths, batch_size: int) -> _Work:
    """Adds up the ledgers. The rate is samples per second of wall time in the recent past.

    Each checkpoint and commit says how many seconds of work it made safe: its samples are spread over these.
    """
    done: list[tuple[float, float, int]] = []
    work = _Work()
    histories: dict[str, History] = {}
    tasks: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for _, events in read_ledgers(paths.ledger):
        before: dict[str, int] = {}
        if events and (slurm := events[0].get("slurm")):
            task = tuple(slurm.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_PROCID"))
            tasks.setdefault(task, []).append((events[0]["time"], events[-1]["time"]))
        for event in events:
            kind, name = event.get("event"), event.get("shard", "")
            if kind == "claim":
                before[name] = event.get("resumed", 0)
                histories.setdefault(name, History()).claims.append((event["time"], before[name]))
            elif kind in ("checkpoint", "commit"):
                done.append((event["time"] - event["busy_s"], event["time"], event["samples"] - before.get(name, 0)))
                if event["samples"] > before.get(name, 0):
                    histories.setdefault(name, History()).advances.append(event["time"])
                before[name] = event["samples"]
            elif kind == "conflict":
                work.conflicts += 1
            work.useful_s += event["busy_s"] if kind in ("checkpoint", "commit") else 0.0
            work.lost_s += event.get("lost_s", 0.0) + (event["busy_s"] if kind in ("lost", "conflict") else 0.0)
    work.samples_per_s = rate(done)
    work.queued_s = sum(_gaps(spans) for spans in tasks.values())
    work.batch_s = batch_seconds(done, batch_size)
    work.stuck = {name for name, history in histories.items() if history.is_stuck(work.batch_s)}
    return work


def _gaps(spans: list[tuple[float, float]]) -> float:
    ordered = sorted(spans)
    return sum(max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(ordered))


def rate(done: Sequence[tuple[float, float, int]]) -> float:
    """Samples per second of (start, end, samples) in the last `RATE_WINDOW_S`, while at least one task was at work."""
    if not done:
        return 0.0
    since = max(end for _, end, _ in done) - RATE_WINDOW_S
    samples = busy_s = 0.0
    covered = since
    for start, end, number in sorted(done):
        if end > since and end > start:
            samples += number * (end - max(start, since)) / (end - start)
            busy_s += max(0.0, end - max(start, covered))
            covered = max(covered, end)
    return samples / busy_s if busy_s else 0.0


def describe(status: Status, output_dir: Path | str) -> str:
    """A few lines for a terminal."""
    counts = status.counts
    share = 100 * status.samples_done / max(1, status.num_samples)
    rejected = ", ".join(f"{reason} {number}" for reason, number in counts["rejected"].items()) or "none"
    lines = [
        f"shards   {status.done} of {status.num_shards} done, {status.running} running, "
        f"{status.interrupted} interrupted, {status.waiting} waiting",
        f"samples  {status.samples_done} of {status.num_samples} ({share:.1f} %): {counts['written']} written, "
        f"{sum(counts['rejected'].values())} rejected, {counts['duplicate']} duplicate",
        f"rejects  {rejected}" + (f"; python -m hpcdata.rejects {output_dir}" if counts["rejected"] else ""),
        f"tokens   {counts['text_tokens']} text, {counts['image_tokens']} image in {counts['images']} images; "
        f"{counts['truncated_texts']} texts cut at data.block_size",
    ]
    if status.combined:
        return "\n".join([*lines, f"dataset  {status.combined}"])
    left = "unknown" if status.seconds_left is None else f"{status.seconds_left / 60:.1f} min"
    lines.append(f"rate     {status.samples_per_s} samples/s, time left {left}")
    lines.append(f"time     {status.useful_s} s useful, {status.lost_s} s lost, {status.queued_s} s queued")
    if status.stuck:
        batch = "" if status.batch_s is None else f" ({status.batch_s} s)"
        lines.append(
            f"WARNING  {len(status.stuck)} shards do not advance, attempts end before one batch{batch} is done, as on "
            f"{status.stuck[0]}: preemptions must be further apart than the start of a task and a batch take; see logs/"
        )
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
    print(json.dumps(dataclasses.asdict(status), indent=1) if options.json else describe(status, options.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
