"""One file: asked for until it is whole and right, or given up.

What is here already is not asked for again: a byte is fetched once, and those after the last checkpoint once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcdata.catalogue.faults import Fault, Wanted
from hpcdata.catalogue.parts import InMemory, OnDisk
from hpcdata.catalogue.record import Here
from hpcdata.catalogue.web import Answer, Web

SMALL = 8 << 20
INTERVAL = 64 << 20
_BLOCK = 4 << 20
_MOST_RESTARTS = 5
"""From the first byte on, of one attempt: what has brought bytes is no progress when they are thrown away."""
_NO_FILE = ("text/html", "application/xhtml+xml")


@dataclass
class Fetcher:
    """What all files of a process share. patience_s: how long a file may bring no new byte before it is given up.
    interval: bytes between checkpoints, which is what a kill may cost of a file.
    """

    web: Web
    wait: Callable[[float], bool]
    patience_s: float = 900.0
    interval: int = INTERVAL
    num_bytes: int = 0
    """Received for this process."""

    def fetch(self, wanted: Wanted, target: Path, parts: Path) -> Here:
        """Brings a file. Raises Fault when it does not come, OSError when it cannot be written."""
        if wanted.size is not None and wanted.size <= min(SMALL, self.interval):
            return self._patiently(wanted, InMemory(wanted), target, parts)
        with contextlib.closing(OnDisk(wanted, parts / wanted.key(), self.interval)) as part:
            return self._patiently(wanted, part, target, parts)

    def _patiently(self, wanted: Wanted, part: InMemory | OnDisk, target: Path, parts: Path) -> Here:
        last, tries, mismatches = time.monotonic(), 0, 0
        most_restarts = part.num_restarts + _MOST_RESTARTS
        while True:
            before = part.offset
            try:
                if not part.is_whole():
                    self._receive(wanted, part)
                part.require_right()
                return part.publish(target, parts)
            except Fault as fault:
                if fault.kind == "wrong":
                    mismatches += 1
                    part.restart()
                    if mismatches > 1:
                        raise
                elif fault.kind != "busy" or fault.reason == "stopped":
                    raise
                if part.num_restarts > most_restarts:
                    raise
                if part.offset > before:
                    last, tries = time.monotonic(), 0
                tries += 1
                if time.monotonic() - last > self.patience_s:
                    raise
                seconds = fault.retry_after_s if fault.retry_after_s is not None else min(0.25 * 2**tries, 30.0)
                if self.wait(min(seconds, max(0.0, last + self.patience_s - time.monotonic()))):
                    raise Fault("busy", "stopped", "the process is to stop") from None

    def _receive(self, wanted: Wanted, part: InMemory | OnDisk) -> None:
        if part.offset and part.validator is None and not wanted.is_vouched_for():
            part.restart()  # nothing would say whether the rest is of the same file
        with self.web.open(wanted.url, offset=part.offset, validator=part.validator) as answer:
            skip = _bytes_to_skip(answer, part, wanted)
            _require_promise(answer, wanted)
            part.begin(answer)
            room = None if wanted.size is None else wanted.size - part.offset
            for chunk in answer.chunks:
                self.num_bytes += len(chunk)
                if skip:
                    skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
                    if not chunk:
                        continue
                if room is not None and (room := room - len(chunk)) < 0:
                    raise Fault(
                        "wrong", "size", f"{wanted.path}: more bytes come than the {wanted.size} of its listing"
                    )
                part.write(chunk)
                if self.wait(0):
                    part.checkpoint()
                    raise Fault("busy", "stopped", "the process is to stop")
            end = wanted.size if answer.total is None else answer.total
            if end is None and answer.is_range:
                raise Fault("busy", "cut", f"{wanted.path}: {part.offset} bytes came, and nobody says of how many")
            if end is not None and part.offset < end:
                raise Fault("busy", "cut", f"{wanted.path}: {part.offset} of {end} bytes came")
            part.is_complete = True


def hash_file(path: Path, wait: Callable[[float], bool] = lambda _: False) -> str:
    """sha256 at the speed of the disk. Raises OSError, and Fault when the process is to stop."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            if wait(0):
                raise Fault("busy", "stopped", "the process is to stop")
    return digest.hexdigest()


def is_right(path: Path, wanted: Wanted, wait: Callable[[float], bool]) -> str | None:
    """The sha256 of a file that is there already, when what is known of it says that it is the one; else None."""
    if wanted.size is not None and path.stat().st_size != wanted.size:
        return None
    found = hash_file(path, wait)
    if wanted.sha256 is not None:
        return found if found == wanted.sha256 else None
    if wanted.git_sha1 is not None:
        data = path.read_bytes()
        return found if hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == wanted.git_sha1 else None
    return None


def _bytes_to_skip(answer: Answer, part: InMemory | OnDisk, wanted: Wanted) -> int:
    """How much of the body is here already: all of the part where the server has ignored the range. Raises Fault for an
    answer that does not go on where the part ends; then the part is begun anew.
    """
    here = part.offset
    is_same = wanted.is_vouched_for() or answer.validator in (None, part.validator)
    if answer.status == 416:
        if here and answer.total == here and is_same:
            return 0  # there is nothing after the part: it is whole
        part.restart()
        raise Fault("busy" if here else "refused", "http 416", f"{wanted.path}: no bytes from {here} on")
    if answer.begin == here and (is_same or not here):
        return 0
    if answer.begin == 0 and answer.validator is not None and answer.validator == part.validator:
        return here
    part.restart()
    if answer.begin == 0:
        return 0
    if answer.begin == here:
        raise Fault("busy", "changed", f"{wanted.path}: another file is there than the one that was begun")
    raise Fault("busy", "range", f"asked for the bytes from {here} on, got those from {answer.begin} on")


def _require_promise(answer: Answer, wanted: Wanted) -> None:
    is_page = answer.content_type in _NO_FILE and not re.search(r"\.x?html?$", wanted.path)
    if wanted.size is not None and answer.total is not None and answer.total != wanted.size:
        what = "a page of words" if is_page else f"{answer.total} bytes"
        raise Fault("wrong", "page" if is_page else "size", f"{wanted.path}: {what}, expected {wanted.size} bytes")
    if is_page and wanted.size is None:
        raise Fault("wrong", "page", f"{wanted.path}: the server sends a page of words ({answer.content_type})")
