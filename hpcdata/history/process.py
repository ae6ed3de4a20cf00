"""One process of a run, as its ledger tells: what it did on which shard, and what that was worth."""

from __future__ import annotations

import operator
from collections.abc import Container
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

PREEMPTED, VANISHED, RUNNING = "preempted", "vanished", "running"
SPENT = ("read_s", "decode_s", "encode_s", "write_s")
ALL_SPENT = (*SPENT, "cpu_s")
_SPENT_OF = itemgetter(*ALL_SPENT)


class Segment(NamedTuple):
    """What one process did on one shard between its claim and its last checkpoint or commit."""

    shard: str
    start: float
    end: float
    samples: int
    useful_s: float
    is_commit: bool


@dataclass(kw_only=True)
class Process:
    """One process, as far as its ledger goes."""

    attempt: str
    host: str = "?"
    slurm: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    last: float = 0.0
    """Time of its last event."""
    device: str | None = None
    outcome: str | None = None
    """Of its `end`; None while it runs, or when it was killed."""
    error: str | None = None
    """Why it could not go on, or why it gave its last failed shard up."""
    signal: str | None = None
    samples: int = 0
    useful_s: float = 0.0
    lost_s: float = 0.0
    """Work of its own that it threw away."""
    segments: list[Segment] = field(default_factory=list)
    spent: tuple[float, ...] = (0.0,) * 5
    """Seconds of useful work by what they went into, see `_SPENT`."""
    metered_s: float = 0.0
    gpu_s: float = 0.0
    """Useful seconds in which it was known how busy the GPU was, and of these the busy ones."""
    claim: dict[str, Any] | None = None
    latest: dict[str, Any] | None = None
    """The last checkpoint since the claim: like `segment`, not yet in the sums."""

    def __getstate__(self) -> dict[str, Any]:
        """Segments as plain tuples, which pickle many times faster."""
        return {**vars(self), "segments": [tuple(item) for item in self.segments]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, segments=list(map(Segment._make, state["segments"])))

    @property
    def task(self) -> str:
        """`job_element/process` under SLURM, the same after a requeue; otherwise a name of this process alone."""
        job = self.slurm.get("SLURM_ARRAY_JOB_ID") or self.slurm.get("SLURM_JOB_ID")
        if not job:
            return self.attempt.rsplit("-", 1)[0]
        element = self.slurm.get("SLURM_ARRAY_TASK_ID")
        return f"{job}{'_' + element if element else ''}/{self.slurm.get('SLURM_PROCID', '0')}"

    @property
    def job_id(self) -> str | None:
        return self.slurm.get("SLURM_ARRAY_JOB_ID") or self.slurm.get("SLURM_JOB_ID")

    @property
    def segment(self) -> Segment | None:
        """What it has made safe of the shard that it holds."""
        return segment_of(self.claim, self.latest, is_commit=False)

    def all_segments(self) -> list[Segment]:
        segment = self.segment
        return [*self.segments, segment] if segment else self.segments

    def total_samples(self) -> int:
        segment = self.segment
        return self.samples + (segment.samples if segment else 0)

    def total_useful_s(self) -> float:
        return self.useful_s + (useful(self.latest) if self.latest else 0.0)

    def close(self, *, is_commit: bool = False) -> None:
        """The work on the claimed shard is over."""
        segment = segment_of(self.claim, self.latest, is_commit=is_commit)
        if segment is not None and self.latest is not None:
            self.segments.append(segment)
            self.samples += segment.samples
            self.useful_s += segment.useful_s
            self.spent = add_spent(self.spent, self.latest)
            if "gpu_s" in self.latest:
                self.metered_s += segment.useful_s
                self.gpu_s += self.latest["gpu_s"]
        self.claim = self.latest = None

    def state(self, *, is_last: bool, alive: Container[str], now: float, silent_s: float) -> str:
        """How it ended, or `running`. is_last: of its task; alive: attempts that hold a claim which beats.

        `preempted`: a signal ended it in order. `vanished`: it never said goodbye (killed, out of memory, its node is
        gone) and is silent for `silent_s` or its task runs again.
        """
        if self.outcome is not None:
            is_preempted = self.outcome == "stopped" and self.signal != "SIGINT"
            return PREEMPTED if is_preempted else self.outcome
        is_heard = is_last and now - self.last < silent_s
        return RUNNING if self.attempt in alive or is_heard else VANISHED

    def metered(self) -> tuple[float, float]:
        """(metered_s, gpu_s), with those of the shard in work."""
        latest = self.latest or {}
        if "gpu_s" not in latest:
            return self.metered_s, self.gpu_s
        return self.metered_s + useful(latest), self.gpu_s + latest["gpu_s"]

    def total_spent(self) -> dict[str, float]:
        """Seconds of useful work by what they went into, and `cpu_s`."""
        spent = add_spent(self.spent, self.latest) if self.latest else self.spent
        return dict(zip(ALL_SPENT, spent, strict=True))


def add_spent(spent: tuple[float, ...], event: dict[str, Any]) -> tuple[float, ...]:
    try:
        return tuple(map(operator.add, spent, _SPENT_OF(event)))
    except KeyError:  # nothing went into some of it
        return tuple(before + event.get(name, 0.0) for before, name in zip(spent, ALL_SPENT, strict=True))


def segment_of(claim: dict[str, Any] | None, latest: dict[str, Any] | None, *, is_commit: bool) -> Segment | None:
    if latest is None:
        return None
    useful_s, end = useful(latest), latest["time"]
    samples = latest.get("samples", 0) - (claim.get("resumed", 0) if claim else 0)
    return Segment(latest.get("shard", ""), end - useful_s, end, samples, useful_s, is_commit)


def useful(event: dict[str, Any]) -> float:
    return event["useful_s"] if "useful_s" in event else event.get("busy_s", 0.0)
