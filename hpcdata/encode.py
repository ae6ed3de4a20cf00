"""What an array task does: claim a shard of the plan, continue or start it, encode, commit, next.

Any number of processes may run this on one output directory, started by anything. Each ends when no shard is left
that it could take (`FINISHED`), or after a checkpoint when a signal asked it to (`STOPPED`).

`python -m hpcdata.encode OUT` runs one such process; the launcher and SLURM tasks do the same through `run_task`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import itertools
import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.claims import Claims, Owner
from hpcdata.errors import UserError
from hpcdata.ledger import Ledger
from hpcdata.plan import Plan, RunPaths, ShardSpec, load_plan, load_runtime
from hpcdata.reading import InputChanged, read_shard, rejected_batches, require_unchanged
from hpcdata.store import LostShard, ShardConflict, ShardWriter, open_shard
from hpcdata.version import code_version, library_versions
from hpcdata.watchdog import Watchdog

if TYPE_CHECKING:
    from hpcdata.config import RunConfig
    from hpcdata.encoders.examples import BatchEncoder, PreparedBatch
    from hpcdata.poison import CrashNotes
    from hpcdata.slurm.signals import StopFlag

log = logging.getLogger(__name__)

POLL_S = 1.0
RATE_EVERY_S = 30.0


class TaskOutcome(enum.Enum):
    FINISHED = "finished"
    """Every shard is committed, or in the hands of another live process."""
    FAILED = "failed"
    """As far as `FINISHED`, but some shards could not be read or written: the log and the ledger say why."""
    STOPPED = "stopped"
    """A signal arrived; what was done is in a checkpoint."""


def run_task(output_dir: Path, stop: StopFlag) -> TaskOutcome:
    """Works on the plan in `output_dir` until nothing is left to claim or `stop` is set."""
    plan = load_plan(output_dir)
    task = _Task(plan, RunPaths(Path(output_dir)), load_runtime(output_dir), stop)
    with task:
        return task.run()


class _Clock:
    """Seconds of work on a shard, and since its last checkpoint."""

    def __init__(self) -> None:
        self.started = self.since = time.monotonic()

    def restart(self) -> float:
        now = time.monotonic()
        busy, self.since = now - self.since, now
        return round(busy, 3)


class _Task:
    """One process at work: its claims, its ledger, its encoders."""

    def __init__(self, plan: Plan, paths: RunPaths, runtime: RunConfig, stop: StopFlag) -> None:
        self._plan, self._paths, self._runtime, self._stop = plan, paths, runtime, stop
        self._attempt = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        owner = Owner.of_this_process(self._attempt)
        paths.shards.mkdir(parents=True, exist_ok=True)
        self._claims = Claims(paths.claims, owner, timeout_s=runtime.cluster.claim_timeout_s)
        self._ledger = Ledger(paths.ledger, self._attempt)
        self._watchdog = Watchdog(runtime.data.max_batch_s)
        self._encoder: BatchEncoder | None = None
        self._device = "none"
        self._failed: set[str] = set()
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
        if error is not None:
            self._ledger.write("error", error=str(error) or type(error).__name__)
        self._ledger.close()

    def run(self) -> TaskOutcome:
        if self._open_shards():
            from hpcdata.encoders import building

            tokenizers = building.build(self._plan, self._runtime)
            self._encoder, self._device = tokenizers.encoder(self._plan), tokenizers.device
        for spec in self._claim_shards():
            try:
                self._encode_shard(spec)
            except (UserError, OSError) as error:  # its input or its folder: the other shards may be fine
                if isinstance(error, OSError) and error.errno in _NO_ROOM:
                    raise UserError(f"{self._paths.root} cannot be written to: {error.strerror}") from None
                self._give_up(spec, error)
            except Exception as error:  # perhaps of one record: it is looked for, see `poison`
                self._errors[spec.name] += 1
                log.exception("shard %s: %s", spec.name, type(error).__name__)
                if self._errors[spec.name] > self._runtime.data.max_crashes:
                    self._give_up(spec, error)
            finally:
                self._watchdog.rest()
                self._claims.release(spec.name)
        outcome = TaskOutcome.FAILED if self._failed else TaskOutcome.FINISHED
        if received := self._stop.received:
            outcome = TaskOutcome.STOPPED
            self._ledger.write("signal", name=received.name)
        self._ledger.write("end", outcome=outcome.value)
        return outcome

    def _give_up(self, spec: ShardSpec, error: Exception) -> None:
        message = str(error) or type(error).__name__
        log.error("shard %s failed: %s", spec.name, message)
        self._ledger.write("failed", shard=spec.name, error=message)
        self._failed.add(spec.name)

    def _claim_shards(self) -> Iterator[ShardSpec]:
        """Yields shards that are now ours, until none is left to take or a signal arrives."""
        waiting: dict[str, float | None] = {}
        while not self._stop.received:
            specs = self._open_shards()
            progressed = False
            for spec in specs:
                if self._stop.received:
                    return
                if self._is_done(spec) or not self._claims.try_claim(spec.name):
                    continue
                if self._is_done(spec):  # committed since, and its claim released
                    self._claims.release(spec.name)
                    continue
                waiting.pop(spec.name, None)
                progressed = True
                yield spec
            if progressed:
                continue
            names = [spec.name for spec in specs if not self._is_done(spec)]
            if all(self._claims.is_alive_elsewhere(name, waiting.get(name)) for name in names):
                if names:
                    log.info("%d shards are left to other tasks that are at work", len(names))
                return
            for name in names:
                waiting.setdefault(name, self._claims.heartbeat(name))
            time.sleep(POLL_S)

    def _is_done(self, spec: ShardSpec) -> bool:
        return self._paths.find_shard(spec.name) is not None or self._paths.complete_dataset() is not None

    def _open_shards(self) -> list[ShardSpec]:
        """Shards not committed yet, half-done ones first, each process from a place of its own."""
        if self._paths.complete_dataset():
            return []
        committed, started = self._paths.list_shards()
        closed = committed | self._failed
        specs = [spec for spec in self._plan.shards() if spec.name not in closed]
        turn = hash(self._attempt) % max(1, len(specs))
        return sorted(specs[turn:] + specs[:turn], key=lambda spec: spec.name not in started)

    def _encode_shard(self, spec: ShardSpec) -> None:
        """Works on a claimed shard to its end, or to a checkpoint when a signal arrives."""
        from hpcdata import poison

        clock = _Clock()
        notes = poison.find_suspects(self._paths, spec.name)
        attempt = f"{self._attempt}-{self._errors[spec.name]}"
        try:
            try:
                self._work(spec, notes, clock, attempt)
            except (UserError, OSError):
                if (change := self._change_to_reject(spec)) is None:
                    raise
                self._reject_rest(spec, change, notes, clock, f"{attempt}-rejects")
        except LostShard:
            log.warning("shard %s: another task has taken it over, goes on with the next", spec.name)
            self._ledger.write("lost", shard=spec.name, busy_s=clock.restart())
        except ShardConflict as error:
            log.error("%s", error)
            self._ledger.write("conflict", shard=spec.name, files=error.paths, busy_s=clock.restart())

    def _work(self, spec: ShardSpec, notes: CrashNotes, clock: _Clock, attempt: str) -> None:
        writer = open_shard(self._paths.shards, self._plan.header(spec), attempt)
        if writer is None:
            log.info("shard %s: already complete", spec.name)
            return
        with contextlib.closing(writer):
            try:
                self._fill(spec, writer, notes, clock)
            except (UserError, OSError, LostShard, ShardConflict):
                writer.note_work(left=True)
                raise
            except Exception:
                notes.suspect(writer.samples_read)
                raise

    def _change_to_reject(self, spec: ShardSpec) -> InputChanged | None:
        """What became of the shard's input, if its samples are to be rejected for it."""
        policy = self._runtime.data.on_changed_input
        try:
            require_unchanged(spec, self._paths.root, policy)
        except InputChanged as change:
            return change if policy == "reject" else None
        except UserError:
            pass
        return None

    def _reject_rest(
        self, spec: ShardSpec, change: InputChanged, notes: CrashNotes, clock: _Clock, attempt: str
    ) -> None:
        """Commits a shard with what its checkpoint holds, and rejects for the samples that cannot be read any more."""
        log.warning("shard %s: %s, what is not in a checkpoint is rejected", spec.name, change.what)
        writer = open_shard(self._paths.shards, self._plan.header(spec), attempt)
        if writer is None:
            return
        with contextlib.closing(writer):
            for batch in rejected_batches(spec, change, writer.samples_read):
                writer.append(batch)
            self._commit(spec, writer, notes, clock)

    def _fill(self, spec: ShardSpec, writer: ShardWriter, notes: CrashNotes, clock: _Clock) -> None:
        encoder = self._encoder
        assert encoder is not None
        resumed = writer.samples_read
        self._ledger.write("claim", shard=spec.name, resumed=resumed, lost_s=notes.lost_s, device=self._device)
        log.info("shard %s: %s, %d samples", spec.name, f"resumes at {resumed}" if resumed else "fresh", spec.count)
        last_rate = clock.started
        is_first = True
        writer.note_work()
        self._watchdog.beat()
        for batch in self._batches(spec, notes, skip=resumed):
            writer.append(encoder.encode(batch, first_index=spec.source_index, source=spec.source.file.label))
            writer.note_work()
            self._watchdog.beat()
            now = time.monotonic()
            # the first batch is made safe at once: whoever is killed too early for a checkpoint still gets ahead
            if is_first or self._stop.received or now - clock.since >= self._runtime.data.save_tmp_interval:
                self._checkpoint(spec, writer, clock)
                is_first = False
            if self._stop.received and writer.samples_read < spec.count:
                break
            if now - last_rate >= RATE_EVERY_S:
                last_rate = now
                rate = (writer.samples_read - resumed) / (now - clock.started)
                log.info("shard %s: %d of %d, %.1f samples/s", spec.name, writer.samples_read, spec.count, rate)
        if writer.samples_read < spec.count:  # a signal, perhaps while a child was at work
            self._checkpoint(spec, writer, clock)
            writer.note_work(left=True)
            log.info("shard %s: checkpoint at %d of %d samples", spec.name, writer.samples_read, spec.count)
        else:
            self._require_unchanged(spec)
            self._commit(spec, writer, notes, clock)

    def _checkpoint(self, spec: ShardSpec, writer: ShardWriter, clock: _Clock) -> None:
        """Vouches for what was read only while the input was what had been planned."""
        self._require_unchanged(spec)
        writer.checkpoint()
        self._ledger.write("checkpoint", shard=spec.name, samples=writer.samples_read, busy_s=clock.restart())

    def _require_unchanged(self, spec: ShardSpec) -> None:
        require_unchanged(spec, self._paths.root, self._runtime.data.on_changed_input)

    def _commit(self, spec: ShardSpec, writer: ShardWriter, notes: CrashNotes, clock: _Clock) -> None:
        published = writer.commit()
        notes.remove()
        seconds = round(time.monotonic() - clock.started, 3)
        event = "commit" if published else "lost"
        self._ledger.write(event, shard=spec.name, samples=spec.count, busy_s=clock.restart(), seconds=seconds)
        counts = writer.counts
        log.info(
            "shard %s: committed in %.1f s: %d written, %d rejected, %d duplicate",
            *(spec.name, seconds, counts.written, counts.rejected.total(), counts.duplicate),
        )

    def _batches(self, spec: ShardSpec, notes: CrashNotes, *, skip: int) -> Iterator[PreparedBatch]:
        """The batches of a shard, those that are suspected by way of a child process; ends early at a stop signal."""
        from hpcdata import poison
        from hpcdata.encoders.examples import PixelOptions, prepare_batches

        batch_size = self._plan.config.loader.batch_size
        trial = poison.Trial(
            self._paths.root,
            spec,
            notes,
            max_crashes=self._runtime.data.max_crashes,
            should_stop=lambda: bool(self._stop.received),
            on_death=lambda sample, how: self._ledger.write("crash", shard=spec.name, sample=sample, how=how),
        )
        start = skip
        while start < spec.count:
            start, end, is_suspected = poison.next_piece(start, spec.count, notes, batch_size)
            if is_suspected:
                self._watchdog.rest()  # the child has its own
                try:
                    batches = trial.batches(start, end, batch_size)
                except poison.Stopped:
                    return
                self._watchdog.beat()
                yield from batches
            else:
                policy = self._runtime.data.on_changed_input
                records = read_shard(self._plan, self._paths, spec, skip=start, policy=policy)
                yield from prepare_batches(
                    itertools.islice(records, end - start),
                    batch_size=batch_size,
                    num_threads=self._runtime.loader.num_workers,
                    options=PixelOptions.of(self._plan),
                )
            start = end


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SLURM_FIELDS = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_PARTITION",
)


def main() -> int:
    from hpcdata.slurm.task import run_array_task

    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m hpcdata.encode OUT\n\nOne array task on the plan in OUT.")
        return 0 if "-h" in sys.argv[1:] or "--help" in sys.argv[1:] else 2
    try:
        return run_array_task(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
