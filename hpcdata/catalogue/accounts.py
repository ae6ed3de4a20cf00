"""How a set is fetched, what came of it, in words too, and when a file of it needs nothing more."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.base import units
from hpcdata.base.command import DONE, FAILED, say
from hpcdata.catalogue.listing import Listed
from hpcdata.catalogue.record import Here, Known
from hpcdata.catalogue.transfer.connections import MOST, PIECE
from hpcdata.catalogue.transfer.fetcher import INTERVAL

log = logging.getLogger(__name__)

_MOST_PATHS, _MOST_LETTERS = 5, 200


@dataclass
class Account:
    """files = kept + fetched + failed + open, by this process and as it has seen the others' work."""

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

    def num_open(self) -> int:
        """Files that a stop or other processes have left."""
        return max(0, self.num_files - self.kept - self.fetched - len(self.failed))


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


@dataclass
class Result:
    """Of one set. problem: why it cannot be fetched at all; code: the exit code that this means. left_out: of archives
    that have members which are not unpacked, what became of them."""

    name: str
    account: Account = field(default_factory=Account)
    problem: str = ""
    code: int = DONE
    left_out: list[str] = field(default_factory=list)
    pictures: str = ""
    """The line that fetches those of a list of addresses."""


def joined(shares: list[list[Result]]) -> list[Result]:
    """One result a set: what all processes have done for it."""
    found: dict[str, Result] = {}
    for results in shares:
        for result in results:
            one = found.setdefault(result.name, Result(result.name))
            one.account = sum_of(one.account, result.account)
            one.left_out += result.left_out
            one.pictures = one.pictures or result.pictures
            if result.code == FAILED or (result.problem and not one.problem):
                one.problem, one.code = result.problem, result.code
    return list(found.values())


def sum_of(one: Account, other: Account) -> Account:
    """Of two processes, or of two passes of one: each counts as kept what the other has fetched."""
    num_files = max(one.num_files, other.num_files)
    fetched = one.fetched + other.fetched
    failed = one.failed | other.failed
    is_stopped = one.is_stopped or other.is_stopped
    missing = is_stopped and max(0, num_files - max(one.kept + one.fetched, other.kept + other.fetched))
    return Account(
        num_files=num_files,
        kept=max(0, num_files - fetched - len(failed) - missing),
        fetched=fetched,
        num_bytes=one.num_bytes + other.num_bytes,
        failed=failed,
        told=one.told | other.told,
        is_stopped=is_stopped,
        unpacked=one.unpacked + other.unpacked,
        removed=one.removed + other.removed,
    )


def say_result(result: Result) -> None:
    account = result.account
    if result.problem:
        say(f"{result.name}: {result.problem}")
        return
    say(
        f"{result.name}: {units.counted(account.num_files, 'file')} = {account.fetched} fetched + {account.kept} kept "
        f"+ {len(account.failed)} failed"
        + (f" + {account.num_open()} not yet" if account.num_open() else "")
        + (f"; {units.counted(account.unpacked, 'archive')} unpacked" if account.unpacked else "")
        + (f"; {units.counted(account.removed, 'file')} of the revision before removed" if account.removed else "")
    )
    for text in [*result.left_out, *([f"its pictures: {result.pictures}"] if result.pictures else [])]:
        say(f"    {text}")
    for reason, count in sorted(account.reasons().items()):
        paths = [_shown(path) for path, found in account.failed.items() if found == reason][:_MOST_PATHS]
        more = f" and {count - len(paths)} more" if count > len(paths) else ""
        say(f"    {reason}: {count}: {', '.join(paths)}{more}")
        if told := account.told.get(reason):
            say(f"        {told}")


def _shown(path: str) -> str:
    """Names may be anything: a line of them stays a line."""
    path = path if path.isprintable() else ascii(path)
    return path if len(path) <= _MOST_LETTERS else f"{path[:_MOST_LETTERS]}..."


def result_as_json(result: Result) -> dict[str, object]:
    account = result.account
    return {
        "name": result.name,
        "files": account.num_files,
        "fetched": account.fetched,
        "kept": account.kept,
        "failed": account.failed,
        "bytes": account.num_bytes,
        "unpacked": account.unpacked,
        "left_out": result.left_out,
        "pictures": result.pictures,
        "problem": result.problem,
    }
