"""python -m pytest tests/order/test_mixture.py"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order import streams
from hpcdata.order.mixing.interleave import Interleave, integer_weights
from hpcdata.order.mixing.schedule import make_schedule
from hpcdata.order.streams import MixtureStream, SizedMixture, SizedSource

WEIGHTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=9).filter(any)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(0, 10**12), st.integers(1, 400))
def test_places_counts_and_positions_agree(weights, first, length):
    """Any window of the stream holds what the counts say, draws are numbered without gaps, `position` inverts."""
    interleave = Interleave(weights)
    positions = np.arange(first, first + length)
    source, draw = interleave.places(positions)
    before, after = interleave.counts(first), interleave.counts(first + length)
    for index, weight in enumerate(weights):
        at = np.flatnonzero(source == index)
        assert draw[at].tolist() == list(range(before[index], after[index]))
        assert abs(after[index] - Fraction(weight * (first + length), sum(weights))) < 2
        for place in at[:3].tolist():
            assert interleave.position(index, int(draw[place])) == positions[place]
    period = sum(weights)
    assert interleave.counts(3 * period) == [3 * weight for weight in weights]
    backwards = interleave.places(positions[::-1].copy())
    assert (backwards[0][::-1] == source).all()


def test_two_sources_never_deviate_by_one():
    for weights in ((1, 1), (7, 3), (1, 1000), (999, 1000)):
        source, _ = Interleave(weights).places(np.arange(5000))
        exact = np.arange(1, 5001) * weights[0] / sum(weights)
        assert np.abs(np.cumsum(source == 0) - exact).max() < 1


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.5, 0.3, 0.2], (5, 3, 2)),
        ([1, 1, 1], (1, 1, 1)),
        ([0.1, 0.2], (1, 2)),
        ([3, 0, 6], (1, 0, 2)),
        ([10**12, 1], (2**30, 1)),
    ],
)
def test_integer_weights(weights, expected):
    assert integer_weights(weights) == expected


def test_weights_are_numbers_of_any_library():
    """A controller of an online mixing has tensors."""
    assert integer_weights([torch.tensor(0.25), torch.tensor(3)]) == (1, 12)
    assert integer_weights([np.float32(0.3), np.int64(1)]) == (3, 10)


BAD = [
    [0, 0],
    [-1, 2],
    [float("nan")],
    [float("inf"), 1],
    ["3", 1],
    [None, 1],
    [torch.ones(2), 1],
    [torch.tensor(-1.0)],
]


@pytest.mark.parametrize("weights", BAD)
def test_bad_weights(weights):
    with pytest.raises(UserError, match=r"weight"):
        integer_weights(weights)


SOURCES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 50), st.integers(1, 3)), min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@given(SOURCES, st.sampled_from(["stop_first", "stop_all", "max_repeats"]))
def test_policies_end_where_they_should(sources, policy):
    """Every draw of a source comes once, in order; the end is behind the draw that the policy waits for."""
    sizes, weights, repeats = (list(column) for column in zip(*sources, strict=True))
    schedule = make_schedule(sizes, weights, policy=policy, max_repeats=repeats)
    source, draw = schedule.places(np.arange(schedule.num_samples))
    counts = [int((source == index).sum()) for index in range(len(sizes))]
    for index, count in enumerate(counts):
        assert draw[source == index].tolist() == list(range(count))
    assert counts == schedule.counts(schedule.num_samples)
    if policy == "max_repeats":
        assert counts == [size * times for size, times in zip(sizes, repeats, strict=True)]
    elif policy == "stop_first":
        assert [count - size for count, size in zip(counts, sizes, strict=True)].count(0) == 1
        assert all(count <= size for count, size in zip(counts, sizes, strict=True))
    else:
        assert all(count >= size for count, size in zip(counts, sizes, strict=True))
        last = int(source[-1])
        assert counts[last] == sizes[last]


@settings(max_examples=60, deadline=None)
@given(SOURCES, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), max_size=4), st.data())
def test_weights_change_at_a_position_and_nothing_is_lost(sources, changes, data):
    sizes, weights, repeats = (list(column) for column in zip(*sources, strict=True))
    several = st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)).filter(any)
    changes = [(position, data.draw(several)) for position in sorted(position for position, _ in changes)]
    schedule = make_schedule(sizes, weights, policy="repeat", max_repeats=repeats, changes=changes)
    assert schedule.num_samples is None
    source, draw = schedule.places(np.arange(600))
    for index in range(len(sizes)):
        at = source == index
        assert draw[at].tolist() == list(range(int(at.sum())))
    for stop in (0, 1, 150, 299, 600):
        assert schedule.counts(stop) == [int((source[:stop] == index).sum()) for index in range(len(sizes))]
    before = make_schedule(sizes, weights, policy="repeat", max_repeats=repeats).places(np.arange(600))[0]
    until = changes[0][0] if changes else 600
    assert (source[:until] == before[:until]).all()
    if changes and changes[-1][0] < 300:
        share = Interleave(changes[-1][1])
        assert (source[changes[-1][0] :] == share.places(np.arange(600 - changes[-1][0]))[0]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any),
    st.lists(st.integers(0, 2**50), max_size=50),
)
def test_the_compiled_tree_is_the_numpy_one(weights, positions):
    interleave, at = Interleave(weights), np.array(positions, np.int64)
    for ours, theirs in zip(interleave.places(at), interleave._places(at), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_a_mixture_of_many_sources_draws_what_one_by_one_gives(monkeypatch):
    sources = [SizedSource(name=str(n), size=3 + 5 * n, weight=1 + n % 4, sampling="end:3") for n in range(12)]
    mixture = SizedMixture(sources)
    fast = MixtureStream(mixture, seed=5, shuffle=True).draws(1, np.arange(500))
    monkeypatch.setattr(streams, "FEW", 100)
    slow = MixtureStream(mixture, seed=5, shuffle=True).draws(1, np.arange(500))
    assert fast.rows.tolist() == slow.rows.tolist()
    assert fast.seeds.tolist() == slow.seeds.tolist()
