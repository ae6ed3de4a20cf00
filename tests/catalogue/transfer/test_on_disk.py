"""A part of a large file: whatever came in whatever order is kept, and what is not what was claimed is missing again.

pytest tests/catalogue/transfer/test_on_disk.py
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata.catalogue.faults import Wanted
from hpcdata.catalogue.transfer.lanes import BlockLane
from hpcdata.catalogue.transfer.on_disk import OnDisk
from hpcdata.catalogue.transfer.ranges import Ranges

KIB = 1 << 10
DATA = random.Random(3).randbytes(1000 * KIB + 77)
WANTED = Wanted(path="one.bin", url="http://x/one.bin", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
INTERVAL = 128 * KIB
"""Blocks are of 16 KiB."""


def test_ranges_are_those_of_a_set() -> None:
    draw = random.Random(1)
    for _ in range(200):
        ranges, model = Ranges(), set[int]()
        for _ in range(12):
            begin = draw.randrange(30)
            end = begin + draw.randrange(10)
            if draw.random() < 0.6:
                ranges.add(begin, end)
                model |= set(range(begin, end))
            else:
                ranges.remove(begin, end)
                model -= set(range(begin, end))
        pieces = list(ranges)
        assert {place for begin, end in pieces for place in range(begin, end)} == model
        assert all(one[1] < other[0] for one, other in itertools.pairwise(pieces))
        assert {place for begin, end in ranges.gaps(32) for place in range(begin, end)} == set(range(32)) - model
        ends = [next(at for at in range(place, 60) if at not in model) for place in range(32)]
        assert [ranges.end_from(place) for place in range(32)] == ends


@contextlib.contextmanager
def opened(folder: Path, wanted: Wanted = WANTED) -> Iterator[OnDisk]:
    with contextlib.closing(OnDisk(wanted, folder / "part", INTERVAL)) as part:
        yield part


def bring(lane: BlockLane, end: int) -> None:
    while lane.place < end:
        room = lane.room()
        count = min(len(room), end - lane.place, 5000)
        room[:count] = DATA[lane.place : lane.place + count]
        lane.received(count)


def bring_range(part: OnDisk, begin: int, end: int) -> None:
    lane = part.lane(begin, end)
    bring(lane, end)
    lane.close()


def missing(part: OnDisk) -> list[tuple[int, int]]:
    """Once all claims were looked at: until nothing changes any more."""
    for _ in range(100):
        before = list(part._here), part._order.place
        time.sleep(0.02)
        if before == (list(part._here), part._order.place):
            break
    return list(part._here.gaps(len(DATA)))


def test_bytes_in_any_order_by_several_lanes_make_the_file(tmp_path: Path) -> None:
    draw = random.Random(2)
    with opened(tmp_path) as part:
        lanes = list[BlockLane]()
        while part.num_bytes < len(DATA):
            while len(lanes) < 5 and (lane := part.take(draw.randrange(1, 200 * KIB))) is not None:
                lanes.append(lane)
            lane = lanes.pop(draw.randrange(len(lanes)))
            assert lane.end is not None
            bring(lane, draw.choice((lane.end, draw.randrange(lane.begin, lane.end + 1))))  # some are cut
            lane.close()
        assert part.is_whole(lambda _: False)
        part.require_right()
        here = part.publish(tmp_path / "one.bin", tmp_path)
    assert (tmp_path / "one.bin").read_bytes() == DATA
    assert (here.size, here.sha256) == (len(DATA), WANTED.sha256)
    assert sorted(os.listdir(tmp_path)) == ["one.bin"]


def fill_two_ranges(folder: Path) -> None:
    """The beginning, hashed, and a range behind a gap that is wider than what waits in memory."""
    with opened(folder) as part:
        bring_range(part, 0, 150 * KIB)
        bring_range(part, 400 * KIB, 600 * KIB)


def test_what_came_before_its_turn_is_kept_for_the_next_process(tmp_path: Path) -> None:
    fill_two_ranges(tmp_path)
    with opened(tmp_path) as part:
        assert missing(part) == [(150 * KIB, 400 * KIB), (600 * KIB, len(DATA))]
        for begin, end in missing(part):
            bring_range(part, begin, end)
        assert part.is_whole(lambda _: False)
        part.require_right()


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        (50 * KIB, (0, 128 * KIB)),  # before the first checkpoint
        (450 * KIB, (448 * KIB, 464 * KIB)),  # a block with a sum
    ],
)
def test_only_what_the_disk_has_damaged_is_missing_again(place: int, lost: tuple[int, int], tmp_path: Path) -> None:
    fill_two_ranges(tmp_path)
    with open(tmp_path / "part", "r+b") as file:
        file.seek(place)
        file.write(bytes([DATA[place] ^ 1]))
    with opened(tmp_path) as part:
        bring_range(part, 150 * KIB, 400 * KIB)
        bring_range(part, 600 * KIB, len(DATA))
        assert not part.is_whole(lambda _: False)
        assert missing(part) == [lost]
        bring_range(part, *lost)
        assert part.is_whole(lambda _: False)
        part.require_right()


def test_a_part_of_another_revision_or_with_lost_power_is_begun_anew(tmp_path: Path) -> None:
    fill_two_ranges(tmp_path)
    os.truncate(tmp_path / "part", 140 * KIB)  # what a lost power may leave
    with opened(tmp_path) as part:
        assert missing(part) == [(128 * KIB, len(DATA))]
    other = Wanted(path="one.bin", url="http://x/one.bin", size=len(DATA), sha256="0" * 64)
    with opened(tmp_path, other) as part:
        assert missing(part) == [(0, len(DATA))]


def test_a_part_can_be_begun_anew_while_what_is_here_is_looked_at(tmp_path: Path) -> None:
    fill_two_ranges(tmp_path)
    with opened(tmp_path) as part:
        part.restart()
        assert part.num_bytes == 0
        bring_range(part, 0, len(DATA))
        assert part.is_whole(lambda _: False)
        part.require_right()
