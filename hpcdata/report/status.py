"""Status of a run: shards done, running and waiting, the account so far, rejects by reason, rate and time left.

    python -m hpcdata.status OUT                 a few lines
    python -m hpcdata.status OUT --watch         a live view, until the run is finished
    python -m hpcdata.status OUT --json          one object; its keys are the fields of `Status` and `Task`
    python -m hpcdata.status OUT --html FILE     a page with charts, in one file

It reads the plan, the names in `shards/`, checkpoints and ledgers, and no data; the run is not disturbed. A shard
counts as committed when its folder is there and has a shard.json; its account comes from the ledger, or from its
shard.json where the ledger has none.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpcdata.dataset.manifest import read_manifest
from hpcdata.dataset.partlist import when_too_many
from hpcdata.history import submissions
from hpcdata.history.history import History, gpu_use
from hpcdata.history.ledger import LedgerReader
from hpcdata.history.outcome import read_outcome
from hpcdata.history.process import PREEMPTED, SPENT, VANISHED
from hpcdata.history.queue import JobStates, look
from hpcdata.history.tasks import Task, list_tasks
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime
from hpcdata.runs.reject_limit import halted, too_many
from hpcdata.shards import shard
from hpcdata.shards.counts import Counts
from hpcdata.shards.shard import TOKENIZE

State = Literal["finished", "unfinished", "failed"]
FINISHED: State = "finished"
UNFINISHED: State = "unfinished"
FAILED: State = "failed"
_OVER = ("failed", "error")
"""Outcomes of a process that could not go on."""
_IN_QUEUE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "RESIZING")
CHECK_S = 0.05
"""Longest look at whether folders that the ledger calls committed still hold a shard."""
CLAIM_TIMEOUT_S = 120.0
"""A process without a claim is taken for gone when its ledger is silent for so long."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """One look at a run. Seconds are those of processes; `hpcdata.history.history` defines them."""

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
    overhead_s: float
    """Time of processes that was neither: starting, loading weights, claiming, waiting."""
    queued_s: float
    """Between the end of a SLURM task and its next start after a requeue."""
    goodput: float | None
    """useful_s / (useful_s + lost_s + overhead_s)."""
    spent: dict[str, float]
    """Useful seconds by what they went into: read_s, decode_s, encode_s, write_s."""
    cpu_cores: float | None
    """CPU seconds a useful second of a process."""
    gpu_use: float | None
    """Share of useful seconds in which the GPU was busy, of the processes that know it."""
    num_tasks: int
    task_states: dict[str, int]
    """How many tasks are in which state, see `Task.state`."""
    starts: int
    preemptions: int
    """Processes that a signal ended after a checkpoint; Ctrl-C does not count."""
    vanished: int
    """Processes that were killed, or whose node is gone."""
    tasks: list[Task]
    slow_tasks: list[str]
    """Running, and far slower than the others, or very long at one shard."""
    stuck: list[str]
    """Shards whose last attempts died before one batch was done, see `livelock`."""
    batch_s: float | None
    """What a batch takes, as far as the ledger knows."""
    jobs: dict[str, int] | None
    """Array elements by the scheduler's state; None when it was not asked or did not answer."""
    wait_reasons: dict[str, int]
    """The scheduler's reasons for elements that wait."""
    combined: str | None
    """The complete dataset, when there is one."""
    damaged_ledgers: dict[str, str]
    """File name -> why some of that ledger, or all, is left out."""
    stopped: str | None
    """Why the run is no success: too many rejects, or the finishing job gave it up; and the line to type."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Shards that no process works on, and that the last one gave up -> why."""
    compacting: str | None = None
    """That the dataset has, or will have, more parts than a process can map, and what to type."""
    not_read: dict[str, int] = field(default_factory=dict)
    """Ending -> files in the folders of inputs that no sample is made of."""
    left_out_by_sampling: int = 0
    """Records of its files that a mix takes no part of: they are no inputs."""
    baked: list[str] = field(default_factory=list)
    """Layouts whose rows the dataset has, and what they cost on the disk."""
    state: State = UNFINISHED
    """`finished`: all shards are committed. `failed`: it will not get there by itself, or has too many rejects."""

    @property
    def is_finished(self) -> bool:
        return self.done == self.num_shards


class Observer:
    """Looks at one run again and again; each look reads only what is new in the ledgers."""

    def __init__(self, output_dir: Path | str) -> None:
        """Raises UserError when `output_dir` is not a run."""
        self.plan, self.paths = load_plan(output_dir), RunPaths(Path(output_dir))
        self.history = History(LedgerReader(self.paths.ledger))
        self._names = frozenset(self.plan.shard_names)
        self.states: dict[str, str] = {}
        """Attempt -> how it ended, or running, at the last look."""
        self._summaries: dict[str, Counts] = {}
        """Accounts of shards whose commit is in no ledger."""

    def look(self, *, ask_scheduler: bool = False) -> Status:
        collects = gc.isenabled()
        gc.disable()  # millions of small objects, and no cycle among them
        try:
            return self._look(ask_scheduler)
        finally:
            if collects:
                gc.enable()

    def _look(self, ask_scheduler: bool) -> Status:
        self.history.read()
        dataset = self.paths.complete_dataset()
        if dataset is not None:
            manifest, committed = read_manifest(dataset), set(self._names)
            status = self._status(
                manifest.counts, self.plan.num_samples, committed, set(), set(), set(), str(dataset), ask_scheduler
            )
            return dataclasses.replace(status, baked=[baked.describe() for baked in manifest.baked])
        listed, attempts = self.paths.list_names()
        counts, committed = self._committed(listed)
        samples_done, unfinished = counts.inputs, self._names - committed
        started = {name: folders for name, folders in attempts.items() if name in unfinished}
        for folders in started.values():
            best = self._best_checkpoint(folders)
            if best is not None:
                counts, samples_done = counts + best.counts, samples_done + best.samples_read
        for folder in self.paths.list_retries().values() if any(name.startswith("retry-") for name in listed) else ():
            counts = counts + shard.read_summary(folder).counts
        running, alive = self._claimed(unfinished)
        interrupted = started.keys() - running
        return self._status(counts, samples_done, committed, running, interrupted, alive, None, ask_scheduler)

    def _committed(self, listed: set[str]) -> tuple[Counts, set[str]]:
        """The account of all committed shards, and their names."""
        committed = set(listed & self._names)
        commits = self.history.commits
        for name in committed - commits.keys() - self._summaries.keys():
            folder = self.paths.find_shard(name)
            if folder is not None:
                self._summaries[name] = shard.read_summary(folder).counts
        known = committed & commits.keys()
        known -= self.paths.find_remains(known, CHECK_S)
        others = committed & self._summaries.keys() - known
        account = self.history.account(known)
        return sum((self._summaries[name] for name in others), account), known | others

    def _best_checkpoint(self, folders: Sequence[str]) -> shard.Progress | None:
        found = [shard.read_progress(self.paths.shards / folder) for folder in folders]
        valid = [item for item in found if item and item.fingerprint == self.plan.fingerprint]
        return max(valid, key=lambda item: item.samples_read, default=None)

    def _claimed(self, unfinished: set[str] | frozenset[str]) -> tuple[set[str], set[str]]:
        """(shards in work, attempts that work on them)."""
        if not self.paths.claims.is_dir():
            return set(), set()
        claims = Claims(self.paths.claims, Owner.of_this_process("status"), timeout_s=CLAIM_TIMEOUT_S)
        alive = claims.find_alive(claims.list_names() & unfinished)
        return set(alive), {owner.attempt for owner in alive.values() if owner}

    def _status(
        self,
        counts: Counts,
        samples_done: int,
        committed: set[str],
        running: set[str],
        interrupted: set[str],
        alive: set[str],
        combined: str | None,
        ask_scheduler: bool,
    ) -> Status:
        plan, history = self.plan, self.history
        now, left, idle = time.time(), plan.num_samples - samples_done, self._names - committed - running
        states = self.states = self._process_states(alive, now, is_finished=len(committed) == plan.num_shards)
        ends = Counter(states.values())
        jobs = self._ask_scheduler() if ask_scheduler else None
        tasks = [_with_job_state(task, jobs) for task in list_tasks(history, plan, states, now)]
        rate = history.samples_per_s() if left else 0.0
        spent, useful_s, goodput = history.spent, history.useful_s, history.goodput
        batch_size = plan.found_batch_size or plan.config.loader.batch_size
        batch_s = None if batch_size == "auto" else history.batch_s(batch_size)
        is_finished = len(committed) == plan.num_shards
        stopped = self._read_stop(counts, is_finished=is_finished, is_combined=combined is not None)
        is_at_work = bool(running) or (jobs is not None and any(state in _IN_QUEUE for state in jobs.counts()))
        return Status(
            num_shards=plan.num_shards,
            done=len(committed),
            running=len(running),
            interrupted=len(interrupted),
            waiting=max(0, plan.num_shards - len(committed) - len(running) - len(interrupted)),
            num_samples=plan.num_samples,
            samples_done=samples_done,
            counts=counts.to_mapping(),
            samples_per_s=round(rate, 2),
            seconds_left=round(left / rate, 1) if rate and left else (0.0 if not left else None),
            conflicts=history.conflicts,
            useful_s=round(useful_s, 1),
            lost_s=round(history.lost_s, 1),
            overhead_s=round(history.overhead_s, 1),
            queued_s=round(history.queued_s, 1),
            goodput=None if goodput is None else round(goodput, 4),
            spent={name: round(spent[name], 1) for name in SPENT},
            cpu_cores=round(spent["cpu_s"] / useful_s, 2) if spent["cpu_s"] and useful_s else None,
            gpu_use=gpu_use(history.processes.values()),
            num_tasks=len(tasks),
            task_states=dict(Counter(task.state for task in tasks)),
            starts=len(states),
            preemptions=ends[PREEMPTED],
            vanished=ends[VANISHED],
            tasks=tasks,
            slow_tasks=[task.task for task in tasks if task.is_slow],
            stuck=sorted(history.stuck(self._names - committed, batch_s)),
            batch_s=None if batch_s is None else round(batch_s, 2),
            jobs=jobs.counts() if jobs else None,
            wait_reasons=dict(jobs.reasons) if jobs else {},
            combined=combined,
            damaged_ledgers=dict(sorted(history.damaged.items())),
            stopped=stopped,
            given_up={name: history.failed[name][1] for name in sorted(history.failed.keys() & idle)},
            compacting=self._compacting(combined),
            not_read={item.ending: item.count for item in plan.not_read},
            left_out_by_sampling=plan.num_left_out,
            state=self._state(stopped, is_finished=is_finished, is_at_work=is_at_work),
        )

    def _compacting(self, combined: str | None) -> str | None:
        if self.plan.config.stage != TOKENIZE:
            return None
        if combined is None:
            return when_too_many(self.plan.num_shards, self.paths.root, is_joined=True)
        manifest = read_manifest(Path(combined))
        return when_too_many(len(manifest.parts), self.paths.root, is_joined=bool(manifest.joined))

    def _read_stop(self, counts: Counts, *, is_finished: bool, is_combined: bool) -> str | None:
        config = load_runtime(self.paths.root) if self.paths.runtime.exists() else None
        if config and not is_finished and (reason := halted(self.paths.root, config)):
            return reason
        outcome = None if is_combined else read_outcome(self.paths)
        if outcome and outcome.outcome == "stopped":
            return f"{outcome.reason}; {outcome.next_step}"
        return too_many(counts, config, self.paths.root) if config and is_finished else None

    def _state(self, stopped: str | None, *, is_finished: bool, is_at_work: bool) -> State:
        if stopped or is_finished:
            return FAILED if stopped else FINISHED
        last = max(self.history.processes.values(), key=lambda process: process.last, default=None)
        return FAILED if last and last.outcome in _OVER and not is_at_work else UNFINISHED

    def _process_states(self, alive: set[str], now: float, *, is_finished: bool) -> dict[str, str]:
        """Attempt -> how it ended, or running."""
        silent_s = 0.0 if is_finished else CLAIM_TIMEOUT_S
        return {
            process.attempt: process.state(is_last=process is group[-1], alive=alive, now=now, silent_s=silent_s)
            for group in self.history.by_task().values()
            for process in group
        }

    def _ask_scheduler(self) -> JobStates | None:
        started = {process.job_id for process in self.history.processes.values()} - {None}
        submitted = {item.job_id for item in submissions.read(self.paths).submissions}
        return look({str(job) for job in started} | submitted)


def read_status(output_dir: Path | str, *, ask_scheduler: bool = False) -> Status:
    """Raises UserError when `output_dir` is not a run."""
    return Observer(output_dir).look(ask_scheduler=ask_scheduler)


def _with_job_state(task: Task, jobs: JobStates | None) -> Task:
    state = jobs.by_element.get(task.task.split("/")[0]) if jobs else None
    return dataclasses.replace(task, job_state=state) if state else task
