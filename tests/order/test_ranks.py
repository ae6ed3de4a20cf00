"""python -m pytest tests/order/test_ranks.py"""

import os

import pytest

from hpcdata.base.errors import UserError
from hpcdata.order.ranks import find_rank

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8"}
STEP = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}  # runs once, whatever the number of tasks
ARRAY_TASK = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "9", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (3, 8)),
        (STEP, (1, 4)),
        ({**TORCHRUN, **STEP}, (3, 8)),
        (BATCH_SCRIPT, (0, 1)),
        (ARRAY_TASK, (0, 1)),
        ({"RANK": "3"}, (0, 1)),
    ],
)
def test_environment(monkeypatch, environ, expected):
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in TORCHRUN]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert find_rank() == expected
    assert find_rank(1, 2) == (1, 2)


def test_a_process_group_comes_first(monkeypatch, tmp_path):
    from torch import distributed

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert find_rank() == (0, 1)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("rank", "world_size", "message"),
    [(0, None, "go together"), (None, 2, "go together"), (2, 2, "0 <= rank < world_size"), (-1, 2, "rank -1")],
)
def test_nonsense_is_refused(rank, world_size, message):
    with pytest.raises(UserError, match=message):
        find_rank(rank, world_size)


def test_nonsense_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK='first'"):
        find_rank()
