"""The guard of the finishing job: it tries again, it hears signals, and no way out is without a report.

What fails is tried again for ten minutes, as a task that wants to be requeued does: squeue or sbatch that fail once,
slurmctld that is started anew, a file system that is away. Then, or after an error that nobody expected, the report
says why, and what to type. A signal asks for the queue again. Where that is refused, where a person has cancelled the
job, and where its time was not enough to get further, the report says so. For SIGKILL, which nobody hears, the text
of the report says from the start what to type when the job is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Protocol

from hpcdata.base.command import FAILED, to_type
from hpcdata.base.errors import UserError
from hpcdata.base.logs import slurm_job_id
from hpcdata.base.signals import STOP_SIGNALS
from hpcdata.cluster import limits
from hpcdata.cluster.sbatch import finish_signal_delay_s
from hpcdata.cluster.task import PAUSES_S, requeue
from hpcdata.config.schema import RunConfig
from hpcdata.history import queue, submissions
from hpcdata.history.outcome import Outcome, describe, read_outcome, write_notice, write_outcome
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_runtime

log = logging.getLogger(__name__)

_EARLY_S = 90
"""SLURM warns up to a minute sooner than asked; starting takes a while as well."""


class Postponed(UserError):
    """What could not be done now. `missing`: the shards that wait for it."""

    def __init__(self, reason: str, missing: Sequence[ShardSpec] = ()) -> None:
        super().__init__(reason)
        self.missing = tuple(missing)


class Stop(Protocol):
    """Writes the report and returns the exit code."""

    def __call__(self, reason: str, missing: Sequence[ShardSpec], next_step: str | None) -> int: ...


class _Interrupted(BaseException):
    """A signal came."""


class Guard:
    """Of one process of the finishing job."""

    def __init__(self, paths: RunPaths, stop: Stop) -> None:
        self._paths, self._stop = paths, stop
        self._received: signal.Signals | None = None
        self._started = time.monotonic()
        self._was_combined = False

    def run(self, attempt: Callable[[], int]) -> int:
        """The exit code of the attempt that came to an end, or of the report that says why none did."""
        with self._listening():
            try:
                try:
                    self._repeat(self._begin)
                    return self._repeat(attempt)
                except Exception as error:
                    if not isinstance(error, (UserError, OSError)):
                        log.exception("nobody expected this error")
                    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                    return self._end(reason, getattr(error, "missing", ()))
            except _Interrupted:
                return self._leave()

    def _begin(self) -> int:
        self._was_combined = self._paths.complete_dataset() is not None
        outcome = read_outcome(self._paths)
        if outcome is None or outcome.outcome != "finished":
            write_notice(self._paths, f"the finishing job is at work ({slurm_job_id() or 'started by hand'})")
        return 0

    def _repeat(self, attempt: Callable[[], int]) -> int:
        for pause_s in PAUSES_S:
            try:
                return attempt()
            except (UserError, OSError) as error:
                if isinstance(error, queue.Missing) or isinstance(error.__cause__, queue.Missing):
                    raise
                log.warning("%s; next attempt in %d s", error, pause_s)
            time.sleep(pause_s)
        return attempt()

    def _end(self, reason: str, missing: Sequence[ShardSpec] = (), next_step: str | None = None) -> int:
        """The report, or as much of it as can be written."""
        try:
            return self._stop(reason, missing, next_step)
        except Exception:
            log.exception("the report is a short one")
        line = next_step or to_type("resume", self._paths.root)
        outcome = Outcome(outcome="stopped", reason=reason, next_step=line, num_missing=len(missing))
        print(describe(outcome, self._paths.root), flush=True)
        try:
            write_outcome(self._paths, outcome)
        except OSError:
            log.exception("the report could not be written")
        return FAILED

    def _leave(self) -> int:
        """After a signal: back to the queue, or a report. Preempted jobs have little time: first the queue."""
        received, job_id = self._received, slurm_job_id()
        assert received is not None
        code = 128 + received
        if (outcome := read_outcome(self._paths)) and outcome.outcome == "finished":
            log.info("stopped by %s: the dataset is complete, what is missing is only a picture", received.name)
            return 0
        if job_id is None or received is signal.SIGINT:
            self._end(f"the finishing job was stopped by {received.name}")
            return code
        if longer := self._needs_longer():
            return self._end(*longer)
        refusal = requeue(job_id)
        if refusal is not None:
            self._end(f"the finishing job was stopped by {received.name} and cannot be requeued: {refusal}")
        elif queue.num_restarts(job_id) == _own_restarts() and not submissions.read(self._paths).is_cancelled:
            self._end("SLURM ended the finishing job for good: somebody cancelled it, or its time was over")
        else:
            log.info("stopped by %s, leaves job %s for requeueing", received.name, job_id)
        return code

    def _needs_longer(self) -> tuple[str, tuple[()], str] | None:
        """A reason and the next line, when the job was at its time limit without having got further."""
        try:
            config = load_runtime(self._paths.root)
            is_combined = self._paths.complete_dataset() is not None
        except (UserError, OSError):
            return None
        time_min = config.finish.time_min or config.cluster.time_min
        warned_s = time_min * 60 - finish_signal_delay_s(config) - _EARLY_S
        if time.monotonic() - self._started < max(warned_s, time_min * 20) or is_combined != self._was_combined:
            return None
        what = "verifying" if is_combined else "combining"
        longer_min = _longer_min(config, time_min)
        if longer_min is None:
            advice = "name a partition with a longer one by finish.partition"
            line = to_type("resume", self._paths.root)
        else:
            advice = "give it more"
            line = to_type("resume", self._paths.root, f"finish.time_min={longer_min}")
        return f"the time limit of {time_min} min ended the finishing job while {what}: {advice}", (), line

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self._hear) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = signal.Signals(number)
            raise _Interrupted


def _own_restarts() -> int:
    """How often this job had been put back into the queue when this process was started."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _longer_min(config: RunConfig, time_min: int) -> int | None:
    """Twice the time, or what the partition allows; None when that is no more."""
    name = config.finish.partition or config.cluster.partition
    known = limits.read_partitions()
    chosen = [item for item in known.values() if (item.is_default if name is None else item.name in name.split(","))]
    most = min((item.max_time_min for item in chosen if item.max_time_min is not None), default=2 * time_min)
    longer = min(2 * time_min, most)
    return longer if longer > time_min else None
