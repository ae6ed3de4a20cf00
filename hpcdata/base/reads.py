"""Reading files that others wrote: all of the bytes, or an OSError that names the file.

A fault of the machine (an I/O error, a stale handle, no memory) says nothing about a file. Damage is what its bytes say
once all of them were read.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """The bytes at `offset`: fewer than `size` only where the file ends. Raises OSError."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            _require_end(descriptor, offset + len(data))
            break
        data += more
    return data


def read_beginning(path: str, size: int) -> bytes:
    """The first bytes of a file: fewer than `size` only where it ends. Raises OSError."""
    with naming(path), open(path, "rb", buffering=0) as file:
        return read_at(file.fileno(), min(size, os.fstat(file.fileno()).st_size), 0)


def walk(
    folder: str | os.PathLike[str], *, topdown: bool = True, follow: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, which is silent of what cannot be listed: here that is an OSError, but for what is gone."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    return os.walk(os.fspath(folder), topdown=topdown, onerror=fail, followlinks=follow)


def paths_in(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder, by name; nothing where none is. Raises OSError, as not every `Path.glob` does."""
    try:
        return [folder / name for name in sorted(fnmatch.filter(os.listdir(folder), pattern))]
    except (FileNotFoundError, NotADirectoryError):
        return []


_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def kind_of(path: str, *, follow: bool = True) -> str:
    """`file`, `folder`, `other` (a device, a pipe, with `follow=False` a link), or nothing where nothing is.

    Unlike `os.path.exists` it raises OSError for what the machine does wrong: that says nothing about what is there.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return ""
        raise
    except ValueError:  # a NUL in the name
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """What the machine does wrong in the block is an OSError that names the file: that of a full disk has no name.

    A MemoryError stays one: perhaps one record takes all memory, which its shard finds out (`hpcdata.work.poison`).
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), os.fspath(path)) from None


def _require_end(descriptor: int, offset: int) -> None:
    size = os.fstat(descriptor).st_size
    if size > offset:
        raise OSError(errno.EIO, f"nothing comes after byte {offset} of {size}")
