"""Many simulated array tasks on one run: they claim, write, checkpoint and commit made-up shards, and some die.

    python -m tests.simulation RUN NAME NUM_TASKS

One process takes the steps of `NUM_TASKS` tasks in a random order until all shards are committed; start several for
more disorder. Claims, picking, ledgers and shard folders are the real ones. A task is an `Owner` on a machine of its
own, so that the others see only its heartbeat. Every fifth task dies at some step and leaves everything as it is;
others stand still for longer than their claim lasts, and go on. Only syncing to disk is left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hpcdata.history.ledger import Ledger
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.picking import Picker
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.shards.sealing import LostShard, ShardConflict
from hpcdata.shards.takeover import open_shard
from tests import made

TIMEOUT_S = 2.0
DIES, FREEZES = 0.2, 0.05
"""Shares of the tasks."""
BATCH = 4
STAYING = 2
"""Tasks of each process that wait for what others leave, when there is nothing else to do."""


class Task:
    """One task; `step` does a little of its work."""

    def __init__(self, plan: Plan, paths: RunPaths, name: str, rng: random.Random) -> None:
        self._plan, self._paths, self.name = plan, paths, name
        alone = dataclasses.replace(Owner.of_this_process(name), machine=name)
        self._claims = Claims(paths.claims, alone, timeout_s=TIMEOUT_S)
        self._picker = Picker(plan, paths, self._claims, name)
        self._ledger = Ledger(paths.ledger, name)
        self._ledger.write("start", attempt=name, host="simulated", pid=0)
        self._work = self._run()
        self.dies_at = rng.randrange(1, 6) if rng.random() < DIES else None
        self.freezes_at = rng.randrange(1, 6) if rng.random() < FREEZES else None
        self.num_steps, self.frozen_until = 0, 0.0

    def step(self) -> bool | None:
        """True after some work, False when there is none for it now, None when all is done."""
        self.num_steps += 1
        if self.num_steps == self.freezes_at:
            self.frozen_until = time.monotonic() + 1.5 * TIMEOUT_S
        return next(self._work, None)

    def _run(self) -> Iterator[bool]:
        while self._picker.list_open(set()):
            for spec in self._picker.pick(set(), lambda: False):
                yield True
                try:
                    yield from self._encode(spec)
                except LostShard:
                    self._ledger.write("lost", shard=spec.name, busy_s=0.0)
                except ShardConflict:
                    self._ledger.write("conflict", shard=spec.name, busy_s=0.0)
                self._claims.release(spec.name)
                yield True
            yield False
        self._ledger.write("end", outcome="finished")
        self._ledger.close()

    def _encode(self, spec: ShardSpec) -> Iterator[bool]:
        writer = open_shard(self._paths.shards, self._plan.header(spec), self.name)
        if writer is None:
            return
        self._ledger.write("claim", shard=spec.name, resumed=writer.samples_read, lost_s=0.0)
        while writer.samples_read < spec.count:
            start = spec.first + writer.samples_read
            writer.append(made.batch(start, start + BATCH))
            if writer.samples_read < spec.count:
                writer.checkpoint()
            self._ledger.write("checkpoint", shard=spec.name, samples=writer.samples_read, busy_s=1.0)
            with contextlib.suppress(OSError):  # the heartbeat
                if self._claims.holds(spec.name):
                    os.utime(self._paths.claims / spec.name)
            yield True
        event = "commit" if writer.commit() else "lost"
        self._ledger.write(event, shard=spec.name, busy_s=1.0, samples=spec.count, counts=writer.counts.to_mapping())


def main() -> None:
    run, name, num_tasks = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.fsync = lambda _: None  # type: ignore[assignment]
    plan, paths, rng = load_plan(run), RunPaths(run), random.Random(name)
    tasks = [Task(plan, paths, f"{name}-{number}-0", rng) for number in range(num_tasks)]
    dead: list[Task] = []  # kept, so that nothing of theirs is closed or released
    while tasks:
        task = rng.choice(tasks)
        if task.frozen_until > time.monotonic():
            continue
        worked = task.step()
        if worked is None or (not worked and len(tasks) > STAYING):  # the rest is in the hands of others
            tasks.remove(task)
        elif task.num_steps == task.dies_at:
            dead.append(task)
            tasks[tasks.index(task)] = Task(plan, paths, f"{task.name}-again", rng)
        elif not worked:  # of dead ones perhaps: their claims must get old
            time.sleep(0.2)


if __name__ == "__main__":
    main()
