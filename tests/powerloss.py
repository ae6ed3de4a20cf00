"""A disk that loses power: what was not synced is there or not, each file and each folder for itself.

    with power_loss(root, at=7) as disk:
        ...                       the 7th fsync of something below `root` raises Crash, and so do all later ones
    disk.restore(rng)             `root` becomes what such a disk may hold after that

A file has the content of its last fsync or its last content or, if neither was synced, as many zeros. A folder has the
names of its last fsync or those that it had in the end. An inode is what a name leads to: content follows renames.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from tests.crashes import Crash

Names = dict[str, int]


class Disk:
    """What is known to be on the disk below `root`."""

    def __init__(self, root: Path, at: int) -> None:
        self.root, self.at, self.calls, self.dead = root, at, 0, False
        self._held: list[int] = []  # descriptors, so that no inode's number is used again
        self._synced_names: dict[int, Names] = {}
        self._synced_files: dict[int, bytes] = {}
        self._last: dict[int, Names | bytes] = {}
        for folder, _, names in os.walk(root):  # all that is there to begin with has been synced
            self._sync(Path(folder))
            for name in names:
                self._sync(Path(folder, name))

    def fsync(self, descriptor: int) -> None:
        if self.dead:
            raise Crash
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_relative_to(self.root):
            self.calls += 1
            if self.calls == self.at:
                self.dead = True
                raise Crash
            self._sync(path)

    def restore(self, rng: random.Random) -> None:
        self._look()
        root = self.root.stat().st_ino
        aside = self.root.with_name(f"{self.root.name}.restored")
        self._write(root, aside, rng)
        shutil.rmtree(self.root)
        aside.rename(self.root)
        for descriptor in self._held:
            os.close(descriptor)

    def _look(self) -> None:
        """Remembers the latest state of everything that has a name now."""
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                inode = self._hold(path)
                self._last[inode] = self._names(path) if path.is_dir() else path.read_bytes()

    def _sync(self, path: Path) -> None:
        inode = self._hold(path)
        if path.is_dir():
            self._synced_names[inode] = self._names(path)
            self._last[inode] = self._names(path)
        else:
            self._last[inode] = self._synced_files[inode] = path.read_bytes()

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._last:
            self._held.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
        return inode

    @staticmethod
    def _names(folder: Path) -> Names:
        return {entry.name: entry.inode() for entry in os.scandir(folder)}

    def _write(self, inode: int, path: Path, rng: random.Random) -> None:
        last = self._last[inode]
        if isinstance(last, bytes):
            path.write_bytes(rng.choice([self._synced_files.get(inode, bytes(len(last))), last]))
            return
        path.mkdir()
        for name, child in rng.choice([self._synced_names.get(inode, {}), last]).items():
            if child in self._last:
                self._write(child, path / name, rng)


@contextlib.contextmanager
def power_loss(root: Path, *, at: int) -> Iterator[Disk]:
    disk = Disk(root, at)
    with mock.patch.object(os, "fsync", disk.fsync):
        yield disk
