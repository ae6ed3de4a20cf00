"""Members that were unpacked, read back: which are gone or are not what came out of their archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpcdata.archives.journal import BEGINS, DAMAGED, WRITTEN, Journal, Line
from hpcdata.base.digest import sha256_file

_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A member as its archive had it. sha256: as it is now; fault: what is wrong with it, empty when nothing is."""

    line: Line
    sha256: str
    fault: str


def check_members(archive: str, out: Path, journal: Path, *, num_threads: int) -> Iterator[Checked]:
    """Hashes every member of an archive that was unpacked into `out`. Raises Failed where the journal is damaged."""
    written: dict[int, Line] = {}
    for line in Journal(journal).lines(archive):
        if line.result == BEGINS:
            written = {}
        elif line.result == WRITTEN and "\\" not in line.member:  # else its name is escaped
            written[line.number] = line
        else:
            written.pop(line.number, None)
    known = list(written.values())
    with ThreadPoolExecutor(num_threads) as pool:
        for begin in range(0, len(known), _BATCH):
            lines = known[begin : begin + _BATCH]
            for line, (has, fault) in zip(lines, pool.map(lambda line: _sha256(out / line.member), lines), strict=True):
                told = "" if has == line.sha256 else fault or f"damaged: sha256 {has}, expected {line.sha256}"
                yield Checked(line=line, sha256=has, fault=told)


def note_damage(journal: Path, damaged: Iterable[Checked]) -> None:
    """So that `unpack_archive` makes them again. Raises OSError where the journal cannot be written."""
    with Journal(journal) as opened:
        opened.append(
            [
                Line(
                    archive=item.line.archive,
                    number=item.line.number,
                    member=item.line.member,
                    sha256=item.sha256,
                    result=DAMAGED,
                )
                for item in damaged
            ]
        )


def _sha256(path: Path) -> tuple[str, str]:
    """The sha256, or why there is none."""
    try:
        kind = os.lstat(path).st_mode
        if stat.S_ISREG(kind):
            return sha256_file(path), ""
        return "", "a link is in its place" if stat.S_ISLNK(kind) else "what is in its place is no file"
    except FileNotFoundError:
        return "", "missing: it was unpacked, and is gone"
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
