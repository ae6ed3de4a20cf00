"""Files that the records of an input are made from beside the one that it is named by.

    vqa     the answers of questions
    urls    the tables of a folder

A change of one of them is a change of the input: plans and indices note how each of them was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hpcdata.sources.base import InputFile, refusing_faults


@dataclass(frozen=True, kw_only=True)
class OtherFile:
    path: str
    """Absolute."""
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: str) -> OtherFile:
        """Raises UserError where it cannot be read."""
        with refusing_faults(path):
            stat = os.stat(path)
        return cls(path=os.path.abspath(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    def is_as_it_was(self) -> bool:
        """Raises OSError, with its name."""
        stat = os.stat(self.path)
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)


def other_files(file: InputFile, *, without: str = "") -> tuple[OtherFile, ...]:
    """Those of an input as it is listed, before it is prepared. Raises UserError."""
    if file.format == "vqa":
        from hpcdata.sources.sets.vqa import annotations_of

        return (OtherFile.at(annotations_of(file.path)),)
    if file.format == "urls" and os.path.isdir(file.path):
        from hpcdata.sources.url_lists.listing import tables_in

        return tuple(map(OtherFile.at, tables_in(file.path, without=without)))
    return ()
