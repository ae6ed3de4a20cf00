"""Reading and decoding ahead: what records refer to is prepared in threads, some batches before it is needed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from hpcdata.samples import BadSample, ImagePart, PreparedBatch, Record, Sample
from hpcdata.work.watchdog import PictureWatch

Prepare = Callable[[Record], list[np.ndarray]]
BATCHES_AHEAD = 2


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

    prepare: raises BadSample for what is rejected; None where there is nothing to prepare.
    """
    records = iter(records)
    if prepare is None:
        while batch := list(islice(records, batch_size)):
            yield PreparedBatch(records=batch, prepared=[[]] * len(batch))
        return
    pending: deque[tuple[list[Record], list[Future[list[np.ndarray] | BadSample]]]] = deque()
    try:
        while True:
            while len(pending) <= BATCHES_AHEAD and (batch := list(islice(records, batch_size))):
                pending.append((batch, [threads.submit(_prepare_or_reject, record, prepare) for record in batch]))
            if not pending:
                return
            batch, futures = pending[0]
            prepared = PreparedBatch(records=batch, prepared=[future.result() for future in futures])
            pending.popleft()
            yield prepared
    finally:
        for _, futures in pending:
            for future in futures:
                future.cancel()


def _prepare_or_reject(record: Record, prepare: Prepare) -> list[np.ndarray] | BadSample:
    """Raises no BadSample: its traceback, in the thread that waits for it, would hold whole batches."""
    try:
        return prepare(record)
    except BadSample as error:
        return BadSample(error.reason, error.message)
