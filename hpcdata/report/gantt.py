"""Which task worked on which shard when, and where it was interrupted, as one chart of a size that a page can hold.

A small run gets a bar for each shard; a large one (more than `MAX_BARS` bars or `MAX_ROWS` tasks) gets rows of several
tasks, and cells that are as dark as the share of their time that was useful.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.base import units
from hpcdata.history.process import PREEMPTED, VANISHED, Process, Segment
from hpcdata.report import charts
from hpcdata.report.charts import LEFT, Axis
from hpcdata.report.timeline import busy, histogram

MAX_ROWS = 40
MAX_BARS = 1500
NUM_CELLS = 160
LEVELS = 4
LABEL_WIDTH = 20
_TOP = 6
_KINDS = {PREEMPTED: "preempted", VANISHED: "vanished", "failed": "failed", "error": "failed"}
"""How a process ended -> its mark."""


@dataclass(frozen=True, kw_only=True)
class Gantt:
    svg: str
    note: str
    """How to read it, and what was summed up to draw it."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    label: str
    processes: list[Process]
    num_tasks: int


def draw(tasks: Mapping[str, list[Process]], states: Mapping[str, str], start: float, end: float) -> Gantt:
    """tasks: in the order of their rows; states: attempt -> how it ended, or running."""
    rows = _rows(tasks)
    num_bars = sum(len(process.all_segments()) for row in rows for process in row.processes)
    is_exact = len(rows) == len(tasks) and num_bars <= MAX_BARS
    x = charts.time_axis(start, end)
    height = max(16.0, min(22.0, 640 / max(1, len(rows))))
    bottom = _TOP + len(rows) * height
    parts = charts.time_grid(x, _TOP, bottom)
    for number, row in enumerate(rows):
        y = _TOP + number * height
        parts.append(charts.label(LEFT - 8, y + height * 0.5 + 4, row.label, anchor="end"))
        parts += _exact(row, states, x, y, height) if is_exact else _summed(row, states, x, y, height)
    note = _EXACT if is_exact else _summary(rows, len(tasks), num_bars, (end - start) / NUM_CELLS)
    return Gantt(svg=charts.svg(bottom + 24, parts, "Shards over tasks and time", "gantt"), note=note)


_EXACT = (
    "A bar is a shard, from its claim to its commit, or paler to its last checkpoint; grey is time of a process that "
    "made nothing safe. Point at a bar or a mark to read what it is."
)


def _summary(rows: Sequence[_Row], num_tasks: int, num_bars: int, cell_s: float) -> str:
    return (
        f"{units.count(num_tasks)} tasks and {units.count(num_bars)} bars are summed up: a row is up to "
        f"{rows[0].num_tasks} tasks, a cell {units.duration(cell_s)}; the darker, the more of its time was useful. The "
        "marks below the cells say that at least one task was preempted or vanished there."
    )


def _rows(tasks: Mapping[str, list[Process]]) -> list[_Row]:
    names, size = list(tasks), max(1, math.ceil(len(tasks) / MAX_ROWS))
    groups = [names[first : first + size] for first in range(0, len(names), size)]
    return [
        _Row(
            label=_tail(group[0]) + (f" +{len(group) - 1}" if len(group) > 1 else ""),
            processes=[process for name in group for process in tasks[name]],
            num_tasks=len(group),
        )
        for group in groups
    ]


def _tail(name: str) -> str:
    """The end of a long name: there the names of tasks differ."""
    return name if len(name) <= LABEL_WIDTH else "…" + name[1 - LABEL_WIDTH :]


def _exact(row: _Row, states: Mapping[str, str], x: Axis, y: float, height: float) -> Iterator[str]:
    for process in row.processes:
        begin, end = x(process.started or process.last), x(process.last)
        yield charts.rect(begin, y + 0.4 * height, max(0.5, end - begin), 0.2 * height, "idle")
        for number, segment in enumerate(process.all_segments()):
            yield _bar(segment, number, x, y, height)
    for process in row.processes:  # above the bars of whoever came next
        state = states.get(process.attempt, "")
        if kind := _KINDS.get(state):
            yield _mark(x(process.last), y + height / 2, kind, f"{process.task} {state} on {process.host}")


def _bar(segment: Segment, number: int, x: Axis, y: float, height: float) -> str:
    begin, end = x(segment.start), x(segment.end)
    took = units.duration(segment.end - segment.start)
    title = f"shard {segment.shard}: {segment.samples} samples in {took}"
    kind = ("done" if segment.is_commit else "part") + (" odd" if number % 2 else "")
    title += ", committed" if segment.is_commit else ", to a checkpoint"
    return charts.rect(begin, y + 0.15 * height, max(0.5, end - begin), 0.7 * height, kind, title)


def _mark(x: float, y: float, kind: str, title: str) -> str:
    """A triangle for what was preempted, a cross for what vanished, a box for what failed."""
    shapes = {
        "preempted": f"M{x - 5:.1f} {y - 5:.1f}h10l-5 10z",
        "vanished": f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
        "failed": f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z",
    }
    return charts.path([shapes[kind]], f"mark {kind}", title)


def _summed(row: _Row, states: Mapping[str, str], x: Axis, y: float, height: float) -> Iterator[str]:
    segments = [segment for process in row.processes for segment in process.all_segments()]
    if segments:
        shares = busy(segments, x.low, x.high, NUM_CELLS) / row.num_tasks
        levels = np.ceil(np.clip(shares, 0, 1) * LEVELS - 0.05).astype(int)
        for level in range(1, LEVELS + 1):
            where = charts.runs(levels == level)
            yield charts.cells(where, x, NUM_CELLS, y + 1, 0.7 * height, f"done level{level}")
    for kind in dict.fromkeys(_KINDS.values()):
        ends = [item.last for item in row.processes if _KINDS.get(states.get(item.attempt, "")) == kind]
        if ends:
            where = charts.runs(histogram(ends, x.low, x.high, NUM_CELLS) > 0)
            yield charts.cells(where, x, NUM_CELLS, y + 1 + 0.7 * height, 0.2 * height, f"cell {kind}")
