"""Reading and decoding ahead: what records refer to is prepared in threads, some batches before it is needed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from itertools import islice

import numpy as np

from hpcdata.samples import BadSample, Blob, Duplicate, ImagePart, Member, PreparedBatch, Record, Reject, Sample
from hpcdata.work.watchdog import PictureWatch

Prepare = Callable[[Record], list[np.ndarray]]
BATCHES_AHEAD = 2
MOST_HELD_BYTES, _LARGE_BYTES = 1 << 27, 1 << 20
"""Of records that are read and not prepared yet, one more aside; smaller ones do not count."""
_Prepared = tuple[Record, list[np.ndarray] | BadSample]


@contextlib.contextmanager
def decoding_threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that decode pictures, and nothing else is decoded when they end.

    For functions: a generator that is left in a reference cycle is closed by the garbage collector, in any line of any
    thread. Where that line starts or ends a thread, waiting for one is a deadlock.
    """
    threads = ThreadPoolExecutor(max(1, number), thread_name_prefix="decode")
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def num_pictures(record: Record) -> int:
    """How many pictures are decoded of a record, at most."""
    if not isinstance(record, Sample):
        return 0
    return sum(isinstance(part, ImagePart) for part in record.parts) + len(record.members)


def watched(prepare: Prepare | None, watch: PictureWatch) -> Prepare | None:
    """`prepare`, whose thread may take so much CPU time for a record and no more."""
    if prepare is None:
        return None

    def prepared(record: Record) -> list[np.ndarray]:
        with watch.over(record.key, num_pictures(record)):
            return prepare(record)

    return prepared


def prepare_batches(
    records: Iterable[Record], *, batch_size: int, threads: Executor, prepare: Prepare | None
) -> Iterator[PreparedBatch]:
    """Cuts records into batches and prepares them `BATCHES_AHEAD` batches ahead of the consumer.

    prepare: raises BadSample for what is rejected; None where there is nothing to prepare. Large records hold no bytes
    any more when they are prepared, and few of them are held until then.
    """
    records = iter(records)
    if prepare is None:
        while batch := list(islice(records, batch_size)):
            yield PreparedBatch(records=batch, prepared=[[]] * len(batch))
        return
    pending: deque[list[Future[_Prepared] | _Nothing]] = deque()
    held = _Held()
    try:
        while True:
            while len(pending) <= BATCHES_AHEAD and (not pending or pending[-1]):
                pending.append([])
                pending[-1].extend(
                    _Nothing(record)
                    if isinstance(record, Reject | Duplicate)
                    else held.submitted(record, threads, prepare)
                    for record in islice(records, batch_size)
                )
            if not pending[0]:
                return
            found = [future.result() for future in pending[0]]
            pending.popleft()
            yield PreparedBatch(records=[record for record, _ in found], prepared=[arrays for _, arrays in found])
    finally:
        for futures in pending:
            for future in futures:
                future.cancel()


class _Nothing:
    """In place of the future of a record that is none: a thread would take longer than all else that is done to it."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def result(self) -> _Prepared:
        return self._record, []

    def cancel(self) -> None:
        """It is done."""


class _Held:
    """The bytes of large records that are not prepared yet."""

    def __init__(self) -> None:
        self._size = 0
        self._waiting: deque[tuple[Future[_Prepared], int]] = deque()

    def submitted(self, record: Record, threads: Executor, prepare: Prepare) -> Future[_Prepared] | _Nothing:
        """Has a record prepared, once it fits beside the others or is alone."""
        if isinstance(record, Reject | Duplicate):
            return _Nothing(record)
        size = _bytes_of(record)
        while size and self._waiting and self._size + size > MOST_HELD_BYTES:
            future, its_size = self._waiting.popleft()
            wait([future])
            self._size -= its_size
        future = threads.submit(_prepare_or_reject, record, prepare)
        if size:
            self._waiting.append((future, size))
            self._size += size
        return future


def _bytes_of(record: Record) -> int:
    """What a record holds in memory, 0 if that is little."""
    if not isinstance(record, Sample):
        return 0
    pictures = (part.blob for part in record.parts if isinstance(part, ImagePart))
    blobs = (*pictures, *(member.blob for member in record.members))
    size = sum(len(blob.data) for blob in blobs if blob.data is not None)
    return size if size > _LARGE_BYTES else 0


def _without_bytes(record: Record) -> Record:
    """A large record as it is told of by a child process: its pictures and members have no bytes."""
    if not _bytes_of(record):
        return record
    assert isinstance(record, Sample)
    empty = Blob(path="")
    parts = tuple(ImagePart(blob=empty) if isinstance(part, ImagePart) else part for part in record.parts)
    members = tuple(Member(extension=member.extension, blob=empty) for member in record.members)
    return dataclasses.replace(record, parts=parts, members=members)


def _prepare_or_reject(record: Record, prepare: Prepare) -> _Prepared:
    """Raises no BadSample: its traceback, in the thread that waits for it, would hold whole batches."""
    try:
        return _without_bytes(record), prepare(record)
    except BadSample as error:
        return _without_bytes(record), BadSample(error.reason, error.message)
