"""Results that one thread makes and one other waits for, many at a time: futures at a fifth of their CPU.

A future has a lock, a condition and a list of its own, and whoever waits for several tells each of them. Here one lock
serves all of them, and what is waited for counts down.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class _Gate:
    """Opens when so many results are there, or the first error."""

    __slots__ = ("left", "shut")

    def __init__(self, left: int) -> None:
        self.left, self.shut = left, threading.Lock()
        self.shut.acquire()


class Awaited(Generic[T]):
    """A result that is not there yet. Made by `AllAwaited`."""

    __slots__ = ("_all", "_error", "_gate", "_is_cancelled", "_is_done", "_value")

    def __init__(self, all_awaited: AllAwaited) -> None:
        self._all = all_awaited
        self._value: T | None = None
        self._error: BaseException | None = None
        self._gate: _Gate | None = None
        self._is_done = self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def result(self) -> T:
        """Waits for it, and returns or raises it."""
        if not self._is_done:
            self._all.wait([self])
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def cancel(self) -> None:
        """Whoever has not begun to make it need not."""
        self._is_cancelled = True

    def set(self, value: T | None, error: BaseException | None = None) -> None:
        """Once, from any thread."""
        with self._all.lock:
            self._value, self._error, self._is_done = value, error, True
            gate, self._gate = self._gate, None
            if gate is not None and gate.left:
                gate.left = gate.left - 1 if error is None else 0
                if not gate.left:
                    gate.shut.release()


class Given(Generic[T]):
    """In place of one that there is nothing to wait for."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def result(self) -> T:
        return self._value

    def cancel(self) -> None:
        """It is done."""


class AllAwaited:
    """Results that one thread waits for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def wait(self, wanted: Sequence[Awaited[T]]) -> None:
        """Returns when all are there, or one of them as an error; the thread is woken once."""
        with self.lock:
            missing = [item for item in wanted if not item._is_done]
            if not missing or any(item._error is not None for item in wanted):
                return
            gate = _Gate(len(missing))
            for item in missing:
                item._gate = gate
        gate.shut.acquire()
