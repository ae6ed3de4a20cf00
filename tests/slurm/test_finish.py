"""The finishing job on the real SLURM: arrays past the cap, loss, damage, cancel, resume.

pytest tests/slurm/test_finish.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import launch, submissions
from hpcdata.outcome import Outcome, read_outcome
from hpcdata.plan import RunPaths
from hpcdata.verify import verify
from tests.slurm.cluster import SlurmCluster
from tests.slurm.test_runs import NUM_SAMPLES, arguments, reference, source

__all__ = ["reference", "source"]  # fixtures


@pytest.fixture(scope="module")
def small_cluster(slurm_programs: None) -> Iterator[SlurmCluster]:
    """Arrays of at most three elements, at most nine jobs of a user, and a lost node is noticed at once."""
    lines = ("AccountingStorageEnforce=limits", "SlurmdTimeout=10")
    with SlurmCluster(max_array_size=3, slurm_conf=lines) as cluster:
        user = cluster.run("id", "-un").strip()
        cluster.run("sacctmgr", "--immediate", "add", "account", "lab", "MaxSubmitJobs=9")
        cluster.run("sacctmgr", "--immediate", "add", "user", user, "account=lab")
        yield cluster


@pytest.fixture
def login(small_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, small_cluster.env[name])
    yield small_cluster
    small_cluster.clear()


def start(folder: Path, source: Path, *overrides: str) -> None:
    options = ["cluster=slurm", "cluster.partition=preempt", "cluster.cpus_per_task=1", "finish.combine=true"]
    options += ["cluster.claim_timeout_s=10", "data.resolution=128"]
    assert launch.main([*arguments(folder, source), *options, *overrides]) == 0


def wait_for_the_outcome(slurm: SlurmCluster, folder: Path) -> Outcome:
    paths = RunPaths(folder)
    outcome = slurm.wait_until(lambda: read_outcome(paths), "the report", timeout_s=240)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), "an empty queue")
    return outcome


def test_one_array_past_the_cap_is_finished_by_itself(
    login: SlurmCluster, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    start(folder, source, "cluster.array=0-9999%2")
    history = submissions.read(RunPaths(folder))
    assert [item.num_tasks for item in history.submissions if item.kind == "tasks"] == [3, 3, 2]  # there are 8 shards
    outcome = wait_for_the_outcome(login, folder)
    assert outcome.outcome == "finished", outcome
    assert outcome.account == f"{NUM_SAMPLES} inputs = {NUM_SAMPLES} written + 0 rejected + 0 duplicate"
    assert [report.problems for report in verify(folder)] == [[], []]
    capsys.readouterr()
    start(folder, source, "cluster.array=0-9999%2")  # the same line again
    assert capsys.readouterr().out.startswith("finished")
    assert submissions.read(RunPaths(folder)) == history
