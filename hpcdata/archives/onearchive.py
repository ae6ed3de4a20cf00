"""An archive into a folder, member by member: nothing outside of it, no link, no device, nothing there replaced.

A member is written under another name, and appears when it is whole; `journal` notes it once it is durable. Killed at
any moment, the same call goes on with the first member that is not noted, and the files are the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.archives import tars, zips
from hpcdata.archives.journal import BEGINS, COMPLETE, DAMAGED, DUPLICATE, WRITTEN, Journal, Line
from hpcdata.archives.members import Damaged, Entry, Exceeded
from hpcdata.archives.names import OWN, Unfit, label_of, path_of
from hpcdata.archives.parts import Archive, Parts
from hpcdata.base import files, units
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.reads import naming
from hpcdata.sources.limits import most_records, most_unpacked
from hpcdata.sources.streams import is_tar_header

log = logging.getLogger(__name__)

_BATCH_FILES, _BATCH_BYTES = 512, 1 << 27
_SAY_S = 30.0
_EXISTS = "exists"
_UNREADABLE = (DAMAGED, "encrypted", "unknown_compression")
"""Members with data that are not there, and nobody has meant to leave them out."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one archive; by default 100 times its size and 256 MiB, a member for 64 bytes, a folder for 4 members."""

    bytes: int | None = None
    members: int | None = None


BY_SIZE = Limits()


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What became of an archive. Results: `written`, `duplicate`, or the reason why a member was left out."""

    archive: str
    members: int
    results: Counter[str]
    damage: str = ""
    """Why it could not be read to its end; the same call tries again."""

    def describe(self) -> str:
        left = sorted((name, number) for name, number in self.results.items() if name != WRITTEN)
        text = f"{self.archive}: {self.members} members = {self.results[WRITTEN]} written"
        text += "".join(f" + {number} {name}" for name, number in left)
        return f"{text}; DAMAGED: {self.damage}" if self.damage else text

    @property
    def is_whole(self) -> bool:
        """Whether every member is there."""
        return not self.damage and self.members == self.results[WRITTEN] + self.results[DUPLICATE]

    @property
    def is_good(self) -> bool:
        """Whether all that may be unpacked could be read."""
        return not self.damage and not any(self.results[name] for name in _UNREADABLE)


def unpack_archive(
    archive: Archive,
    out: Path,
    journal: Journal,
    *,
    limits: Limits = BY_SIZE,
    renews: bool = False,
    after_batch: Callable[[], object] = lambda: None,
) -> Unpacked:
    """One archive into `out`, which is there. Only one process at a time may be at an archive; others may be at others.

    renews: where the archive is another one than the journal knows, files of the former one are replaced; else it is
    refused. after_batch: is called whenever all so far is durable, and may raise. Raises UserError, Failed.
    """
    work = out / f"{OWN}-unpacking-{hashlib.sha256(archive.label.encode(errors='surrogateescape')).hexdigest()[:12]}"
    try:
        return _Unpacking(archive, out, journal, limits, renews, after_batch, work).run()
    finally:
        files.remove_folder(work)


@dataclass(kw_only=True)
class _Done:
    """What the journal says of an archive."""

    identity: str = ""
    is_complete: bool = False
    results: dict[int, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Of members that were written."""


class _Unpacking:
    def __init__(
        self,
        archive: Archive,
        out: Path,
        journal: Journal,
        limits: Limits,
        renews: bool,
        after_batch: Callable[[], object],
        work: Path,
    ) -> None:
        self._archive, self._out, self._journal = archive, out, journal
        self._limits, self._renews, self._after_batch = limits, renews, after_batch
        self._work = work / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._done = self._known()
        self._former: dict[str, str] | None = None
        self._batch: list[Line] = []
        self._fresh: list[Path] = []
        self._size = 0
        self._folders: set[Path] = {out}
        self._said = time.monotonic()

    def run(self) -> Unpacked:
        damage = ""
        if not self._done.is_complete:
            try:
                for entry in self._entries():
                    self._take(entry)
            except Damaged as damaged:
                damage = str(damaged)
            self._flush()
            if not damage:
                number = len(self._done.results)
                self._journal.append([Line(archive=self._archive.label, size=number, result=COMPLETE)])
        results = Counter(self._done.results.values())
        return Unpacked(archive=self._archive.label, members=results.total(), results=results, damage=damage)

    def _known(self) -> _Done:
        """Files of the journal that are gone or shorter are made again, and what was damaged is tried again."""
        done, identity, again = _Done(), self._archive.identity(), set[int]()
        for line in self._journal.lines(self._archive.label):
            if line.result == BEGINS:
                done, again = _Done(identity=line.sha256), set()
            elif line.result == COMPLETE:
                done.is_complete = True
            elif line.result == DAMAGED or (line.result == WRITTEN and not self._is_there(line)):
                again.add(line.number)
                done.results.pop(line.number, None)
                done.names.discard(line.member)
            else:
                again.discard(line.number)
                done.results[line.number] = line.result
                done.names |= {line.member} if line.result == WRITTEN else set()
        if done.identity and done.identity != identity and not self._renews:
            raise UserError(
                f"{self._archive.label} is not the archive that {self._out} was unpacked from: restore it, or unpack "
                "into another folder"
            )
        if done.identity != identity:
            self._journal.append([Line(archive=self._archive.label, sha256=identity, result=BEGINS)])
            return _Done(identity=identity)
        done.is_complete = done.is_complete and not again
        return done

    def _is_there(self, line: Line) -> bool:
        try:
            return os.lstat(self._out / line.member).st_size == line.size
        except OSError:
            return "\\" in line.member  # a name that is escaped in the journal

    def _entries(self) -> Iterator[Entry]:
        """Raises Damaged, Failed, and UserError for what is no archive."""
        with Parts(self._archive.paths) as parts:
            most = most_unpacked(parts.size) if self._limits.bytes is None else self._limits.bytes
            most_members = self._limits.members or most_records(parts.size, is_tar=True)
            beginning = parts.read(0, 512)
            if beginning.startswith(zips.MARK):
                found = zips.Zip(parts)
                self._require("members", found.num_members, most_members)
                self._require("bytes", found.total, most)
                self._require_room(found.total)
                entries = found.entries()
            elif beginning.startswith(tuple(tars.CODECS)) or is_tar_header(beginning):
                entries = tars.entries(parts, max(most, parts.size))
            else:
                raise UserError(f"{self._archive.paths[0]} is no archive that is unpacked: zip or tar, also compressed")
            for entry in entries:
                self._require("members", entry.number + 1, most_members)
                yield entry
                self._require("folders", len(self._folders), most_members // 4, "members")

    def _require(self, what: str, number: int, most: int, option: str = "") -> None:
        if number > most:
            told = f"it has {number} {what}, the limit is {most}"
            raise Exceeded(f"{told}; hpcdata unpack --max-{option or what} allows more")

    def _require_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._out).free
        if not self._done.results and needed > free:
            name, has = self._archive.paths[0], units.size(free)
            raise Failed(f"{name} unpacks to {units.size(needed)}, and {self._out} has {has}: make room")

    def _take(self, entry: Entry) -> None:
        if entry.number in self._done.results:
            return
        name = label_of(entry.name)
        size, sha256 = entry.size, ""
        try:
            if entry.problem:
                raise Unfit(entry.problem)
            path = path_of(entry.name)
            size, sha256 = self._write(entry, path)
            result = self._place(self._out / path, name, sha256)
        except Unfit as unfit:
            result = str(unfit)
        except Exceeded:
            raise
        except Damaged as damaged:
            log.warning("%s: %s is damaged: %s", self._archive.label, name, damaged)
            result = DAMAGED
        self._done.results[entry.number] = result
        self._done.names |= {name} if result == WRITTEN else set()
        line = Line(
            archive=self._archive.label, number=entry.number, member=name, size=size, sha256=sha256, result=result
        )
        self._batch.append(line)
        self._size += size
        if len(self._batch) >= _BATCH_FILES or self._size >= _BATCH_BYTES:
            self._flush()
            self._after_batch()

    def _write(self, entry: Entry, path: str) -> tuple[int, str]:
        """(size, sha256) of what is under the name of the work now."""
        self._require_folder((self._out / path).parent)
        self._work.parent.mkdir(exist_ok=True)
        hasher, size = hashlib.sha256(), 0
        with naming(self._work), open(self._work, "wb") as file:
            for piece in entry.pieces():
                hasher.update(piece)
                file.write(piece)
                size += len(piece)
        return size, hasher.hexdigest()

    def _require_folder(self, folder: Path) -> None:
        """Makes it below the output. Raises Unfit where something else is in the way, as a link is."""
        if folder in self._folders:
            return
        self._require_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            if not os.path.lexists(folder):
                raise
        if folder.is_symlink() or not folder.is_dir():
            raise Unfit(_EXISTS)
        self._folders.add(folder)

    def _place(self, path: Path, name: str, sha256: str) -> str:
        """Gives the member its name; the result."""
        if not files.place(self._work, path):
            found = "" if path.is_symlink() or not path.is_file() else sha256_file(path)
            is_ours = name in self._done.names
            if found and found != sha256 and not is_ours and self._of_former().get(name) == found:
                os.replace(self._work, path)
            elif found != sha256:
                return _EXISTS
            elif is_ours:
                return DUPLICATE
        self._fresh.append(path)
        return WRITTEN

    def _of_former(self) -> dict[str, str]:
        """Member -> sha256 of what a former archive of this label has written, or of what a check has found damaged;
        read when it is needed.
        """
        if self._former is None:
            lines = self._journal.lines(self._archive.label) if self._renews else ()
            self._former = {line.member: line.sha256 for line in lines if line.result in (WRITTEN, DAMAGED)}
        return self._former

    def _flush(self) -> None:
        """What the batch speaks of is durable, and then noted."""
        files.sync_files(self._fresh)
        holding = {path.parent for path in self._fresh}
        for folder in sorted(holding.union(*(folder.parents for folder in holding)) & self._folders):
            files.sync_folder(folder)
        self._journal.append(self._batch)
        if self._batch and time.monotonic() - self._said > _SAY_S:
            self._said = time.monotonic()
            log.info("%s: %d members", self._archive.label, len(self._done.results))
        self._batch, self._fresh, self._size = [], [], 0
