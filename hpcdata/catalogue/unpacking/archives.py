"""Members of a zip or tar in their order. They may be hostile: names that lead out, links, more bytes than said."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcdata.base.errors import UserError
from hpcdata.catalogue.reading import require_below

_BLOCK = 1 << 20
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)
"""What reading an archive raises that is none, or ends early."""


@dataclass(frozen=True)
class Member:
    """open: its bytes, whose sum is checked as they are read to the end."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive, without folders. Iterating raises UserError for a member that may not be written."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield _of_zip(archive, path)
    else:
        with tarfile.open(path, "r|*") as tar:
            yield _of_tar(tar, path)


def write(member: Member, temporary: Path, target: Path) -> None:
    """The file appears at `target` when it is whole, and is not synced. Raises UserError for more bytes than said."""
    size = 0
    with member.open() as source, open(temporary, "wb") as file:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > member.size:
                raise UserError(f"member {member.name!r} has more bytes than its header says")
            file.write(block)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, target)


def size_of(path: Path) -> int | None:
    """Bytes of all files in a zip, by its directory; None for a tar, which has none."""
    if path.suffix != ".zip":
        return None
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


def _of_zip(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for info in archive.infolist():
        if info.is_dir():
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{path}: its member {info.filename!r} is a link, which is not followed")
        require_below(info.filename, f"{path}: a member")
        yield Member(info.filename, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]


def _of_tar(tar: tarfile.TarFile, path: Path) -> Iterator[Member]:
    for info in tar:
        if info.isdir():
            continue
        if not info.isreg():
            raise UserError(f"{path}: its member {info.name!r} is a link or a device, which is not followed")
        name = info.name.removeprefix("./")
        require_below(name, f"{path}: a member")
        yield Member(name, info.size, lambda info=info: _required(tar.extractfile(info)))  # type: ignore[misc]


def _required(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
