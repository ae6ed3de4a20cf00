"""Work on one shard that is ours: reads, makes, checkpoints, commits; or rejects what cannot be read any more."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hpcdata.base.errors import UserError
from hpcdata.history.ledger import Ledger
from hpcdata.runs import witnesses
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.replacing import PlanChanged, PlanGuard
from hpcdata.runs.stage import find_stage, with_runtime
from hpcdata.runs.witnesses import MachineFault
from hpcdata.samples import Batch, PreparedBatch, Reason
from hpcdata.shards.counts import Counts
from hpcdata.shards.sealing import LostShard, ShardConflict
from hpcdata.shards.takeover import open_shard
from hpcdata.shards.writing import ShardWriter
from hpcdata.work import gpumeter, poison
from hpcdata.work.clock import WorkClock
from hpcdata.work.crashnotes import CrashNotes
from hpcdata.work.preparing import DecodingThreads, decoding_threads, end_preparing, watched
from hpcdata.work.reading import Changes, changes, longest_batch, read_batches, read_shard, require_unchanged
from hpcdata.work.unreadable import MIN_ALL_UNREADABLE, Everything, Unreadable, UnreadableRecord, survey
from hpcdata.work.watchdog import PictureWatch, Watchdog

if TYPE_CHECKING:
    from hpcdata.base.signals import StopFlag
    from hpcdata.config.schema import RunConfig
    from hpcdata.shards.made import Made

log = logging.getLogger(__name__)

RATE_EVERY_S = 30.0


class ShardWork:
    """What a process needs for any shard of its run. `watchdog` is to be entered by the caller."""

    def __init__(
        self, plan: Plan, paths: RunPaths, runtime: RunConfig, stop: StopFlag, ledger: Ledger, watchdog: Watchdog
    ) -> None:
        stage = find_stage(plan.config.stage)
        self._maker = stage.open(plan, paths, runtime)
        self._plan, self._paths, self._runtime = self._maker.plan, paths, runtime
        self._stop, self._ledger, self._watchdog = stop, ledger, watchdog
        self._pictures = PictureWatch(runtime.data.max_image_s, watchdog.end)
        self._prepare = watched(stage.preparing(with_runtime(self._plan, runtime)), self._pictures)
        self.counts = Counts()
        """Of the shards that this process has committed."""
        self.num_committed = 0
        self._num_missing = 0
        """Rejects for missing files in the shard that is in work, for which there is nothing to say."""
        self._gpu = gpumeter.start(self._maker.device)
        self._guard = PlanGuard(paths, plan)

    def close(self) -> None:
        end_preparing(self._prepare)
        self._pictures.close()
        if self._gpu is not None:
            self._gpu.close()

    def work_on(self, spec: ShardSpec, attempt: str) -> None:
        """Works on a claimed shard to its end, or to a checkpoint when a signal arrives.

        Raises PlanChanged when the plan is another one by now, UserError or OSError when its input or its folder is at
        fault, anything else perhaps for one record.
        """
        self._guard.require_same()
        clock, task = WorkClock(self._gpu), attempt.rpartition("-")[0]
        notes = poison.find_suspects(self._paths, spec.name)
        try:
            given_up: Changes = {}
            while True:
                try:
                    self._work(spec, notes, clock, attempt, given_up, task)
                    break
                except PlanChanged:
                    raise
                except (UserError, OSError):
                    if not (fresh := self._changes_to_reject(spec, given_up)):
                        raise
                for change in fresh.values():
                    log.warning("shard %s: %s, what is not in a checkpoint is rejected", spec.name, change.what)
                given_up, attempt = given_up | fresh, f"{attempt}-rejects"
        except LostShard:
            log.warning("shard %s: another task has taken it over, goes on with the next", spec.name)
            self._ledger.write("lost", shard=spec.name, busy_s=clock.restart())
        except ShardConflict as error:
            log.error("%s", error)
            self._ledger.write("conflict", shard=spec.name, files=error.paths, busy_s=clock.restart())
        except UnreadableRecord as error:
            raise UserError(self._note_unreadable(spec, notes, task, error)) from None

    def _note_unreadable(self, spec: ShardSpec, notes: CrashNotes, task: str, error: UnreadableRecord) -> str:
        """Notes what of a shard this task cannot read, unless that is all, and says it."""
        everything, most = Unreadable(spec=spec, condemned=Everything()), self._runtime.data.max_crashes
        policy, what = self._runtime.data.on_changed_input, f"cannot read {error.filename}: {error.strerror}"
        records = read_shard(self._plan, self._paths, spec, skip=error.position, policy=policy, unreadable=everything)
        try:
            limit = self._plan.config.data.max_record_bytes
            failed, num_tried = survey(records, error.position, limit, self._watchdog.beat)
        except (UserError, OSError):  # the input itself, by now
            failed, num_tried = [error.position], 1
        if num_tried >= MIN_ALL_UNREADABLE and len(failed) == num_tried:
            return f"{what}, and none of {num_tried - 1} records behind it: is a file system missing on this machine?"
        notes.note_unreadable(failed, task)
        number = len(notes.unreadable.get(error.position, ()))
        more = f", and {len(failed) - 1} records behind it" if len(failed) > 1 else ""
        return f"{what}{more}: {number} of {most} tasks could not, after that its record is rejected"

    def _work(
        self, spec: ShardSpec, notes: CrashNotes, clock: WorkClock, attempt: str, given_up: Changes, task: str
    ) -> None:
        writer = open_shard(self._paths.shards, self._plan.header(spec), attempt, can_repeat=not given_up)
        if writer is None:
            log.info("shard %s: already complete", spec.name)
            return
        with contextlib.closing(writer):
            try:
                with decoding_threads(self._runtime.loader.num_workers) as threads:
                    self._fill(spec, writer, notes, clock, threads, given_up, task)
            except (UserError, OSError, LostShard, ShardConflict) as error:
                if isinstance(error, OSError) and writer.is_gone():  # a stale handle, as network file systems have
                    raise LostShard(spec.name) from None
                writer.note_work(left=True)
                raise
            except Exception:
                notes.suspect(writer.samples_read)
                raise

    def _changes_to_reject(self, spec: ShardSpec, given_up: Changes) -> Changes:
        """What became of the shard's inputs, if their samples are to be rejected for it and are not yet."""
        policy = self._runtime.data.on_changed_input
        found = changes(spec, self._paths.root, policy) if policy == "reject" else {}
        return {label: change for label, change in found.items() if label not in given_up}

    def _fill(
        self,
        spec: ShardSpec,
        writer: ShardWriter,
        notes: CrashNotes,
        clock: WorkClock,
        threads: DecodingThreads,
        given_up: Changes,
        task: str,
    ) -> None:
        resumed, self._num_missing = writer.samples_read, _missing(writer.counts)
        self._ledger.write("claim", shard=spec.name, resumed=resumed, lost_s=notes.lost_s, device=self._maker.device)
        log.info("shard %s: %s, %d samples", spec.name, f"resumes at {resumed}" if resumed else "fresh", spec.count)
        last_rate = clock.started
        is_first = True
        writer.note_work()
        self._watchdog.beat()
        batches = self._batches(spec, notes, clock, threads, given_up, task, skip=resumed)

        def checkpoint() -> None:
            if writer.samples_read > resumed:
                self._checkpoint(spec, writer, clock, given_up)

        for made in self._made_until_a_fault(spec, batches, clock, checkpoint):
            with clock.spending("write_s"):
                writer.append(made)
                writer.note_work()
            self._watchdog.beat()
            if self._stop.received or writer.samples_read == spec.count:
                break
            now = time.monotonic()
            # the first batch is made safe at once: whoever is killed too early for a checkpoint still gets ahead
            if is_first or now - clock.since >= self._runtime.data.save_tmp_interval:
                self._checkpoint(spec, writer, clock, given_up)
                is_first = False
            if now - last_rate >= RATE_EVERY_S:
                last_rate = now
                rate = (writer.samples_read - resumed) / (now - clock.started)
                log.info("shard %s: %d of %d, %.1f samples/s", spec.name, writer.samples_read, spec.count, rate)
        if writer.samples_read < spec.count:  # a signal, perhaps while a child was at work
            self._checkpoint(spec, writer, clock, given_up)
            writer.note_work(left=True)
            log.info("shard %s: checkpoint at %d of %d samples", spec.name, writer.samples_read, spec.count)
        else:
            self._require_unchanged(spec, given_up)
            self._require_mounted(writer)
            self._commit(spec, writer, notes, clock)

    def _made(self, spec: ShardSpec, batches: Iterator[Batch], clock: WorkClock) -> Iterator[Made]:
        """What becomes of the batches. A GPU computes one while what it made of the last one is written."""
        batches = clock.timed(batches, "decode_s", without="read_s")
        pending: deque[Callable[[], Made]] = deque()
        is_first = True  # it is written before anything else
        while True:
            try:
                if (batch := next(batches, None)) is None:
                    break
                with clock.spending("encode_s"):
                    finish = self._maker.start(batch, first_index=spec.source_index, source=spec.source)
                pending.append(finish)
            except Exception:  # perhaps of one record: what comes before it is written first
                while pending:
                    yield self._finish(pending.popleft(), clock)
                raise
            while len(pending) > (0 if is_first else self._maker.num_ahead):
                yield self._finish(pending.popleft(), clock)
                is_first = False
        while pending:
            yield self._finish(pending.popleft(), clock)

    def _made_until_a_fault(
        self, spec: ShardSpec, batches: Iterator[Batch], clock: WorkClock, checkpoint: Callable[[], None]
    ) -> Iterator[Made]:
        """What becomes of the batches; what was written before this machine's fault is made safe."""
        try:
            yield from self._made(spec, batches, clock)
        except MachineFault:
            checkpoint()
            raise

    @staticmethod
    def _finish(finish: Callable[[], Made], clock: WorkClock) -> Made:
        with clock.spending("encode_s"):
            return finish()

    def _checkpoint(self, spec: ShardSpec, writer: ShardWriter, clock: WorkClock, given_up: Changes) -> None:
        """Vouches for what was read only while the input was what had been planned."""
        self._require_unchanged(spec, given_up)
        self._require_mounted(writer)
        with clock.spending("write_s"):
            writer.checkpoint()
        self._ledger.write("checkpoint", shard=spec.name, samples=writer.samples_read, **clock.mark_safe())

    def _require_unchanged(self, spec: ShardSpec, given_up: Changes) -> None:
        self._guard.require_same()
        for segment in spec.segments:
            if segment.source.file.label not in given_up:
                require_unchanged(segment, self._paths.root, self._runtime.data.on_changed_input)

    def _require_mounted(self, writer: ShardWriter) -> None:
        """Raises MachineFault when records are rejected for missing files because this machine lacks a file system."""
        if self._runtime.data.on_changed_input != "reject" and _missing(writer.counts) > self._num_missing:
            witnesses.require(self._plan)
            self._num_missing = _missing(writer.counts)

    def _commit(self, spec: ShardSpec, writer: ShardWriter, notes: CrashNotes, clock: WorkClock) -> None:
        with clock.spending("write_s"):
            self._ledger.write("seal", shard=spec.name, shard_sha256=writer.seal())
            published = writer.commit()
        notes.remove()
        seconds = round(time.monotonic() - clock.started, 3)
        counts = writer.counts
        self.counts, self.num_committed = self.counts + counts, self.num_committed + 1
        fields = {"shard": spec.name, "samples": spec.count, **clock.mark_safe(), "seconds": seconds}
        self._ledger.write("commit" if published else "lost", **fields, counts=counts.to_mapping())
        log.info(
            "shard %s: committed in %.1f s: %d written, %d rejected, %d duplicate",
            *(spec.name, seconds, counts.written, counts.rejected.total(), counts.duplicate),
        )

    def _batches(
        self,
        spec: ShardSpec,
        notes: CrashNotes,
        clock: WorkClock,
        threads: DecodingThreads,
        given_up: Changes,
        task: str,
        *,
        skip: int,
    ) -> Iterator[Batch]:
        """The batches of a shard, those that are suspected by way of a child process; ends early at a stop signal."""
        batch_size, longest = self._plan.batch_size, longest_batch(self._plan, spec)
        max_crashes = self._runtime.data.max_crashes
        unreadable = Unreadable(spec=spec, condemned=notes.unreadable_for(task, max_crashes))
        trial = poison.Trial(
            self._paths.root,
            spec,
            notes,
            task=task,
            max_crashes=max_crashes,
            should_stop=lambda: bool(self._stop.received),
            on_death=lambda sample, how: self._ledger.write("crash", shard=spec.name, sample=sample, how=how),
        )
        start = skip
        while start < spec.count:
            start, end, is_suspected = poison.next_piece(start, spec.count, notes, batch_size, longest)
            if is_suspected:
                try:
                    yield from self._unwatched(trial.batches(start, end, batch_size))
                except poison.Stopped:
                    return
            else:
                yield from read_batches(
                    self._plan,
                    self._paths,
                    spec,
                    start=start,
                    end=end,
                    threads=threads,
                    prepare=self._prepare,
                    policy=self._runtime.data.on_changed_input,
                    given_up=given_up,
                    unreadable=unreadable,
                    clock=clock,
                    ahead=self._runtime.loader.batches_ahead,
                )
            start = end

    def _unwatched(self, batches: Iterator[PreparedBatch]) -> Iterator[PreparedBatch]:
        """Waits for batches without an alarm: the child that makes them has its own."""
        while True:
            self._watchdog.rest()
            batch = next(batches, None)
            self._watchdog.beat()
            if batch is None:
                return
            yield batch


def _missing(counts: Counts) -> int:
    return counts.rejected[Reason.MISSING_IMAGE] + counts.rejected[Reason.MISSING_TEXT]
