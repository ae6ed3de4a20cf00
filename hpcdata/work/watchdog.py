"""Ends a process that hangs in one batch: the kernel's alarm, which needs neither the interpreter nor its lock.

A decoder that never returns may hold the interpreter's lock, so that no thread and no handler of Python's would run.
SIGALRM keeps its default action, and ends the process like a crash: the traces of its threads go to standard error,
the work note in its checkpoint tells the next attempt where it was, and `poison` finds the record.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading


class Watchdog:
    """`with Watchdog(seconds) as watchdog:`, then `beat()` again and again, or `rest()` while nothing can hang.

    Does nothing where the alarm is in use already, as in a program that calls us, or in a thread of one.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._is_ours = False

    def __enter__(self) -> Watchdog:
        is_main = threading.current_thread() is threading.main_thread()
        is_free = (
            is_main
            and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
            and not signal.getitimer(signal.ITIMER_REAL)[0]
        )
        if is_free:
            self._is_ours = True
            if sys.__stderr__ is not None:
                faulthandler.register(signal.SIGALRM, file=sys.__stderr__, all_threads=True, chain=True)
        return self

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
