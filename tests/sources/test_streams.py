"""python -m pytest tests/sources/test_streams.py"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.sources import Options, read, scan, streams
from tests.sources.source_files import json_lines, one_input, summary, write

SUFFIXES = ["jsonl.gz", "jsonl.zst"]


@pytest.fixture
def opened(monkeypatch):
    """The inputs that were opened, in order."""
    paths = []
    original = streams.open_input
    monkeypatch.setattr(streams, "open_input", lambda file: paths.append(file.path) or original(file))
    streams._left.stream = None
    return paths


def rows_of(tmp_path, suffix, num_rows=3000, name="x"):
    """A file of several chunks."""
    rows = [{"text": f"{number} " + "words " * 200} for number in range(num_rows)]
    path = write(tmp_path / f"{name}.{suffix}", json_lines(rows))
    os.utime(path, (1e9, 1e9 + num_rows))
    return one_input(path)


def positions(records):
    return [int(text.split()[0]) for text in summary(records)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_in_turn_decompress_a_file_once(tmp_path, suffix, opened):
    file = rows_of(tmp_path, suffix)
    found = scan(file, every=100, options=Options())
    del opened[:]
    for first in range(0, 3000, 500):
        assert positions(read(file, found, first=first, count=500, options=Options())) == [*range(first, first + 500)]
    assert len(opened) == 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@given(slices=st.lists(st.tuples(st.integers(0, 2999), st.integers(0, 1500)), max_size=5))
@settings(max_examples=15, deadline=None)
def test_slices_in_any_order_are_the_same(tmp_path_factory, suffix, slices):
    file = rows_of(tmp_path_factory.mktemp("slices"), suffix)
    found = scan(file, every=100, options=Options())
    for first, count in slices:
        count = min(count, 3000 - first)
        assert positions(read(file, found, first=first, count=count, options=Options())) == [
            *range(first, first + count)
        ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_replaced_is_opened_again(tmp_path, suffix, opened):
    file = rows_of(tmp_path, suffix)
    found = scan(file, every=100, options=Options())
    assert positions(read(file, found, first=0, count=10, options=Options())) == [*range(10)]
    other = rows_of(tmp_path, suffix, num_rows=2000, name="y")
    os.replace(other.path, file.path)
    del opened[:]
    assert positions(read(file, found, first=10, count=10, options=Options())) == [*range(10, 20)]
    assert len(opened) == 1


def test_only_one_stream_is_left_open(tmp_path):
    files = [rows_of(tmp_path, "jsonl.zst", name=name) for name in "abcdef"]
    found = [scan(file, every=100, options=Options()) for file in files]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for file, seen in zip(files, found, strict=True):
            assert positions(read(file, seen, first=0, count=5, options=Options())) == [*range(5)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_file_that_was_written_just_now_is_not_left_open(tmp_path, opened):
    """Two contents may have one size and one time: of a clock that ticks every 2 s, on FAT."""
    file = rows_of(tmp_path, "jsonl.zst")
    os.utime(file.path)
    found = scan(file, every=100, options=Options())
    del opened[:]
    for first in (0, 10):
        assert len(positions(read(file, found, first=first, count=10, options=Options()))) == 10
    assert len(opened) == 2
