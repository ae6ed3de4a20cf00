"""Records whose own bytes cannot be read: named, left to other tasks, and in the end rejected.

A picture on a bad disk block must not hold its shard up for ever; a disk that fails for a moment must cost no picture.
So the shard is given up by a task that cannot read a record, its position is noted (`CrashNotes.unreadable`), and the
others that the task cannot read in this shard with it. What `data.max_crashes` tasks could not read is rejected as
`unreadable_file`, which `rejects --retry` takes back. Where a task can read none of a shard's records it is the
machine that is at fault, and nothing is noted; so is it for what is no property of a file, such as missing memory.
"""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hpcdata import sources
from hpcdata.runs.stage import PreparesAtOnce
from hpcdata.samples import BadSample, Blob, ImagePart, Reason, Record, Reject, Sample

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.runs.inputs.planned import ShardSpec
    from hpcdata.work.preparing import Prepare

MIN_ALL_UNREADABLE = 4
"""So many records, and none that can be read: then it is the machine that cannot."""
SURVEY_S = 60.0
_OF_THE_MACHINE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAGAIN)


class UnreadableRecord(OSError):
    """The bytes of one record cannot be read. `position`: of the record in its shard."""

    def __init__(self, error: OSError, position: int) -> None:
        super().__init__(error.errno or errno.EIO, error.strerror or str(error), error.filename)
        self.position = position


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """What a task does with the records of a shard that it cannot read: those of `condemned` are rejects."""

    spec: ShardSpec
    condemned: Container[int] = ()
    """Positions in the shard."""

    def records(
        self,
        file: sources.InputFile,
        scan: sources.Scan,
        options: sources.Options,
        *,
        first: int,
        count: int,
        begin: int,
    ) -> Iterator[Record]:
        """`sources.read` of one input; `begin` is the position in the shard of the record `first`.

        Raises UnreadableRecord for a record with a file of its own, OSError for the input itself.
        """
        done = 0
        while done < count:
            try:
                for record in sources.read(file, scan, first=first + done, count=count - done, options=options):
                    yield record
                    done += 1
            except OSError as error:
                if not _is_of_a_record(error, file):
                    raise
                if begin + done not in self.condemned:
                    raise UnreadableRecord(error, begin + done) from None
                key = f"{file.label}#{first + done}"
                yield Reject(position=first + done, key=key, reason=Reason.UNREADABLE_FILE, message=_MESSAGE)
                done += 1

    def preparing(self, prepare: Prepare | None) -> Prepare | None:
        """`prepare`, which raises UnreadableRecord, or BadSample for a condemned record."""
        if prepare is None:
            return None

        return _Telling(prepare, self) if isinstance(prepare, PreparesAtOnce) else partial(self._told, prepare)

    def _told(self, prepare: Prepare, record: Record) -> list[np.ndarray]:
        try:
            return prepare(record)
        except OSError as error:
            position = record.position - self.spec.first
            if error.errno in _OF_THE_MACHINE or error.filename is None:
                raise
            if position not in self.condemned:
                raise UnreadableRecord(error, position) from None
            names = [blob.name for blob in _blobs(record) if blob.path == error.filename and blob.name]
            raise BadSample(Reason.UNREADABLE_FILE, ": ".join([*names[:1], _MESSAGE])) from None


class _Telling:
    """The same for what prepares many at once."""

    def __init__(self, prepare: PreparesAtOnce, unreadable: Unreadable) -> None:
        self.most, self.over, self.close = prepare.most, prepare.over, prepare.close
        self._prepare, self._told = prepare, unreadable._told

    def __call__(self, record: Record) -> list[np.ndarray]:
        return self._told(self._prepare, record)

    def begin(self, record: Record, done: Callable[[Callable[[], list[np.ndarray]]], None]) -> None:
        self._prepare.begin(record, lambda end: done(lambda: self._told(lambda _: end(), record)))


class Everything:
    """Contains every position."""

    def __contains__(self, position: object) -> bool:
        return True


def survey(records: Iterator[Record], first: int, max_bytes: int, beat: Callable[[], None]) -> tuple[list[int], int]:
    """(positions of records that cannot be read, how many were tried) of a shard's records from `first` on.

    Takes at most a minute, or one record more. Records that refer to no bytes are not tried.
    """
    failed, num_tried, until = [], 0, time.monotonic() + SURVEY_S
    for position in itertools.count(first):
        beat()
        if time.monotonic() > until or (record := next(records, None)) is None:
            break
        is_bad = isinstance(record, Reject) and record.reason is Reason.UNREADABLE_FILE
        blobs = _blobs(record)
        for blob in blobs:
            try:
                blob.read(max_bytes=max_bytes)
            except BadSample:
                continue
            except OSError as error:
                is_bad = is_bad or error.errno not in _OF_THE_MACHINE
        num_tried += is_bad or bool(blobs)
        if is_bad:
            failed.append(position)
    return failed, num_tried


_MESSAGE = "cannot be read"


def _blobs(record: Record) -> list[Blob]:
    """Those of a record that stand in files."""
    if not isinstance(record, Sample):
        return []
    pictures = [part.blob for part in record.parts if isinstance(part, ImagePart)]
    return [blob for blob in (*pictures, *(member.blob for member in record.members)) if blob.data is None]


def _is_of_a_record(error: OSError, file: sources.InputFile) -> bool:
    """Whether it is of a file that belongs to one record: its sidecar, or the input where that is one document."""
    if error.errno in _OF_THE_MACHINE or error.filename is None:
        return False
    is_document = file.format.partition(".")[0] == "document" and file.format != "documents"  # that one is a listing
    return error.filename != file.path or is_document
