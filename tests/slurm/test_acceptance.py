"""A small form of `acceptance`: preemptions, a dead node, arrays of three.   pytest tests/slurm/test_acceptance.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpcdata.history import submissions
from hpcdata.runs.paths import RunPaths
from tests import corpora
from tests.slurm import acceptance
from tests.slurm.cluster import SlurmCluster


@pytest.mark.skipif(not corpora.available("tuxpaint"), reason="needs tuxpaint-stamps-default")
def test_one_line_through_preemptions_and_the_death_of_a_node(
    slurm_programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "PREEMPT_EVERY_S", 8.0)
    (tmp_path / "in").mkdir()
    corpora.write_tars(corpora.pairs("tuxpaint")[:240], tmp_path / "in", "pairs", 120)
    folder = tmp_path / "run"
    with SlurmCluster(max_array_size=3, kill_wait_s=1, slurm_conf=acceptance.SLURM_CONF) as cluster:
        overrides = ["cluster.array=0-9999%4", "data.shard_size=40", "data.resolution=416", "loader.batch_size=4"]
        result = acceptance.survive(cluster, folder, tmp_path / "in", *overrides, timeout_s=480)
    print(result.line())
    assert result.outcome.account is not None
    assert result.outcome.account.startswith("240 inputs = ")
    assert result.num_preemptions >= 1
    assert result.status.preemptions >= 1
    acceptance.require_backed(folder, dataclasses.asdict(result.status))
    tasks = [item for item in submissions.read(RunPaths(folder)).submissions if item.kind == "tasks"]
    assert [item.num_tasks for item in tasks if item.round == 1] == [3, 3]
