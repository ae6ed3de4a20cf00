"""How a set is fetched, what came of it, and when a file of it needs nothing more."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.catalogue.listing import Listed
from hpcdata.catalogue.record import Here, Known
from hpcdata.catalogue.transfer.connections import MOST, PIECE
from hpcdata.catalogue.transfer.fetcher import INTERVAL

log = logging.getLogger(__name__)


@dataclass
class Account:
    """files = kept + fetched + failed, by this process and as it has seen the others' work."""

    num_files: int = 0
    kept: int = 0
    """Were here and right before this process began, or were brought by another one."""
    fetched: int = 0
    num_bytes: int = 0
    """Received from servers by this process, those of broken attempts as well."""
    failed: dict[str, str] = field(default_factory=dict)
    """path -> reason."""
    told: dict[str, str] = field(default_factory=dict)
    """reason -> the first message."""
    is_stopped: bool = False
    is_waiting: bool = False
    """Others are at work on what is missing."""
    unpacked: int = 0
    """Archives, by this process."""
    removed: int = 0
    """Files of a revision before this one, by this process."""

    def reasons(self) -> Counter[str]:
        return Counter(self.failed.values())


class Tally:
    """Adds to an account, from many threads."""

    def __init__(self, name: str, account: Account) -> None:
        self._name, self._account = name, account
        self._counted: set[str] = set()
        self._lock = threading.Lock()

    def count(self, path: str, *, is_fetched: bool) -> None:
        with self._lock:
            if path not in self._counted:  # a unit is begun again when its claim was lost
                self._counted.add(path)
                self._account.failed.pop(path, None)
                self._account.fetched += is_fetched
                self._account.kept += not is_fetched

    def fail(self, path: str, reason: str, detail: str) -> None:
        with self._lock:
            self._account.failed[path] = reason
            if reason not in self._account.told:
                self._account.told[reason] = detail
                log.warning("%s: %s: %s", self._name, reason, detail)


@dataclass(frozen=True, kw_only=True)
class Options:
    """num_threads: files in work at once in this process. connections: those of large files included. piece: bytes of a
    file that are worth a connection.
    """

    num_threads: int = 1
    connections: int = MOST
    piece: int = PIECE
    patience_s: float = 900.0
    interval: int = INTERVAL
    lease_s: float = 60.0
    waits: bool = True
    """For what other processes are at work on; False: does what nobody is at, and returns."""
    anew: bool = False
    """Ask the hub whether there is a newer revision."""


def is_here(item: Listed, known: Known, folder: Path) -> bool:
    here = known.here.get(item.path)
    return here is not None and here.is_sure and fits(item, here) and here.is_as_recorded(folder / item.path)


def fits(item: Listed, here: Here) -> bool:
    if item.sha256 is not None:
        return here.sha256 == item.sha256
    return item.size is None or here.size == item.size
