"""How many threads share a copy, and copies that go on in the others while this one does something else.

    later = Later()
    batch = make(later)      # its last copy may be left to other threads
    ...
    later.finish()           # now it is done: the batch may be looked at

The other threads are those of parallel.c: they never hold the interpreter's lock.
"""

from __future__ import annotations

import atexit
import itertools
import sys
import threading
from collections.abc import Callable

_ANY = -1
"""The number of whichever copy was left, for `finish` of parallel.c."""
_keys = itertools.count()
_kept: dict[int, object] = {}
"""What copies that were left read and write: it must not be let go of before they are done, whatever happens."""


def num_threads() -> int:
    """As many as torch has for an operation of this thread.

    So `torch.set_num_threads` and OMP_NUM_THREADS hold here, too, as well as the rules of others: one in the workers of
    a DataLoader and, unless it is told otherwise, in the processes of torchrun.
    """
    of_torch = getattr(sys.modules.get("torch"), "get_num_threads", None)  # another thread may be importing it
    return 1 if of_torch is None or _this_thread.copies_alone else of_torch()


def copy_alone() -> None:
    """From now on in this thread, as it is one of several that copy batches at the same time."""
    _this_thread.copies_alone = True


class Later:
    """The last copy of a batch, if it was left to other threads. Done, at the latest, when this object is let go of.

    Whoever passes it on to a copy neither reads nor writes what that writes from then on.
    """

    _library_finish: Callable[[int], object] | None = None
    _key = _number = 0

    def __init__(self) -> None:
        self._key = next(_keys)

    @property
    def is_used(self) -> bool:
        return self._number != 0

    def finish(self, kept: dict[int, object] = _kept) -> None:  # module names may be gone by then
        """Returns when it is done. In any thread, and as often as one likes."""
        if self._number and self._library_finish is not None:
            self._library_finish(self._number)
            kept.pop(self._key, None)
            self._number = 0

    __del__ = finish

    def call(
        self, function: Callable[..., int], arguments: tuple[object, ...], arrays: object, finish: Callable[..., object]
    ) -> int:
        """As `copy`. What is known is noted before the call: an interrupt may come in any of these lines."""
        self.finish()
        _kept[self._key] = arrays
        self._library_finish = _at_exit[0] = finish
        self._number = _ANY
        answer = function(*arguments, num_threads(), True)
        if answer > 0:
            self._number = answer
        else:
            self._number = 0
            del _kept[self._key]
        return answer


def copy(
    function: Callable[..., int],
    arguments: tuple[object, ...],
    arrays: object,
    finish: Callable[..., object],
    later: Later | None,
) -> int:
    """What a function of kernels.c answers, negative when it copied nothing. `arrays`: all that it reads and writes.

    With a `later` it may be left, until that is finished.
    """
    if later is None:
        return function(*arguments, num_threads(), False)
    return later.call(function, arguments, arrays, finish)


class _ThisThread(threading.local):
    copies_alone = False


_this_thread = _ThisThread()
_at_exit: list[Callable[..., object]] = [lambda number: None]


@atexit.register
def _finish_any() -> None:
    """Afterwards the interpreter unmaps what helpers read."""
    _at_exit[0](_ANY)
