"""All archives of a set: each is unpacked once, by one process, and goes on after a kill at the member where it was.

    SET/.hpcdata/unpacked/KEY.json      sealed when an archive is done: its sha256, how many files and bytes came out
    SET/.hpcdata/unpacked/KEY.members   while it is not: how many members are durable

A file is written under a temporary name and renamed when its bytes are whole and their sum is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from hpcdata.base import files, sealed, units
from hpcdata.base.errors import Failed
from hpcdata.catalogue import listing
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.record import Record
from hpcdata.catalogue.registry import matcher
from hpcdata.catalogue.unpacking import archives
from hpcdata.runs.claims import Claims, Owner

_SYNC_AFTER = 256
_LEASE_S = 60.0


def archives_of(entry: Entry, folder: Path) -> dict[str, str]:
    """Path of an archive that is here -> folder to unpack it into, both below that of the set."""
    listed = listing.load(folder)
    names = [item.path for item in listed.files] if listed is not None else []
    found = {}
    for pattern, into in entry.unpack.items():
        fits = matcher([pattern]).fullmatch
        for name in names:
            if fits(name):
                found[name] = into
    return found


def missing_of(entry: Entry, folder: Path) -> list[str]:
    """Archives that are not unpacked yet."""
    if not entry.unpack:
        return []
    known = Record(folder).read().here
    return [
        name for name in archives_of(entry, folder) if name not in known or _done(folder, name) != known[name].sha256
    ]


def unpack_all(entry: Entry, folder: Path, wait: Callable[[float], bool], *, waits: bool = True) -> int:
    """Unpacks what is not unpacked yet; waits: also for what other processes are at. Returns how many archives this one
    did. Raises Failed for an archive that is damaged or larger than the disk, UserError for a hostile one.
    """
    known, number = Record(folder).read().here, 0
    todo = {name: into for name, into in archives_of(entry, folder).items() if name in missing_of(entry, folder)}
    if not todo:
        return 0
    owner = Owner.of_this_process(f"{os.getpid()}-{secrets.token_hex(6)}")
    with Claims(folder / ".hpcdata" / "claims", owner, timeout_s=_LEASE_S) as claims:
        while todo:
            for name, into in list(todo.items()):
                claim = f"unpack-{_key(name)}"
                if _done(folder, name) == known[name].sha256:
                    del todo[name]
                elif claims.try_claim(claim):
                    try:
                        if _done(folder, name) != known[name].sha256:
                            _unpack(folder, name, into, known[name].sha256, wait)
                            number += 1
                        del todo[name]
                    finally:
                        claims.release(claim)
            if not waits:
                break
            if todo and wait(0.5):
                raise Fault("busy", "stopped", "the process is to stop")
    return number


def _unpack(folder: Path, name: str, into: str, sha256: str, wait: Callable[[float], bool]) -> None:
    path, own = folder / name, folder / ".hpcdata" / "unpacked"
    own.mkdir(parents=True, exist_ok=True)
    progress, temporary = own / f"{_key(name)}.members", own / f"{_key(name)}.tmp"
    durable = _number_in(progress, sha256)
    number = num_bytes = 0
    unsure: list[Path] = []
    try:
        if not durable:
            _require_room(path, folder)
        with archives.opened(path) as members:
            for member in members:
                number, num_bytes = number + 1, num_bytes + member.size
                if number <= durable:
                    continue
                target = folder / into / PurePosixPath(member.name)
                archives.write(member, temporary, target)
                unsure.append(target)
                if len(unsure) >= _SYNC_AFTER:
                    _note(progress, sha256, number, unsure)
                    if wait(0):
                        raise Fault("busy", "stopped", "the process is to stop")
    except archives.DAMAGED as error:
        raise Failed(
            f"{path} is damaged: {error}; hpcdata download --check says whether it is as it was fetched"
        ) from None
    _note(progress, sha256, number, unsure)
    values = {"archive": name, "sha256": sha256, "files": number, "bytes": num_bytes, "into": into}
    files.write_atomic(own / f"{_key(name)}.json", sealed.to_json(values))
    progress.unlink(missing_ok=True)


def _note(progress: Path, sha256: str, number: int, unsure: list[Path]) -> None:
    for path in unsure:
        with contextlib.suppress(FileNotFoundError):
            files.sync_file(path)
    for folder in {path.parent for path in unsure}:
        files.sync_folder(folder)
    unsure.clear()
    files.write_atomic(progress, sealed.to_json({"members": number, "sha256": sha256}))


def _number_in(progress: Path, sha256: str) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = sealed.read_json(progress)
        return int(values["members"]) if values["sha256"] == sha256 else 0
    return 0


def _require_room(path: Path, folder: Path) -> None:
    needed, free = archives.size_of(path), shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise Failed(f"{path} unpacks to {units.size(needed)}, and {folder} has {units.size(free)}: make room")


def _done(folder: Path, name: str) -> str | None:
    """The sha256 of the archive that was unpacked."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(sealed.read_json(folder / ".hpcdata" / "unpacked" / f"{_key(name)}.json")["sha256"])
    return None


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
