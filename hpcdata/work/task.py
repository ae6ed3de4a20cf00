"""What an array task does: claim a shard of the plan, continue or start it, commit, next.

Any number of processes may run this on one output directory, started by anything. Each ends when no shard is left
that it could take (`FINISHED`), or after a checkpoint when a signal asked it to (`STOPPED`).

`python -m hpcdata.cluster.task OUT` runs one such process; the launcher and SLURM tasks start the same.
"""

from __future__ import annotations

import enum
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base import files
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.version import code_version, library_versions
from hpcdata.history.history import History
from hpcdata.history.ledger import Ledger, LedgerReader
from hpcdata.runs import reject_limit
from hpcdata.runs.claims import HEARTBEATS_PER_TIMEOUT, Claims, Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.picking import Picker
from hpcdata.runs.plan import Plan, load_plan, load_runtime
from hpcdata.runs.replacing import PlanChanged
from hpcdata.runs.witnesses import MachineFault
from hpcdata.shards.shard import make_folders
from hpcdata.work.watchdog import Watchdog

if TYPE_CHECKING:
    from hpcdata.base.signals import StopFlag
    from hpcdata.config.schema import RunConfig
    from hpcdata.work.shardwork import ShardWork

log = logging.getLogger(__name__)

POLL_S = 1.0


class TaskOutcome(enum.Enum):
    FINISHED = "finished"
    """Every shard is committed, or in the hands of another live process."""
    FAILED = "failed"
    """As far as `FINISHED`, but some shards could not be read or written: the log and the ledger say why."""
    STOPPED = "stopped"
    """A signal arrived; what was done is in a checkpoint."""


def run_task(output_dir: Path, stop: StopFlag) -> TaskOutcome:
    """Works on the plan in `output_dir` until nothing is left to claim or `stop` is set. Raises UserError, OSError.

    A plan that another launch replaces meanwhile, as nothing was written yet, is PlanChanged.
    """
    plan, paths = load_plan(output_dir), RunPaths(Path(output_dir))
    try:
        with _Task(plan, paths, load_runtime(output_dir), stop) as task:
            return task.run()
    except OSError as error:
        if error.errno in files.NO_ROOM:
            raise Failed(f"{paths.root} cannot be written to: {error.strerror}") from None
        raise


class _Task:
    """One process at work: its claims, its ledger, its encoders."""

    def __init__(self, plan: Plan, paths: RunPaths, runtime: RunConfig, stop: StopFlag) -> None:
        self._plan, self._paths, self._runtime, self._stop = plan, paths, runtime, stop
        self._attempt = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        owner = Owner.of_this_process(self._attempt)
        make_folders(paths.shards)
        self._claims = Claims(paths.claims, owner, timeout_s=runtime.cluster.claim_timeout_s)
        self._picker = Picker(plan, paths, self._claims, self._attempt)
        self._ledger = Ledger(paths.ledger, self._attempt)
        self._watchdog = Watchdog(runtime.data.max_batch_s)
        self._work: ShardWork | None = None
        self._failed: set[str] = set()
        self._was_told = False
        self._errors: Counter[str] = Counter()
        """Shard -> times that an error which nobody expected ended the work on it."""

    def __enter__(self) -> _Task:
        self._claims.__enter__()
        self._watchdog.__enter__()
        slurm = {name: value for name, value in os.environ.items() if name in _SLURM_FIELDS}
        where = {"attempt": self._attempt, "host": socket.gethostname(), "pid": os.getpid(), "slurm": slurm}
        self._ledger.write("start", **where, version=code_version(), libraries=library_versions())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._watchdog.__exit__()
        self._claims.__exit__()
        if self._work is not None:
            self._work.close()
        if error is not None:
            self._ledger.write("error", error=str(error) or type(error).__name__)
        self._ledger.close()

    def run(self) -> TaskOutcome:
        if self._is_halted():
            return self._end(TaskOutcome.FAILED)
        if self._picker.list_open(self._failed):
            from hpcdata.work.shardwork import ShardWork

            self._work = ShardWork(self._plan, self._paths, self._runtime, self._stop, self._ledger, self._watchdog)
        for spec in self._claim_shards():
            assert self._work is not None
            try:
                self._work.work_on(spec, f"{self._attempt}-{self._errors[spec.name]}")
                self._count_rejects()
            except PlanChanged:
                raise
            except MachineFault as error:
                self._give_up(spec, error)
                break
            except (UserError, OSError) as error:  # its input or its folder: the other shards may be fine
                if isinstance(error, OSError) and error.errno in files.NO_ROOM:
                    raise
                self._give_up(spec, error)
            except Exception as error:  # perhaps of one record: it is looked for, see `poison`
                self._errors[spec.name] += 1
                log.exception("shard %s: %s", spec.name, type(error).__name__)
                if self._errors[spec.name] > self._runtime.data.max_crashes:
                    self._give_up(spec, error)
            finally:
                self._watchdog.rest()
                self._claims.release(spec.name)
        outcome = TaskOutcome.FAILED if self._failed or self._is_halted() else TaskOutcome.FINISHED
        if received := self._stop.received:
            outcome = TaskOutcome.STOPPED
            self._ledger.write("signal", name=received.name)
        return self._end(outcome)

    def _end(self, outcome: TaskOutcome) -> TaskOutcome:
        self._ledger.write("end", outcome=outcome.value)
        return outcome

    def _is_halted(self) -> bool:
        """Whether the run has more rejects than it bears, and shards are left to stop at."""
        reason = reject_limit.halted(self._paths.root, self._runtime)
        if reason is None or not self._picker.list_open(set()):
            return False
        if not self._was_told:
            log.error("stops: %s", reason)
            self._was_told = True
        return True

    def _count_rejects(self) -> None:
        """Halts the run when its own shards, and then all that are committed, are rejected beyond the limit."""
        assert self._work is not None
        own = self._work.counts  # one shard is enough for a look at those of the others
        if reject_limit.too_many_so_far(own, reject_limit.FIRST_SHARDS, self._runtime, self._paths.root) is None:
            return
        history = History(LedgerReader(self._paths.ledger))
        history.read()
        whole = history.account(set(history.commits))
        reason = reject_limit.too_many_so_far(whole, len(history.commits), self._runtime, self._paths.root)
        if reason is not None and self._picker.list_open(set()):
            reject_limit.halt(self._paths.root, reason, self._runtime)

    def _give_up(self, spec: ShardSpec, error: Exception) -> None:
        message = str(error) or type(error).__name__
        log.error("shard %s failed: %s", spec.name, message)
        self._ledger.write("failed", shard=spec.name, error=message)
        self._failed.add(spec.name)

    def _claim_shards(self) -> Iterator[ShardSpec]:
        """Yields shards that are now ours, until none is left to take or a signal arrives."""
        waiting: dict[str, float | None] = {}
        pause_s = POLL_S
        while not self._stop.received and not self._is_halted():
            for spec in self._picker.pick(self._failed, lambda: bool(self._stop.received)):
                waiting.pop(spec.name, None)
                pause_s = POLL_S
                yield spec
                if self._is_halted():
                    return
            names = self._picker.list_open(self._failed)
            if all(self._claims.is_alive_elsewhere(name, waiting.get(name)) for name in names):
                if names:
                    log.info("%d shards are left to other tasks that are at work", len(names))
                else:
                    self._claims.release_dead()  # of tasks that were killed between a commit and the release
                return
            for name in names:
                waiting.setdefault(name, self._claims.heartbeat(name))
            self._pause(pause_s)
            pause_s = min(2 * pause_s, max(POLL_S, self._runtime.cluster.claim_timeout_s / HEARTBEATS_PER_TIMEOUT))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop.received and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))


_SLURM_FIELDS = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_PARTITION",
)
