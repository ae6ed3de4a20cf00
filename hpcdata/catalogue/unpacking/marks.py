"""Which archives of a set are unpacked.

SET/.hpcdata/unpacked/KEY.json         sealed when an archive is done: its sha256, and what became of its members
SET/.hpcdata/unpacked/KEY.members.csv  the account of its members, see `hpcdata.archives.journal`
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import files, sealed
from hpcdata.catalogue import listing
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.record import FOLDER, Record
from hpcdata.catalogue.registry import matcher


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
        name
        for name in archives_of(entry, folder)
        if name not in known or not Mark(folder, name).is_of(known[name].sha256)
    ]


@dataclass(frozen=True)
class Mark:
    """That an archive is unpacked. folder: of the set. name: path of the archive below it."""

    folder: Path
    name: str

    @property
    def key(self) -> str:
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    @property
    def journal(self) -> Path:
        return self._own / f"{self.key}.members.csv"

    def is_there(self) -> bool:
        return self._path.exists() and self.journal.exists()

    def is_of(self, sha256: str) -> bool:
        """Whether the archive that was unpacked is this one."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return bool(sealed.read_json(self._path)["sha256"] == sha256)
        return False

    def write(self, sha256: str, into: str, results: Mapping[str, int]) -> None:
        values = {"archive": self.name, "sha256": sha256, "into": into, "results": dict(results)}
        files.write_atomic(self._path, sealed.to_json(values))

    def remove(self) -> None:
        """So that what is not as it was unpacked is made again."""
        self._path.unlink(missing_ok=True)

    @property
    def _own(self) -> Path:
        return self.folder / FOLDER / "unpacked"

    @property
    def _path(self) -> Path:
        return self._own / f"{self.key}.json"
