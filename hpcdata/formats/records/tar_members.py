"""What the samples of a tar consist of, from its headers: names and places; contents are read where they are wanted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcdata.base.errors import Failed
from hpcdata.base.reads import read_at
from hpcdata.formats.records.copied import CopiedPart
from hpcdata.sources.tar.groups import split_name
from hpcdata.sources.tar.headers import FileSource, Member, members


class TarMember(NamedTuple):
    """A member of a sample; offsets are those of the tar."""

    name: bytes
    extension: str
    start: int
    """Of its first header."""
    offset: int
    """Of its content."""
    size: int


class TarSample(NamedTuple):
    row: int
    key: str
    """As the tar spells it, which is not the key of the sample in its dataset."""
    start: int
    end: int
    members: list[TarMember]


class OpenTar:
    """A tar of a part that is open. bounds: [num_samples + 1], where its samples begin, and the last one ends."""

    def __init__(self, path: Path, descriptor: int, bounds: np.ndarray) -> None:
        self.path, self.descriptor, self.bounds = path, descriptor, bounds

    def __iter__(self) -> Iterator[TarSample]:
        """The samples in order, from headers alone. Raises Failed where they are not where the part says."""
        walk = members(FileSource(self.descriptor))
        ahead = next(walk, None)
        for row, (start, end) in enumerate(itertools.pairwise(self.bounds.tolist())):
            found, keys = [], set()
            while isinstance(ahead, Member) and ahead.start < end and (names := split_name(ahead.name)) is not None:
                keys.add(names[0])
                found.append(TarMember(ahead.name, names[1].decode(), ahead.start, ahead.offset, ahead.size))
                ahead = next(walk, None)
            if len(keys) != 1 or found[0].start != start:
                raise Failed(f"{self.path}: sample {row} is not at byte {start}: run hpcdata verify")
            yield TarSample(row, keys.pop().decode(), start, end, found)

    def read(self, start: int, size: int) -> bytes:
        data = read_at(self.descriptor, size, start)
        if len(data) != size:
            raise Failed(f"{self.path} became shorter while it was read")
        return data


@contextmanager
def open_tar(part: CopiedPart, other: Path | None = None, bounds: np.ndarray | None = None) -> Iterator[OpenTar]:
    """The tar of a part; or another one that holds the same samples, at other places."""
    path = other or part.stream
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield OpenTar(path, descriptor, part.bounds if bounds is None else bounds)
    finally:
        os.close(descriptor)
