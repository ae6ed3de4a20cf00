"""What is known of examples before they are made.   pytest tests/multimodal/loading/test_lengths.py"""

import traceback

import pytest

from hpcdata.multimodal.loading.lengths import room_of
from hpcdata.samples import BadSample, Reason
from tests.multimodal.loading.toys import Plain, Toys


@pytest.mark.parametrize(("kind", "reason"), [("read", Reason.BAD_EXAMPLE), ("long", Reason.TOO_LONG)])
def test_what_is_kept_of_a_reject_holds_nothing_of_the_example(kind: str, reason: Reason) -> None:
    toys = Toys(2, bad={1: "read"} if kind == "read" else None)
    toys.lengths[1] = 2000
    (found, _), _ = room_of(toys, Plain(toys), 1, 0)
    assert isinstance(found, BadSample)
    assert found.reason == reason
    assert not traceback.extract_tb(found.__traceback__)
    assert found.__context__ is None
