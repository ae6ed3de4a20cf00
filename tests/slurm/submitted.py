"""Submitting made-up runs: tasks for as many shards as anybody wants."""

from __future__ import annotations

from pathlib import Path

from hpcdata.cluster.runs import submit_run
from hpcdata.config.schema import ClusterConfig, DataConfig, FinishConfig, RunConfig


def config_for(output_dir: Path, cluster: ClusterConfig, finish: FinishConfig | None = None) -> RunConfig:
    data = DataConfig(raw_data_dir="/in", token_output_dir=str(output_dir))
    return RunConfig(data=data, cluster=cluster, finish=finish or FinishConfig(combine=False))


def submit_tasks(output_dir: Path, cluster: ClusterConfig, *, num_open: int = 10**6) -> tuple[str, ...]:
    """Job ids of the arrays, with no finishing job behind them."""
    submitted = submit_run(output_dir, config_for(output_dir, cluster), num_open=num_open, samples_done=0)
    return submitted.job_ids
