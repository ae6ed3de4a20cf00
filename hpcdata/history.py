"""What the ledgers of all processes say together: which process did what and when, and what it was worth.

Seconds are those of processes, so ten processes at work for a second are ten:

    useful_s     work that a checkpoint or a commit made safe
    lost_s       work that died with a process (from its last checkpoint to its last batch), or that another had done
    overhead_s   the rest of the time between a process's `start` and its last event: loading weights, claiming, waiting
    queued_s     between the end of a SLURM task's process and the start of its next one; holds no node
    goodput      useful_s / (useful_s + lost_s + overhead_s): the share of the time on nodes that made the dataset
"""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpcdata import livelock
from hpcdata.ledger import LedgerReader
from hpcdata.tables import Counts

RATE_WINDOW_S = 600.0
SPENT = ("read_s", "decode_s", "encode_s", "write_s")
PREEMPTED, VANISHED, RUNNING = "preempted", "vanished", "running"


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
    spent: Counter[str] = field(default_factory=Counter)
    claim: dict[str, Any] | None = None
    latest: dict[str, Any] | None = None
    """The last checkpoint since the claim: like `segment`, not yet in the sums."""

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
        return _segment(self.claim, self.latest, is_commit=False)

    def all_segments(self) -> list[Segment]:
        segment = self.segment
        return [*self.segments, segment] if segment else self.segments

    def total_samples(self) -> int:
        segment = self.segment
        return self.samples + (segment.samples if segment else 0)

    def total_useful_s(self) -> float:
        return self.useful_s + (_useful(self.latest) if self.latest else 0.0)

    def close(self, *, is_commit: bool = False) -> None:
        """The work on the claimed shard is over."""
        segment = _segment(self.claim, self.latest, is_commit=is_commit)
        if segment is not None and self.latest is not None:
            self.segments.append(segment)
            self.samples += segment.samples
            self.useful_s += segment.useful_s
            for name in (*SPENT, "cpu_s"):
                self.spent[name] += self.latest.get(name, 0.0)
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

    def total_spent(self) -> Counter[str]:
        spent = Counter(self.spent)
        for name in (*SPENT, "cpu_s"):
            spent[name] += (self.latest or {}).get(name, 0.0)
        return spent


class History:
    """The reduction of all ledgers; `read` adds what is new."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self.processes: dict[str, Process] = {}
        self.commits: dict[str, dict[str, Any]] = {}
        """Shard -> its account, of commits that say it."""
        self.commit_seconds: list[float] = []
        """Useful seconds of the claims that ended with a commit."""
        self._account: Counter[str] = Counter()
        self.conflicts = 0
        self.inherited_lost_s = 0.0
        """Work of processes that died, told by those who took their shards up."""
        self._claims: dict[str, list[tuple[float, int]]] = {}
        self._advances: dict[str, list[float]] = {}
        """Shard -> times of checkpoints, the last of each claim at least, that were ahead of it."""

    def read(self) -> None:
        collects = gc.isenabled()
        gc.disable()  # millions of small objects, and no cycle among them
        try:
            self._read()
        finally:
            if collects:
                gc.enable()

    def _read(self) -> None:
        for attempt, events in self._reader.read():
            process = self.processes.setdefault(attempt, Process(attempt=attempt))
            for event in events:
                self._add(process, event)
            process.last = max((event.get("time", 0.0) for event in events[-1:]), default=process.last)

    def _add(self, process: Process, event: dict[str, Any]) -> None:
        kind, name = event.get("event"), event.get("shard", "")
        if kind == "checkpoint":
            process.latest = event
            if event.get("samples", 0) > (process.claim or {}).get("resumed", 0):
                self._advances.setdefault(name, []).append(event["time"])
        elif kind == "commit":
            process.latest = event
            process.close(is_commit=True)
            self.commit_seconds.append(_useful(event))
            if "counts" in event:
                _add_to(self._account, event["counts"], 1)
                if name in self.commits:  # committed again after somebody removed it
                    _add_to(self._account, self.commits[name], -1)
                self.commits[name] = event["counts"]
        elif kind == "claim":
            process.close()
            process.claim, process.device = event, event.get("device", process.device)
            self._claims.setdefault(name, []).append((event["time"], event.get("resumed", 0)))
            self.inherited_lost_s += event.get("lost_s", 0.0)
        elif kind in ("lost", "conflict"):
            process.close()
            process.lost_s += event.get("busy_s", 0.0)
            self.conflicts += kind == "conflict"
        elif kind == "start":
            process.host, process.slurm = str(event.get("host", "?")), event.get("slurm") or {}
            process.started = event["time"]
        elif kind == "signal":
            process.signal = event.get("name")
        elif kind == "failed":
            process.close()
            process.error = event.get("error")
        elif kind == "end":
            process.close()
            process.outcome = event.get("outcome")
        elif kind == "error":
            process.close()
            process.outcome, process.error = "error", event.get("error")

    def by_task(self) -> dict[str, list[Process]]:
        """Task -> its processes in their order."""
        tasks: dict[str, list[Process]] = {}
        for process in sorted(self.processes.values(), key=lambda process: process.started):
            tasks.setdefault(process.task, []).append(process)
        return tasks

    @property
    def useful_s(self) -> float:
        return sum(process.total_useful_s() for process in self.processes.values())

    @property
    def lost_s(self) -> float:
        return self.inherited_lost_s + sum(process.lost_s for process in self.processes.values())

    @property
    def overhead_s(self) -> float:
        return sum(
            max(0.0, process.last - process.started - process.total_useful_s() - process.lost_s)
            for process in self.processes.values()
            if process.started
        )

    @property
    def queued_s(self) -> float:
        spans = [[(process.started, process.last) for process in task] for task in self.by_task().values()]
        return sum(_gaps(task) for task in spans)

    @property
    def goodput(self) -> float | None:
        total_s = self.useful_s + self.lost_s + self.overhead_s
        return self.useful_s / total_s if total_s else None

    @property
    def spent(self) -> Counter[str]:
        """Seconds of useful work by what they went into, and `cpu_s`."""
        spent: Counter[str] = Counter()
        for process in self.processes.values():
            spent.update(process.total_spent())
        return spent

    def stuck(self, batch_s: float | None) -> set[str]:
        """Shards, committed ones among them, whose attempts ended before a batch was done; see `livelock`."""
        return {
            name
            for name, claims in self._claims.items()
            if len(claims) > 1
            and livelock.History(claims=claims, advances=self._advances.get(name, [])).is_stuck(batch_s)
        }

    def batch_s(self, batch_size: int) -> float | None:
        """What a batch takes, median over the claims."""
        return livelock.batch_seconds([(0.0, item.useful_s, item.samples) for item in self.segments()], batch_size)

    def samples_per_s(self) -> float:
        segments = self.segments()
        since = max((item.end for item in segments), default=0.0) - RATE_WINDOW_S
        return rate([(item.start, item.end, item.samples) for item in segments if item.end > since])

    def segments(self) -> list[Segment]:
        return [segment for process in self.processes.values() for segment in process.all_segments()]

    def account(self, names: set[str]) -> Counts:
        """The sum of the accounts of these shards, all of them in `commits`."""
        account = self._account.copy()
        for name in self.commits.keys() - names:
            _add_to(account, self.commits[name], -1)
        rejected = {key.removeprefix(_REJECTED): value for key, value in account.items() if key.startswith(_REJECTED)}
        sums = {name: account[name] for name in vars(Counts()) if name != "rejected"}
        return Counts(**sums, rejected=Counter({reason: number for reason, number in rejected.items() if number}))


_REJECTED = "rejected."


def _add_to(account: Counter[str], counts: dict[str, Any], sign: int) -> None:
    for name, value in counts.items():
        if name == "rejected":
            for reason, number in value.items():
                account[_REJECTED + reason] += sign * number
        else:
            account[name] += sign * value


def rate(done: Sequence[tuple[float, float, int]]) -> float:
    """Samples per second of (start, end, samples) in the last `RATE_WINDOW_S`, while at least one task was at work."""
    if not done:
        return 0.0
    since = max(end for _, end, _ in done) - RATE_WINDOW_S
    samples = busy_s = 0.0
    covered = since
    for start, end, number in sorted(item for item in done if item[1] > since):
        if end > start:
            samples += number * (end - max(start, since)) / (end - start)
            busy_s += max(0.0, end - max(start, covered))
            covered = max(covered, end)
    return samples / busy_s if busy_s else 0.0


def _segment(claim: dict[str, Any] | None, latest: dict[str, Any] | None, *, is_commit: bool) -> Segment | None:
    if latest is None:
        return None
    useful_s, end = _useful(latest), latest["time"]
    samples = latest.get("samples", 0) - (claim or {}).get("resumed", 0)
    return Segment(latest.get("shard", ""), end - useful_s, end, samples, useful_s, is_commit)


def _useful(event: dict[str, Any]) -> float:
    return event.get("useful_s", event.get("busy_s", 0.0))


def _gaps(spans: list[tuple[float, float]]) -> float:
    ordered = sorted(spans)
    return sum(max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(ordered))
