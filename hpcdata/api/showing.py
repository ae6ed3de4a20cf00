"""What a notebook shows of a run: shards, account, rejects by reason, rate, and the next step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base import notebook, units
from hpcdata.base.command import to_type

if TYPE_CHECKING:
    from hpcdata.report.status import Status


def to_html(path: Path, status: Status) -> str:
    return notebook.table(f"Run {path}", _rows(path, status))


def _rows(path: Path, status: Status) -> Iterator[tuple[str, str]]:
    counts = status.counts
    done = units.percent(status.samples_done / max(1, status.num_samples))
    yield (
        "shards",
        (
            f"{units.count(status.done)} of {units.count(status.num_shards)} done, {status.running} running, "
            f"{status.interrupted} interrupted, {status.waiting} waiting"
        ),
    )
    yield "samples", f"{units.count(status.samples_done)} of {units.count(status.num_samples)} ({done})"
    yield (
        "account",
        (
            f"{units.count(counts['written'])} written, {units.count(sum(counts['rejected'].values()))} rejected, "
            f"{units.count(counts['duplicate'])} duplicate"
        ),
    )
    for reason, number in sorted(counts["rejected"].items(), key=lambda item: -item[1]):
        yield f"rejected: {reason}", units.count(number)
    if not status.is_finished:
        yield "rate", f"{status.samples_per_s} samples/s, time left {units.duration(status.seconds_left)}"
    if status.combined:
        yield "dataset", status.combined
    if status.stopped:
        yield "stopped", status.stopped
    else:
        yield "next", _next(path, status)


def _next(path: Path, status: Status) -> str:
    if status.combined:
        return "run.dataset()"
    if status.is_finished:
        return f"run.combine(), or {to_type('combine', path)}"
    return "run.wait()" if status.running else f"run.resume(), or {to_type('resume', path)}"
