"""Reading files that others wrote: all of the bytes, or an OSError that names the file.

A fault of the machine (an I/O error, a stale handle, no memory) says nothing about a file. Damage is what its bytes say
once all of them were read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES)


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


def is_folder(path: str) -> bool:
    """As `os.path.isdir`, for which what a disk cannot tell is no folder. Raises OSError for that."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: str) -> bool:
    """As `os.path.isfile`, see `is_folder`."""
    return stat.S_ISREG(_mode(path))


def is_there(path: str) -> bool:
    """As `os.path.exists`, see `is_folder`."""
    return bool(_mode(path))


def _mode(path: str) -> int:
    """0 where there is nothing."""
    try:
        return os.stat(path).st_mode
    except ValueError:  # a NUL character
        return 0
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return 0
        raise


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """What the machine does wrong in the block is an OSError that names the file.

    A MemoryError stays one: perhaps one record takes all memory, which its shard finds out (`hpcdata.work.poison`).
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from None


def _require_end(descriptor: int, offset: int) -> None:
    size = os.fstat(descriptor).st_size
    if size > offset:
        raise OSError(errno.EIO, f"nothing comes after byte {offset} of {size}")
