"""When a run is submitted again, and when not.   pytest tests/cluster/test_budget.py"""

from __future__ import annotations

import pytest

from hpcdata.cluster.budget import Round, decide
from hpcdata.config.schema import FinishConfig

FINISH = FinishConfig(max_failed=2, max_lost=3, max_submissions=6)


def round_(text: str) -> Round:
    """`+`: got further; `f`: something failed by itself; `c`: cancelled by a person."""
    return Round(
        samples_before=10,
        samples_after=20 if "+" in text else 10,
        failures=("no room",) if "f" in text else (),
        was_cancelled="c" in text,
    )


@pytest.mark.parametrize(
    ("rounds", "reason", "delay_min"),
    [
        ("", None, 0),  # nothing was submitted by us yet, or the records are gone
        ("+", None, 0),
        (".", None, 0),  # the cluster took all: at once the first time
        (". .", None, 2),
        (". . .", "ended 3 submissions in a row", None),
        ("+ . .", None, 2),
        (". . + . .", None, 2),  # progress forgives
        ("f", None, 0),
        ("f f", "2 submissions in a row failed without getting further: no room", None),
        ("f +f f", None, 0),  # counted from the last that got further
        ("f . f", "failed without getting further", None),
        (". f .", None, 2),  # apart: one failed, two lost
        ("+f +f +f", None, 0),  # fails somewhere, but advances
        ("+ + + + + +", "submitted 6 times", None),
        ("+c", "cancelled", None),
    ],
)
def test_decisions(rounds: str, reason: str | None, delay_min: int | None) -> None:
    decision = decide([round_(text) for text in rounds.split()], [], 5, FINISH)
    if reason is None:
        assert (decision.reason, decision.delay_min) == (None, delay_min)
    else:
        assert decision.reason is not None
        assert reason in decision.reason


def test_shards_that_no_repetition_can_write_stop_it_only_when_nothing_else_is_left() -> None:
    hopeless = ["input a.tar has changed"]
    assert decide([round_("+")], hopeless, 2, FINISH).reason is None
    assert decide([round_("+")], hopeless, 1, FINISH).reason == "1 shards cannot be finished: input a.tar has changed"
