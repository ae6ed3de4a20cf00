"""Files that threads fill side by side: pytest tests/base/disk"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcdata.base.disk.direct import ALIGNED
from hpcdata.base.disk.filled import FilledFile

SIZE = 40 * ALIGNED + 77


def cuts(rng: random.Random, begin: int, end: int, most: int) -> list[int]:
    places = [begin]
    while places[-1] < end:
        places.append(min(end, places[-1] + rng.randint(1, most)))
    return places


def write(file: FilledFile, data: bytes, places: Sequence[int]) -> None:
    stretch = file.stretch(places[0])
    for begin, end in itertools.pairwise(places):
        stretch.room(end - begin)[:] = data[begin:end]
        stretch.add(end - begin)
    stretch.sync()


@pytest.mark.parametrize("refused", ["nothing", "all", "from the third on", "half of each"])
@pytest.mark.parametrize("most", [100, ALIGNED, 5 * ALIGNED])
def test_stretches_fill_a_file_whatever_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, most: int
) -> None:
    """In any order, from several threads, also again; stretches begin and end anywhere."""
    rng, real, number = random.Random(most), os.pwrite, 0
    data = rng.randbytes(SIZE)
    file = FilledFile(tmp_path / "filled", SIZE)
    descriptor = file.direct.descriptor

    def pwrite(fd: int, content: memoryview, at: int) -> int:
        nonlocal number
        if fd == descriptor:
            assert at % ALIGNED == len(content) % ALIGNED == 0
            number += 1
            if refused == "all" or (refused == "from the third on" and number > 2):
                raise OSError(errno.EINVAL, "Invalid argument")
            if refused == "half of each":
                content = content[: -(-len(content) // ALIGNED // 2) * ALIGNED]
        return real(fd, content, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    stretches = cuts(rng, 0, SIZE, SIZE // 5)
    work = [*itertools.pairwise(stretches)] * 2
    rng.shuffle(work)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda some: write(file, data, cuts(random.Random(some[0]), some[0], some[1], most)), work))
    assert (tmp_path / "filled").read_bytes() == data


def test_blocks_that_are_larger_than_a_page_are_left_to_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stretches meet in such a block: one would put it on the disk while the page cache has an older one."""
    large = SimpleNamespace(f_frsize=4 * ALIGNED)
    monkeypatch.setattr(os, "fstatvfs", lambda descriptor: large)
    assert not FilledFile(tmp_path / "filled", SIZE).direct.is_used


def test_a_file_that_is_there_keeps_what_it_holds(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(SIZE)
    write(FilledFile(tmp_path / "filled", SIZE), data, [0, SIZE])
    write(FilledFile(tmp_path / "filled", SIZE), data, [ALIGNED + 5, ALIGNED + 9])
    assert (tmp_path / "filled").read_bytes() == data
