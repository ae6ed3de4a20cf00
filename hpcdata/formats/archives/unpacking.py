"""Archives into a folder, member by member: nothing outside of it, no link, no device, nothing that is there replaced.

A member is written under another name, and appears when it is whole; `journal` notes it once it is durable. Killed at
any moment, the same call goes on with the first member that is not noted, and the files are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Unfinished, UserError
from hpcdata.base.reads import naming
from hpcdata.formats.archives import tars, zips
from hpcdata.formats.archives.journal import BEGINS, COMPLETE, DUPLICATE, WRITTEN, Journal, Line
from hpcdata.formats.archives.members import Damaged, Entry, Exceeded
from hpcdata.formats.archives.names import WORK, Unfit, path_of
from hpcdata.formats.archives.parts import Archive, Parts, find_archives
from hpcdata.runs.claims import Claims, Owner
from hpcdata.sources.base import clean_name
from hpcdata.sources.limits import most_records, most_unpacked
from hpcdata.sources.streams import is_tar_header

log = logging.getLogger(__name__)

CLAIM_TIMEOUT_S = 120.0
_BATCH_FILES, _BATCH_BYTES = 512, 1 << 27
_SAY_S = 30.0
_EXISTS, _DAMAGED = "exists", "damaged"


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
    def is_good(self) -> bool:
        return not self.damage and not self.results[_DAMAGED]


def unpack(source: str, out: Path, *, max_bytes: int | None = None, max_members: int | None = None) -> list[Unpacked]:
    """All archives of a file, folder, glob or brace list into `out`. Raises UserError.

    max_bytes, max_members: of one archive; by default 100 times its size and 256 MiB, and one for 64 bytes.
    """
    archives, out = find_archives(source), out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    claims_folder = out.with_name(f".{out.name}.claims")
    owner = Owner.of_this_process(f"unpack-{os.getpid()}-{time.time_ns()}")
    try:
        with Claims(claims_folder, owner, timeout_s=CLAIM_TIMEOUT_S) as claims:
            if not claims.try_claim("unpack"):
                raise Unfinished(f"another process is unpacking into {out}: wait for it, then run this again")
            with Journal(out.with_name(f"{out.name}.members.csv")) as journal:
                made = [_Unpacking(item, out, journal, max_bytes, max_members).run() for item in archives]
    finally:
        with contextlib.suppress(OSError):
            claims_folder.rmdir()
    files.remove_folder(out / WORK)
    return made


@dataclass(kw_only=True)
class _Done:
    """What the journal says of an archive."""

    identity: str = ""
    is_complete: bool = False
    results: dict[int, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Of members that were written."""


class _Unpacking:
    """One archive."""

    def __init__(
        self, archive: Archive, out: Path, journal: Journal, max_bytes: int | None, max_members: int | None
    ) -> None:
        self._archive, self._out, self._journal = archive, out, journal
        self._max_bytes, self._max_members = max_bytes, max_members
        self._done = self._known()
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
        """Files of the journal that are gone or shorter are made again. Raises UserError for another archive."""
        done, identity, is_whole = _Done(), self._archive.identity(), True
        for line in self._journal.lines(self._archive.label):
            if line.result == BEGINS:
                done.identity = line.sha256
            elif line.result == COMPLETE:
                done.is_complete = True
            elif line.result == WRITTEN and not self._is_there(line):
                is_whole = False
                done.results.pop(line.number, None)
            else:
                done.results[line.number] = line.result
                done.names |= {line.member} if line.result == WRITTEN else set()
        if done.identity and done.identity != identity:
            raise UserError(
                f"{self._archive.label} is not the archive that {self._out} was unpacked from: restore it, or unpack "
                "into another folder"
            )
        if not done.identity:
            self._journal.append([Line(archive=self._archive.label, sha256=identity, result=BEGINS)])
        done.is_complete = done.is_complete and is_whole
        return done

    def _is_there(self, line: Line) -> bool:
        try:
            return os.lstat(self._out / line.member).st_size == line.size
        except OSError:
            return "\\" in line.member  # a name that is escaped in the journal

    def _entries(self) -> Iterator[Entry]:
        """Raises Damaged, and UserError for what is no archive or a bomb."""
        with Parts(self._archive.paths) as parts:
            most = most_unpacked(parts.size) if self._max_bytes is None else self._max_bytes
            most_members = self._max_members or most_records(parts.size, is_tar=True)
            beginning = parts.read(0, 512)
            if beginning.startswith(zips.MARK):
                found = zips.Zip(parts)
                self._require("members", found.num_members, most_members)
                self._require("bytes", found.total, most)
                entries = found.entries()
            elif beginning.startswith((tars.GZIP, tars.ZSTD)) or is_tar_header(beginning):
                entries = tars.entries(parts, max(most, parts.size))
            else:
                raise UserError(f"{self._archive.paths[0]} is no archive that is unpacked: zip, tar, tar.gz or tar.zst")
            for entry in entries:
                self._require("members", entry.number + 1, most_members)
                yield entry

    def _require(self, what: str, number: int, most: int) -> None:
        if number > most:
            raise Exceeded(f"it has {number} {what}, the limit is {most}; --max-{what} allows more")

    def _take(self, entry: Entry) -> None:
        if entry.number in self._done.results:
            return
        name = clean_name(entry.name)
        size, sha256 = entry.size, ""
        try:
            if entry.problem:
                raise Unfit(entry.problem)
            path = path_of(entry.name)
            size, sha256 = self._write(entry, path)
            result = self._place(self._out / path, sha256, is_known=name in self._done.names)
        except Unfit as unfit:
            result = str(unfit)
        except Exceeded:
            raise
        except Damaged as damaged:
            log.warning("%s: %s is damaged: %s", self._archive.label, name, damaged)
            result = _DAMAGED
        self._done.results[entry.number] = result
        self._done.names |= {name} if result == WRITTEN else set()
        line = Line(
            archive=self._archive.label, number=entry.number, member=name, size=size, sha256=sha256, result=result
        )
        self._batch.append(line)
        self._size += size
        if len(self._batch) >= _BATCH_FILES or self._size >= _BATCH_BYTES:
            self._flush()

    def _write(self, entry: Entry, path: str) -> tuple[int, str]:
        """(size, sha256) of what is under the name of the work now."""
        self._require_folder((self._out / path).parent)
        work = self._out / WORK
        work.mkdir(exist_ok=True)
        hasher, size = hashlib.sha256(), 0
        with naming(work / "member"), open(work / "member", "wb") as file:
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

    def _place(self, path: Path, sha256: str, *, is_known: bool) -> str:
        """Gives the member its name; the result. is_known: this archive has written that name before."""
        work = self._out / WORK / "member"
        if os.path.lexists(path):
            if path.is_symlink() or not path.is_file() or sha256_file(path) != sha256:
                return _EXISTS
            if is_known:
                return DUPLICATE
        else:
            os.rename(work, path)
        self._fresh.append(path)
        return WRITTEN

    def _flush(self) -> None:
        """What the batch speaks of is durable, and then noted."""
        files.sync_files(self._fresh)
        for folder in sorted({parent for path in self._fresh for parent in path.parents if parent in self._folders}):
            files.sync_folder(folder)
        self._journal.append(self._batch)
        if self._batch and time.monotonic() - self._said > _SAY_S:
            self._said = time.monotonic()
            log.info("%s: %d members", self._archive.label, len(self._done.results))
        self._batch, self._fresh, self._size = [], [], 0
