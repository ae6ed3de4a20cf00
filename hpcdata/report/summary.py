"""The status of a run in words: the lines of `hpcdata.status`, and what somebody should look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.base import units
from hpcdata.base.command import to_type
from hpcdata.history.process import SPENT, VANISHED
from hpcdata.runs.rejects import may_come

if TYPE_CHECKING:
    from hpcdata.report.status import Status

STARVED = 0.1
"""An image encoder that waits a larger share of the time for pictures is warned of."""
MIN_GOODPUT_S = 600.0
"""Seconds of processes before goodput is shown in words: starting is most of a short run."""
MIN_WORK_S = 60.0
"""Seconds of work before that is judged."""


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
        f"rejects  {rejected}" + (f"; {to_type('rejects', output_dir)}" if counts["rejected"] else ""),
        *(f"         {line}" for line in may_come(counts["rejected"], output_dir)),
        _describe_content(counts),
    ]
    if status.not_read:
        endings = ", ".join(f"{number} {ending}" for ending, number in status.not_read.items())
        lines.append(f"not read {sum(status.not_read.values())} files of the inputs' folders: {endings}; see plan.json")
    if status.left_out_by_sampling:
        lines.append(f"left out {status.left_out_by_sampling} records by sampling, as the mix says; see plan.json")
    if not status.is_finished:
        left = "unknown" if status.seconds_left is None else f"{status.seconds_left / 60:.1f} min"
        lines.append(f"rate     {status.samples_per_s} samples/s, time left {left}")
    is_long = status.useful_s + status.lost_s + status.overhead_s >= MIN_GOODPUT_S
    goodput = "" if status.goodput is None or not is_long else f"; goodput {100 * status.goodput:.1f} %"
    lines.append(
        f"time     {status.useful_s} s useful, {status.lost_s} s lost, {status.overhead_s} s overhead, "
        f"{status.queued_s} s queued{goodput}"
    )
    if work := describe_work(status):
        lines.append(f"work     {work}")
    lines += _describe_tasks(status)
    if unapplied := counts.get("unapplied_profiles"):
        lines.append(f"colors   {unapplied} pictures have a color profile that is not applied, see data.color")
    if fixed := counts.get("fixed_placeholders"):
        lines.append(f"markers  {fixed} samples got <image> markers that they did not have, see data.placeholders")
    if counts["compared_codes"]:
        agreement = 100 * counts["equal_codes"] / counts["compared_codes"]
        lines.append(f"codes    {agreement:.2f} % of {counts['compared_codes']} compared with fp32 are equal")
    if status.combined:
        baked = [f"baked    {layout}" for layout in status.baked]
        dataset = [*_stopped(status), f"dataset  {status.combined}"]
        return "\n".join([*lines, *dataset, *baked, *_compacting(status)])
    return "\n".join([*lines, *warnings(status, output_dir)])


def _describe_content(counts: dict[str, Any]) -> str:
    if counts["images"] and not counts["image_tokens"]:
        return f"pictures {counts['images']}"
    return (
        f"tokens   {counts['text_tokens']} text, {counts['image_tokens']} image in {counts['images']} images; "
        f"{counts['truncated_texts']} texts cut at data.block_size"
    )


def describe_work(status: Status) -> str:
    """What useful time went into; empty when the ledger does not say."""
    total_s = sum(status.spent.values())
    if not total_s:
        return ""
    shares = ", ".join(f"{name.removesuffix('_s')} {100 * status.spent[name] / total_s:.0f} %" for name in SPENT)
    cores = f"; {status.cpu_cores} CPU cores a process" if status.cpu_cores is not None else ""
    return shares + cores + (f"; GPU busy {units.percent(status.gpu_use)}" if status.gpu_use is not None else "")


def _describe_tasks(status: Status) -> list[str]:
    lines = []
    if status.num_tasks:
        states = ", ".join(f"{number} {state}" for state, number in status.task_states.items())
        lines.append(
            f"tasks    {status.num_tasks}: {states}; {status.starts} starts, of which {status.preemptions} were "
            f"ended by a signal (preemption, time limit, scancel) and {status.vanished} vanished"
        )
    if status.jobs:
        reasons = ", ".join(f"{number} {reason}" for reason, number in status.wait_reasons.items())
        states = ", ".join(f"{number} {state}" for state, number in status.jobs.items())
        lines.append(f"slurm    {states}" + (f" (waiting for: {reasons})" if reasons else ""))
    return lines


def warnings(status: Status, output_dir: Path | str) -> list[str]:
    """What somebody should look at, a line each."""
    lines = _stopped(status)
    if status.stuck:
        batch = "" if status.batch_s is None else f" ({status.batch_s} s)"
        lines.append(
            f"WARNING  {len(status.stuck)} shards do not advance, attempts end before one batch{batch} is done, as on "
            f"{status.stuck[0]}: preemptions must be further apart than the start of a task and a batch take; see logs/"
        )
    if status.given_up:
        name, reason = next(iter(status.given_up.items()))
        lines.append(f"WARNING  {len(status.given_up)} shards were given up and wait for a task, as {name}: {reason}")
    if status.conflicts:
        lines.append(f"WARNING  {status.conflicts} shards came out with other bytes on two tasks, see ledger/")
    if status.damaged_ledgers:
        name, fault = next(iter(status.damaged_ledgers.items()))
        more = (
            f", and lines of {len(status.damaged_ledgers) - 1} other files" if len(status.damaged_ledgers) > 1 else ""
        )
        lines.append(f"WARNING  left out, as no process wrote it so: ledger/{name} {fault}{more}")
    if status.slow_tasks:
        lines.append(f"WARNING  {len(status.slow_tasks)} tasks are far slower than the others: {status.slow_tasks[0]}")
    if (starved := _starved(status)) > STARVED:
        waits = f"waits {units.percent(starved)} of the time for pictures"
        lines.append(f"WARNING  the image encoder {waits}: {_remedy(status, output_dir)}")
    bad = sum(status.task_states.get(state, 0) for state in ("failed", "error", VANISHED))
    if bad and not status.is_finished:
        lines.append(f"WARNING  {bad} tasks failed or vanished: {to_type('logs', output_dir, '--failed')}")
    return lines + _compacting(status)


def _compacting(status: Status) -> list[str]:
    return [f"WARNING  {status.compacting}"] if status.compacting else []


def _stopped(status: Status) -> list[str]:
    return [f"{'FAILED ' if status.is_finished else 'STOPPED'}  {status.stopped}"] if status.stopped else []


def _starved(status: Status) -> float:
    """The share of the work in which the encoder had no pictures, once there is enough of it to tell.

    A GPU computes while the process waits for pictures, so it had none for no longer than it was idle.
    """
    total_s = sum(status.spent.values())
    if total_s < MIN_WORK_S or not status.counts["images"]:
        return 0.0
    waited = (status.spent["read_s"] + status.spent["decode_s"]) / total_s
    if any(task.device and task.device.startswith("cuda") for task in status.tasks):
        return min(waited, 0.0 if status.gpu_use is None else 1.0 - status.gpu_use)
    return waited


def _remedy(status: Status, output_dir: Path | str) -> str:
    if status.spent["read_s"] > status.spent["decode_s"]:
        return "reading takes most of it, as from a slow file system"
    return f"give tasks more CPUs, and {to_type('resume', output_dir)} loader.num_workers=N"
