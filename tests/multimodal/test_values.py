"""The values that travel in the raw path.   pytest tests/multimodal/test_values.py"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.multimodal.values import Measure, Measures

SIDE = st.integers(1, 50_000)


@st.composite
def measures(draw: st.DrawFn) -> Measure:
    turns = draw(st.lists(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=4), max_size=3))
    return Measure(
        sizes=tuple(draw(st.lists(st.tuples(SIDE, SIDE), max_size=3))),
        num_tokens=tuple(tuple(number for number, _ in branch) for branch in turns),
        num_learned=tuple(tuple(number for _, number in branch) for branch in turns),
        num_kept=tuple(draw(st.integers(0, len(branch))) for branch in turns),
        num_shared=draw(st.integers(0, 9)),
        is_drawn=draw(st.booleans()),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(measures(), max_size=5))
def test_columns_of_measures_give_each_of_them_back(some: list[Measure]) -> None:
    columns = Measures.of(some, "digest")
    assert columns.written_by == "digest"
    assert [columns[row] for row in range(len(columns))] == some
    with pytest.raises(IndexError):
        columns[len(some)]
