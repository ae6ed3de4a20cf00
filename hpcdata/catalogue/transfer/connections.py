"""How many connections one file gets: one where that is fast, several to parts of it where a server holds each back.

The first bytes come by one connection, which is timed. Others, as many as this process may have and no file uses, then
take one piece after the other with it, in the file's order. A connection that brings nothing is given up: so a server
that wants fewer gets fewer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.transfer.lanes import BlockLane
from hpcdata.catalogue.transfer.on_disk import OnDisk

Receive = Callable[[int, "int | None", "BlockLane | None"], bool]
"""Fetches [begin, end) of a file, see `Fetcher`."""
MOST, PIECE = 8, 8 << 20
_FAST = 400e6
"""Bytes a second of one connection that need no other."""


@dataclass
class Connections:
    """Of a process. most: to all files together, but one for each file in any case. piece: the fewest bytes that are
    worth a request.
    """

    most: int = MOST
    num_files: int = 1
    piece: int = PIECE

    def __post_init__(self) -> None:
        self._spare = threading.Semaphore(max(0, self.most - self.num_files))

    def bring(self, part: OnDisk, receive: Receive) -> None:
        """All of a part that is missing. Raises a Fault when no connection brings more."""
        while (gap := part.missing()) is not None:
            begin, end = gap
            if end is None or not self._is_worth(part) or (helpers := self._helpers()) == 0:
                receive(begin, end, None)
                continue
            try:
                started, first = time.monotonic(), min(end, (begin // self.piece + 2) * self.piece)
                part.is_single = not receive(begin, first, None)
                is_fast = first - begin > _FAST * (time.monotonic() - started)
                if not is_fast and self._is_worth(part):
                    _Together(part, receive, helpers + 1, self.piece).run()
                elif (rest := part.missing()) is not None:
                    receive(*rest, None)
            finally:
                self._spare.release(helpers)

    def _is_worth(self, part: OnDisk) -> bool:
        """Pieces of several answers are put together only where one can tell that they are of the same content."""
        if part.is_single or part.size is None or not (part.is_vouched or part.num_bytes == 0):
            return False
        return part.size - part.num_bytes >= 4 * self.piece

    def _helpers(self) -> int:
        count = 0
        while self._spare.acquire(blocking=False):
            count += 1
        return count


class _Together:
    def __init__(self, part: OnDisk, receive: Receive, count: int, piece: int) -> None:
        self._part, self._receive, self._count, self._piece = part, receive, count, piece
        self._faults: list[BaseException] = []
        self._is_over = False

    def run(self) -> None:
        """Raises the worst fault, if bytes are missing."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._count - 1)]
        for thread in threads:
            thread.start()
        self._work()
        for thread in threads:
            thread.join()
        if self._faults and self._part.missing() is not None:
            worst = max(self._faults, key=_gravity)
            self._part.is_single = _gravity(worst) == 1
            if not self._part.is_single:
                raise worst

    def _work(self) -> None:
        while not self._is_over and (lane := self._part.take(self._share())) is not None:
            try:
                self._receive(lane.begin, lane.end, lane)
            except BaseException as error:
                if lane.place > lane.begin and _gravity(error) == 0:
                    continue  # it was cut: the rest is somebody's next piece
                self._faults.append(error)
                self._is_over = self._is_over or _gravity(error) > 0
                return
            finally:
                lane.close()

    def _share(self) -> int:
        """So that all connections end at about the same time, with few requests for a large file."""
        assert self._part.size is not None
        left = self._part.size - self._part.num_bytes
        pieces = max(1, min(left // (2 * self._count), 8 * self._piece) // self._piece)
        return pieces * self._piece


def _gravity(error: BaseException) -> int:
    """0: another connection may do better. 1: one alone may."""
    if not isinstance(error, Fault):
        return 3
    if error.kind != "busy" or error.reason == "stopped":
        return 2
    return int(error.reason == "range")
