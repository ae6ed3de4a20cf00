"""The ends of the logs that matter: tasks that failed or died, those that failed alike told once.

    python -m hpcdata.logs OUT --failed            tasks that failed, died or are gone, with the end of their log
    python -m hpcdata.logs OUT --task 4242_7       one task, whatever became of it
    python -m hpcdata.logs OUT --tail 50           more lines; without --failed those of all tasks

What a task died of comes from its ledger, the scheduler (where it answers) and the log. `--raw` shows also what
`log_lines` does not let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import units
from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.history import submissions
from hpcdata.history.process import VANISHED, Process
from hpcdata.history.queue import JobStates, look
from hpcdata.history.tasks import Task
from hpcdata.report.log_lines import read, writers
from hpcdata.report.status import Observer

MAX_NAMES = 8
BAD = ("failed", "error", VANISHED)
NEVER_STARTED = "never started"
NO_LOG = "0:53"
"""The exit code that SLURM gives to a job whose log it could not open."""

_BAD_JOBS = ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "DEADLINE", "LAUNCH_FAILED")
_ELEMENT_LOG = re.compile(r"(?P<job>\d+)(_(?P<element>\d+))?_(?P<process>\d+)_log\.out")


@dataclass(frozen=True, kw_only=True)
class Tail:
    """One task: what became of it, and the end of its log."""

    task: str
    host: str
    state: str
    what: str
    """Shard, sample, exit code, signal, what the scheduler says: as far as known."""
    cause: str
    """The last error in ledger or log, one line."""
    log: Path | None
    lines: tuple[str, ...]
    num_hidden: int

    @property
    def signature(self) -> tuple[str, str]:
        """The same for tasks that failed alike: numbers do not count."""
        return self.state, re.sub(r"0x[0-9a-f]+|\d+", "#", self.cause)


def read_tails(
    output_dir: Path | str, *, only_failed: bool, task: str | None = None, num_lines: int = 15, raw: bool = False
) -> list[Tail]:
    """The ends of all logs, or of those that matter. Raises UserError when `output_dir` is not a run."""
    observer = Observer(output_dir)
    status = observer.look()
    groups = observer.history.by_task()
    files = _Logs(observer.paths.logs)
    submitted = {item.job_id for item in submissions.read(observer.paths).submissions if item.kind == "tasks"}
    started = {str(group[-1].job_id) for group in groups.values() if group[-1].job_id}
    jobs = look(started | files.job_ids() | submitted)
    tails = []
    for item in status.tasks:
        if _is_wanted(item.task, task) and (task or not only_failed or item.state in BAD):
            process = groups[item.task][-1]
            path = files.of(process)
            tails.append(_tail(item, process, path, jobs, num_lines, raw))
    if not task or not tails:
        for name, path in files.without(groups):
            if _is_wanted(name, task):
                tails += _silent(name, path, jobs, num_lines, raw, only_failed=only_failed and not task)
    seen = {name.split("/")[0] for name in (*groups, *files.names())}
    tails += [item for item in _without_log(jobs, submitted, seen, files.folder) if _is_wanted(item.task, task)]
    if task and not tails:
        raise UserError(f"no task {task} in {output_dir}: {to_type('status', output_dir, '--json')} lists them")
    return tails


def _is_wanted(name: str, task: str | None) -> bool:
    return task is None or task in (name, name.split("/")[0])


def _tail(task: Task, process: Process, path: Path | None, jobs: JobStates | None, num_lines: int, raw: bool) -> Tail:
    lines, num_hidden, last_error = read(path, num_lines, raw)
    parts = []
    if task.shard:
        parts.append(f"in shard {task.shard} at sample {task.shard_done} of {task.shard_samples}")
    elif process.claim and task.state != "finished":
        parts.append(f"in shard {process.claim.get('shard')}, {_done(process)} samples of it safe")
    if process.signal:
        parts.append(f"signal {process.signal}")
    parts += _scheduler(task.task, jobs)
    if task.starts > 1:
        parts.append(f"start {task.starts}")
    return Tail(
        task=task.task,
        host=task.host,
        state=task.state,
        what=", ".join(parts),
        cause=units.one_line(process.error or last_error),
        log=path,
        lines=lines,
        num_hidden=num_hidden,
    )


def _done(process: Process) -> int:
    return int((process.latest or process.claim or {}).get("samples", (process.claim or {}).get("resumed", 0)))


def _silent(
    name: str, path: Path, jobs: JobStates | None, num_lines: int, raw: bool, *, only_failed: bool
) -> list[Tail]:
    """A log of a task that wrote no ledger: it died before its first event."""
    lines, num_hidden, last_error = read(path, num_lines, raw)
    if only_failed and not last_error:
        return []
    what = ", ".join(_scheduler(name, jobs))
    return [
        Tail(
            task=name,
            host="?",
            state=NEVER_STARTED,
            what=what,
            cause=last_error,
            log=path,
            lines=lines,
            num_hidden=num_hidden,
        )
    ]


def _without_log(jobs: JobStates | None, job_ids: set[str], seen: set[str], folder: Path) -> Iterator[Tail]:
    """Elements that the scheduler calls failed and that left no trace here."""
    for element, state in jobs.by_element.items() if jobs else ():
        if element in seen or element.split("_")[0] not in job_ids or state not in _BAD_JOBS:
            continue
        could_not_open = jobs is not None and jobs.exit_codes.get(element) == NO_LOG
        yield Tail(
            task=element,
            host="?",
            state=NEVER_STARTED,
            what=", ".join(_scheduler(element, jobs)),
            cause=f"SLURM could not open its log in {folder}: the folder must be there and writable on every node"
            if could_not_open
            else "it ended before it could write a log: the scheduler knows more (sacct, the log of slurmd)",
            log=None,
            lines=(),
            num_hidden=0,
        )


def _scheduler(task: str, jobs: JobStates | None) -> list[str]:
    element = task.split("/")[0]
    state, code = (jobs.by_element.get(element), jobs.exit_codes.get(element)) if jobs else (None, None)
    parts = [state] if state else []
    number, _, signal = (code or "").partition(":")
    if number.isdecimal() and int(number):
        parts.append(f"exit code {number}")
    if signal.isdecimal() and int(signal):
        parts.append(f"killed by signal {signal}")
    return parts


class _Logs:
    """Which log belongs to which process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_task: dict[str, Path] = {}
        self._local: list[Path] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if match := _ELEMENT_LOG.fullmatch(path.name):
                element = f"_{match['element']}" if match["element"] else ""
                self._by_task[f"{match['job']}{element}/{match['process']}"] = path
            elif path.name.startswith("local_"):
                self._local.append(path)
        self._writers: dict[str, Path] | None = None

    def job_ids(self) -> set[str]:
        return {name.split("/")[0].split("_")[0] for name in self._by_task}

    def names(self) -> list[str]:
        return [*self._by_task]

    def of(self, process: Process) -> Path | None:
        if process.job_id:
            return self._by_task.get(process.task)
        if self._writers is None:  # `pid@host` in the lines of local tasks
            self._writers = {who: path for path in self._local for who in writers(path)}
        host, _, pid = process.task.rpartition("-")
        return self._writers.get(f"{pid}@{host}")

    def without(self, tasks: dict[str, list[Process]]) -> Iterator[tuple[str, Path]]:
        yield from ((name, path) for name, path in self._by_task.items() if name not in tasks)


def show(tails: Sequence[Tail]) -> Iterator[str]:
    """Lines to print: each way to fail once, with one example, the most frequent first."""
    groups: dict[tuple[str, str], list[Tail]] = {}
    for tail in tails:
        groups.setdefault(tail.signature, []).append(tail)
    for group in sorted(groups.values(), key=len, reverse=True):
        yield from _show_group(group)


def _show_group(group: list[Tail]) -> Iterator[str]:
    tail = group[0]
    title = f"{tail.task} on {tail.host}: {tail.state}" + (f", {tail.what}" if tail.what else "")
    yield units.one_line(title, 400)
    if len(group) > 1:
        names = ", ".join(item.task for item in group[1 : 1 + MAX_NAMES])
        more = f" and {len(group) - 1 - MAX_NAMES} more" if len(group) > 1 + MAX_NAMES else ""
        hosts = len({item.host for item in group})
        yield f"  and {len(group) - 1} others the same way, on {hosts} hosts in all: {units.one_line(names)}{more}"
    if tail.cause:
        yield f"  {tail.cause}"
    if tail.log is None and tail.state == NEVER_STARTED:
        return
    if tail.log is None:
        yield "  its log is not in logs/: where sbatch was told to write it"
        return
    yield f"  {units.one_line(tail.log, 400)}"
    yield from (f"    | {line}" for line in tail.lines)
    if tail.num_hidden:
        yield f"    ({tail.num_hidden} lines of other programs between them are not shown; --raw shows them)"
