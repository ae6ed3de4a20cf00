"""sha256 of a part in the file's order: blocks from memory, and what is on the disk read back and checked.

Not thread-safe: its owner holds a lock but for `update` and `read_back`, which one thread calls in turn.
"""

from __future__ import annotations

import hashlib
import mmap
import time
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from hpcdata.catalogue.transfer.blocks import Disk
from hpcdata.catalogue.transfer.notes import Found

_INTERVAL_S = 20.0
_READ = 4 << 20


class Ordering:
    """place: up to which byte all is hashed. sums: begin -> (end, crc32) of blocks that came before their turn."""

    def __init__(self, disk: Disk, interval: int, found: Found) -> None:
        self.place = 0
        self.sums = found.blocks
        self._disk, self._interval = disk, interval
        self._claims = deque(found.marks)
        self._digest, self._sure = hashlib.sha256(), hashlib.sha256()
        self._sure_place, self._sure_at = 0, time.monotonic()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._pending: Future[None] | None = None
        self._buffers: list[memoryview | None] = [None, None]

    def sha256(self) -> str:
        self._settle()
        return self._digest.hexdigest()

    def update(self, data: memoryview) -> None:
        self._settle()
        self._digest.update(data)

    def close(self) -> None:
        self._hashing.shutdown()

    def read_back(self, end: int) -> tuple[int, bool]:
        """Some of the bytes [place, end): up to where, and whether they are what was claimed of them.

        One buffer is read while the other is hashed.
        """
        self._buffers.reverse()
        buffer = self._buffers[0] = self._buffers[0] or memoryview(mmap.mmap(-1, _READ))
        claimed, crc32 = self.sums.get(self.place, (0, 0))
        limit = self._claims[0][0] if self._claims else end
        end = claimed or min(end, self.place + len(buffer), limit)
        data, filled = buffer[: end - self.place], 0
        while filled < len(data) and (count := self._disk.read_into(data[filled:], self.place + filled)):
            filled += count
        if filled < len(data) or (claimed and zlib.crc32(data) != crc32):
            return end, False
        self._settle()
        self._pending = self._hashing.submit(self._digest.update, data)
        return end, True

    def go_to(self, end: int) -> tuple[int, int] | None:
        """The bytes up to there are hashed. Those that are lost, because a checkpoint says that they were others."""
        self.sums.pop(self.place, None)
        self.place = end
        if self._claims and self._claims[0][0] == end:
            if self._claims.popleft()[1] != self.sha256():
                self._digest, self.place = self._sure.copy(), self._sure_place
                return self.place, end
            self._be_sure()
        return None

    def is_mark_due(self) -> bool:
        ahead = self.place - self._sure_place
        late = time.monotonic() - self._sure_at > _INTERVAL_S
        return not self._claims and (ahead >= self._interval or (ahead > 0 and late))

    def mark(self) -> tuple[int, str] | None:
        """A checkpoint: (bytes, sha256). None where there is nothing new, or what is claimed is not looked at yet."""
        if self._claims or self.place == self._sure_place:
            return None
        self._be_sure()
        return self.place, self.sha256()

    def _settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _be_sure(self) -> None:
        self._settle()
        self._sure, self._sure_place, self._sure_at = self._digest.copy(), self.place, time.monotonic()
