"""python -m pytest tests/native/test_intervals.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdata.native.intervals import Intervals


@given(
    st.integers(1, 300),
    st.sampled_from([(0, 1), (0, 3), (1, 2), (90, 110), (1, 10_000), (2**40, 2**41)]),
    st.integers(0, 2**32),
)
def test_they_are_those_of_a_search(num_intervals, sizes, seed):
    """Equal and unequal ones, many of them empty, and one that is longer than all others."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*sizes, num_intervals, endpoint=True)
    lengths[rng.integers(num_intervals)] += rng.integers(1, 1000)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate([rng.integers(0, edges[-1], 100), edges[:-1][lengths > 0], edges[1:][lengths > 0] - 1])
    assert Intervals(edges).of(values).tolist() == (np.searchsorted(edges, values, side="right") - 1).tolist()
    assert not len(Intervals(edges).of(values[:0]))


@pytest.mark.parametrize("sizes", [(95, 105), (50, 150)])
def test_intervals_of_about_one_length_need_no_search(sizes, monkeypatch):
    edges = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(*sizes, 10_000))])
    intervals, values = Intervals(edges), np.arange(0, edges[-1], 7)
    expected = np.searchsorted(edges, values, side="right") - 1
    monkeypatch.setattr(np, "searchsorted", None)
    assert intervals.of(values).tolist() == expected.tolist()
