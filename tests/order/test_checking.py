"""python -m pytest tests/order/test_checking.py"""

import dataclasses

import pytest

from hpcdata.base.errors import UserError
from hpcdata.order.checking import check_state, digest
from hpcdata.order.packing import BestFit, Buckets


@dataclasses.dataclass
class Options:
    name: str = "interleaved"
    add_bos: bool | None = True
    max_length: int | None = 2048
    img_token_shift: int = 32001
    pad: str = "max_len"
    unconditional_share: float = 0.1
    too_long: str = "raise"


def state_of(settings: dict) -> dict:
    return {"version": 1, "data": "d" * 64, "plan": "p" * 64, "settings": settings}


@pytest.mark.parametrize(
    ("option", "was"),
    [
        ("max_length", 2040),
        ("max_length", 65536),
        ("max_length", None),
        ("add_bos", False),
        ("img_token_shift", 32000),
        ("pad", "to_64"),
        ("unconditional_share", 0.05),
        ("too_long", "skip"),
    ],
)
def test_the_option_behind_a_digest_is_named(option, was):
    here = vars(Options())
    there = {**here, option: was}
    with pytest.raises(UserError, match=rf"\({option} was {was!r}, is {here[option]!r}\): restore {option}, or start"):
        check_state(state_of({"of": digest(there)}), state_of({"of": digest(here)}), {"of": here})


def test_several_options_behind_a_digest_are_not_found():
    here = vars(Options())
    there = {**here, "max_length": 3, "add_bos": False}
    with pytest.raises(UserError, match=r"saved with of='\w+', this loader has '\w+': restore of, or start"):
        check_state(state_of({"of": digest(there)}), state_of({"of": digest(here)}), {"of": here})


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (
            BestFit(length=64, window=8),
            BestFit(length=64, window=9),
            r"\(window of BestFit was 8, is 9\): restore window of BestFit",
        ),
        (BestFit(length=64), BestFit(length=64, max_images=8), r"\(max_images of BestFit was None, is 8\)"),
        (Buckets(rest="pad"), Buckets(), r"\(rest of Buckets was 'pad', is 'carry'\)"),
        (BestFit(length=64), Buckets(), r"rest='carry'\)\": restore packing"),
    ],
)
def test_the_option_of_a_packing_is_named(there, here, said):
    with pytest.raises(UserError, match=r"saved with packing=.*" + said):
        check_state(state_of({"packing": repr(there)}), state_of({"packing": repr(here)}))
