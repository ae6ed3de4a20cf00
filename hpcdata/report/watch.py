"""Watch: a view of a run in a terminal that renews itself until the run ends; lines where there is no terminal.

    python -m hpcdata.status OUT --watch

Names, hosts and messages come from other processes: they are shown as plain text, never as markup or control codes.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcdata.base import units
from hpcdata.base.command import say
from hpcdata.history.history import History
from hpcdata.history.process import RUNNING, VANISHED
from hpcdata.history.tasks import Task
from hpcdata.report.status import Observer, Status
from hpcdata.report.summary import describe, describe_work, warnings
from hpcdata.report.timeline import throughput

HEADER_LINES = 15
"""What stands above the tasks; they get the rest of the terminal."""
MIN_TASKS = 3
SPARK_S = 3600.0
_SPARKS = "▁▂▃▄▅▆▇█"
_STYLES = {RUNNING: "green", "finished": "dim", "preempted": "yellow", VANISHED: "red", "failed": "red", "error": "red"}


def watch(observer: Observer, every_s: float, *, output: IO[str] | None = None) -> Status:
    """Looks every `every_s` seconds until all shards are committed, the finishing job has given up, or Ctrl-C.

    Returns the last look.
    """
    console = Console(file=output or sys.stdout, highlight=False, markup=False, emoji=False)
    status = observer.look(ask_scheduler=True)
    gc.freeze()  # what was read stays, and is too much to be looked through again and again
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, vertical_overflow="crop", transient=True) as live:

                def show(status: Status) -> None:
                    live.update(view(status, observer, console.height, every_s), refresh=True)

                status = _look_on(observer, status, every_s, show)
        else:
            status = _look_on(observer, status, every_s, lambda status: say(line(status), file=console.file))
    except KeyboardInterrupt:
        pass
    say(describe(status, observer.paths.root), file=console.file)
    return status


def _look_on(observer: Observer, status: Status, every_s: float, show: Callable[[Status], None]) -> Status:
    while True:
        show(status)
        if status.is_finished or status.stopped:
            return status
        started = time.monotonic()
        time.sleep(every_s)
        status = observer.look(ask_scheduler=True)
        every_s = max(every_s, 4 * (time.monotonic() - started - every_s))  # a slow file system is not to be held up


def line(status: Status) -> str:
    """One look in one line."""
    share = units.percent(status.samples_done / max(1, status.num_samples))
    parts = [
        f"{time.strftime('%H:%M:%S')} {share}: {status.done} of {status.num_shards} shards",
        f"{status.samples_done} of {status.num_samples} samples",
        f"{units.rate(status.samples_per_s)}/s",
        f"time left {units.duration(status.seconds_left)}",
        f"{status.task_states.get(RUNNING, 0)} tasks running",
        f"{status.preemptions} preemptions",
        f"{sum(status.counts['rejected'].values())} rejected",
    ]
    return ", ".join(parts)


def view(status: Status, observer: Observer, height: int, every_s: float) -> RenderableType:
    """All of it: progress, figures, warnings, and as many tasks as fit."""
    root = observer.paths.root
    notes = [Text(units.printable(note), style="yellow", overflow="fold") for note in warnings(status, root)]
    room = max(MIN_TASKS, height - HEADER_LINES - 2 * len(notes))
    return Group(
        _title(status, units.one_line(root), every_s),
        ProgressBar(total=max(1, status.num_samples), completed=status.samples_done, complete_style="green"),
        Text(),
        _figures(status, _spark(observer.history)),
        *notes,
        Text(),
        _tasks(status, room),
    )


def _title(status: Status, root: str, every_s: float) -> Table:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    done = f"{units.count(status.samples_done)} of {units.count(status.num_samples)} samples"
    share = units.percent(status.samples_done / max(1, status.num_samples))
    grid.add_row(
        Text.assemble((root, "bold"), "  ", (share, "bold green"), f"  {done}"),
        Text(f"{time.strftime('%H:%M:%S')}, every {every_s:.0f} s", style="dim"),
    )
    return grid


def _figures(status: Status, spark: str) -> Table:
    counts, rejected = status.counts, sum(status.counts["rejected"].values())
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    share = 100 * rejected / max(1, counts["inputs"])
    reasons = ", ".join(f"{name} {units.count(number)}" for name, number in counts["rejected"].items())
    states = ", ".join(f"{units.count(number)} {state}" for state, number in status.task_states.items()) or "none yet"
    rows = {
        "left": f"{units.duration(status.seconds_left)} at {units.rate(status.samples_per_s)} samples/s   {spark}",
        "shards": f"{units.count(status.done)} of {units.count(status.num_shards)} done, {status.running} running, "
        f"{status.interrupted} interrupted, {units.count(status.waiting)} waiting",
        "goodput": _goodput(status),
        "time in": describe_work(status),
        "tasks": states,
        "starts": f"{units.count(status.starts)}, of which {units.count(status.preemptions)} were ended by a signal "
        f"and {units.count(status.vanished)} vanished",
        "slurm": _jobs(status),
        "rejects": f"{units.count(rejected)} ({share:.2f} %)" + (f": {reasons}" if reasons else ""),
    }
    for name, value in rows.items():
        if value:
            grid.add_row(name, Text(units.one_line(value, 400)))
    return grid


def _goodput(status: Status) -> str:
    if status.goodput is None:
        return ""
    parts = {"useful": status.useful_s, "lost": status.lost_s, "overhead": status.overhead_s, "queued": status.queued_s}
    return f"{units.percent(status.goodput)}: " + ", ".join(
        f"{units.duration(seconds)} {name}" for name, seconds in parts.items()
    )


def _jobs(status: Status) -> str:
    if not status.jobs:
        return ""
    reasons = ", ".join(f"{number} for {reason}" for reason, number in status.wait_reasons.items())
    return ", ".join(f"{number} {state}" for state, number in status.jobs.items()) + (
        f" (waiting: {reasons})" if reasons else ""
    )


def _spark(history: History) -> str:
    """Throughput of the last hour, the newest on the right."""
    segments = history.segments()
    end = max((item.end for item in segments), default=0.0)
    recent = [item for item in segments if item.end > end - SPARK_S]
    if not recent:
        return ""
    start = max(end - SPARK_S, min(item.start for item in recent))
    values = throughput(recent, start, end, 30)
    top = max(values.max(), 1e-9)
    return "".join(_SPARKS[min(7, int(8 * value / top))] for value in values)


def _tasks(status: Status, room: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for name in ("task", "host", "state", "shard"):
        table.add_column(name, no_wrap=True)
    table.add_column("progress", width=18)
    for name in ("samples/s", "left", "starts", "preempted"):
        table.add_column(name, justify="right", no_wrap=True)
    ordered = sorted(status.tasks, key=_order)
    shown = ordered[:room] if len(ordered) <= room else ordered[: room - 1]
    for task in shown:
        table.add_row(*_row(task))
    if len(shown) < len(ordered):
        table.add_row(Text(f"... and {units.count(len(ordered) - len(shown))} more", style="dim"))
    return table


def _order(task: Task) -> tuple[int, float]:
    """Slow ones, then what runs by the time left, then what is gone, then what has ended well."""
    if task.is_slow:
        return 0, -task.shard_s
    ranks = {RUNNING: 1, "failed": 2, "error": 2, VANISHED: 3, "preempted": 4}
    return ranks.get(task.state, 5), -(task.seconds_left or 0.0)


def _row(task: Task) -> list[RenderableType]:
    state = f"{task.state}, slow" if task.is_slow else task.state
    if task.job_state and task.state != RUNNING:
        state += f" ({task.job_state})"
    bar = (
        ProgressBar(total=max(1, task.shard_samples), completed=task.shard_done, width=18, complete_style="green")
        if task.shard
        else ""
    )
    return [
        Text(units.one_line(task.task, 30)),
        Text(units.one_line(task.host, 24)),
        Text(units.one_line(state, 32), style="bold yellow" if task.is_slow else _STYLES.get(task.state, "")),
        Text(task.shard or ""),
        bar,
        Text(units.rate(task.samples_per_s) if task.samples_per_s else ""),
        Text(units.duration(task.seconds_left) if task.seconds_left is not None else ""),
        Text(str(task.starts)),
        Text(str(task.preemptions + task.vanished)),
    ]
