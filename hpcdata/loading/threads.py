"""How many threads copy a batch together, and copies that are left to the others while this one goes on.

    batch, last = leave_last(make)      # its last copy may go on in other threads
    ...                                 # meanwhile, this one does something else
    last.finish()                       # now it is done: the batch may be looked at

The other threads are those of parallel.c: they never hold the interpreter's lock. What they read and write is kept
until they are done, whatever happens to the batch and to this thread.
"""

from __future__ import annotations

import atexit
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_keys = itertools.count()
_kept: dict[int, object] = {}
"""What copies that were left read and write."""
_latest: list[Any] = []


def num_threads() -> int:
    """As many as torch has for an operation of this thread.

    So `torch.set_num_threads` and OMP_NUM_THREADS hold here, too, as well as the rules of others: one in the workers of
    a DataLoader and, unless it is told otherwise, in the processes of torchrun.
    """
    torch = sys.modules.get("torch")
    return 1 if torch is None or _this_thread.copies_alone else torch.get_num_threads()


def copy_alone() -> None:
    """From now on in this thread, as it is one of several that copy batches at the same time."""
    _this_thread.copies_alone = True


class LeftCopy:
    """One that other threads are at. It is done, at the latest, when this object is let go of."""

    def __init__(self, number: int, finish: Callable[[int], object], key: int) -> None:
        self._number, self._finish, self._key = number, finish, key

    def finish(self, kept: dict[int, object] = _kept) -> None:  # module names may be gone by then
        """Returns when it is done. In any thread, and as often as one likes."""
        self._finish(self._number)
        kept.pop(self._key, None)

    __del__ = finish


def leave_last(make: Callable[[], T]) -> tuple[T, LeftCopy | None]:
    """What `make` returns, and its last copy if that was left to other threads: to be finished before it is looked at.

    Only of copies that `make` neither looks at nor changes afterwards, and that are worth it.
    """
    _this_thread.may_leave = True
    try:
        made = make()
        return made, _this_thread.left
    finally:
        _this_thread.may_leave, _this_thread.left = False, None


def copy(
    function: Callable[..., int],
    arguments: tuple[object, ...],
    arrays: object,
    finish: Callable[[int], object],
    may_leave: bool,
) -> int:
    """What a function of kernels.c answers, negative when it copied nothing. `arrays`: all that it reads and writes."""
    if not (may_leave and _this_thread.may_leave):
        return function(*arguments, num_threads(), False)
    key = next(_keys)
    _kept[key] = arrays  # before the call: an interrupt in these lines must not let go of them
    number = function(*arguments, num_threads(), True)
    if number > 0:
        _this_thread.left = LeftCopy(number, finish, key)
        _latest[:] = finish, number
    else:
        del _kept[key]
    return number


class _ThisThread(threading.local):
    copies_alone = False
    may_leave = False
    left: LeftCopy | None = None


_this_thread = _ThisThread()


@atexit.register
def _finish_latest() -> None:
    """There is one at a time. Afterwards the interpreter unmaps what it reads."""
    if _latest:
        finish, number = _latest
        finish(number)
