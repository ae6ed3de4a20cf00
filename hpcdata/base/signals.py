"""The flag that a signal sets: the scheduler asks, the encoding loop answers when its batch is done.

SIGTERM (preemption, requeue, scancel), SIGUSR1 and SIGUSR2 (the warning before the time limit) and SIGINT (Ctrl-C)
only leave their name here. The loop polls `received` after each batch, checkpoints and returns; nothing is logged or
raised in the handler, where the interrupted code may hold any lock. A person who types Ctrl-C is told at once.
SIGCONT, which SLURM sends before SIGTERM, keeps its default: it does nothing to a running process. Correctness never
depends on any of this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

_POLL_S = 0.1
_TOLD = b"hpcdata: stops after a checkpoint, in a few seconds\n"


class StopFlag:
    """`with StopFlag() as stop:` installs the handlers and restores the former ones.

    In a thread other than the main one there is nothing to install, and the flag is never set: signals are then the
    program's own, whose thread it is.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first stop signal; later ones change nothing."""
        self._former: dict[signal.Signals, signal._HANDLER] = {}

    def install(self) -> StopFlag:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in STOP_SIGNALS:
            self._former.setdefault(number, signal.signal(number, self._receive))
        return self

    def restore(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            # None: a handler that was not installed from Python, which signal.signal cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def wait(self, seconds: float) -> bool:
        """Sleeps that long or until a stop signal came; returns whether one has. Plain time.sleep would sleep on."""
        deadline = time.monotonic() + seconds
        while self.received is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_S))
        return self.received is not None

    def __enter__(self) -> StopFlag:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            if number == signal.SIGINT:
                with contextlib.suppress(OSError):
                    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _TOLD)  # takes no lock
        elif number == signal.SIGINT == self.received:
            raise KeyboardInterrupt  # a second Ctrl-C: the person does not want to wait for the batch
