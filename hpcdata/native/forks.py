"""Locks and cached values for objects that threads share in a process that may fork.

A DataLoader forks its workers while the threads of a BackgroundLoader run. A lock that one of them holds at that moment
would stay held in the child for ever, as the thread that would release it is not there; `functools.cached_property`
has such a lock as well (up to Python 3.11). What stands here is free again in a child.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ForkLock(type(threading.RLock())):  # type: ignore[misc]
    """A re-entrant lock; a child process has it unlocked, whoever held it. A copy by pickle is another lock.

    `with` takes it in one step of the interpreter: a signal handler that raises finds it free, or inside of the block.
    """

    def __init__(self) -> None:
        _locks.add(self)

    def __reduce__(self) -> tuple[type[ForkLock], tuple[()]]:
        return ForkLock, ()


class Lazy(Generic[T]):
    """A method as an attribute that is computed when it is wanted: without a lock, so in two threads perhaps twice."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> T:
        value = vars(instance)[self._name] = self._compute(instance)
        return value


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _unlock_all() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_unlock_all)
