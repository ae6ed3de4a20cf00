"""A made-up run of any size on disk, without data: shard folders with their shard.json, ledgers, checkpoints, claims.

The history is drawn from a seed: tasks take shards in turn, are preempted or killed now and then, and come back.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base import files
from hpcdata.config import values as configuration
from hpcdata.runs.claims import Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.shards.counts import Counts
from hpcdata.shards.shard import SHARD, ShardSummary
from tests import made

HOURS_AGO = 2.0


@dataclass(kw_only=True)
class Options:
    num_shards: int
    num_tasks: int
    done: float = 0.9
    """Share of the shards that are committed."""
    checkpoints: int = 4
    """For each shard."""
    preempted: float = 0.1
    """Chance for a shard that its task is preempted in it; half as often it is killed."""
    seed: int = 0
    shard_size: int = 256
    host: str = "gpu{:03d}"
    reasons: tuple[str, ...] = ("unreadable_image", "missing_text")


def write(folder: Path, options: Options) -> Plan:
    """Writes the run; its last events are of now, and one task of ten is at work."""
    plan = made.plan(options.num_shards * options.shard_size, options.shard_size)
    paths = RunPaths(folder)
    for path in (paths.shards, paths.ledger, paths.claims):
        path.mkdir(parents=True)
    paths.plan.write_bytes(plan.to_json())
    paths.runtime.write_bytes(files.to_json(configuration.to_mapping(plan.config)))
    rng = random.Random(options.seed)
    num_done = round(options.num_shards * options.done)
    fingerprint = plan.fingerprint
    queues: list[list[int]] = [list(range(task, num_done, options.num_tasks)) for task in range(options.num_tasks)]
    for task in range(13, options.num_tasks, 97):  # slow ones get through a third of theirs
        queues[task], rest = queues[task][::3], queues[task][1::3] + queues[task][2::3]
        for number, shard in enumerate(rest):
            queues[(task + 1 + number) % options.num_tasks].append(shard)
    per_shard_s = HOURS_AGO * 3600 / max(1, max(map(len, queues)))
    for task, queue in enumerate(queues):
        _Task(plan, paths, options, rng, task, per_shard_s, fingerprint).work(queue)
    return plan


class _Task:
    def __init__(
        self,
        plan: Plan,
        paths: RunPaths,
        options: Options,
        rng: random.Random,
        task: int,
        per_shard_s: float,
        fingerprint: str,
    ) -> None:
        self.plan, self.paths, self.options, self.rng, self.task = plan, paths, options, rng, task
        self.per_shard_s, self.fingerprint = per_shard_s, fingerprint
        self.speed = rng.uniform(0.9, 1.1) * (0.33 if task % 97 == 13 else 1.0)
        self.now = time.time() - HOURS_AGO * 3600 + rng.uniform(0, 20)
        self.starts = 0
        self.lines: list[str] = []

    def event(self, kind: str, **fields: Any) -> None:
        self.lines.append(json.dumps({"event": kind, "time": round(self.now, 3), **fields}, ensure_ascii=False))

    def start(self) -> None:
        self.attempt = f"{self.options.host.format(self.task % 64)}-{1000 + self.task}-{self.starts:08x}"
        slurm = {
            "SLURM_JOB_ID": str(5000 + self.task),
            "SLURM_ARRAY_JOB_ID": "4242",
            "SLURM_ARRAY_TASK_ID": str(self.task),
            "SLURM_PROCID": "0",
        }
        self.event(
            "start",
            attempt=self.attempt,
            host=self.options.host.format(self.task % 64),
            pid=1000 + self.task,
            slurm=slurm,
            version="0",
        )
        self.starts += 1
        self.now += self.rng.uniform(3, 9)

    def close(self) -> None:
        (self.paths.ledger / f"{self.attempt}.jsonl").write_text("".join(line + "\n" for line in self.lines))
        self.lines = []

    def work(self, queue: list[int]) -> None:
        self.start()
        for shard in queue:
            self.encode(self.plan.shard(shard))
        shard = round(self.options.num_shards * self.options.done) + self.task
        if self.task % 10 == 0 and shard < self.options.num_shards:
            self.be_at_work(self.plan.shard(shard))
        else:
            self.event("end", outcome="finished")
        self.close()

    def be_at_work(self, spec: ShardSpec) -> None:
        """Leaves a shard in work: claimed by a process of another machine, a part of it safe."""
        self.now = time.time() - 60
        self.event("claim", shard=spec.name, resumed=0, lost_s=0.0, device="cuda")
        self.now += 50
        samples = round(spec.count * 50 * self.speed / self.per_shard_s) % spec.count
        self.event("checkpoint", shard=spec.name, samples=samples, busy_s=50.0, useful_s=50.0)
        host = self.options.host.format(self.task % 64)
        owner = dataclasses.replace(Owner.of_this_process(self.attempt), host=host, machine=host, timeout_s=3600.0)
        (self.paths.claims / spec.name).write_text(json.dumps(dataclasses.asdict(owner)))

    def encode(self, spec: ShardSpec) -> None:
        resumed, lost_s, useful_s = 0, 0.0, 0.0
        seconds = self.per_shard_s / self.speed * self.rng.uniform(0.8, 1.0) / (self.options.checkpoints + 1)
        self.event("claim", shard=spec.name, resumed=0, lost_s=0.0, device="cuda")
        for number in range(self.options.checkpoints + 1):
            samples = spec.count * (number + 1) // (self.options.checkpoints + 1)
            chance = self.rng.random()
            is_last = number == self.options.checkpoints
            self.now += seconds
            useful_s += seconds
            sums = {"useful_s": useful_s, "cpu_s": 1.4 * useful_s, "gpu_s": 0.8 * useful_s, "read_s": 0.02 * useful_s}
            sums |= {"decode_s": 0.05 * useful_s, "encode_s": 0.88 * useful_s, "write_s": 0.03 * useful_s}
            fields = {name: round(value, 3) for name, value in sums.items()}
            if is_last:
                counts = self.counts(spec)
                self.event(
                    "commit",
                    shard=spec.name,
                    samples=spec.count,
                    busy_s=round(seconds, 3),
                    **fields,
                    seconds=useful_s,
                    counts=counts.to_mapping(),
                )
                self.publish(spec, counts)
                return
            self.event("checkpoint", shard=spec.name, samples=samples, busy_s=round(seconds, 3), **fields)
            if chance < self.options.preempted / self.options.checkpoints:
                is_kill = chance < self.options.preempted / self.options.checkpoints / 3
                if not is_kill:
                    self.event("signal", name="SIGTERM")
                    self.event("end", outcome="stopped")
                self.close()
                lost_s = self.rng.uniform(1, 20) if is_kill else 0.0
                self.now += self.rng.uniform(30, 200)
                self.start()
                resumed, useful_s = samples, 0.0
                self.event("claim", shard=spec.name, resumed=resumed, lost_s=round(lost_s, 3), device="cuda")

    def counts(self, spec: ShardSpec) -> Counts:
        rejected = {reason: self.rng.randrange(3) for reason in self.options.reasons}
        written = spec.count - sum(rejected.values()) - 1
        return Counts(
            inputs=spec.count,
            written=written,
            rejected=type(Counts().rejected)({reason: number for reason, number in rejected.items() if number}),
            duplicate=1,
            text_tokens=20 * written,
            image_tokens=16 * written,
            images=written,
        )

    def publish(self, spec: ShardSpec, counts: Counts) -> None:
        header = dataclasses.replace(made.header(num_inputs=spec.count), name=spec.name, fingerprint=self.fingerprint)
        sizes = header.schema.no_rows()
        summary = ShardSummary(header=header, counts=counts, sizes=sizes, content_digest="0" * 64, files={})
        folder = self.paths.shards / spec.name
        folder.mkdir()
        (folder / SHARD).write_bytes(summary.to_json())
