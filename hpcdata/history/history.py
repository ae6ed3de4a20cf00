"""What the ledgers of all processes say together: which process did what and when, and what it was worth.

Seconds are those of processes, so ten processes at work for a second are ten:

    useful_s     work that a checkpoint or a commit made safe
    lost_s       work that died with a process (from its last checkpoint to its last batch), or that another had done
    overhead_s   the rest of the time between a process's `start` and its last event: loading weights, claiming, waiting
    queued_s     between the end of a SLURM task's process and the start of its next one; holds no node
    goodput      useful_s / (useful_s + lost_s + overhead_s): the share of the time on nodes that made the dataset
"""

from __future__ import annotations

import itertools
import operator
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any

from hpcdata.base.forked import share_out
from hpcdata.history import livelock
from hpcdata.history.ledger import LedgerReader
from hpcdata.history.process import ALL_SPENT, Process, Segment
from hpcdata.shards.counts import Counts

RATE_WINDOW_S = 600.0
_MANY_LEDGERS = 1000


class History:
    """The reduction of all ledgers; `read` adds what is new."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self.processes: dict[str, Process] = {}
        self.commits: dict[str, tuple[Any, ...]] = {}
        """Shard -> its account, of commits that say it, as `_ACCOUNT_OF` gives it: small, there are many."""
        self.failed: dict[str, tuple[float, str]] = {}
        """Shard -> when a process gave it up last, and why."""
        self.conflicts = 0
        self.inherited_lost_s = 0.0
        """Work of processes that died, told by those who took their shards up."""
        self._numbers = [0] * len(_NUMBERS)
        self._rejected: Counter[str] = Counter()
        """The sum of `commits`."""
        self._tasks: dict[str, list[Process]] = {}
        self._claims: dict[str, list[tuple[float, int]]] = {}
        self._advances: dict[str, list[float]] = {}
        """Shard -> times of checkpoints, the last of each claim at least, that were ahead of it."""

    def read(self) -> None:
        names = self._reader.list_new()
        if self.processes or len(names) < _MANY_LEDGERS:
            self._read(names)
        else:
            for part in share_out(self._read_apart, names):
                self._merge(part)

    def _read_apart(self, names: Sequence[str]) -> History:
        part = History(LedgerReader(self._reader.folder))
        part._read(names)
        return part

    def _merge(self, part: History) -> None:
        """Adds what was read of other files."""
        self._reader.offsets.update(part._reader.offsets)
        self._reader.damaged.update(part._reader.damaged)
        self.processes.update(part.processes)
        for name in self.commits.keys() & part.commits.keys():  # committed again after somebody removed it
            self._count(self.commits[name], -1)
        self.commits.update(part.commits)
        for name, failure in part.failed.items():
            self.failed[name] = max(failure, self.failed.get(name, failure))
        self._numbers = list(map(operator.add, self._numbers, part._numbers))
        self._rejected.update(part._rejected)
        self.conflicts += part.conflicts
        self.inherited_lost_s += part.inherited_lost_s
        for name, claims in part._claims.items():
            self._claims.setdefault(name, []).extend(claims)
        for name, times in part._advances.items():
            self._advances.setdefault(name, []).extend(times)

    def _read(self, names: Sequence[str]) -> None:
        for attempt, events in self._reader.read(names):
            process = self.processes.setdefault(attempt, Process(attempt=attempt))
            for event in events:
                self._add(process, event)
            process.last = max((event.get("time", 0.0) for event in events[-1:]), default=process.last)
            self._tasks = {}

    def _add(self, process: Process, event: dict[str, Any]) -> None:
        kind, name = event.get("event"), event.get("shard", "")
        if kind == "checkpoint":
            process.latest = event
            if event.get("samples", 0) > (process.claim or {}).get("resumed", 0):
                self._advances.setdefault(name, []).append(event["time"])
        elif kind == "commit":
            process.latest = event
            process.close(is_commit=True)
            self._claims.pop(name, None)
            if "counts" in event:
                if name in self.commits:  # committed again after somebody removed it
                    self._count(self.commits[name], -1)
                account = self.commits[name] = _account_of(event["counts"])
                self._count(account, 1)
        elif kind == "claim":
            if process.latest is not None:
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
            failure = (event["time"], str(event.get("error")))
            self.failed[name] = max(failure, self.failed.get(name, failure))
        elif kind == "end":
            process.close()
            process.outcome = event.get("outcome")
        elif kind == "error":
            process.close()
            process.outcome, process.error = "error", event.get("error")

    @property
    def damaged(self) -> dict[str, str]:
        """File name of a ledger -> why some of it, or all, is left out."""
        return self._reader.damaged

    def by_task(self) -> dict[str, list[Process]]:
        """Task -> its processes in their order."""
        if not self._tasks:
            for process in sorted(self.processes.values(), key=lambda process: process.started):
                self._tasks.setdefault(process.task, []).append(process)
        return self._tasks

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
        totals = [process.total_spent() for process in self.processes.values()]
        return Counter({name: sum([total[name] for total in totals]) for name in ALL_SPENT})

    def stuck(self, names: Collection[str], batch_s: float | None) -> set[str]:
        """Which of these shards do not advance, as their attempts end before a batch is done; see `livelock`."""
        found = {name: self._claims[name] for name in names if len(self._claims.get(name, ())) > 1}
        return {
            name
            for name, claims in found.items()
            if livelock.History(claims=claims, advances=self._advances.get(name, [])).is_stuck(batch_s)
        }

    def batch_s(self, batch_size: int) -> float | None:
        """What a batch takes, median over a thousand claims."""
        segments = self.segments()
        some = segments[:: max(1, len(segments) // 1000)]
        return livelock.batch_seconds([(0.0, item.useful_s, item.samples) for item in some], batch_size)

    def samples_per_s(self) -> float:
        """Of the last ten minutes of work."""
        segments = [process.all_segments() for process in self.processes.values()]
        ends = [items[-1].end if items else 0.0 for items in segments]
        since = max(ends, default=0.0) - RATE_WINDOW_S
        recent = [items for items, end in zip(segments, ends, strict=True) if end > since]
        return rate([(item.start, item.end, item.samples) for items in recent for item in items])

    def commit_s(self) -> float | None:
        """Useful seconds of the claims that ended with a commit, the median."""
        seconds = [item.useful_s for process in self.processes.values() for item in process.segments if item.is_commit]
        return statistics.median(seconds) if seconds else None

    def segments(self) -> list[Segment]:
        return [segment for process in self.processes.values() for segment in process.all_segments()]

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Shard -> its account, like `Counts.to_mapping`."""
        return {name: dict(zip(_ACCOUNT, account, strict=True)) for name, account in self.commits.items()}

    def account(self, names: set[str]) -> Counts:
        """The sum of the accounts of these shards, all of them in `commits`."""
        others = [self.commits[name] for name in self.commits.keys() - names] if len(names) < len(self.commits) else []
        for account in others:
            self._count(account, -1)
        rejected = Counter({reason: number for reason, number in self._rejected.items() if number})
        counts = Counts(**dict(zip(_NUMBERS, self._numbers, strict=True)), rejected=rejected)
        for account in others:
            self._count(account, 1)
        return counts

    def _count(self, account: tuple[Any, ...], sign: int) -> None:
        self._numbers = list(map(operator.add if sign > 0 else operator.sub, self._numbers, account))
        for reason, number in account[-1].items():
            self._rejected[reason] += sign * number


_NUMBERS = tuple(name for name in vars(Counts()) if name != "rejected")
_ACCOUNT = (*_NUMBERS, "rejected")
_ACCOUNT_OF = itemgetter(*_ACCOUNT)


def _account_of(counts: dict[str, Any]) -> tuple[Any, ...]:
    try:
        return _ACCOUNT_OF(counts)
    except KeyError:  # of a version that did not count all of it
        return (*(counts.get(name, 0) for name in _NUMBERS), counts.get("rejected", {}))


def gpu_use(processes: Iterable[Process]) -> float | None:
    """The share of useful seconds in which the GPU was busy, where that is known."""
    metered = [process.metered() for process in processes]
    metered_s = sum([seconds for seconds, _ in metered])
    return min(1.0, round(sum([seconds for _, seconds in metered]) / metered_s, 3)) if metered_s else None


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


def _gaps(spans: list[tuple[float, float]]) -> float:
    ordered = sorted(spans)
    return sum(max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(ordered))
