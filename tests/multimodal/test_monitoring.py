"""Waiting times and work, step by step.   pytest tests/multimodal/test_monitoring.py"""

import json

import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal import Monitor
from tests.multimodal.loading.test_loader import joined, make
from tests.multimodal.loading.toys import Toys


class Scalars:
    """In place of TensorBoard's SummaryWriter."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.seen.append((tag, scalar_value, global_step))


def test_figures_of_steps_go_to_a_file_and_to_tensorboard(tmp_path):
    loader = make(toys=Toys(90, bad={3: "decode"}))
    writer = Scalars()
    monitor = Monitor(loader, jsonl=tmp_path / "data.jsonl", writer=writer, every=2)
    delivered = []
    for _, batch in zip(range(5), loader, strict=False):
        delivered.append(batch)
        monitor.step()
    lines = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line["seconds"] >= line["waited_s"] >= 0 <= line["waited_share"] <= 1 for line in lines)
    assert {"read_s", "prepare_s", "collate_s"} <= set(lines[0])
    per_step = [sum(len(row) for row in batch["metadata"]) for batch in delivered]
    assert [line["samples"] for line in lines] == [sum(per_step[:2]) / 2, sum(per_step[2:4]) / 2]
    assert ("data/samples", lines[1]["samples"], 4) in writer.seen
    assert monitor.latest == lines[1]


def test_it_changes_nothing_and_one_rank_writes(tmp_path):
    plain, watched = make(rank=1, world_size=2), make(rank=1, world_size=2)
    monitor = Monitor(watched, jsonl=tmp_path / "data.jsonl", every=1)
    for _ in range(2):
        assert joined([next(iter(plain))]) == joined([next(iter(watched))])
        monitor.step()
    assert plain.state_dict() == watched.state_dict()
    assert not (tmp_path / "data.jsonl").exists()
    assert monitor.latest["step"] == 2


def test_a_monitor_without_a_place_to_write_is_refused():
    with pytest.raises(UserError, match="a monitor needs jsonl"):
        Monitor(make())
