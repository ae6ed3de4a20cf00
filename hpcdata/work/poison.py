"""Poison: records that kill or hang the process that reads or decodes them are found and rejected.

An attempt notes in its folder where it is (`WorkNote`, one small write a batch). A successor that finds the note of an
attempt which did not leave in order suspects the batches that were in work there, and lets child processes
(`poisonchild`) read and decode these, sample by sample: a child says which sample it begins, so its death names one.
Whoever kills processes for other reasons (preemption, a time limit) kills parent and child, and only deaths of a child
that its parent survives by `GRACE_S`, and that no stop signal explains, are counted. A child may take but a part of the
memory that is left (`memory`), as parent and child might be ended together for it. A child that hangs in a sample is
ended by its alarm (`watchdog`), and that counts as well. A record that ended `data.max_crashes` children alone is
rejected as `crash`; every other sample gets the record and the pixels that a child has made of it, the same as ever.

This process reads no suspected record itself. After a death in reading (and not in decoding) it leaves the rest of the
shard to children, as its own reader would have to pass that record. The network that makes codes sees only squares of
one size, so no record can be special to it.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.samples import BadSample, PreparedBatch, Reason, Record, Reject
from hpcdata.shards.shard import list_attempts, read_work_note, seconds_lost
from hpcdata.work.crashnotes import CrashNotes
from hpcdata.work.poisonchild import Pixels, Progress
from hpcdata.work.preparing import BATCHES_AHEAD
from hpcdata.work.reading import place

log = logging.getLogger(__name__)

GRACE_S = 2.0
"""A parent that lives so long after its child was killed was not meant to die with it."""
MIN_ALL_CRASHED = 4
"""So many samples in a row, and no survivor: is it the machine that cannot decode? A known good picture tells."""


class Stopped(Exception):
    """A stop signal came while a child was at work."""


def find_suspects(paths: RunPaths, name: str) -> CrashNotes:
    """The notes on a shard, with the positions at which earlier attempts died. Call it before their folders go."""
    notes = CrashNotes.read(paths.root, name)
    for folder in list_attempts(paths.shards, name):
        position = read_work_note(folder)
        if position is not None:
            log.info("shard %s: an attempt died at sample %d, its batches go to a child process", name, position)
            notes.suspect(position)
            notes.lost_s += seconds_lost(folder)
    return notes


def next_piece(
    position: int, count: int, notes: CrashNotes, batch_size: int, longest: int | None = None
) -> tuple[int, int, bool]:
    """(start, end, is suspected) of the samples to take next, from `position` on. longest: see `split`."""
    if notes.unread:
        return position, count, True
    return split(position, count, notes.suspects, batch_size, longest)[0]


def split(
    resumed: int, count: int, suspects: set[int], batch_size: int, longest: int | None = None
) -> list[tuple[int, int, bool]]:
    """Cuts the samples `resumed` to `count` into (start, end, is suspected), ends aligned to batches.

    longest: samples that are in work at once where these are more than a batch, as of documents.
    """
    width = (BATCHES_AHEAD + 2) * batch_size  # a GPU computes one while the one before is not written
    width = max(width, longest or 0)
    marked = [
        any(suspect <= start < suspect + width for suspect in suspects) for start in range(resumed, count, batch_size)
    ]
    pieces: list[tuple[int, int, bool]] = []
    for number, is_suspected in enumerate(marked):
        start = resumed + number * batch_size
        end = min(start + batch_size, count)
        if pieces and pieces[-1][2] == is_suspected:
            pieces[-1] = (pieces[-1][0], end, is_suspected)
        else:
            pieces.append((start, end, is_suspected))
    return pieces


class Trial:
    """Reads and decodes suspected samples of one shard in child processes."""

    def __init__(
        self,
        output_dir: Path,
        spec: ShardSpec,
        notes: CrashNotes,
        *,
        task: str,
        max_crashes: int,
        should_stop: Callable[[], bool],
        on_death: Callable[[int, str], None],
    ) -> None:
        self._output_dir, self._spec, self._notes, self._task = output_dir, spec, notes, task
        self._max_crashes, self._should_stop, self._on_death = max_crashes, should_stop, on_death
        self._has_survivors = False

    def batches(self, first: int, end: int, batch_size: int) -> Iterator[PreparedBatch]:
        """The shard's samples `first` to `end`, as `prepare_batches` gives them, each batch as soon as it is there.

        Raises Stopped when a signal came meanwhile, UserError when it is the machine that cannot decode: until one
        sample, or a picture known to be good, has survived, nothing is given away.
        """
        held: list[tuple[Record, Pixels]] = []
        for result in self._results(first, end):
            held.append(result)
            self._has_survivors = self._has_survivors or not _is_crash(result[1])
            if not self._has_survivors and len(held) >= MIN_ALL_CRASHED:
                self._require_health(first)
            while self._has_survivors and len(held) >= batch_size:
                yield _batch(held[:batch_size])
                del held[:batch_size]
        while held:
            yield _batch(held[:batch_size])
            del held[:batch_size]

    def _require_health(self, first: int) -> None:
        """Raises UserError unless a child can decode a picture and a text that are known to be good."""
        command = [sys.executable, "-m", "hpcdata.work.poisonchild", str(self._output_dir), "", "0", "0", "", ""]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, start_new_session=True, check=False).returncode
        if self._should_stop():
            raise Stopped
        if code:
            raise UserError(
                f"shard {self._spec.name}: every process that decodes one of the samples from {first} on dies, and so "
                f"does one that decodes a picture known to be good ({_describe(code)}): give the tasks more memory, or "
                "check the installation"
            )
        self._has_survivors = True

    def _results(self, first: int, end: int) -> Iterator[tuple[Record, Pixels]]:
        position = first
        while position < end:
            if self._is_unreadable(position):
                yield self._stand_in(position)
                position += 1
                continue
            until = next((other for other in range(position, end) if self._is_unreadable(other)), end)
            for record, pixels in self._run_child(position, until):
                yield record, self._verdict(position) or pixels
                position += 1

    def _is_condemned(self, position: int) -> bool:
        return position in self._notes.slow or self._notes.deaths.get(position, 0) >= self._max_crashes

    def _is_unreadable(self, position: int) -> bool:
        return self._is_condemned(position) and position in self._notes.unread

    def _verdict(self, position: int) -> BadSample | None:
        return BadSample(Reason.CRASH, self._notes.message(position)) if self._is_condemned(position) else None

    def _stand_in(self, position: int) -> tuple[Record, Pixels]:
        """For a record that nobody can read: its key is its position."""
        message, (segment,) = self._notes.message(position), self._spec.between(position, position + 1)
        key = f"{segment.source.file.label}#{segment.first}"
        record = Reject(position=segment.first, key=key, reason=Reason.CRASH, message=message)
        (placed,) = place([record], self._spec, segment)
        return placed, BadSample(Reason.CRASH, message)

    def _run_child(self, first: int, end: int) -> Iterator[tuple[Record, Pixels]]:
        """What a child makes of some samples; its death is counted against the sample that it was at."""
        only_read = [str(position) for position in range(first, end) if self._is_condemned(position)]
        arguments = [str(self._output_dir), self._spec.name, str(first), str(end), ",".join(only_read), self._task]
        command = [sys.executable, "-m", "hpcdata.work.poisonchild", *arguments]
        progress, has_ended = Progress(), False
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
            assert child.stdout is not None
            try:
                while progress.num_made < end - first and not has_ended:
                    has_ended = not progress.read_from(child.stdout)
                    if self._should_stop():
                        raise Stopped
                    yield from progress.take()
            finally:
                if not has_ended:
                    child.kill()
                child.stdout.close()
                death = _describe(child.wait())
        if has_ended and not progress.has_begun:
            raise UserError(f"shard {self._spec.name}: a child process could not start to decode ({death})")
        if has_ended:
            self._count(first + progress.num_made, death, in_reading=progress.is_reading)

    def _count(self, position: int, death: str, *, in_reading: bool) -> None:
        if death == signal.SIGKILL.name:
            threading.Event().wait(GRACE_S)
        if self._should_stop():
            raise Stopped
        number = self._notes.count(position, death, in_reading=in_reading)
        self._on_death(position, death)
        log.warning(
            "shard %s: sample %d ended the process that %s it (%s), %d of %d times",
            *(self._spec.name, position, "reads" if in_reading else "decodes", death, number, self._max_crashes),
        )


def _describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _is_crash(pixels: Pixels) -> bool:
    return isinstance(pixels, BadSample) and pixels.reason is Reason.CRASH


def _batch(results: Sequence[tuple[Record, Pixels]]) -> PreparedBatch:
    return PreparedBatch(records=[record for record, _ in results], prepared=[pixels for _, pixels in results])
