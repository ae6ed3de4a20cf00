"""python -m pytest tests/slurm/test_array.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.config.array import MAX_INDEX, ArraySpec, parse_array, split


@pytest.mark.parametrize(
    ("text", "num_tasks", "max_running"),
    [
        ("0", 1, 1),
        ("5", 1, 1),  # an index, not a count
        ("0-100%25", 101, 25),
        ("3,17", 2, 2),  # two tasks, not shards 3 and 17
        ("0-15:4", 4, 4),
        ("0-16:4", 5, 5),
        ("1-10%3", 10, 3),
        ("1-3,2-5", 5, 5),  # SLURM counts an index once
        ("1,1", 1, 1),
        ("0-1,10-12,7%2", 6, 2),
        ("0-1%50", 2, 2),  # a limit above the count limits nothing
        (" 0-3 ", 4, 4),
        (f"0-{MAX_INDEX}", MAX_INDEX + 1, MAX_INDEX + 1),
    ],
)
def test_notation(text: str, num_tasks: int, max_running: int) -> None:
    spec = parse_array(text)
    assert (spec.num_tasks, spec.max_running) == (num_tasks, max_running)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "an index is missing"),
        ("1,", "an index is missing"),
        ("%4", "an index is missing"),
        ("a", "'a' is no index or range"),
        ("-1", "'-1' is no index or range"),
        ("0-", "'0-' is no index or range"),
        ("1-3:", "'1-3:' is no index or range"),
        ("3:2", "'3:2' is no index or range"),
        ("0 - 3", "'0 - 3' is no index or range"),
        ("\u0663", "is no index or range"),  # a digit, but not one of SLURM's
        ("5-3", "ends before it begins"),
        ("0-9:0", "step of '0-9:0' must be at least 1"),
        ("0-9%", "behind % stands ''"),
        ("0-9%0", "behind % stands '0'"),
        ("0-9%2%3", "behind % stands '2%3'"),
        ("0-99999999999999999999", "no index above"),
    ],
)
def test_refusals(text: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_array(text)
    assert complaint in str(caught.value)
    assert f"cluster.array={text!r}" in str(caught.value)


@given(indices=st.sets(st.integers(0, 2000), min_size=1), limit=st.integers(1, 3000))
def test_counts_any_list_of_indices(indices: set[int], limit: int) -> None:
    spec = parse_array(",".join(map(str, indices)) + f"%{limit}")
    assert (spec.num_tasks, spec.max_running) == (len(indices), min(limit, len(indices)))
    assert parse_array(f"0-{spec.num_tasks - 1}%{spec.max_running}") == spec


@pytest.mark.parametrize(
    ("text", "max_size", "pieces"),
    [
        ("0-100%25", 1001, [(101, 25, None)]),
        ("0-9%4", 4, [(4, 2, None), (3, 1, None), (3, 1, None)]),
        ("0-9", 5, [(5, 5, None), (5, 5, None)]),
        ("0-6%2", 2, [(2, 1, None), (2, 1, None), (2, 1, 0), (1, 1, 1)]),  # fewer places than pieces: two lanes
        ("0-2%1", 1, [(1, 1, None), (1, 1, 0), (1, 1, 1)]),
        ("5", 0, [(1, 1, None)]),  # a cluster without arrays
    ],
)
def test_pieces(text: str, max_size: int, pieces: list[tuple[int, int, int | None]]) -> None:
    assert [(piece.num_tasks, piece.max_running, piece.after) for piece in split(parse_array(text), max_size)] == pieces


@given(num_tasks=st.integers(1, 3000), limit=st.integers(1, 3000), max_size=st.integers(1, 1001))
def test_pieces_hold_all_tasks_and_the_limit(num_tasks: int, limit: int, max_size: int) -> None:
    spec = ArraySpec(num_tasks=num_tasks, max_running=min(limit, num_tasks))
    pieces = split(spec, max_size)
    assert sum(piece.num_tasks for piece in pieces) == num_tasks
    assert max(piece.num_tasks for piece in pieces) <= max_size
    lanes: dict[int, list[int]] = {}
    lane_of: dict[int, int] = {}
    for position, piece in enumerate(pieces):  # pieces of a lane run one after the other
        lane_of[position] = position if piece.after is None else lane_of[piece.after]
        lanes.setdefault(lane_of[position], []).append(piece.max_running)
    assert sum(max(running) for running in lanes.values()) <= spec.max_running
    if len(pieces) <= spec.max_running:
        assert sum(piece.max_running for piece in pieces) == spec.max_running
