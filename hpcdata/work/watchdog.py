"""Ends a process that hangs in one batch: the kernel's alarm, which needs neither the interpreter nor its lock.

A decoder that never returns may hold the interpreter's lock, so that no thread and no handler of Python's would run.
SIGALRM keeps its default action, and ends the process like a crash: the traces of its threads go to standard error,
the work note in its checkpoint tells the next attempt where it was, and `poison` finds the record. A thread cannot be
stopped either: one that takes too much CPU time for a record (`PictureWatch`) ends the process in the same way.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Watchdog:
    """`with Watchdog(seconds) as watchdog:`, then `beat()` again and again, or `rest()` while nothing can hang.

    Does nothing where the alarm is in use already, as in a program that calls us, or in a thread of one.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._is_ours = False

    def __enter__(self) -> Watchdog:
        is_free = signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and not signal.getitimer(signal.ITIMER_REAL)[0]
        if is_free and threading.current_thread() is threading.main_thread():
            self._is_ours = True
            if sys.__stderr__ is not None:
                faulthandler.register(signal.SIGALRM, file=sys.__stderr__, all_threads=True, chain=True)
        return self

    @property
    def end(self) -> Callable[[], None] | None:
        """Ends the process as the alarm would; None where the alarm is in use already."""
        return _alarm if self._is_ours else None

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self.rest()
            faulthandler.unregister(signal.SIGALRM)

    def beat(self) -> None:
        """Something was done: the time begins anew."""
        if self._is_ours:
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def rest(self) -> None:
        if self._is_ours:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _alarm() -> None:
    os.kill(os.getpid(), signal.SIGALRM)


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """SIGPROF ends a process that takes more CPU time in the block."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class PictureWatch:
    """Calls `end` when a thread has taken more than `limit_s` of CPU time for each picture of a record."""

    def __init__(self, limit_s: float, end: Callable[[], None] | None) -> None:
        self._limit_s, self._end = limit_s, end
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._busy: dict[int, tuple[float, str, int]] = {}
        """Thread -> its CPU time when it began, the record, its pictures. Under the lock: these threads are alive."""
        if end is not None:
            threading.Thread(target=self._look, name="picture-watch", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    @contextlib.contextmanager
    def over(self, key: str, num_pictures: int) -> Iterator[None]:
        thread = threading.get_ident()
        with self._lock:
            self._busy[thread] = time.thread_time(), key, max(1, num_pictures)
        try:
            yield
        finally:
            with self._lock:
                del self._busy[thread]

    def check(self) -> None:
        with self._lock:
            for thread, (begun_s, key, num_pictures) in self._busy.items():
                spent_s = time.clock_gettime(time.pthread_getcpuclockid(thread)) - begun_s
                if spent_s > self._limit_s * num_pictures and self._end is not None:
                    log.error(
                        "%s: decoding it takes more than data.max_image_s=%s: this process ends, and a child tries "
                        "its batches sample by sample",
                        key,
                        self._limit_s,
                    )
                    self._end()

    def _look(self) -> None:
        while not self._closed.wait(min(LOOK_EVERY_S, self._limit_s)):
            self.check()
