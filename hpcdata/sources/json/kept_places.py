"""Where the questions of a large file stand, kept in a folder: found once, and mapped by whoever opens it again.

    FOLDER/NAME.json        size and time of the file, its list, the digest of its questions and how many; sealed
    FOLDER/NAME.memmap      [num_questions, 2] int64: place and size

A file of another size or time has other ones. Several processes may find them at once: they write the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcdata.base import files, sealed

logger = logging.getLogger(__name__)

WORTH_BYTES = 64 << 20
"""Smaller files are read through in less than a few seconds."""
_FORMAT = "hpcdata-questions-1"


@dataclass(frozen=True, kw_only=True)
class Places:
    of_each: np.ndarray
    """[num_questions, 2] int64, a memmap."""
    digest: str


@dataclass(frozen=True)
class KeptPlaces:
    """Those of one file. size, time: of the file, as it was before it was read."""

    folder: Path
    path: str
    list_name: str
    size: int
    time: int

    @classmethod
    def of(cls, folder: Path, path: str, list_name: str, stat: os.stat_result) -> KeptPlaces:
        return cls(folder, path, list_name, stat.st_size, stat.st_mtime_ns)

    def load(self) -> Places | None:
        """None where there are none of this file as it is."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = sealed.read_json(self._named("json"))
            if values["of"] == self._identity():
                number = int(values["num_questions"])
                if os.path.getsize(self._named("memmap")) == 16 * number > 0:
                    found = np.memmap(self._named("memmap"), "<i8", "r", shape=(number, 2))
                    return Places(of_each=found, digest=str(values["digest"]))
        return None

    def save(self, of_each: np.ndarray, digest: str) -> None:
        """Durably, the description last; nothing of a file that has changed while it was read. A folder that cannot be
        written to is said, and no fault.
        """
        stat = os.stat(self.path)
        if (stat.st_size, stat.st_mtime_ns) != (self.size, self.time):
            return
        temporary = self._named(f"{secrets.token_hex(4)}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            of_each.astype("<i8", copy=False).tofile(temporary)
            files.sync_file(temporary)
            os.replace(temporary, self._named("memmap"))
            values = {"of": self._identity(), "num_questions": len(of_each), "digest": digest}
            files.write_atomic(self._named("json"), sealed.to_json(values))
        except OSError as error:
            logger.info("%s is read through anew each time: %s cannot be written: %s", self.path, self.folder, error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _identity(self) -> list[object]:
        return [_FORMAT, os.path.basename(self.path), self.list_name, self.size, self.time]

    def _named(self, ending: str) -> Path:
        """Of the file's last two names, so that sets may be moved."""
        names = repr([*Path(os.path.abspath(self.path)).parts[-2:], self.list_name])
        return self.folder / f"{hashlib.sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.{ending}"
