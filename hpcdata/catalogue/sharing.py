"""The work of one process on one set: units of files that it claims, and the threads that fetch them.

A unit is a large file, or small ones together. All processes cut a set at the same places, and claim each unit
(`hpcdata/runs/claims.py`), so that two never fetch the same.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hpcdata.base import units
from hpcdata.base.errors import Failed
from hpcdata.base.files import NO_ROOM
from hpcdata.catalogue.accounts import Account, Options, Tally, fits, is_here
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.listing import Listed
from hpcdata.catalogue.record import FOLDER, Follower, Here, Journal, Known
from hpcdata.catalogue.settings import Hub
from hpcdata.catalogue.transfer.batches import Batch
from hpcdata.catalogue.transfer.connections import Connections
from hpcdata.catalogue.transfer.fetcher import SMALL, Begun, Fetcher
from hpcdata.catalogue.transfer.hashing import hash_file, is_right
from hpcdata.catalogue.transfer.in_memory import InMemory
from hpcdata.catalogue.web import Web
from hpcdata.runs.claims import Claims

log = logging.getLogger(__name__)

_UNIT_FILES, _UNIT_BYTES = 256, 64 << 20
_REPORT_S = 10.0
_LOOK_S = 5.0
_MOST_SHOWN = 200
_OF_ITS_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
"""What is wrong with one file, and not with the disk: too long, or a folder where there should be a file."""


class Work:
    """The threads of one process on one set."""

    def __init__(
        self,
        entry: Entry,
        folder: Path,
        web: Web,
        hub: Hub,
        options: Options,
        wait: Callable[[float], bool],
        claims: Claims,
        journal: Journal,
        account: Account,
        others: Follower,
    ) -> None:
        self._entry, self._folder, self._hub, self._options = entry, folder, hub, options
        self._claims, self._journal, self._account, self._others = claims, journal, account, others
        self._parts = folder / FOLDER / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        self._wait = wait
        self._lock = threading.Lock()
        self._tally = Tally(entry.name, account)
        self._broken: BaseException | None = None
        piece = min(options.piece, options.interval)
        self._fetcher = Fetcher(
            web=web,
            wait=self._wait_here,
            patience_s=options.patience_s,
            interval=options.interval,
            connections=Connections(most=options.connections, num_files=options.num_threads, piece=piece),
        )
        self._loop = web.loop
        self._started = self._reported = time.monotonic()
        self._failed_before = dict(others.update().failed)

    def require_room(self, missing: Sequence[Listed]) -> None:
        """Raises Failed at once when the disk cannot hold what is missing."""
        needed = sum(item.size or 0 for item in missing)
        needed -= sum(map(_bytes_on_disk, self._parts.glob("*")))
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise Failed(
                f"{self._entry.name} needs {units.size(needed)} more, and {self._folder} has {units.size(free)}: make "
                "room, or give another --data-dir"
            )

    def run(self, listed: Sequence[Listed], missing: set[str]) -> None:
        """Until each file is here or has failed, or the process is to stop."""
        units = enumerate(_units(listed))  # of all files: so every process cuts them at the same places
        of_missing = ((number, [item for item in unit if item.path in missing]) for number, unit in units)
        todo = {number: unit for number, unit in of_missing if unit}
        pause_s = 0.2
        while todo and not self._wait_here(0):
            before = len(todo)
            self._pass(todo)
            if not todo or (not self._options.waits and len(todo) == before):
                break
            pause_s = 0.2 if len(todo) < before else min(2 * pause_s, 5.0)
            if self._wait_here(pause_s):  # what others are at work on
                break
        self._account.num_bytes = self._fetcher.num_bytes
        if self._broken is not None:
            raise self._broken
        self._account.is_stopped = self._wait(0)
        self._account.is_waiting = bool(todo) and not self._account.is_stopped

    def _pass(self, todo: dict[int, list[Listed]]) -> None:
        """Every unit that nobody else has; threads take them from one iterator."""
        numbers, lock = iter(sorted(todo)), threading.Lock()

        def work() -> None:
            try:
                while not self._wait_here(0):
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    if self._done_unit(f"unit-{number:06d}", todo[number], max(1, self._options.num_threads // count)):
                        with self._lock:
                            del todo[number]
            except BaseException as error:
                self._broken = self._broken or _told(error)

        count = min(self._options.num_threads, len(todo))
        threads = [threading.Thread(target=work, name=f"fetch-{number}", daemon=True) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(1.0)
                self._report()

    def _done_unit(self, name: str, unit: list[Listed], num_at_once: int) -> bool:
        """False when another process is at it, or this one is to stop."""
        if not self._claims.try_claim(name):
            return False
        try:
            known = self._others.update()  # what they did before we had the claim
            must_stop = self._stop_of(name)
            left = dict[str, Begun]()
            if sum(map(self._is_small, unit)) > 1:
                batch = Batch(filter(self._is_small, unit), lambda item: self._try_file(item, known, left), must_stop)
                batch.run(self._loop, num_at_once)
                unit = [item for item in unit if item.path in left or not self._is_small(item)]
            for item in unit:
                if must_stop():
                    return False
                self._done_file(item, known, left.get(item.path))
            if must_stop():
                return False
            self._journal.sync()
        finally:
            self._claims.release(name)
        return not self._wait_here(0)

    def _is_small(self, item: Listed) -> bool:
        return self._fetcher.is_small(item.size)

    def _stop_of(self, name: str) -> Callable[[], bool]:
        """Whether the process is to stop, or the claim is lost, which is looked at now and then."""
        looked = time.monotonic()

        def must_stop() -> bool:
            nonlocal looked
            if time.monotonic() - looked > _LOOK_S:
                if not self._claims.holds(name):
                    return True
                looked = time.monotonic()
            return self._wait_here(0)

        return must_stop

    async def _try_file(self, item: Listed, known: Known, left: dict[str, Begun]) -> None:
        """A small one, in the loop. left: gets those that patience is needed for."""
        target, wanted = os.path.join(self._folder, item.path), item.wanted(self._hub)
        if self._is_settled(item, known):
            return
        try:
            if os.path.exists(target):
                left[item.path] = Begun(InMemory(wanted))
                return
            here = await self._fetcher.fetch_once(wanted, target, self._parts)
        except OSError as error:
            if error.errno not in _OF_ITS_NAME:
                raise
            here = Begun(InMemory(wanted))
        if isinstance(here, Begun):
            left[item.path] = here
        else:
            self._journal.add(item.path, here)
            self._tally.count(item.path, is_fetched=True)

    def _is_settled(self, item: Listed, known: Known) -> bool:
        """Here, or given up by another process since this one began."""
        if is_here(item, known, self._folder):
            self._tally.count(item.path, is_fetched=False)
            return True
        reason = known.failed.get(item.path)
        if reason is not None and self._failed_before.get(item.path) != reason:
            self._tally.fail(item.path, reason, f"another process: {reason}")
            return True
        return False

    def _done_file(self, item: Listed, known: Known, begun: Begun | None) -> None:
        target = self._folder / item.path
        if self._is_settled(item, known):
            return
        wanted = item.wanted(self._hub)
        try:
            if (here := self._here_already(item, known, target)) is not None:
                self._journal.add(item.path, here)
                self._tally.count(item.path, is_fetched=False)
                return
            here = self._fetcher.fetch(wanted, target, self._parts, begun)
        except Fault as fault:
            if fault.reason != "stopped":
                self._journal.add_failed(item.path, fault.reason)
                self._tally.fail(item.path, fault.reason, fault.detail)
            return
        except OSError as error:
            if error.errno not in _OF_ITS_NAME:
                raise
            self._journal.add_failed(item.path, "name")
            self._tally.fail(item.path, "name", f"{ascii(item.path)[:_MOST_SHOWN]}: {error.strerror}")
            return
        self._journal.add(item.path, here)
        self._tally.count(item.path, is_fetched=True)

    def _here_already(self, item: Listed, known: Known, target: Path) -> Here | None:
        """A file under its final name that the record does not vouch for: one that was noted last before a kill, or
        that a person has put there. What it should be says its sha256, else its line.
        """
        if not target.is_file():
            return None
        found = target.stat()
        sha256 = is_right(target, item.wanted(self._hub), self._wait_here)
        here = known.here.get(item.path)
        if sha256 is None and here is not None and here.size == found.st_size and fits(item, here):
            sha256 = hash_file(target, self._wait_here)
            if sha256 != here.sha256:
                sha256 = None
        if sha256 is None:
            log.info("%s: %s is not what it should be, and is fetched", self._entry.name, item.path)
            return None
        return Here(found.st_size, found.st_mtime_ns, sha256, is_sure=False)

    def _wait_here(self, seconds: float) -> bool:
        return self._broken is not None or self._wait(seconds)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_S:
            return
        self._reported = now
        account, num_bytes = self._account, self._fetcher.num_bytes
        log.info(
            "%s: %d of %d files here, %s received, %s/s, %d failed",
            *(self._entry.name, account.kept + account.fetched, account.num_files),
            *(units.size(num_bytes), units.size(num_bytes / (now - self._started)), len(account.failed)),
        )


def _bytes_on_disk(part: Path) -> int:
    """0 for one that another process has finished meanwhile."""
    try:
        return part.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _units(listed: Sequence[Listed]) -> Iterator[list[Listed]]:
    small: list[Listed] = []
    num_bytes = 0
    for item in listed:
        if item.size is None or item.size > SMALL:
            yield [item]
            continue
        small.append(item)
        num_bytes += item.size
        if len(small) >= _UNIT_FILES or num_bytes >= _UNIT_BYTES:
            yield small
            small, num_bytes = [], 0
    if small:
        yield small


def _told(error: BaseException) -> BaseException:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = os.fsdecode(error.filename) if error.filename else "the disk"
        what = "cannot be written" if error.errno == errno.EROFS else "is full"
        return Failed(
            f"{where} {what}: {error.strerror}; what is there is kept: make room, then type the same line again"
        )
    return error
