"""One file: asked for until it is whole and right, or given up.

What is here already is not asked for again: a byte is fetched once, and those after the last checkpoint once more.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.catalogue.faults import Fault, Wanted
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.transfer.connections import Connections
from hpcdata.catalogue.transfer.in_memory import InMemory
from hpcdata.catalogue.transfer.on_disk import OnDisk
from hpcdata.catalogue.transfer.part import Lane, Part
from hpcdata.catalogue.web import Answer, Web
from hpcdata.net.loop import drive

SMALL = 8 << 20
INTERVAL = 64 << 20
_MOST_RESTARTS = 5
"""From the first byte on, of one attempt: what has brought bytes is no progress when they are thrown away."""
_NO_FILE = ("text/html", "application/xhtml+xml")
_SCRATCH = 1 << 18


@dataclass(frozen=True)
class Begun:
    """A small file that did not come at once, and why."""

    part: InMemory
    fault: Fault | None = None


@dataclass
class Fetcher:
    """What all files of a process share. patience_s: how long a file may bring no new byte before it is given up.
    interval: bytes between checkpoints, which is what a kill may cost of a file.
    """

    web: Web
    wait: Callable[[float], bool]
    patience_s: float = 900.0
    interval: int = INTERVAL
    connections: Connections = field(default_factory=Connections)
    num_bytes: int = 0
    """Received for this process."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def is_small(self, size: int | None) -> bool:
        return size is not None and size <= min(SMALL, self.interval)

    async def fetch_once(self, wanted: Wanted, target: str, parts: Path) -> Here | Begun:
        """Brings a small file, in the loop of `web`, if it comes at once. Raises OSError when it cannot be written."""
        part = InMemory(wanted)
        try:
            if (gap := part.missing()) is not None:
                await self._receive(wanted, part, *gap, None, in_loop=True)
            part.require_right()
            return part.publish(target, parts)
        except Fault as fault:
            return Begun(part, fault)

    def fetch(self, wanted: Wanted, target: Path, parts: Path, begun: Begun | None = None) -> Here:
        """Brings a file. Raises Fault when it does not come, OSError when it cannot be written."""
        if begun is not None:
            return self._patiently(wanted, begun.part, target, parts, begun.fault)
        if self.is_small(wanted.size):
            return self._patiently(wanted, InMemory(wanted), target, parts)
        with contextlib.closing(OnDisk(wanted, parts / wanted.key(), self.interval)) as part:
            return self._patiently(wanted, part, target, parts)

    def _patiently(
        self, wanted: Wanted, part: InMemory | OnDisk, target: Path, parts: Path, fault: Fault | None = None
    ) -> Here:
        """fault: what has come of the first time already."""
        last, tries, mismatches = time.monotonic(), 0, 0
        most_restarts = part.num_restarts + _MOST_RESTARTS
        while True:
            before = part.num_bytes
            try:
                if fault is not None:
                    former, fault, before = fault, None, 0
                    raise former
                while not part.is_whole(self.wait):
                    self._bring(wanted, part)
                part.require_right()
                return part.publish(target, parts)
            except Fault as met:
                if met.kind == "wrong":
                    mismatches += 1
                    part.restart()
                    if mismatches > 1:
                        raise
                elif met.kind != "busy" or met.reason == "stopped":
                    raise
                if part.num_restarts > most_restarts:
                    raise
                if part.num_bytes > before:
                    last, tries = time.monotonic(), 0
                tries += 1
                if time.monotonic() - last > self.patience_s:
                    raise
                self.web.wait_after(met, tries, last + self.patience_s - time.monotonic(), self.wait)

    def _bring(self, wanted: Wanted, part: InMemory | OnDisk) -> None:
        """All that is missing and not in work. Raises Fault."""
        if isinstance(part, OnDisk):
            self.connections.bring(part, lambda begin, end, lane: drive(self._receive(wanted, part, begin, end, lane)))
        elif (gap := part.missing()) is not None:
            drive(self._receive(wanted, part, *gap, None))

    async def _receive(
        self, wanted: Wanted, part: Part, begin: int, end: int | None, given: Lane | None, *, in_loop: bool = False
    ) -> bool:
        """The bytes [begin, end) by one request; False when the server sends others than those that were asked for.

        given: their lane, when there are other connections; without one, whatever the server sends is made use of, to
        the end of the gap where it sends more. Raises Fault.
        """
        if given is None and part.num_bytes and part.validator is None and not wanted.is_vouched_for():
            part.restart()  # nothing would say whether the rest is of the same file
            begin, end = 0, part.size
        asked = None if given is None and end == part.size else end
        asking = self.web.open(wanted.url, offset=begin, end=asked, validator=part.validator, in_loop=in_loop)
        async with asking as answer:
            fits = answer.begin == begin and (asked is None or answer.end == asked)
            if given is not None:
                if not fits or not _is_same(answer, part, wanted) or answer.total not in (None, part.size):
                    raise Fault("busy", "range", f"{wanted.path}: its server does not give ranges of one content")
                await self._take_in(answer, given, end)
                return True
            if answer.status == 416 and not begin and asked is not None:
                return False  # it gives no ranges at all, and is asked for the whole
            skip = _bytes_to_skip(answer, part, begin, wanted)
            _require_promise(answer, wanted)
            if skip < 0:
                begin, skip = 0, 0
            part.begin(answer)
            if not fits:  # as far as it is of use
                gap = part.missing()
                end = part.size if gap is None or gap[0] != begin else gap[1]
            await self._skip(answer, skip)
            await self._take_alone(answer, part, begin, end, wanted)
            return fits

    async def _take_alone(self, answer: Answer, part: Part, begin: int, end: int | None, wanted: Wanted) -> None:
        lane = part.lane(begin, end)
        try:
            await self._take_in(answer, lane, end)
        finally:
            lane.close()
        if end is None:
            if answer.is_range and answer.total is None:
                raise Fault("busy", "cut", f"{wanted.path}: {lane.place} bytes came, and nobody says of how many")
            part.end(lane.place)
        elif end == wanted.size and await answer.read_into(memoryview(bytearray(1))):
            raise Fault("wrong", "size", f"{wanted.path}: more bytes come than the {end} of its listing")

    async def _take_in(self, answer: Answer, lane: Lane, end: int | None) -> None:
        """Raises Fault for a body that ends before."""
        while end is None or lane.place < end:
            count = await answer.read_into(lane.room())
            if not count:
                break
            lane.received(count)
            self._count(count)
            if self.wait(0):
                raise Fault("busy", "stopped", "the process is to stop")
        promised = answer.total if end is None else end
        if promised is not None and lane.place < promised:
            raise Fault("busy", "cut", f"{lane.place} of {promised} bytes came")

    async def _skip(self, answer: Answer, count: int) -> None:
        scratch = memoryview(bytearray(min(count, _SCRATCH)))
        while count:
            read = await answer.read_into(scratch[:count])
            if not read:
                raise Fault("busy", "cut", f"{count} bytes before those that are missing did not come")
            self._count(read)
            count -= read

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            self.num_bytes += num_bytes


def _is_same(answer: Answer, part: Part, wanted: Wanted) -> bool:
    """Of the content that the part is of, as far as one can tell before it is whole."""
    return wanted.is_vouched_for() or answer.validator in (None, part.validator)


def _bytes_to_skip(answer: Answer, part: Part, begin: int, wanted: Wanted) -> int:
    """How much of the body is here already: all up to `begin` where the server has ignored the range. -1 when the file
    is another by now, and this is its beginning. Raises Fault for an answer that does not go on where the part ends;
    then, too, the part is begun anew.
    """
    if answer.status == 416:
        if begin and answer.total == begin and _is_same(answer, part, wanted):
            return 0  # there is nothing after the part: it is whole
        part.restart()
        raise Fault("busy" if begin else "refused", "http 416", f"{wanted.path}: no bytes from {begin} on")
    if answer.begin == begin and (_is_same(answer, part, wanted) or not part.num_bytes):
        return 0
    if answer.begin == 0 and answer.validator is not None and answer.validator == part.validator:
        return begin
    part.restart()
    if answer.begin == 0:
        return -1
    if answer.begin == begin:
        raise Fault("busy", "changed", f"{wanted.path}: another file is there than the one that was begun")
    raise Fault("busy", "range", f"asked for the bytes from {begin} on, got those from {answer.begin} on")


def _require_promise(answer: Answer, wanted: Wanted) -> None:
    is_page = answer.content_type in _NO_FILE and not re.search(r"\.x?html?$", wanted.path)
    if wanted.size is not None and answer.total is not None and answer.total != wanted.size:
        what = "a page of words" if is_page else f"{answer.total} bytes"
        raise Fault("wrong", "page" if is_page else "size", f"{wanted.path}: {what}, expected {wanted.size} bytes")
    if is_page and wanted.size is None:
        raise Fault("wrong", "page", f"{wanted.path}: the server sends a page of words ({answer.content_type})")
