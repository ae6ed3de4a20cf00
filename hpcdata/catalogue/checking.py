"""Everything of a set read back: which files are missing or are not what was recorded, and why."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.archives.checking import check_members, note_damage
from hpcdata.base.command import quoted
from hpcdata.base.errors import Unfinished
from hpcdata.catalogue import listing
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.record import Here, Record
from hpcdata.catalogue.transfer.hashing import hash_file
from hpcdata.catalogue.unpacking.marks import Mark, archives_of

log = logging.getLogger(__name__)


@dataclass
class Findings:
    """faults: path -> what is wrong. num_bytes: read."""

    num_files: int = 0
    num_bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def check(entry: Entry, folder: Path, *, num_threads: int, wait: Callable[[float], bool]) -> Findings:
    """Hashes every file, and every one that came out of an archive, at the speed of the disk. What is damaged is taken
    from the record, so that the next `hpcdata download` fetches or unpacks it again. Raises Unfinished for a set of
    which nothing is here.
    """
    listed, record = listing.load(folder), Record(folder)
    if listed is None:
        raise Unfinished(f"nothing of {entry.name} is in {folder}: hpcdata download {quoted(entry.name)}")
    known = record.read()
    findings, lock = Findings(num_files=len(listed.files)), threading.Lock()
    items = iter(listed.files)

    def work() -> None:
        while not wait(0):
            with lock:
                item = next(items, None)
            if item is None:
                return
            here = known.here.get(item.path)
            fault, size = _fault(folder / item.path, item.sha256, here, wait)
            with lock:
                findings.num_bytes += size
                if fault:
                    findings.faults[item.path] = fault

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    damaged = findings.faults.keys() & known.here.keys()
    with _as_far_as_it_can_be_written(folder):
        if damaged:
            _forget(record, known.here, damaged)
    for name, into in archives_of(entry, folder).items():
        if not wait(0):
            _check_unpacked(Mark(folder, name), into, findings, num_threads)
    return findings


def _check_unpacked(mark: Mark, into: str, findings: Findings, num_threads: int) -> None:
    if not mark.is_there():
        return
    damaged = []
    for item in check_members(mark.name, mark.folder / into, mark.journal, num_threads=num_threads):
        findings.num_files += 1
        findings.num_bytes += item.line.size if item.sha256 else 0
        if item.fault:
            damaged.append(item)
            findings.faults[os.path.normpath(os.path.join(into, item.line.member))] = item.fault
    if damaged:
        with _as_far_as_it_can_be_written(mark.folder):
            note_damage(mark.journal, damaged)
            mark.remove()


@contextlib.contextmanager
def _as_far_as_it_can_be_written(folder: Path) -> Iterator[None]:
    """What was found is said, also where nobody may note it."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be written (%s): what is damaged is not noted there", folder, error.strerror)


def _fault(path: Path, wanted: str | None, here: Here | None, wait: Callable[[float], bool]) -> tuple[str, int]:
    try:
        size = path.stat().st_size
    except OSError as error:
        gone = "was here, and is gone" if here is not None else "was never fetched"
        return (f"missing: it {gone}" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"), 0
    if here is None:
        return "not recorded: it was never finished, or somebody has put it there", 0
    if size != here.size:
        return f"damaged: {size} bytes, recorded were {here.size}", 0
    try:
        found = hash_file(path, wait)
    except OSError as error:
        return f"cannot be read: {error}", 0
    if found != (wanted or here.sha256):
        return f"damaged: sha256 {found}, expected {wanted or here.sha256}", size
    return "", size


def _forget(record: Record, here: Mapping[str, Here], paths: set[str]) -> None:
    record.seal({path: item for path, item in here.items() if path not in paths})
