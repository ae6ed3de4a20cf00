"""python -m pytest tests/native/test_arrays.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.dataset.readahead import ReadAhead, will_need
from hpcdata.native.arrays import fill_behind, prefix_mask, widen


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 25), st.sampled_from(["u2", "i4", "i8"]), st.data())
def test_masks_and_padding(lengths, extra, dtype, data):
    width = max(lengths, default=0) + extra
    lengths = np.array(lengths, np.int64)
    expected = np.arange(width) < lengths[:, None]
    assert (prefix_mask(lengths, width) == expected).all()
    value = data.draw(st.integers(0, np.iinfo(dtype).max))
    block = np.random.default_rng(0).integers(0, 2**16, (len(lengths), width)).astype(dtype)
    filled = block.copy()
    fill_behind(filled, lengths, value)
    assert (filled == np.where(expected, block, np.array(value, dtype))).all()


def test_padding_can_be_negative():
    block = np.zeros((2, 3), np.int64)
    fill_behind(block, np.array([1, 2]), -100)
    assert block.tolist() == [[0, -100, -100], [0, 0, -100]]


@pytest.mark.parametrize("shift", [0, 32001])
def test_widening_does_not_know_signs(shift):
    ids = np.array([[0, 1, 32767, 32768, 65535]], np.uint16)
    out = np.empty((1, 5), np.int64)
    widen(ids, out, shift)
    assert out.tolist() == [[value + shift for value in (0, 1, 32767, 32768, 65535)]]


def test_read_ahead_asks_only_after_waiting(monkeypatch):
    from hpcdata.dataset import readahead

    faults = [10]
    monkeypatch.setattr(readahead, "_major_faults", lambda: faults[0])
    ahead = ReadAhead()
    assert not ahead.is_wanted(1)
    faults[0] += 1
    assert [ahead.is_wanted(1) for _ in range(70)] == [True] * 64 + [False] * 6
    faults[0] += 4
    assert not ahead.is_wanted(256)
    faults[0] += 5
    assert ahead.is_wanted(256)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**21), st.integers(1, 2**18)), min_size=1, max_size=30))
def test_pieces_cover_the_ranges_and_little_more(ranges):
    from hpcdata.dataset.readahead import _pieces

    covered = np.zeros(2**22 // 4096, bool)
    pieces = _pieces(np.array(ranges, np.uint64)).astype(np.int64)
    for start, size in pieces.tolist():
        assert start % 4096 == 0
        assert 0 < size <= 2**17
        assert not covered[start // 4096 : (start + size) // 4096].any()
        covered[start // 4096 : -(-(start + size) // 4096)] = True
    for start, size in ranges:
        assert covered[start // 4096 : -(-(start + size) // 4096)].all()
    assert covered.sum() * 4096 <= sum(size + 2**15 + 8192 for _, size in ranges)


def test_the_kernel_takes_the_ranges():
    """Also more than fit in one call; what is not mapped is no error here."""
    memory = np.zeros(2**20, np.uint8)
    ranges = np.empty((3000, 2), np.uint64)
    ranges[:, 0], ranges[:, 1] = memory.ctypes.data + np.arange(3000) * 17, 100
    assert will_need(ranges) in (True, False)
    assert not will_need(ranges[:0])
