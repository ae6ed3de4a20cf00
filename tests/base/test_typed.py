"""Records read from files are what they say.   pytest tests/base/test_typed.py"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hpcdata.base.typed import checked
from hpcdata.sources.base import InputFile, Scan


@dataclass(frozen=True, kw_only=True)
class Several:
    files: tuple[InputFile, ...]


def scan(**values: Any) -> Scan:
    return Scan(**{"num_samples": 3, "every": 1, "cuts": (0, 1, 2), **values})


def test_values_of_the_annotated_types_are_returned() -> None:
    value = scan(repeats=((1, 2), (3, 4)))
    assert checked(value) is value
    assert checked(Several(files=(InputFile(path="a", label="b", format="tar"),) * 2))
    assert checked(Several(files=()))


@pytest.mark.parametrize("cuts", [(0, True), (0, "1"), (0, 1.0), (0, None), [0, 1], ((0,),)])
def test_one_item_of_another_type_is_refused(cuts: Any) -> None:
    with pytest.raises(TypeError, match="cuts is"):
        checked(scan(cuts=cuts))


@pytest.mark.parametrize("repeats", [((1, 2), (3,)), ((1, "2"),), ((1, 2, 3),)])
def test_pairs_are_pairs_of_numbers(repeats: Any) -> None:
    with pytest.raises(TypeError, match="repeats is"):
        checked(scan(repeats=repeats))


def test_records_in_a_tuple_are_checked_too() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="label is int"):
        checked(Several(files=(InputFile(path="a", label=wrong, format="tar"),)))
