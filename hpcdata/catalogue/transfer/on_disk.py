"""A large file: its bytes come in any order, are written by one thread and hashed in the file's order by another.

    SET/.hpcdata/parts/KEY          the bytes so far
    SET/.hpcdata/parts/KEY.jsonl    what is claimed of them, see `notes`

A lane fills blocks. Those near the place that is hashed next stay in memory until they are; the others are written
with a sum, and read back when it is their turn. A process that goes on does the same with what is there: it fetches
what is missing at once, while the thread that hashes goes through the rest and checks every claim. Bytes that fail it
are missing again. So receiving waits for nothing as long as the disk keeps up.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from hpcdata.base import files
from hpcdata.catalogue.faults import Fault, Wanted, require_content
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.transfer.blocks import ALIGNED, Block, Disk
from hpcdata.catalogue.transfer.lanes import BlockLane
from hpcdata.catalogue.transfer.notes import Found, Notes
from hpcdata.catalogue.transfer.part import published
from hpcdata.catalogue.transfer.ranges import Ranges
from hpcdata.catalogue.transfer.settling import Settling
from hpcdata.catalogue.web import Answer

_BLOCK, _NUM_BLOCKS = 2 << 20, 8
_LOOK_S = 0.5


class OnDisk(Settling):
    """A part, see `Part`. interval: bytes between checkpoints. Thread-safe but for restart, publish and close."""

    def __init__(self, wanted: Wanted, path: Path, interval: int) -> None:
        super().__init__(Disk(path), Notes(Path(f"{path}.jsonl")), interval)
        self._wanted, self._path = wanted, path
        self._block_size = max(ALIGNED, min(_BLOCK, interval // _NUM_BLOCKS) // ALIGNED * ALIGNED)
        self._num_blocks = self._num_lanes = self.num_restarts = 0
        self._taken = Ranges()
        self.is_single = False
        """Its server gives it to one connection alone."""
        self.size = wanted.size
        self._resume()

    def _resume(self) -> None:
        found = self._notes.read(self._wanted.identity(), os.fstat(self._disk.file).st_size)
        self._forget(found or Found())
        if found is None:
            self.restart()
            return
        claimed = [(0, found.marks[-1][0])] if found.marks else []
        for begin, end in [*claimed, *((begin, end) for begin, (end, _) in found.blocks.items())]:
            self._here.add(begin, end)
            self._written.add(begin, end)
        if claimed or found.blocks:
            self._start()

    # What lanes do

    @property
    def num_bytes(self) -> int:
        with self._changed:
            return self._here.num_bytes

    @property
    def is_vouched(self) -> bool:
        """Bytes of several answers are of one content: a validator says so, or a sum will."""
        return self.validator is not None or self._wanted.is_vouched_for()

    def missing(self) -> tuple[int, int | None] | None:
        with self._changed:
            return next(iter(self._all_missing()), None)

    def _all_missing(self) -> list[tuple[int, int | None]]:
        both = Ranges()
        for begin, end in [*self._here, *self._taken]:
            both.add(begin, end)
        if self.size is not None:
            return list(both.gaps(self.size))
        return [(both.end_from(0), None)]

    def take(self, most: int) -> BlockLane | None:
        """A lane for at most so many of the first bytes that are missing."""
        with self._changed:
            for begin, end in self._all_missing():
                assert end is not None
                last = (begin + most) // ALIGNED * ALIGNED  # so that what follows is written past the page cache
                return self._opened(begin, min(end, last if last > begin else end))
            return None

    def lane(self, begin: int, end: int | None) -> BlockLane:
        with self._changed:
            return self._opened(begin, end)

    def _opened(self, begin: int, end: int | None) -> BlockLane:
        self._num_lanes += 1
        if end is not None:
            self._taken.add(begin, end)
        return BlockLane(self, begin, end)

    def closed(self, lane: BlockLane) -> None:
        with self._changed:
            self._num_lanes -= 1
            if lane.end is not None:
                self._taken.remove(lane.begin, lane.end)

    def new_block(self, begin: int, end: int | None) -> Block:
        """An empty block for the bytes from `begin` on. Raises OSError of writing or hashing."""
        with self._changed:
            most = _NUM_BLOCKS + self._num_lanes
            self._changed.wait_for(lambda: self._error or self._num_blocks < most or self._has_free())
            self._require_no_error()
            if not self._free:
                self._free.append(Block(self._block_size))
                self._num_blocks += 1
            block = self._free.pop()
        limit = (begin // self._block_size + 1) * self._block_size
        block.begin, block.filled = begin, 0
        block.capacity = (limit if end is None else min(limit, end)) - begin
        return block

    def _has_free(self) -> bool:
        if not self._free and not self._is_hashing and self._order.place not in self._in_memory:
            for begin in self._in_memory.keys() - self._unwritten:  # behind a gap: read back when it is closed
                self._free.append(self._in_memory.pop(begin))
        return bool(self._free)

    def filled(self, block: Block) -> None:
        self._start()
        with self._changed:
            block.is_kept = block.begin - self._order.place <= _NUM_BLOCKS * self._block_size
            self._here.add(block.begin, block.end)
            self._unwritten.add(block.begin)
            if block.is_kept:
                self._in_memory[block.begin] = block
                self._changed.notify_all()
        if not block.is_kept:
            self._order.sums[block.begin] = (block.end, zlib.crc32(block.bytes()))
        self._to_write.put(block)

    def unused(self, block: Block) -> None:
        with self._changed:
            self._free.append(block)
            self._changed.notify_all()

    # What the part's owner does

    def begin(self, answer: Answer) -> None:
        self.validator = answer.validator

    def end(self, size: int) -> None:
        with self._changed:
            self.size = size

    def restart(self) -> None:
        with self._changed:
            self._is_paused = True
            self._changed.wait_for(lambda: self._error or not (self._unwritten or self._is_hashing))
            self._require_no_error()
            for ranges in (self._here, self._written, self._taken):
                ranges.clear()
            self._free += self._in_memory.values()
            self._in_memory.clear()
            self._order.close()
            self._forget(Found())
            self.size = self._wanted.size
            self.num_restarts += 1
            os.ftruncate(self._disk.file, 0)
            self._notes.restart(self._wanted.identity())

    def is_whole(self, wait: Callable[[float], bool]) -> bool:
        with self._changed:
            while True:
                self._require_no_error()
                if self.size is None or any(self._all_missing()):
                    return False
                if self._order.place >= self.size and not self._unwritten:
                    return True
                self._changed.wait(_LOOK_S)
                if wait(0):
                    raise Fault("busy", "stopped", "the process is to stop")

    def require_right(self) -> None:
        read = functools.partial(os.pread, self._disk.file)
        require_content(self._wanted, self._order.place, self._order.sha256(), read, self._git_sha1)

    def publish(self, target: Path, parts: Path) -> Here:
        os.ftruncate(self._disk.file, self._order.place)
        os.fsync(self._disk.file)
        here = published(self._path, target, self._order.sha256(), is_sure=True)
        files.sync_folder(target.parent)
        self._notes.remove()
        return here

    def close(self) -> None:
        """Notes what is here, and ends the threads."""
        with self._changed:
            if self._threads and self._error is None:
                self._changed.wait_for(lambda: self._error or not self._unwritten)
                near = self._written.end_from(self._order.place) - self._order.place <= _NUM_BLOCKS * self._block_size
                if near and self._path.exists():
                    self._wants_mark = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._error or not self._wants_mark)
            self._is_closed = True
            self._changed.notify_all()
        self._to_write.put(None)
        for thread in self._threads:
            thread.join()
        self._order.close()
        self._disk.close()
        self._notes.close()

    def _git_sha1(self) -> str:
        digest, size = hashlib.sha1(b"blob %d\0" % self._order.place), self._order.place
        for start in range(0, size, _BLOCK):
            digest.update(os.pread(self._disk.file, min(_BLOCK, size - start), start))
        return digest.hexdigest()
