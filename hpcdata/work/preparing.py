"""Reading and decoding ahead: what records refer to is prepared in threads, some batches before it is needed."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from hpcdata.native.awaited import AllAwaited, Awaited, Given
from hpcdata.runs.stage import PreparesAtOnce
from hpcdata.samples import BadSample, Blob, Duplicate, ImagePart, Member, PreparedBatch, Record, Reject, Sample
from hpcdata.work.watchdog import PictureWatch

Prepare = Callable[[Record], list[np.ndarray]]
BATCHES_AHEAD = 2
MOST_HELD_BYTES, _LARGE_BYTES = 1 << 27, 1 << 20
"""Of records that are read and not prepared yet, one more aside; smaller ones do not count."""
MOST_PREPARED_BYTES = 1 << 28
"""Of what is prepared and not taken yet, beside the first batch and what the threads are at."""
_LOOK_EVERY_S = 0.2
_Prepared = tuple[Record, list[np.ndarray] | BadSample]


class DecodingThreads(ThreadPoolExecutor):
    """Threads of one shard; `is_ending` once nobody waits for them any more but whoever ends them."""

    is_ending = False


@contextlib.contextmanager
def decoding_threads(number: int) -> Iterator[DecodingThreads]:
    """Threads that decode pictures, and nothing else is decoded when they end.

    For functions: a generator that is left in a reference cycle is closed by the garbage collector, in any line of any
    thread. Where that line starts or ends a thread, waiting for one is a deadlock.
    """
    threads = DecodingThreads(max(1, number), thread_name_prefix="decode")
    try:
        yield threads
    finally:
        threads.is_ending = True
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
    if isinstance(prepare, PreparesAtOnce):
        prepare.over = watch.over
        return prepare

    def prepared(record: Record) -> list[np.ndarray]:
        with watch.over(record.key, num_pictures(record)):
            return prepare(record)

    return prepared


def end_preparing(prepare: Prepare | None) -> None:
    """Whoever has asked a stage for `prepare` ends what it still does: requests that nobody waits for."""
    if isinstance(prepare, PreparesAtOnce):
        prepare.close()


def prepare_batches(
    records: Iterable[Record],
    *,
    batch_size: int,
    threads: DecodingThreads,
    prepare: Prepare | None,
    ahead: int = BATCHES_AHEAD,
) -> Iterator[PreparedBatch]:
    """Cuts records into batches and prepares them so many batches ahead of the consumer, as far as memory allows.

    prepare: raises BadSample for what is rejected; None where there is nothing to prepare. Large records hold no bytes
    any more when they are prepared, and few of them are held until then.
    """
    records = iter(records)
    if prepare is None:
        while batch := list(islice(records, batch_size)):
            yield PreparedBatch(records=batch, prepared=[[]] * len(batch))
        return
    pending: deque[list[_Found]] = deque()
    window = _Window(threads)
    preparer: _Prepares
    preparer = _AtOnce(prepare, window) if isinstance(prepare, PreparesAtOnce) else _InThreads(prepare, window)
    held, number = _Held(window, preparer), 0
    try:
        while True:
            while len(pending) <= ahead and (not pending or pending[-1]):
                pending.append([])
                taken = islice(records, batch_size)
                pending[-1].extend(held.submitted(record, number) for record in taken)
                number += 1
            if not pending[0]:
                return
            preparer.wait([item for item in pending[0] if not isinstance(item, Given)])
            found = [future.result() for future in pending[0]]
            pending.popleft()
            window.taken(found)
            yield PreparedBatch(records=[record for record, _ in found], prepared=[arrays for _, arrays in found])
    finally:
        for futures in pending:
            for future in futures:
                future.cancel()


class _Window:
    """The bytes of what is prepared and not taken yet. Records are begun in their order, so the first batch always is:
    a thread that waits here has one of a later batch.
    """

    def __init__(self, threads: DecodingThreads) -> None:
        self.threads, self._changed = threads, threading.Condition()
        self.on_room: Callable[[], None] = lambda: None
        """Called when more may be prepared."""
        self._size = self._num_taken = self._needed = 0

    def begin(self, number: int) -> None:
        """Waits until a record of a batch may be prepared."""
        with self._changed:
            while self.is_full(number) and not self.threads.is_ending:
                self._changed.wait(_LOOK_EVERY_S)

    def is_full(self, number: int) -> bool:
        """Whether a record of that batch has to wait."""
        return self._size >= MOST_PREPARED_BYTES and number > max(self._num_taken, self._needed)

    def add(self, size: int) -> None:
        with self._changed:
            self._size += size

    def taken(self, batch: list[_Prepared]) -> None:
        with self._changed:
            self._size -= sum(map(_size_of, batch))
            self._num_taken += 1
            self._changed.notify_all()
        self.on_room()

    def need(self, number: int) -> None:
        """Somebody waits for a record of that batch: none up to there waits for others to be taken."""
        with self._changed:
            self._needed = max(self._needed, number)
            self._changed.notify_all()
        self.on_room()


def _size_of(found: _Prepared) -> int:
    return sum(array.nbytes for array in found[1]) if isinstance(found[1], list) else 0


_Later = Future[_Prepared] | Awaited[_Prepared]
_Found = _Later | Given[_Prepared]


class _Prepares(Protocol):
    def begin(self, record: Record, number: int) -> _Later:
        """Has a record of a batch prepared."""
        ...

    def wait(self, wanted: Sequence[Any]) -> None:
        """Returns when all are there, or one of them as an error. wanted: what `begin` gave."""
        ...


class _InThreads:
    def __init__(self, prepare: Prepare, window: _Window) -> None:
        self._prepare, self._window = prepare, window

    def begin(self, record: Record, number: int) -> Future[_Prepared]:
        return self._window.threads.submit(self._work, record, number)

    def wait(self, wanted: Sequence[Any]) -> None:
        wait(wanted, return_when=FIRST_EXCEPTION)  # woken once

    def _work(self, record: Record, number: int) -> _Prepared:
        self._window.begin(number)
        found = _ended(record, lambda: self._prepare(record))
        self._window.add(_size_of(found))
        return found


class _AtOnce:
    """Begins records in their order: as many at a time as can be, and none of a later batch without room."""

    def __init__(self, prepare: PreparesAtOnce, window: _Window) -> None:
        self._prepare, self._window, self._lock = prepare, window, threading.Lock()
        self._waiting: deque[tuple[Record, int, Awaited[_Prepared]]] = deque()
        self._all = AllAwaited()
        self._num_begun = 0
        window.on_room = self._begin_some

    def begin(self, record: Record, number: int) -> Awaited[_Prepared]:
        awaited = Awaited[_Prepared](self._all)
        with self._lock:
            self._waiting.append((record, number, awaited))
        self._begin_some()
        return awaited

    def wait(self, wanted: Sequence[Any]) -> None:
        self._all.wait(wanted)

    def _begin_some(self) -> None:
        while True:
            with self._lock:
                if self._num_begun >= self._prepare.most or not self._waiting:
                    return
                if self._window.is_full(self._waiting[0][1]) and not self._window.threads.is_ending:
                    return
                record, _, awaited = self._waiting.popleft()
                if awaited.is_cancelled:
                    continue
                self._num_begun += 1
            self._prepare.begin(record, partial(self._end, record, awaited))

    def _end(self, record: Record, awaited: Awaited[_Prepared], end: Callable[[], list[np.ndarray]]) -> None:
        with self._lock:
            self._num_begun -= 1
        try:
            found = _ended(record, end)
        except BaseException as error:
            awaited.set(None, error)
        else:
            self._window.add(_size_of(found))
            awaited.set(found)
        self._begin_some()


class _Held:
    """The bytes of large records that are not prepared yet."""

    def __init__(self, window: _Window, preparer: _Prepares) -> None:
        self._window, self._preparer, self._size = window, preparer, 0
        self._waiting: deque[tuple[_Later, int, int]] = deque()

    def submitted(self, record: Record, number: int) -> _Found:
        """Has a record of a batch prepared, once it fits beside the others or is alone."""
        if isinstance(record, Reject | Duplicate):
            return Given((record, []))  # a thread would take longer than all else that is done to it
        size = _bytes_of(record)
        while size and self._waiting and self._size + size > MOST_HELD_BYTES:
            future, its_size, its_number = self._waiting.popleft()
            self._window.need(its_number)
            self._preparer.wait([future])
            self._size -= its_size
        future = self._preparer.begin(record, number)
        if size:
            self._waiting.append((future, size, number))
            self._size += size
        return future


def _bytes_of(record: Record) -> int:
    """What a record holds in memory, 0 if that is little."""
    if not isinstance(record, Sample):
        return 0
    size = 0
    for part in record.parts:
        if isinstance(part, ImagePart) and part.blob.data is not None:
            size += len(part.blob.data)
    for member in record.members:
        if member.blob.data is not None:
            size += len(member.blob.data)
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


def _ended(record: Record, end: Callable[[], list[np.ndarray]]) -> _Prepared:
    """Raises no BadSample: its traceback, in the thread that waits for it, would hold whole batches."""
    try:
        return _without_bytes(record), end()
    except BadSample as error:
        return _without_bytes(record), BadSample(error.reason, error.message)
