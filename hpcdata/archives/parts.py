"""The files of an archive as one: `images.zip`, or `images.tar.gz.part-aa`, `images.tar.gz.part-ab`, ... in a row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.base.reads import naming, read_at
from hpcdata.sources.patterns import expand_paths

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_PART = re.compile(
    rf"(?P<whole>.+(?:{'|'.join(map(re.escape, ENDINGS))}))[._-]?(?:part)?[._-]?(?P<part>[a-z]{{2,3}}|\d{{1,4}})"
)
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Archive:
    label: str
    paths: tuple[str, ...]

    def identity(self) -> str:
        """Sizes and times of its files: another text where one was changed."""
        found = [os.stat(path) for path in self.paths]
        return " ".join(f"{item.st_size}/{item.st_mtime_ns}" for item in found)


def find_archives(source: str) -> list[Archive]:
    """Those of a file, a folder, a glob or a brace list, in order. Raises UserError where there is none."""
    found = expand_paths(source)
    archives = _grouped([path for item in found for path in (_in_folder(item) if os.path.isdir(item) else [item])])
    if not archives:
        raise UserError(f"{source} holds no archive: expected {', '.join(ENDINGS)}")
    return archives


def archives_in(folder: Path) -> list[Archive]:
    """Those of a folder, by name; there may be none."""
    return _grouped(_in_folder(str(folder)))


def _grouped(paths: Sequence[str]) -> list[Archive]:
    grouped: dict[str, list[str]] = {}
    for path in paths:
        match = None if path.endswith(ENDINGS) else _PART.fullmatch(os.path.basename(path))
        whole = os.path.join(os.path.dirname(path), match["whole"]) if match else path
        grouped.setdefault(whole, []).append(path)
    if not grouped:
        return []
    common = os.path.commonpath([os.path.dirname(whole) for whole in grouped])
    return [
        Archive(label=os.path.relpath(whole, common), paths=tuple(sorted(paths, key=_in_order)))
        for whole, paths in grouped.items()
    ]


def _in_order(path: str) -> tuple[int, str]:
    """Of a part: 2 before 10, z before aa."""
    return len(path), path


def _in_folder(folder: str) -> list[str]:
    names = sorted(os.listdir(folder))
    return [str(Path(folder, name)) for name in names if name.endswith(ENDINGS) or _PART.fullmatch(name)]


class Parts:
    """Read-only bytes of several files in a row. A context manager."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._descriptors: list[int] = []
        self._ends: list[int] = []
        """Where each file ends."""
        self.size = 0

    def __enter__(self) -> Parts:
        for path in self._paths:
            self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            self.size += os.fstat(self._descriptors[-1]).st_size
            self._ends.append(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes only at the end of all. Raises OSError with the file's name."""
        found, start = b"", 0
        for path, descriptor, end in zip(self._paths, self._descriptors, self._ends, strict=True):
            if offset < end and size > len(found):
                with naming(path):
                    found += read_at(descriptor, min(size - len(found), end - offset), offset - start)
                offset = max(offset, end)
            start = end
        return found

    def pieces(self, offset: int, end: int) -> Iterator[bytes]:
        """The bytes from `offset` to `end`, as far as they are there."""
        while offset < end and (piece := self.read(offset, min(_PIECE_BYTES, end - offset))):
            offset += len(piece)
            yield piece
