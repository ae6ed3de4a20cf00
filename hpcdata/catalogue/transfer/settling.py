"""Blocks of a part settle: one thread writes them as they come, one hashes them in the file's order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from hpcdata.catalogue.transfer.blocks import Block, Disk
from hpcdata.catalogue.transfer.notes import Found, Notes
from hpcdata.catalogue.transfer.ordering import Ordering
from hpcdata.catalogue.transfer.ranges import Ranges


class Settling:
    """What `_changed` guards, and the two threads. Blocks come by `_unwritten`, `_to_write` and `_in_memory`."""

    def __init__(self, disk: Disk, notes: Notes, interval: int) -> None:
        self._disk, self._notes, self._interval = disk, notes, interval
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._here, self._written = Ranges(), Ranges()
        self._free: list[Block] = []
        self._in_memory: dict[int, Block] = {}
        """By their first byte: to be hashed from there."""
        self._unwritten: set[int] = set()
        self._to_write: SimpleQueue[Block | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._forget(Found())

    def _forget(self, found: Found) -> None:
        """found: what is claimed, and to be looked at again."""
        self._order = Ordering(self._disk, self._interval, found)
        self._is_hashing = self._is_paused = self._wants_mark = False
        self._marks: list[tuple[int, str]] = []
        """Hashed, and to be noted once all before them is written."""
        self.validator: str | None = found.validator

    def _require_no_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        with self._changed:
            if not self._threads:
                works = (self._write_all, self._hash_all)
                self._threads = [threading.Thread(target=self._run, args=(work,), daemon=True) for work in works]
                for thread in self._threads:
                    thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _write_all(self) -> None:
        while (block := self._to_write.get()) is not None:
            self._disk.write(block)
            begin, end = block.begin, block.end
            if not block.is_kept:
                self._notes.block(begin, end, self._order.sums[begin][1], self.validator)
            with self._changed:
                self._written.add(begin, end)
                self._unwritten.discard(begin)
                if self._in_memory.get(begin) is not block:  # hashed already, or never to be from memory
                    self._free.append(block)
                self._note_marks()
                self._changed.notify_all()

    def _hash_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._is_closed:
                    return
                order, self._is_hashing = self._order, True
                place, block = order.place, self._in_memory.get(order.place)
                end, is_good = self._written.end_from(place), True
            if block is not None:
                order.update(block.bytes())
                end = block.end
            elif end > place:
                end, is_good = order.read_back(end)
            with self._changed:
                self._is_hashing = False
                if block is not None:
                    del self._in_memory[place]
                    if place not in self._unwritten:
                        self._free.append(block)
                lost = (place, end) if not is_good else order.go_to(end) if end > place else None
                if lost is not None:
                    self._lose(*lost)
                is_idle = end == place
                if order.is_mark_due() or (self._wants_mark and is_idle):
                    self._marks += filter(None, [order.mark()])
                    self._note_marks()
                self._wants_mark = self._wants_mark and not is_idle
                self._changed.notify_all()

    def _has_work(self) -> bool:
        place = self._order.place
        is_there = place in self._in_memory or self._written.end_from(place) > place
        return self._is_closed or (not self._is_paused and (self._wants_mark or is_there))

    def _lose(self, begin: int, end: int) -> None:
        """What was claimed is not there: it is missing again."""
        self._here.remove(begin, end)
        self._written.remove(begin, end)

    def _note_marks(self) -> None:
        while self._marks and self._marks[0][0] <= min(self._unwritten, default=self._marks[0][0]):
            num_bytes, sha256 = self._marks.pop(0)
            self._notes.mark(num_bytes, sha256, self.validator)
