"""Faults of reading, in real system calls: the n-th read, open or look at a file fails with an errno, or comes short.

`build` makes a library of readfault.c. A process that was started with `environment` has it in front of the C library,
so that Python's reads and those of every other library pass it. `Injector` steers it from within such a process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Literal

SHORT, NOTHING = 0, -1
KINDS = {
    "EIO": errno.EIO,
    "ESTALE": errno.ESTALE,
    "ENOMEM": errno.ENOMEM,
    "EINTR": errno.EINTR,
    "half of the bytes": SHORT,
    "no bytes": NOTHING,
}
HARMLESS = ("EINTR", "half of the bytes", "no bytes")
"""What a second read mends at once, if it happens once."""
LASTING = 1 << 40
LASTING_KINDS = ("EIO", "half of the bytes", "no bytes")
Calls = Literal["reads", "opens", "looks"]
"""Looks: stat, and listing a folder."""
_SETTERS: dict[Calls, str] = {
    "reads": "readfault_set",
    "opens": "readfault_set_opens",
    "looks": "readfault_set_looks",
}
_SOURCE = Path(__file__).with_name("readfault.c")


def build(folder: Path, source: Path = _SOURCE) -> Path:
    library = folder / f"{source.stem}.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    command = [os.environ.get("CC", compiler), "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def environment(library: Path, path: str = "", *, first: int = 0, count: int = 1, kind: int = 0) -> dict[str, str]:
    """For a process in which `count` reads from the `first`-th on fail, of files whose path has `path` in it."""
    values = {"PATH": path, "FIRST": first, "COUNT": count, "KIND": kind} if path else {}
    return {"LD_PRELOAD": str(library), **{f"READFAULT_{name}": str(value) for name, value in values.items()}}


class Injector:
    """The library, in a process that was started with it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        for calls in _SETTERS:
            function = getattr(self._library, _SETTERS[calls])
            function.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_int)
        self._library.readfault_seen.restype = ctypes.c_long

    def set(self, path: str, *, first: int, count: int, kind: int, calls: Calls = "reads") -> None:
        getattr(self._library, _SETTERS[calls])(path.encode(), first, count, kind)

    def watch(self, path: str, *, calls: Calls = "reads") -> None:
        """Only counts."""
        self.set(path, first=LASTING, count=0, kind=0, calls=calls)

    def stop(self) -> int:
        """How many reads there were since `set` or `watch`."""
        seen = int(self._library.readfault_seen())
        self.watch("")
        return seen
