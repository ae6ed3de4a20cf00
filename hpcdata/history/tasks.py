"""The array tasks of a run, one line each: state, shard in work, rate, how often it was preempted; who is slow.

A task is what the scheduler restarts as one: an element of an array and one process of it, or a local process.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hpcdata.history.history import RATE_WINDOW_S, History, gpu_use
from hpcdata.history.process import PREEMPTED, RUNNING, VANISHED, Process
from hpcdata.runs.plan import Plan

SLOW_TASK = 0.5
"""A task below this share of the median rate of those that run is called slow."""
SLOW_SHARD = 3.0
"""A shard in work for so many times the median of the committed ones is called slow."""
MIN_TASKS = 3
"""Rates that a median needs."""
MIN_SLOW_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Task:
    task: str
    """`job_element/process` under SLURM, otherwise `host-pid`."""
    host: str
    state: str
    """`running`, `finished`, `failed`, `error`, `stopped`, `preempted` (a signal ended it), `vanished` (silent)."""
    device: str | None
    starts: int
    preemptions: int
    vanished: int
    shard: str | None
    """In work."""
    shard_done: int
    shard_samples: int
    samples: int
    """Encoded and safe, by all its processes."""
    samples_per_s: float
    """Of its last ten minutes of work."""
    seconds_left: float | None
    """For the shard in work."""
    shard_s: float
    """Since it was claimed."""
    silent_s: float
    """Since the last event in its ledger."""
    cpu_cores: float | None
    """CPU seconds a second of useful work."""
    gpu_use: float | None
    """Share of useful work in which the GPU was busy, where it is known."""
    is_slow: bool
    error: str | None
    job_state: str | None = None
    """What the scheduler says, where it was asked and knows."""


def list_tasks(history: History, plan: Plan, states: Mapping[str, str], now: float) -> list[Task]:
    """All tasks, by their names. states: attempt -> how it ended, or running."""
    groups = history.by_task()
    rates = {name: _rate(group) for name, group in groups.items()}
    running = [rates[name] for name, group in groups.items() if states[group[-1].attempt] == RUNNING and rates[name]]
    median = statistics.median(running) if len(running) >= MIN_TASKS else 0.0
    commit_s = history.commit_s()
    return [
        _task(name, group, plan, states, now, rates[name], median, commit_s)
        for name, group in sorted(groups.items(), key=lambda item: natural(item[0]))
    ]


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _task(
    name: str,
    group: list[Process],
    plan: Plan,
    states: Mapping[str, str],
    now: float,
    rate: float,
    median_rate: float,
    commit_s: float | None,
) -> Task:
    latest = group[-1]
    ends = [states[process.attempt] for process in group]
    is_running = ends[-1] == RUNNING
    claim = latest.claim if is_running else None
    shard = str(claim["shard"]) if claim else None
    done = int((latest.latest or {}).get("samples", claim.get("resumed", 0))) if claim else 0
    size = plan.shard(int(shard.split("-")[0])).count if shard else 0
    shard_s = max(0.0, now - claim["time"]) if claim else 0.0
    useful_s = sum(process.total_useful_s() for process in group)
    cpu_s = sum(process.total_spent()["cpu_s"] for process in group)
    slow_shard = commit_s is not None and shard_s > max(MIN_SLOW_S, SLOW_SHARD * commit_s)
    return Task(
        task=name,
        host=latest.host,
        state=ends[-1],
        device=latest.device,
        starts=len(group),
        preemptions=ends.count(PREEMPTED),
        vanished=ends.count(VANISHED),
        shard=shard,
        shard_done=done,
        shard_samples=size,
        samples=sum(process.total_samples() for process in group),
        samples_per_s=round(rate, 2),
        seconds_left=round((size - done) / rate, 1) if shard and rate else None,
        shard_s=round(shard_s, 1),
        silent_s=round(max(0.0, now - latest.last), 1),
        cpu_cores=round(cpu_s / useful_s, 2) if cpu_s and useful_s else None,
        gpu_use=gpu_use(group),
        is_slow=is_running and (slow_shard or 0 < rate < SLOW_TASK * median_rate),
        error=latest.error,
    )


def _rate(group: list[Process]) -> float:
    """Samples a second of useful work in the last ten minutes that a task worked."""
    samples, useful_s = 0, 0.0
    for process in reversed(group):
        for segment in reversed(process.all_segments()):
            samples, useful_s = samples + segment.samples, useful_s + segment.useful_s
            if useful_s >= RATE_WINDOW_S:
                return samples / useful_s
    return samples / useful_s if useful_s else 0.0
