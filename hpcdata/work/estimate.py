"""Estimate: what a run will cost, from a small sample of its real inputs through its real encoder (`estimate=true`).

The inputs are planned as for the run, but in a temporary folder; nothing is submitted, and nothing is written below
the output directory. `NUM_PLACES` places are drawn over the shards, always the same ones for the same plan, and from
each some batches are read, decoded, encoded and written, for `estimate_s` seconds in all. The first batch is done
twice, so that what happens once (loading weights, tuning) counts as the start of a task, not as work.

Preemptions, waiting in the queue and a slower file system come on top; a device that is not the tasks' is named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import units
from hpcdata.base.errors import UserError
from hpcdata.config.array import parse_array, split
from hpcdata.config.schema import RunConfig
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.stage import find_stage
from hpcdata.shards.counts import Counts
from hpcdata.shards.made import Made
from hpcdata.shards.reject_ledger import REJECTS
from hpcdata.shards.takeover import open_shard
from hpcdata.work.preparing import decoding_threads, end_preparing
from hpcdata.work.reading import read_batches

NUM_PLACES = 8
MAX_SAMPLES = 4096
"""From one place."""
ARRAY_SIZES = (1, 4, 16, 64, 256, 1024, 4096)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of what is left to do of a run."""

    num_samples: int
    num_shards: int
    num_timed: int
    timed_s: float
    rates: tuple[float, ...]
    """Samples a second of one process, at each place."""
    device: str
    start_s: float
    """Until a process is at work."""
    sample_s: float
    shard_s: float
    """Besides its samples: sealing, publishing."""
    counts: Counts
    """Of the samples that were timed."""
    num_bytes: int
    num_files: int
    """Below `shards/`; the dataset has as many links to them."""

    @property
    def work_s(self) -> float:
        return self.num_samples * self.sample_s + self.num_shards * self.shard_s

    def wall_s(self, num_processes: int) -> float:
        """With so many processes from beginning to end; a shard is not divided."""
        return self.start_s + math.ceil(self.num_shards / num_processes) * self.work_s / max(1, self.num_shards)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    batches: list[Made]
    rates: list[float]
    seconds: float
    start_s: float
    device: str


def estimate(config: RunConfig, num_open: int | None = None) -> Estimate:
    """num_open: shards that are left, by default all. Raises UserError for what could not run."""
    if config.estimate_s <= 0:
        raise UserError(f"estimate_s={config.estimate_s:g}: expected a number of seconds above 0")
    with tempfile.TemporaryDirectory(prefix="hpcdata-estimate-") as folder:
        data = dataclasses.replace(config.data, token_output_dir=folder)
        plan = prepare(dataclasses.replace(config, data=data, estimate=False))
        paths = RunPaths(Path(folder))
        return _estimate(plan, paths, config, num_open)


def _estimate(plan: Plan, paths: RunPaths, config: RunConfig, num_open: int | None) -> Estimate:
    sample = _time_sample(plan, paths, config)
    counts = sum((batch.counts() for batch in sample.batches), Counts())
    write_s, shard_s, sizes = _write(plan, paths, sample.batches)
    num_shards = plan.num_shards if num_open is None else num_open
    num_samples = round(plan.num_samples * num_shards / plan.num_shards)
    rows = sum(size for name, size in sizes.items() if name.endswith(".memmap") or name == REJECTS)
    base = {name: size for name, size in sizes.items() if name != REJECTS}
    share = counts.rejected.total() + counts.duplicate
    has_rejects = 1 - (1 - share / counts.inputs) ** (plan.num_samples / plan.num_shards)
    return Estimate(
        num_samples=num_samples,
        num_shards=num_shards,
        num_timed=counts.inputs,
        timed_s=sample.seconds,
        rates=tuple(sample.rates),
        device=sample.device,
        start_s=sample.start_s,
        sample_s=(sample.seconds + write_s) / counts.inputs,
        shard_s=shard_s,
        counts=counts,
        num_bytes=round(num_samples * rows / counts.inputs + num_shards * (sum(sizes.values()) - rows)),
        num_files=round(num_shards * (len(base) + has_rejects)),
    )


def _places(plan: Plan) -> Iterator[tuple[ShardSpec, int]]:
    """(shard, first position in it) in their order, drawn evenly: the first half of a shard has room behind it."""
    draw = random.Random(plan.fingerprint)
    number, size = min(NUM_PLACES, plan.num_shards), plan.batch_size
    for place in range(number):
        first, end = place * plan.num_shards // number, (place + 1) * plan.num_shards // number
        spec = plan.shard(draw.randrange(first, end))
        yield spec, size * draw.randrange(max(1, spec.count // size // 2))


def _time_sample(plan: Plan, paths: RunPaths, config: RunConfig) -> _Sample:
    started = time.monotonic()
    stage = find_stage(plan.config.stage)
    maker = stage.open(plan, paths, config)
    plan, prepare = maker.plan, stage.preparing(maker.plan)
    places = list(_places(plan))

    def made(spec: ShardSpec, skip: int) -> Iterator[Made]:
        end = min(spec.count, skip + MAX_SAMPLES)
        batches = read_batches(plan, paths, spec, start=skip, end=end, threads=threads, prepare=prepare)
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                yield maker.start(batch, first_index=spec.source_index, source=spec.source)()

    with contextlib.ExitStack() as ends:
        ends.callback(end_preparing, prepare)
        threads = ends.enter_context(decoding_threads(config.loader.num_workers))
        with contextlib.closing(made(*places[0])) as batches:  # type: ignore[type-var]
            next(batches)
        start_s, kept, rates, seconds = time.monotonic() - started, [], [], 0.0
        for spec, skip in places:
            began, number, taken_s = time.monotonic(), 0, 0.0
            for batch in made(spec, skip):
                kept.append(batch)
                number, taken_s = number + batch.counts().inputs, time.monotonic() - began
                if taken_s >= config.estimate_s / len(places):
                    break
            rates.append(number / max(taken_s, 1e-9))
            seconds += taken_s
    return _Sample(batches=kept, rates=rates, seconds=seconds, start_s=start_s, device=maker.device)


def _write(plan: Plan, paths: RunPaths, batches: Sequence[Made]) -> tuple[float, float, dict[str, int]]:
    """Writes one shard of all of it: seconds for the rows, seconds for the rest, and the sizes of its files."""
    num_inputs = sum(batch.counts().inputs for batch in batches)
    header = dataclasses.replace(plan.header(plan.shard(0)), num_inputs=num_inputs)
    paths.shards.mkdir()
    started = time.monotonic()
    writer = open_shard(paths.shards, header, "estimate")
    assert writer is not None
    opened = time.monotonic()
    for batch in batches:
        writer.append(batch)
    written = time.monotonic()
    writer.commit()
    folder = paths.shards / header.name
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return written - opened, time.monotonic() - written + opened - started, sizes


def describe(found: Estimate, config: RunConfig, *, max_array_size: int | None = None) -> str:
    """max_array_size: of the cluster, None without one."""
    cluster, counts = config.cluster, found.counts
    low, high = units.rate(min(found.rates)), units.rate(max(found.rates))
    places = units.counted(len(found.rates), "place")
    share = counts.written / max(1, counts.inputs)
    lines = [
        f"estimate  {units.counted(found.num_samples, 'sample')} in {units.counted(found.num_shards, 'shard')}",
        f"timed     {units.counted(found.num_timed, 'sample')} from {places} in {units.duration(found.timed_s)} on "
        f"{_device(found)}: {units.rate(1 / found.sample_s)} samples/s a process, {low} to {high} by place; "
        f"{units.duration(found.start_s)} to start",
        f"account   {units.percent(share)} of them written{_describe_rejects(counts.rejected)}; "
        f"{counts.text_tokens / max(1, counts.written):.1f} text tokens and "
        f"{counts.image_tokens / max(1, counts.written):.1f} image codes a sample",
        f"output    {units.size(found.num_bytes)} in {units.counted(found.num_files, 'file')}; the dataset takes as "
        "many links and no more space",
        f"work      {_describe_work(found, config)}",
        *_table(found, config, max_array_size),
    ]
    if cluster.gpus_per_node and not found.device.startswith("cuda"):
        lines.append("NOTE      timed without a GPU, but the tasks will have one: run this line in a job with a GPU")
    return "\n".join([*lines, "nothing was submitted; preemptions and waiting in the queue come on top"])


def _describe_work(found: Estimate, config: RunConfig) -> str:
    hours = found.work_s / 3600
    if found.device.startswith("cuda"):
        return f"{_hours(hours)} GPU hours"
    return f"{_hours(hours)} task hours of {units.counted(config.cluster.cpus_per_task, 'CPU')}, no GPU"


def _hours(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else units.count(hours)


def _device(found: Estimate) -> str:
    return "a CPU" if found.device in ("cpu", "none") else found.device


def _describe_rejects(rejected: Counter[str]) -> str:
    return "".join(f", {reason} {number}" for reason, number in rejected.most_common(3))


def _table(found: Estimate, config: RunConfig, max_array_size: int | None) -> Iterator[str]:
    """Wall time at several array sizes, with the limits that apply."""
    cluster = config.cluster
    array = parse_array(cluster.array)
    each = cluster.nodes * cluster.tasks_per_node
    most = max(1, math.ceil(found.num_shards / each))
    sizes = sorted({size for size in (*ARRAY_SIZES, array.max_running) if size <= most} | {min(most, ARRAY_SIZES[-1])})
    yield "tasks at a time  wall time"
    for size in sizes:
        wall_s = found.wall_s(size * each)
        notes = ["as configured"] if size == array.max_running else []
        if max_array_size and size > max_array_size:
            pieces = split(parse_array(f"0-{size - 1}"), max_array_size)
            notes.append(f"as {len(pieces)} SLURM arrays (MaxArraySize {max_array_size})")
        restarts = math.ceil(wall_s / (60 * cluster.time_min)) - 1
        if cluster.kind == "slurm" and restarts > 0:
            notes.append(f"each task starts {restarts + 1} times (cluster.time_min={cluster.time_min})")
        if size == most:
            notes.append("more tasks are of no use, unless data.shard_size is smaller")
        yield f"{size:>15,}  {units.duration(wall_s):<12}  {'; '.join(notes)}".rstrip()
