"""python -m pytest tests/order/test_sampling.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.sampling import select
from hpcdata.order.seeding import example_seed, example_seeds, uniform


@pytest.mark.parametrize(
    ("strategy", "size", "rows"),
    [
        ("all", 4, [0, 1, 2, 3]),
        ("first:2", 4, [0, 1]),
        ("end:2", 4, [2, 3]),
        ("first:50%", 5, [0, 1, 2]),
        ("end:0.5%", 400, [398, 399]),
        ("end:.5%", 200, [199]),
        ("first:100%", 3, [0, 1, 2]),
        ("first:0.5%", 3, [0]),
    ],
)
def test_strategies(strategy, size, rows):
    selection = select(strategy, size)
    assert selection.rows(np.arange(selection.num_samples)).tolist() == rows


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2000), st.integers(0, 9), st.data())
def test_random_is_one_subset_a_seed(size, seed, data):
    number = data.draw(st.integers(1, size))
    selection = select(f"random:{number}", size, seed=seed)
    rows = selection.rows(np.arange(number)).tolist()
    assert len(set(rows)) == number
    assert set(rows) <= set(range(size))
    assert rows == select(f"random:{number}", size, seed=seed).rows(np.arange(number)).tolist()


def test_random_subsets_differ_by_seed_and_share_is_exact():
    first, second = (select("random:0.5%", 100_000, seed=seed) for seed in (0, 1))
    assert first.num_samples == second.num_samples == 500
    assert set(first.rows(np.arange(500)).tolist()) != set(second.rows(np.arange(500)).tolist())
    assert select("first:0.7%", 1000).num_samples == 7, "0.7 / 100 * 1000 is 7.000000000000001 in floating point"


@pytest.mark.parametrize("strategy", ["", "some", "first", "first:", "last:3", "first:-1", "first:1.5", "random:x%"])
def test_unknown_strategies(strategy):
    with pytest.raises(UserError, match="sampling strategy"):
        select(strategy, 10)


@pytest.mark.parametrize("strategy", ["first:11", "end:0", "random:101%", "first:0%"])
def test_shares_that_cannot_be(strategy):
    with pytest.raises(UserError, match="expected 1 to 10"):
        select(strategy, 10)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 2**40), st.lists(st.integers(0, 2**40), min_size=1), st.integers(1, 2**40))
def test_example_seeds_follow_the_formula(seed, epoch, indices, size):
    expected = [(seed * 195172 + index + size * epoch) % (2**32 - 1) for index in indices]
    assert example_seeds(seed, np.array([epoch]), np.array(indices), size).tolist() == expected
    assert [example_seed(seed, epoch, index, size) for index in indices] == expected


def test_uniform_is_uniform_for_neighbouring_seeds():
    values = uniform(np.arange(100_000))
    assert 0 <= values.min() <= values.max() < 1
    assert np.abs(np.histogram(values, 20, (0, 1))[0] - 5000).max() < 350
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(values, uniform(np.arange(100_000), 1))[0, 1]) < 0.02
