"""python -m pytest tests/order/test_balance.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.packing import BestFit, Concat
from hpcdata.order.packing.pieces import rows_of_ranks
from hpcdata.order.steps import Share


@given(st.integers(1, 6), st.integers(0, 40), st.integers(0, 2**32))
def test_every_row_goes_to_one_rank_and_all_have_as_many(num_ranks, num_rows, seed):
    costs = np.random.default_rng(seed).integers(0, 10**12, num_rows)
    rows = rows_of_ranks(costs, num_ranks)
    shares = [Share(rank=rank, world_size=num_ranks).of(0, num_rows) for rank in range(num_ranks)]
    assert [len(of_rank) for of_rank in rows] == [stop - first for first, stop in shares]
    assert sorted(np.concatenate(rows).tolist()) == list(range(num_rows))
    assert all((np.diff(of_rank) > 0).all() for of_rank in rows)


def test_the_most_expensive_rows_are_spread_over_ranks():
    costs = np.array([100, 90, 1, 2, 3, 4, 80, 70])
    rows = rows_of_ranks(costs, 4)
    assert [of_rank.tolist() for of_rank in rows] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert [of_rank.tolist() for of_rank in rows_of_ranks(np.full(6, 5), 3)] == [[0, 3], [1, 4], [2, 5]]
    assert [of_rank.tolist() for of_rank in rows_of_ranks(np.array([9, 1, 8]), 2)] == [[0], [1, 2]]


@pytest.mark.parametrize("packing", [BestFit, Concat])
def test_what_bins_cost_is_the_sum_of_their_squares(packing):
    lengths = np.array([30, 0, 7, 25, 12, 30, 3, 90])
    if packing is BestFit:
        lengths[-1] = 9
    bins = packing(length=40, balance="squares").place(lengths, np.zeros_like(lengths), 2)
    taken = lengths[bins.sample] if bins.length is None else bins.length
    expected = [int((part**2).sum()) for part in np.split(taken, bins.first_row[1:-1])]
    assert bins.cost.tolist() == expected
    plain = packing(length=40).place(lengths, np.zeros_like(lengths), 2)
    assert plain.cost is None
    assert (plain.sample.tolist(), plain.first_row.tolist()) == (bins.sample.tolist(), bins.first_row.tolist())


@pytest.mark.parametrize("packing", [BestFit, Concat])
def test_ranks_that_had_twice_as_much_to_compute_are_within_a_twentieth(packing):
    """64 rows of 4,096 tokens on 8 ranks, documents of exponential lengths."""
    lengths = np.random.default_rng(0).exponential(400, 4096).clip(1, 4096).astype(np.int64)
    cost = packing(length=4096, balance="squares").place(lengths, np.zeros_like(lengths), 64).cost
    before, after = [], []
    for first in range(0, len(cost) // 64 * 64, 64):
        step = cost[first : first + 64]
        sums = step.reshape(8, -1).sum(1), step[np.stack(rows_of_ranks(step, 8))].sum(1)
        before.append(sums[0].max() / sums[0].min())
        after.append(sums[1].max() / sums[1].min())
    assert np.mean(after) < 1.1
    assert np.mean(before) > 1.3


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(UserError, match="balance='cubes', expected squares or None"):
        BestFit(length=40, balance="cubes")
    with pytest.raises(UserError, match="balance='cubes', expected squares or None"):
        Concat(length=40, balance="cubes")


def test_states_tell_it_only_where_it_is_wanted():
    assert repr(BestFit(length=40)) == "BestFit(length=40, window=4096, cuts=False)"
    assert repr(Concat(length=40)) == "Concat(length=40, window=4096, cuts=True)"
    assert repr(Concat(length=40, balance="squares")) == (
        "Concat(length=40, window=4096, cuts=True, balance='squares')"
    )
