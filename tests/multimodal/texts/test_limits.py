"""What is kept of an example that is too long.   pytest tests/multimodal/texts/test_limits.py"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal.texts.limits import Cut, Limits, decide, num_tokens
from hpcdata.multimodal.values import Measure
from hpcdata.samples import BadSample, Reason

PICTURE = 10
"""Tokens of a crop; the picture of these tests has at most 4."""


def measure(*branches: Sequence[tuple[int, int]], kept: Sequence[int] | None = None) -> Measure:
    """Branches of turns: (ids, how many of them are learned)."""
    return Measure(
        sizes=((4, 4),),
        num_tokens=tuple(tuple(tokens for tokens, _ in branch) for branch in branches),
        num_learned=tuple(tuple(learned for _, learned in branch) for branch in branches),
        num_kept=tuple(kept or [0] * len(branches)),
        num_shared=1,
    )


def kept(its: Measure, *, most: int | None, by: str = "skip", text: int | None = None, is_open: bool = False) -> Cut:
    limits = Limits(max_sequence_length=most, max_text_tokens=text, policies=tuple(by.split(",")))
    return decide(its, limits, most_crops=4, picture_tokens=lambda crops: PICTURE * crops, is_open=is_open)


def reason(its: Measure, *, most: int, by: str = "skip") -> Reason:
    with pytest.raises(BadSample) as caught:
        kept(its, most=most, by=by)
    return caught.value.reason


TALK = ((6, 0), (5, 5), (7, 0), (4, 4), (3, 0), (2, 2))
"""27 ids: with bos and 40 of the picture, without what ends the last answer, a sequence of 67."""


@pytest.mark.parametrize(
    ("most", "by", "turns", "crops"),
    [
        (67, "skip", 6, 4),
        (66, "drop_last_turns", 4, 4),
        (61, "drop_last_turns", 2, 4),
        (51, "drop_last_turns", 2, 4),
        (66, "fewer_crops", 6, 3),
        (37, "fewer_crops", 6, 1),
        (36, "fewer_crops,drop_last_turns", 4, 1),
        (36, "drop_last_turns,fewer_crops", 2, 2),
    ],
)
def test_policies_keep_as_much_as_fits(most: int, by: str, turns: int, crops: int) -> None:
    its = measure(TALK)
    cut = kept(its, most=most, by=by)
    assert cut == Cut(num_turns=(turns,), max_crops=crops)
    assert num_tokens(its, cut.num_turns, PICTURE * cut.max_crops, is_open=False, ends_inside=False) <= most


def test_what_cannot_be_made_short_enough_is_a_counted_reject_or_an_error() -> None:
    assert reason(measure(TALK), most=66) is Reason.TOO_LONG
    assert reason(measure(TALK), most=50, by="drop_last_turns") is Reason.TOO_LONG
    assert reason(measure(TALK), most=36, by="fewer_crops") is Reason.TOO_LONG
    with pytest.raises(UserError, match=r"67 tokens \(40 of pictures\), max_sequence_length is 66"):
        kept(measure(TALK), most=66, by="error")
    with pytest.raises(UserError, match="truncation=cut: expected error, skip"):
        Limits(policies=("cut",))


def test_turns_with_a_picture_are_not_left_out() -> None:
    assert kept(measure(TALK, kept=[3]), most=66, by="drop_last_turns").num_turns == (4,)
    assert reason(measure(TALK, kept=[3]), most=55, by="drop_last_turns") is Reason.TOO_LONG


def test_branches_that_do_not_fit_are_left_out_with_all_behind_them() -> None:
    tree = measure(((5, 0), (3, 3)), ((5, 0), (9, 9)), ((2, 0), (1, 1)))
    assert kept(tree, most=1000).num_turns == (2, 2, 2)
    assert kept(tree, most=61).num_turns == (2, 2)
    assert kept(tree, most=60).num_turns == (2,)
    assert kept(tree, most=60).dropped(tree, 4) == {"dropped_branches": 2}
    assert reason(tree, most=47) is Reason.TOO_LONG


def test_branches_end_with_the_one_that_reaches_the_text_tokens() -> None:
    tree = measure(((5, 0), (3, 3)), ((5, 0), (9, 9)), ((2, 0), (1, 1)))
    assert [len(kept(tree, most=None, text=text).num_turns) for text in (1, 8, 9, 22, 23, 99)] == [1, 1, 2, 2, 3, 3]


def test_an_example_that_teaches_nothing_is_a_reject_unless_an_answer_is_asked_for() -> None:
    for by in ("skip", "error"):
        assert reason(measure(((5, 0), (3, 0))), most=1000, by=by) is Reason.NOTHING_TO_LEARN
    late = measure(((5, 0), (3, 0)), ((5, 0), (3, 3)))
    assert reason(late, most=50) is Reason.NOTHING_TO_LEARN
    asked = measure(((5, 0),))
    assert kept(asked, most=46, is_open=True).num_turns == (1,)
    with pytest.raises(BadSample):
        kept(asked, most=45, is_open=True)
