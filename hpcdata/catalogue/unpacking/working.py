"""All archives of a set: each is unpacked once, by one process, and goes on after a kill at the member where it was."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.archives.journal import Journal
from hpcdata.archives.onearchive import Unpacked, unpack_archive
from hpcdata.archives.parts import Archive
from hpcdata.base.errors import UserError
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.record import FOLDER, Record
from hpcdata.catalogue.unpacking.marks import Mark, archives_of, missing_of
from hpcdata.runs.claims import Claims, Owner

_LEASE_S = 60.0


@dataclass
class Done:
    """By this process: what became of archives that are unpacked, and why others are not."""

    archives: list[Unpacked] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Of archives that are unpacked, as a text each: which have members that are not."""
    problems: list[str] = field(default_factory=list)


def unpack_all(entry: Entry, folder: Path, wait: Callable[[float], bool], *, waits: bool = True) -> Done:
    """Unpacks what is not unpacked yet; waits: also for what other processes are at. Raises Fault when `wait` says to
    stop.
    """
    known, done = Record(folder).read().here, Done()
    missing = set(missing_of(entry, folder))
    todo = {name: into for name, into in archives_of(entry, folder).items() if name in missing}
    if not todo:
        return done
    owner = Owner.of_this_process(f"{os.getpid()}-{secrets.token_hex(6)}")
    with Claims(folder / FOLDER / "claims", owner, timeout_s=_LEASE_S) as claims:
        while todo:
            for name, into in list(todo.items()):
                mark, sha256 = Mark(folder, name), known[name].sha256
                claim = f"unpack-{mark.key}"
                if mark.is_of(sha256):
                    del todo[name]
                elif claims.try_claim(claim):
                    try:
                        if not mark.is_of(sha256):
                            _unpack(mark, sha256, into, wait, done)
                        del todo[name]
                    finally:
                        claims.release(claim)
            if not waits:
                break
            if todo:
                _go_on(wait, 0.5)
    return done


def _unpack(mark: Mark, sha256: str, into: str, wait: Callable[[float], bool], done: Done) -> None:
    path, out = mark.folder / mark.name, mark.folder / into
    out.mkdir(parents=True, exist_ok=True)
    mark.journal.parent.mkdir(parents=True, exist_ok=True)
    archive = Archive(label=mark.name, paths=(str(path),))
    try:
        with Journal(mark.journal) as journal:
            made = unpack_archive(archive, out, journal, renews=True, after_batch=lambda: _go_on(wait, 0))
    except UserError as error:
        done.problems.append(str(error))
        return
    if made.is_good:
        mark.write(sha256, into, made.results)
        done.archives.append(made)
        done.left_out += [] if made.is_whole else [f"{made.describe()}: {mark.journal}"]
    else:
        done.problems.append(
            f"{path} is not unpacked whole: {made.describe()}. {mark.journal} says which, and hpcdata download --check "
            "whether the archive is as it was fetched"
        )


def _go_on(wait: Callable[[float], bool], seconds: float) -> None:
    if wait(seconds):
        raise Fault("busy", "stopped", "the process is to stop")
