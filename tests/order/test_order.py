"""python -m pytest tests/order/test_order.py"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.order import BlockOrder, SequentialOrder, ShuffledOrder


def test_sequential():
    assert SequentialOrder(num_samples=10).rows(4, np.array([3, 1])).tolist() == [3, 1]


@pytest.mark.parametrize("order", [SequentialOrder(num_samples=10), ShuffledOrder(num_samples=10)])
@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(order, position):
    with pytest.raises(IndexError):
        order.rows(0, np.array([position]))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 500), st.integers(1, 70), st.integers(1, 9), st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_block_order_is_bijective(num_samples, block_rows, window_blocks, seed, epoch):
    order = BlockOrder(num_samples=num_samples, seed=seed, block_rows=block_rows, window_blocks=window_blocks)
    rows = order.rows(epoch, np.arange(num_samples))
    assert (np.bincount(rows, minlength=num_samples) == 1).all()
    few = np.array([0, num_samples - 1, num_samples // 2])
    assert order.rows(epoch, few).tolist() == rows[few].tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9), st.integers(0, 40))
def test_a_window_reads_its_ranges_and_no_more(num_samples, block_rows, window_blocks, epoch):
    order = BlockOrder(num_samples=num_samples, seed=1, block_rows=block_rows, window_blocks=window_blocks)
    for window in range(-(-num_samples // order.window_rows)):
        first = window * order.window_rows
        rows = order.rows(epoch, np.arange(first, min(first + order.window_rows, num_samples)))
        ranges = order.ranges(epoch, window * window_blocks, (window + 1) * window_blocks)
        read = np.concatenate([np.arange(start, start + size) for start, size in ranges.tolist()])
        assert sorted(rows.tolist()) == sorted(read.tolist())
        assert len(ranges) <= window_blocks + 1


@pytest.mark.parametrize("num_samples", [65537, 262145])
def test_block_order_is_statistically_sound(num_samples):
    """As random as blocks allow: nothing is seen between neighbours, epochs, or positions and rows of the epoch."""
    order = BlockOrder(num_samples=num_samples, seed=5, block_rows=64, window_blocks=64)
    epochs = [order.rows(epoch, np.arange(num_samples)).astype(float) for epoch in (0, 1)]
    bound = 4.5 / math.sqrt(num_samples / 64)  # blocks, not rows, are what is independent
    for rows in epochs:
        assert abs(np.corrcoef(np.arange(num_samples), rows)[0, 1]) < bound
        window = rows[: order.window_rows]
        for lag in (1, 2, 64):
            assert abs(np.corrcoef(window[:-lag], window[lag:])[0, 1]) < 4.5 / 64, lag
    assert abs(np.corrcoef(*epochs)[0, 1]) < bound


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_blocks_are_wanted_before_their_rows(num_samples, block_rows, window_blocks):
    """At any position: all of its window, of the next a share that grows evenly, and at the end every block."""
    order = BlockOrder(num_samples=num_samples, block_rows=block_rows, window_blocks=window_blocks)
    slots = [order.slots_ahead(position) for position in range(num_samples)]
    assert slots == sorted(slots)
    assert slots[-1] == -(-num_samples // block_rows)
    for position, slot in enumerate(slots):
        window = position // order.window_rows
        assert min((window + 1) * window_blocks, slots[-1]) <= slot < (window + 2) * window_blocks


def test_block_order_cuts_elsewhere_in_every_epoch():
    order = BlockOrder(num_samples=1000, block_rows=100, window_blocks=1)
    starts = {int(order.rows(epoch, np.arange(100)).min() % 100) for epoch in range(8)}
    assert len(starts) > 4


def test_block_order_refuses_empty_blocks():
    with pytest.raises(UserError, match="block_rows=0"):
        BlockOrder(num_samples=10, block_rows=0)


def test_block_order_is_frozen():
    """These numbers may never change: states and replays depend on them."""
    order = BlockOrder(num_samples=1000, seed=7, block_rows=16, window_blocks=4)
    assert order.rows(2, np.arange(8)).tolist() == [580, 331, 333, 684, 936, 591, 327, 689]
