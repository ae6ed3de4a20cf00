"""What a real cluster tells of its limits.   pytest tests/slurm/test_limits.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.cluster import preflight
from tests.slurm.cluster import SlurmCluster
from tests.smallruns import small_config


def test_on_the_cluster(login_node: SlurmCluster, tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", "cluster=slurm", "cluster.array=0-1999%25")
    found = preflight.check_cluster(config).lines
    assert found[0].startswith("cluster.array=0-1999%25: 2 arrays, as one may hold 1001 tasks here; 25 tasks")
    assert found[1].startswith("partition preempt preempts (REQUEUE) and kills 2 s after SIGTERM")
    for override, message in (
        ("cluster.gpus_per_node=3", "no node of partition preempt has more than 2 GPUs"),
        ("cluster.mem_gb=4", "no node of partition preempt has more than 4000 MB"),
        ("cluster.partition=prempt", "only high, preempt"),
    ):
        with pytest.raises(UserError, match=message):
            preflight.check_cluster(small_config(tmp_path / "run", "cluster=slurm", override))
