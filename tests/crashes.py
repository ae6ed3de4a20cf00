"""Crash injection: the process "dies" at the n-th system call that changes the disk.

`Crash` is not an `Exception`, so nothing in the code under test can catch it and carry on; `finally` blocks run,
which a real kill would not do, therefore those that clean up are made to fail as well once the crash has happened.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from hpcdata.shards.appending import AppendFile

CALLS = ("fsync", "rename", "replace", "link", "unlink", "open", "mkdir", "write", "utime")


class Crash(BaseException):
    """Stands for SIGKILL."""


class Counter:
    """Counts disk-changing calls and crashes before (or after) the n-th."""

    def __init__(self, crash_at: int, *, after: bool) -> None:
        self.crash_at, self.after, self.calls, self.dead = crash_at, after, 0, False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Crash
            self.calls += 1
            if self.calls == self.crash_at and not self.after:
                self.dead = True
                raise Crash
            result = function(*args, **kwargs)
            if self.calls == self.crash_at:
                self.dead = True
                raise Crash
            return result

        return call


@contextlib.contextmanager
def crash_at(number: int, *, after: bool) -> Iterator[Counter]:
    """Inside, the `number`-th call of `CALLS` raises Crash, before or after taking effect; all later calls too."""
    counter = Counter(number, after=after)
    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, counter.wrap(getattr(os, name))))
        stack.enter_context(mock.patch.object(shutil, "rmtree", counter.wrap(shutil.rmtree)))
        yield counter


@contextlib.contextmanager
def fault_at(number: int, errno_: int, *, lasting: bool) -> Iterator[Counter]:
    """Inside, the `number`-th call of `CALLS` only fails with an errno; all later ones, too, if `lasting`."""
    counter = Counter(number, after=False)

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counter.calls += 1
            if counter.calls == number or (lasting and counter.calls > number):
                counter.dead = True
                raise OSError(errno_, os.strerror(errno_))
            return function(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, wrap(getattr(os, name))))
        stack.enter_context(mock.patch.object(AppendFile, "flush", wrap(AppendFile.flush)))
        yield counter
