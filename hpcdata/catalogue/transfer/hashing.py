"""Sums of files that are there, at the speed of the disk."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path

from hpcdata.catalogue.faults import Fault, Wanted

_BLOCK = 1 << 20


def hash_file(path: Path, wait: Callable[[float], bool] = lambda _: False) -> str:
    """Raises OSError, and Fault when the process is to stop."""
    return _sums(path, wait, with_git=False)[0]


def is_right(path: Path, wanted: Wanted, wait: Callable[[float], bool]) -> str | None:
    """The sha256 of a file that is there already, when what is known of it says that it is the one; else None."""
    if not wanted.is_vouched_for() or wanted.size not in (None, path.stat().st_size):
        return None
    sha256, git_sha1 = _sums(path, wait, with_git=wanted.sha256 is None and wanted.git_sha1 is not None)
    if wanted.sha256 is not None:
        return sha256 if sha256 == wanted.sha256 else None
    return sha256 if git_sha1 and git_sha1 == wanted.git_sha1 else None


def _sums(path: Path, wait: Callable[[float], bool], *, with_git: bool) -> tuple[str, str]:
    """(sha256, sha1 as a blob of git or empty) of one reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        size = left = found.st_size
        digests = [hashlib.sha256(), *([hashlib.sha1(b"blob %d\0" % size)] if with_git else [])]
        block = memoryview(bytearray(min(size, _BLOCK) or 1) if size < _BLOCK else mmap.mmap(-1, _BLOCK))
        while count := os.readv(descriptor, [block]):
            for digest in digests:
                digest.update(block[:count])
            left -= count
            if count == _BLOCK and wait(0):
                raise Fault("busy", "stopped", "the process is to stop")
        if left > 0:
            raise OSError(errno.EIO, f"it has {left} bytes less than it should", str(path))
    finally:
        os.close(descriptor)
    sha256, *git_sha1 = (digest.hexdigest() for digest in digests)
    return sha256, "".join(git_sha1)
