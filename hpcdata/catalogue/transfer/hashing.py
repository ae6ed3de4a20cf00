"""sha256 of files that are there, at the speed of the disk."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from hpcdata.catalogue.faults import Fault, Wanted

_BLOCK = 1 << 20


def hash_file(path: Path, wait: Callable[[float], bool] = lambda _: False) -> str:
    """Raises OSError, and Fault when the process is to stop."""
    digest, descriptor = hashlib.sha256(), os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        block = memoryview(bytearray(min(size, _BLOCK) or 1) if size < _BLOCK else mmap.mmap(-1, _BLOCK))
        while count := os.readv(descriptor, [block]):
            digest.update(block[:count])
            if count == _BLOCK and wait(0):
                raise Fault("busy", "stopped", "the process is to stop")
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def is_right(path: Path, wanted: Wanted, wait: Callable[[float], bool]) -> str | None:
    """The sha256 of a file that is there already, when what is known of it says that it is the one; else None."""
    if wanted.size is not None and path.stat().st_size != wanted.size:
        return None
    found = hash_file(path, wait)
    if wanted.sha256 is not None:
        return found if found == wanted.sha256 else None
    if wanted.git_sha1 is not None:
        data = path.read_bytes()
        return found if hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == wanted.git_sha1 else None
    return None
