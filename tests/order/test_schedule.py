"""Weights that are shares of tokens, and weights that change by a declared schedule.

pytest tests/order/test_schedule.py
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.order.mixing.schedule import WeightsFrom
from hpcdata.order.streams import MixtureStream, SizedMixture, SizedSource


def mixture_of(tokens: dict[str, int], **options: object) -> SizedMixture:
    """Sources of 100 samples with so many tokens each."""
    sources = [SizedSource(name=name, size=100, tokens=100 * each) for name, each in tokens.items()]
    return SizedMixture(sources, strategy="tokens", **options)  # type: ignore[arg-type]


def shares(mixture: SizedMixture, start: int, stop: int) -> np.ndarray:
    """[num_sources]: how often each is drawn, of the positions."""
    source = MixtureStream(mixture, seed=3, shuffle=True).draws(0, np.arange(start, stop)).source
    return np.bincount(source, minlength=len(mixture.names)) / (stop - start)


def test_weights_of_tokens_are_exact_in_every_period() -> None:
    mixture = mixture_of({"short": 10, "long": 32})
    assert mixture.weights == (16, 5)
    drawn = shares(mixture, 0, 21 * 50) * np.array([10, 32])
    assert drawn[0] == pytest.approx(drawn[1])
    sources = [SizedSource(name="a", size=10, tokens=70, weight=3), SizedSource(name="b", size=5, tokens=10, weight=1)]
    by_hand = SizedMixture(sources, strategy="tokens").weights
    assert by_hand[0] * 7 == 3 * by_hand[1] * 2


def test_a_source_without_tokens_has_no_share_of_them() -> None:
    with pytest.raises(UserError, match="shares of tokens"):
        SizedMixture([SizedSource(name="a", size=10), SizedSource(name="b", size=5, tokens=4)], strategy="tokens")


def test_declared_weights_hold_from_their_place_to_the_next() -> None:
    mixture = mixture_of(
        {"a": 10, "b": 10},
        schedule=[WeightsFrom({"a": 0, "b": 1}, samples=100), WeightsFrom({"a": 3, "b": 1}, samples=300)],
    )
    assert shares(mixture, 0, 100).tolist() == [0.5, 0.5]
    assert shares(mixture, 100, 300).tolist() == [0, 1]
    assert shares(mixture, 300, 700).tolist() == [0.75, 0.25]


def test_a_ramp_goes_there_in_equal_steps() -> None:
    mixture = mixture_of({"a": 10, "b": 10}, schedule=[WeightsFrom({"a": 0, "b": 1}, samples=64_000, ramp=True)])
    for start in range(0, 64_000, 8000):
        expected = 0.5 + (start + 4000) / 128_000
        assert shares(mixture, start, start + 8000)[1] == pytest.approx(expected, abs=0.002)
    assert shares(mixture, 64_000, 65_000)[1] == 1


@pytest.mark.parametrize("ramp", [False, True])
def test_tokens_are_counted_by_the_mean_length_of_each_source(ramp: bool) -> None:
    """The third change is where 100,000 tokens were drawn, whatever the weights before were."""
    mean = np.array([10, 30])
    mixture = mixture_of(
        {"a": 10, "b": 30},
        schedule=[
            WeightsFrom({"a": 1, "b": 1}, tokens=30_000, ramp=ramp),
            WeightsFrom({"a": 1, "b": 3}, samples=4_000, ramp=ramp),
            WeightsFrom({"a": 0, "b": 1}, tokens=200_000, ramp=ramp),
        ],
    )
    last = mixture.schedule[-1][0]
    assert shares(mixture, last, last + 50).tolist() == [0, 1]
    assert (shares(mixture, 0, last) * last) @ mean == pytest.approx(200_000, rel=0.002)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ([WeightsFrom({"a": 1}, samples=3)], {}, "expected a, b"),
        ([WeightsFrom({"a": 1, "b": 1})], {}, "either samples or tokens"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=3, tokens=3)], {}, "either samples or tokens"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=at) for at in (5, 4)], {}, "goes forward: 4 samples"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=-1)], {}, "goes forward"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=9), WeightsFrom({"a": 1, "b": 1}, tokens=9)], {}, "goes forward"),
        ([WeightsFrom({"a": 0, "b": 0}, samples=3)], {}, "all zero"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=1e6)], {}, r"samples of a WeightsFrom=1000000\.0, expected a whole"),
        ([WeightsFrom({"a": 1, "b": 1}, tokens=1e9)], {}, r"tokens of a WeightsFrom=.*, expected a whole"),
        ([WeightsFrom({"a": 1, "b": 1}, samples=3)], {"policy": "stop_all"}, "for the policy repeat"),
    ],
)
def test_schedules_that_cannot_be(schedule: list[WeightsFrom], options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixture_of({"a": 10, "b": 10}, schedule=schedule, **options)


def test_a_schedule_is_part_of_the_settings_and_its_absence_is_not() -> None:
    plain = MixtureStream(mixture_of({"a": 1, "b": 1}), seed=0, shuffle=True).settings()
    assert set(plain) == {"policy", "weights", "sources"}
    given = [WeightsFrom({"a": 1, "b": 2}, samples=3)]
    assert MixtureStream(mixture_of({"a": 1, "b": 1}, schedule=given), seed=0, shuffle=True).settings() != plain


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.integers(1, 5)), max_size=6),
    st.lists(st.integers(1, 200), max_size=3, unique=True),
)
def test_changes_one_by_one_are_those_all_at_once(changes: list[tuple[int, int, int]], declared: list[int]) -> None:
    """A stream that is extended by a change is the one that a state with all changes gives; draws come once each."""
    given = [WeightsFrom({"a": at % 3, "b": 1 + at % 2}, samples=at) for at in sorted(declared)]
    mixture = mixture_of({"a": 10, "b": 10}, schedule=given)
    stream, position = MixtureStream(mixture, seed=1, shuffle=False), 0
    stream.schedule(0)
    for ahead, first, second in changes:
        position += ahead
        before = stream.schedule(0).places(np.arange(position))
        stream = stream.changed(0, position, {"a": first, "b": second})
        assert all((a == b).all() for a, b in zip(before, stream.schedule(0).places(np.arange(position)), strict=True))
    restored = MixtureStream(mixture, seed=1, shuffle=False).with_changes(stream.changes)
    found = [each.schedule(0).places(np.arange(400)) for each in (stream, restored)]
    for ours, theirs in zip(*found, strict=True):
        assert ours.tolist() == theirs.tolist()
    source, draw = found[0]
    for index in range(2):
        assert draw[source == index].tolist() == list(range(int((source == index).sum())))
    for stop in (0, 7, 200, 400):
        assert stream.schedule(0).counts(stop) == np.bincount(source[:stop], minlength=2).tolist()
