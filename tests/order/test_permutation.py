"""python -m pytest tests/order/test_permutation.py"""

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.order.order import ShuffledOrder
from hpcdata.order.permutation import round_keys

POWERS = [2**bits + offset for bits in range(1, 19) for offset in (-1, 0, 1)]
GRAIN_FAILS = [65537, 262145, 1048577]  # a permutation there is none in grain 0.2


def epoch_of(num_samples: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return ShuffledOrder(num_samples=num_samples, seed=seed).rows(epoch, np.arange(num_samples))


@pytest.mark.parametrize("num_samples", sorted({1, 2, 3, *POWERS, *GRAIN_FAILS}))
def test_bijective_at_edges(num_samples):
    assert (np.bincount(epoch_of(num_samples, seed=5, epoch=2), minlength=num_samples) == 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20_000), st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_bijective_everywhere(num_samples, seed, epoch):
    assert (np.bincount(epoch_of(num_samples, seed, epoch), minlength=num_samples) == 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2**62), st.integers(0, 2**32), st.data())
def test_a_position_does_not_depend_on_its_company(num_samples, seed, data):
    positions = np.array(data.draw(st.lists(st.integers(0, num_samples - 1), min_size=1, max_size=20)))
    order = ShuffledOrder(num_samples=num_samples, seed=seed)
    together = order.rows(3, positions)
    assert together.tolist() == [int(order.rows(3, np.array([position]))[0]) for position in positions]
    assert together.min() >= 0
    assert together.max() < num_samples


def test_frozen():
    """These numbers may never change: states and replays depend on them."""
    assert ShuffledOrder(num_samples=1000, seed=7).rows(2, np.arange(8)).tolist() == [
        553,
        425,
        855,
        829,
        367,
        393,
        166,
        562,
    ]


def test_keys_of_seed_and_epoch_do_not_collide():
    keys = {tuple(map(int, round_keys(seed, epoch))) for seed in range(-40, 40) for epoch in range(40)}
    assert len(keys) == 80 * 40
    assert (epoch_of(1000, seed=1, epoch=2) != epoch_of(1000, seed=2, epoch=1)).any()
    assert (epoch_of(1000, seed=1, epoch=11) != epoch_of(1000, seed=11, epoch=1)).any()


@pytest.mark.parametrize("num_samples", [257, 1000, 65537, 262145])
@pytest.mark.parametrize("epoch", [0, 1])
def test_lag_correlations_are_noise(num_samples, epoch):
    rows = epoch_of(num_samples, seed=11, epoch=epoch).astype(float)
    bound = 4.5 / math.sqrt(num_samples)
    assert abs(np.corrcoef(np.arange(num_samples), rows)[0, 1]) < bound
    for lag in (1, 2, 3, 16, 64):
        assert abs(np.corrcoef(rows[:-lag], rows[lag:])[0, 1]) < bound, lag


def test_epochs_are_independent():
    first, second = (epoch_of(65537, seed=11, epoch=epoch).astype(float) for epoch in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / 256


def test_blocks_go_everywhere():
    """Chi-square of (block of positions) x (block of rows) against the uniform table."""
    num_samples, num_blocks = 100_003, 32
    rows = epoch_of(num_samples, seed=3)
    cells = np.arange(num_samples) * num_blocks // num_samples * num_blocks + rows * num_blocks // num_samples
    counts = np.bincount(cells, minlength=num_blocks**2)
    expected = num_samples / num_blocks**2
    freedom = (num_blocks - 1) ** 2
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_few_samples_come_in_every_order():
    """All 24 orders of four samples, equally often over epochs."""
    num_epochs = 960
    order = ShuffledOrder(num_samples=4, seed=1)
    rows = order.rows_of_epochs(np.repeat(np.arange(num_epochs), 4), np.tile(np.arange(4), num_epochs))
    counts = Counter(map(tuple, rows.reshape(-1, 4).tolist()))
    assert set(counts) == set(permutations(range(4)))
    statistic = sum((count - 40) ** 2 / 40 for count in counts.values())
    assert statistic < 23 + 5 * math.sqrt(2 * 23)


@pytest.mark.parametrize("num_samples", GRAIN_FAILS)
def test_successive_rows_are_independent_where_grain_is_not(num_samples):
    """grain 0.2 shows a lag-1 correlation of 0.40 and repeats rows at these sizes; its epochs e, seed s are s + e."""
    rows = epoch_of(num_samples, seed=3)
    assert len(np.unique(rows)) == num_samples
    steps = np.diff(rows.astype(float))
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 4.5 / math.sqrt(num_samples)
    assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5) < 4.5 / math.sqrt(num_samples)  # of white noise: -1/2
    assert (epoch_of(num_samples, seed=4, epoch=0)[:100] != epoch_of(num_samples, seed=3, epoch=1)[:100]).any()
