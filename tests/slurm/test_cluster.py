"""The harness itself. python -m pytest tests/slurm/test_cluster.py"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.slurm import cluster as cluster_module
from tests.slurm.cluster import SlurmCluster, free_ports
from tests.slurm.conftest import require_slurm


def test_a_job_runs_and_accounting_knows_it(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = slurm.sbatch("--nodes=4", "--output", tmp_path / "log", "--wrap", "srun --label hostname")
    slurm.wait_for(job, "COMPLETED")
    assert sorted(line[:2] for line in (tmp_path / "log").read_text().splitlines()) == ["0:", "1:", "2:", "3:"]
    query = ["sacct", "--jobs", job, "--allocations", "--noheader", "--format=State"]
    slurm.wait_until(lambda: slurm.run(*query).strip() == "COMPLETED", "accounting")


def test_high_preempts_and_the_array_comes_back(slurm: SlurmCluster) -> None:
    """Jobs that know nothing of signals: SLURM kills and requeues them when the grace is over."""
    options = ["--array=0-5%4", "--partition=preempt", "--cpus-per-task=2", "--output=/dev/null"]
    job = slurm.sbatch(*options, "--wrap", "exec sleep 300")
    running = [f"{job}_{index}" for index in range(4)]
    for element in running:
        slurm.wait_for(element, "RUNNING")
    with slurm.preempt():
        assert [slurm.restarts(element) for element in running] == [1, 1, 1, 1]
    slurm.wait_for(f"{job}_0", "RUNNING")


def test_nothing_is_left_behind(slurm_programs: None) -> None:
    with SlurmCluster(num_nodes=1) as cluster:
        folder = cluster.folder
        script = "(trap '' TERM HUP; sleep 1000) & srun sleep 1000"
        job = cluster.sbatch("--output=/dev/null", "--wrap", script)
        cluster.wait_for(job, "RUNNING")
        assert _processes_of(folder)
    assert not folder.exists()
    assert _processes_of(folder) == []


def test_a_failed_start_tells_why_and_leaves_nothing(slurm_programs: None) -> None:
    cluster = SlurmCluster(num_nodes=1, slurm_conf=("NoSuchOption=1",), start_timeout_s=4)
    with pytest.raises(RuntimeError, match=r"(?s)did not come up.*NoSuchOption") as caught, cluster:
        pass
    assert "slurmdbd version" in "".join(caught.value.__notes__)  # the daemons' logs
    assert not cluster.folder.exists()
    assert _processes_of(cluster.folder) == []


def test_missing_programs_skip_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "PATH", "/nowhere")
    monkeypatch.delenv("HPCDATA_REQUIRE_SLURM", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"munged, .* not found: apt-get install"):
        require_slurm()
    monkeypatch.setenv("HPCDATA_REQUIRE_SLURM", "1")
    with pytest.raises(pytest.fail.Exception, match="HPCDATA_REQUIRE_SLURM=1, but munged"):
        require_slurm()


def test_ports_are_free_and_distinct() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(10_000 <= port < 32_000 for port in ports)


def _processes_of(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-ewwo", "pid=,args=", "e"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line and not line.startswith(str(os.getpid()))]
