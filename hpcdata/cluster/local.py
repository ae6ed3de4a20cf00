"""cluster=local: a job array as processes of this machine, with a progress bar, and their output in `logs/`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, INTERRUPTED, to_type
from hpcdata.base.errors import UserError
from hpcdata.base.signals import StopFlag
from hpcdata.config.array import parse_array
from hpcdata.config.schema import ClusterConfig
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

POLL_S = 0.1
CRASHES = (
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGKILL),
    signal.SIGALRM,  # see `watchdog`
)
MAX_RESTARTS = 3
"""Of crashed tasks, in a row, while the run does not advance."""
TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task that did not end well."""

    ending: str
    """`exit code 1`, `signal SIGKILL`."""
    log: Path
    tail: tuple[str, ...]
    """The last lines of its log."""


@dataclass(frozen=True, kw_only=True)
class LocalEnd:
    """How the tasks ended."""

    was_interrupted: bool
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        return INTERRUPTED if self.was_interrupted else FAILED if self.failures else DONE


def run_local(output_dir: Path, cluster: ClusterConfig) -> LocalEnd:
    """Runs the tasks to their end. Tasks are interchangeable, so `0-100%25` is 25 processes."""
    spec = parse_array(cluster.array)
    num_tasks = min(spec.num_tasks, spec.max_running or spec.num_tasks)
    paths = RunPaths(output_dir)
    paths.logs.mkdir(exist_ok=True)
    log_paths = [paths.logs / f"local_{os.getpid()}_{task}.log" for task in range(num_tasks)]
    log.info("%d tasks, logs in %s, progress: %s", num_tasks, paths.logs, to_type("status", output_dir))
    with StopFlag() as stop, _Tasks(output_dir, log_paths) as tasks:
        _watch(output_dir, tasks, stop)
    ended = zip(log_paths, tasks.processes, strict=True)
    failures = [_failure(path, process.returncode) for path, process in ended if process.returncode]
    return LocalEnd(was_interrupted=stop.received is not None, failures=tuple(failures))


def _failure(path: Path, code: int) -> Failure:
    lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return Failure(ending=_describe(code), log=path, tail=tuple(lines))


class _Tasks:
    """The processes of the array; leaving the context never leaves one behind."""

    def __init__(self, output_dir: Path, log_paths: list[Path]) -> None:
        self._command = [sys.executable, "-m", "hpcdata.cluster.task", str(output_dir)]
        self._log_paths = log_paths
        self._output_dir = output_dir
        self._restarts_in_vain, self._samples_done = 0, 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Tasks:
        for task in range(len(self._log_paths)):
            self.processes.append(self._start(task))
        return self

    def _start(self, task: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LOCAL_RANK": str(task)}
        with open(self._log_paths[task], "ab") as output:
            return subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def restart_crashed(self) -> None:
        """Starts tasks again that a signal of no scheduler has killed: they find what killed them, see `poison`."""
        for task, process in enumerate(self.processes):
            if process.poll() is None or -process.returncode not in CRASHES:
                continue
            done = read_status(self._output_dir).samples_done
            self._restarts_in_vain = 0 if done > self._samples_done else self._restarts_in_vain
            if self._restarts_in_vain < MAX_RESTARTS:
                log.warning("a task ended with %s, starts again", _describe(process.returncode))
                self._restarts_in_vain, self._samples_done = self._restarts_in_vain + 1, done
                self.processes[task] = self._start(task)

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGTERM)
        for process in self.processes:
            process.wait()

    def send(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def are_running(self) -> bool:
        return any(process.poll() is None for process in self.processes)


def _watch(output_dir: Path, tasks: _Tasks, stop: StopFlag) -> None:
    """Shows progress until all tasks ended; a signal is passed on to them."""
    from tqdm import tqdm

    was_passed_on = False
    with tqdm(total=0, unit=" samples", disable=not sys.stderr.isatty()) as bar:
        next_look = time.monotonic()
        while tasks.are_running():
            time.sleep(POLL_S)
            if stop.received is None:
                tasks.restart_crashed()
            elif not was_passed_on:
                tasks.send(signal.SIGTERM)
                was_passed_on = True
            if not bar.disable and time.monotonic() >= next_look:
                started = time.monotonic()
                _update(bar, output_dir)
                next_look = time.monotonic() + 20 * (time.monotonic() - started)
        if not bar.disable:
            _update(bar, output_dir)


def _update(bar: tqdm, output_dir: Path) -> None:
    with contextlib.suppress(OSError, UserError):  # a look that fails must not end the run
        status = read_status(output_dir)
        bar.total = status.num_samples
        bar.update(status.samples_done - bar.n)


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
