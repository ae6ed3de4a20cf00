"""Many requests in one thread: coroutines that wait for sockets, times, threads and each other.

    loop = Loop("fetching")
    loop.start(coroutine, done)      from any thread; done(result) or done(None, error) in the loop's
    await loop.readable(sock, until=...), loop.sleep(2.0), loop.in_thread(function, threads), turn

It does what asyncio does in a third of the CPU: a socket is watched from its first wait until it is forgotten, and a
coroutine that goes on is a function that is called. `drive` runs one that waits for nothing, as blocking code does.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]
_LOOK_EVERY_S = 0.1
"""How late a wait for a socket may end."""


class Task:
    """One coroutine."""

    __slots__ = ("coroutine", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], done: Done) -> None:
        self.coroutine, self.done = coroutine, done


class Submits(Protocol):
    """As an Executor."""

    def submit(self, work: Callable[[], object], /) -> object: ...


Parking = Callable[[Task], None]
"""What a coroutine gives to its loop: how it is to be found again."""


class _Wait:
    __slots__ = ("park",)

    def __init__(self, park: Parking) -> None:
        self.park = park

    def __await__(self) -> Generator[Parking, Any, Any]:
        return (yield self.park)


class Turn:
    """What one coroutine waits for until another one of its loop calls `wake`, before or after."""

    __slots__ = ("_is_set", "_loop", "_task")

    def __init__(self, loop: Loop) -> None:
        self._loop, self._is_set = loop, False
        self._task: Task | None = None

    def wake(self) -> None:
        self._is_set = True
        if self._task is not None:
            self._loop._go_on(self._task)
            self._task = None

    def __await__(self) -> Generator[Parking, None, None]:
        if not self._is_set:
            yield self._park

    def _park(self, task: Task) -> None:
        self._task = task


class _Watched:
    """A socket, and who waits for it."""

    __slots__ = ("events", "task", "until")

    def __init__(self) -> None:
        self.events, self.until = 0, 0.0
        self.task: Task | None = None


class Loop:
    """Its thread starts with the first coroutine, and ends with the process or with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._given: collections.deque[tuple[Task, Any, BaseException | None]] = collections.deque()
        """What other threads have said, and what goes on in this turn."""
        self._watched: dict[int, _Watched] = {}
        self._sleeping: list[tuple[float, int, Task]] = []
        self._number = itertools.count()
        self._is_asleep = self._is_closed = self._is_ended = False

    def start(self, coroutine: Coroutine[Any, Any, T], done: Done) -> None:
        self._give(Task(coroutine, done))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._selector = selectors.DefaultSelector()
                    self._woken, self._waking = os.pipe()
                    os.set_blocking(self._woken, False)
                    os.set_blocking(self._waking, False)
                    self._selector.register(self._woken, selectors.EVENT_READ)
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Ends its thread and closes what that opened. What is not done stays so."""
        self._is_closed = True
        if self._thread is not None:
            self._wake()
            if self._thread is not threading.current_thread():
                self._thread.join()

    def readable(self, sock: socket.socket, *, until: float) -> _Wait:
        """Waits until a socket can be read. Raises TimeoutError at `until`, as `time.monotonic` counts."""
        return _Wait(lambda task: self._watch(sock, selectors.EVENT_READ, until, task))

    def writable(self, sock: socket.socket, *, until: float) -> _Wait:
        return _Wait(lambda task: self._watch(sock, selectors.EVENT_WRITE, until, task))

    def sleep(self, seconds: float) -> _Wait:
        until = time.monotonic() + seconds
        return _Wait(lambda task: heapq.heappush(self._sleeping, (until, next(self._number), task)))

    def in_thread(self, function: Callable[[], T], threads: Submits) -> _Wait:
        """What it returns, or raises."""

        def park(task: Task) -> None:
            def work() -> None:
                try:
                    value = function()
                except BaseException as error:
                    self._give(task, None, error)
                else:
                    self._give(task, value)

            threads.submit(work)

        return _Wait(park)

    def forget(self, sock: socket.socket) -> None:
        """To be called in the loop's thread before a socket is closed."""
        if self._watched.pop(sock.fileno(), None) is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._selector.unregister(sock)

    def _give(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        self._given.append((task, value, error))
        if self._is_asleep:
            self._wake()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if not self._is_ended:  # or that number may be somebody's file by now
                os.write(self._waking, b"\0")

    def _go_on(self, task: Task) -> None:
        self._given.append((task, None, None))

    def _watch(self, sock: socket.socket, events: int, until: float, task: Task) -> None:
        number = sock.fileno()
        watched = self._watched.get(number)
        if watched is None:
            watched = self._watched[number] = _Watched()
            self._selector.register(sock, events, watched)
            watched.events = events
        elif watched.events != events:
            self._selector.modify(sock, events, watched)
            watched.events = events
        watched.until, watched.task = until, task

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._is_closed:
            while self._given:
                self._step(*self._given.popleft())  # no name here would outlive what it stands for
            now = time.monotonic()
            if self._sleeping:
                self._wake_sleepers(now)
            if now - looked >= _LOOK_EVERY_S:
                looked = now
                self._end_waits(now)
            self._select(now)
        with self._lock:
            self._is_ended = True
            self._selector.close()
            os.close(self._woken)
            os.close(self._waking)

    def _select(self, now: float) -> None:
        wait = _LOOK_EVERY_S if self._watched else None
        if self._sleeping:
            left = max(0.0, self._sleeping[0][0] - now)
            wait = left if wait is None else min(wait, left)
        self._is_asleep = True
        if self._given or self._is_closed:  # said before anybody could see that this thread sleeps
            wait = 0.0
        events = self._selector.select(wait)
        self._is_asleep = False
        for key, _ in events:
            watched = key.data
            if watched is None:
                os.read(self._woken, 4096)
            elif (task := watched.task) is not None:
                watched.task = None
                self._step(task, None, None)
            elif self._watched.get(key.fd) is watched:  # it is kept, and its host has closed it, or says unasked things
                del self._watched[key.fd]
                self._selector.unregister(key.fileobj)

    def _step(self, task: Task, value: Any, error: BaseException | None) -> None:
        try:
            park = task.coroutine.send(value) if error is None else task.coroutine.throw(error)
        except StopIteration as stop:
            self._end(task, stop.value, None)
        except BaseException as failed:
            self._end(task, None, failed)
        else:
            try:
                park(task)
            except Exception as failed:  # a socket that is closed, threads that have ended
                self._given.append((task, None, failed))

    def _end(self, task: Task, value: Any, error: BaseException | None) -> None:
        try:
            task.done(value, error)
        except Exception:  # the others go on
            log.exception("%s: nobody has taken what came of %s", self._name, task.coroutine)

    def _wake_sleepers(self, now: float) -> None:
        while self._sleeping and self._sleeping[0][0] <= now:
            self._step(heapq.heappop(self._sleeping)[2], None, None)

    def _end_waits(self, now: float) -> None:
        for watched in [*self._watched.values()]:
            if watched.task is not None and watched.until <= now:
                task, watched.task = watched.task, None
                self._step(task, None, TimeoutError())


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise RuntimeError("it waits for something")
