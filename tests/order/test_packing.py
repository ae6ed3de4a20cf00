"""python -m pytest tests/order/test_packing.py

Packing with two budgets: lengths, and images (of a loader of raw examples: crops).
"""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.order.packing.best_fit import best_fit_two

LENGTH = 60


def bins_of(lengths: np.ndarray, images: np.ndarray | None = None, **options):
    return BestFit(**options).place(lengths, np.zeros_like(lengths), 8, images)


samples = st.lists(st.tuples(st.integers(0, LENGTH), st.integers(0, 7)), max_size=120)


@settings(max_examples=150, deadline=None)
@given(samples, st.integers(7, 30), st.sampled_from([1, 1, 5, 1000]))
def test_both_budgets_hold_and_every_sample_has_one_place(samples, most, times):
    """Images may be counted in large numbers as well: image tokens are."""
    lengths, images = np.array(samples, np.int64).reshape(-1, 2).T
    images, most = images * times, most * times
    bins = bins_of(lengths, images, length=LENGTH, max_images=most)
    assert sorted(bins.sample.tolist()) == np.flatnonzero(lengths).tolist()
    assert (np.diff(bins.first_row) > 0).all()
    assert bins.totals(lengths).max(initial=0) <= LENGTH
    assert bins.totals(images).max(initial=0) <= most
    assert (np.diff(bins.sample[bins.first_row[:-1]]) > 0).all()  # bins stand in the order of their first samples
    for first, stop in zip(bins.first_row[:-1], bins.first_row[1:], strict=True):
        assert (np.diff(bins.sample[first:stop]) > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5000)), max_size=90))
def test_many_different_costs_are_rounded_up_and_never_too_many(samples):
    lengths, images = np.array(samples, np.int64).reshape(-1, 2).T
    bins = bins_of(lengths, images, length=20, max_images=5000)
    assert sorted(bins.sample.tolist()) == list(range(len(lengths)))
    assert bins.totals(images).max(initial=0) <= 5000


@settings(max_examples=100, deadline=None)
@given(samples)
def test_a_budget_that_is_never_reached_changes_nothing(samples):
    lengths, images = np.array(samples, np.int64).reshape(-1, 2).T
    alone = bins_of(lengths, length=LENGTH)
    for bins in (
        bins_of(lengths, images, length=LENGTH),
        bins_of(lengths, images, length=LENGTH, max_images=10_000),
        bins_of(lengths, images * 0, length=LENGTH, max_images=1),
    ):
        assert bins.sample.tolist() == alone.sample.tolist()
        assert bins.first_row.tolist() == alone.first_row.tolist()


def test_bins_are_frozen():
    """These numbers may never change: states and replays depend on them. The first are those of one budget."""
    rng = np.random.default_rng(3)
    lengths, images = rng.integers(0, 4097, 1000), rng.integers(0, 5, 1000)
    found = []
    for most in (None, 4):
        bins = bins_of(lengths, images, length=4096, max_images=most)
        text = f"{bins.sample.tolist()} {bins.first_row.tolist()} {set(bins.width.tolist())}"
        found.append((bins.num_bins, hashlib.blake2b(text.encode(), digest_size=8).hexdigest()))
    assert found == FROZEN


FROZEN = [(498, "66e662f3023082e7"), (503, "0e91cbe85321d827")]


def test_how_full_bins_are():
    """Of 4,096 columns (raw examples: 16,384) the bins are at most 4 % more than the scarcer budget needs at least."""
    rng = np.random.default_rng(0)
    captions = rng.integers(10, 180, 4096)
    has_image = rng.random(4096) < 0.5
    documents = np.clip(rng.lognormal(6, 1.2, 4096), 8, 4096).astype(np.int64)
    several = rng.poisson(1.5, 4096).clip(0, 8)
    mixed = np.clip(documents // 2 + several * 258, 1, 4096)
    crops = rng.integers(1, 14, 4096)
    raw = crops * 145 + rng.integers(20, 700, 4096)
    pairs = captions + 258 * has_image
    for lengths, images, length, most in (
        (pairs, has_image, 4096, 4),
        (pairs, has_image, 4096, 8),
        (mixed, several, 4096, 8),
        (mixed, several, 4096, 10),
        (raw, crops, 16384, 60),
        (raw, crops * 145, 16384, 8192),
        (rng.integers(1, 2000, 4096), rng.integers(0, 30, 4096), 4096, 60),
    ):
        bins = bins_of(lengths, images.astype(np.int64), length=length, max_images=most)
        least = max(lengths.sum() / length, images.sum() / most)
        assert least / bins.num_bins > 0.96, (length, most)


def test_scarce_images_meet_samples_without_any():
    """Ten long texts, ten images: two budgets are filled at the same time."""
    lengths, images = np.array([90] * 10 + [10] * 10), np.array([0] * 10 + [1] * 10)
    bins = bins_of(lengths, images, length=100, max_images=1)
    assert bins.num_bins == 10
    assert bins.totals(images).tolist() == [1] * 10


def test_equal_worth_goes_to_the_smaller_cost():
    """The documented tie: one unit of room left in both, each as scarce as the other."""
    assert best_fit_two(np.array([1, 1]), 1, np.array([0, 0]), 1).tolist() == [0, 1]
    lengths, costs = np.array([2, 1, 1, 2]), np.array([1, 2, 2, 1])
    assert best_fit_two(lengths, 2, costs, 2).tolist() == [0, 2, 3, 1]


def test_a_state_shows_the_packing_as_before_and_the_second_budget_behind_it():
    assert repr(BestFit(length=4096)) == "BestFit(length=4096, window=4096, cuts=False)"
    assert repr(BestFit(length=64, max_images=8)) == "BestFit(length=64, window=4096, cuts=False, max_images=8)"
    assert eval(repr(BestFit(length=64, max_images=8))) == BestFit(length=64, max_images=8)  # so does replay
    assert repr(Concat(length=64)) == "Concat(length=64, window=4096, cuts=True)"
    assert repr(Buckets(rest="pad")) == "Buckets(multiple=128, window=16384, cuts=False, length=None)"
    assert eval(repr(Buckets(multiple=7))) == Buckets(multiple=7) != Buckets(multiple=7, rest="pad")


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(UserError, match="max_images=0, expected at least 1"):
        BestFit(length=64, max_images=0)


@given(st.lists(st.integers(0, 90), max_size=40), st.sampled_from([1, 2, 4, 8]), st.integers(1, 6))
def test_pieces_of_documents_leave_room_for_their_padding(lengths, multiple, columns):
    """Each document in its pieces, in order; all but its last are whole multiples; padded, they fit into their rows."""
    packing = Concat(length=8 * columns, multiple=multiple)
    bins = packing.place(np.array(lengths, np.int64), np.zeros(len(lengths), np.int64), 2)
    assert bins.start is not None
    assert bins.length is not None
    pieces = [[] for _ in lengths]
    for sample, start, length in zip(bins.sample.tolist(), bins.start.tolist(), bins.length.tolist(), strict=True):
        pieces[sample].append((start, start + length))
    for length, found in zip(lengths, pieces, strict=True):
        edges = [0, *(stop for _, stop in found)]
        assert [start for start, _ in found] == edges[:-1]
        assert edges[-1] == length
        assert all(edge % multiple == 0 for edge in edges[:-1])
    padded = -(-bins.length // multiple) * multiple
    rows = np.add.reduceat(padded, bins.first_row[:-1]) if len(padded) else padded
    assert (rows[:-2] == packing.length).all()
    assert (rows <= packing.length).all()
    if len(rows) > 1 and rows[-2] < packing.length:  # the last would have had one id
        assert (rows[-2], bins.length[-1]) == (packing.length - multiple, multiple + 1)


@given(st.lists(st.integers(2, 90), min_size=1, max_size=40), st.sampled_from([1, 2, 4]), st.integers(4, 12))
def test_no_row_is_a_single_id_of_a_document(lengths, multiple, columns):
    """Its label would be what follows it, and nothing does: a rank with that row alone would have no loss.

    Rows of three ids have no room for it: one may be two ends of documents.
    """
    packing = Concat(length=columns * multiple, multiple=multiple)
    bins = packing.place(np.array(lengths, np.int64), np.zeros(len(lengths), np.int64), 2)
    assert bins.length is not None
    for some in (bins, bins.split(bins.num_bins + 5)):
        longest = np.maximum.reduceat(bins.length, some.first_row[:-1])
        assert len(longest) == some.num_bins
        assert longest.min() > 1
