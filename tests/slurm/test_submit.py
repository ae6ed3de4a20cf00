"""Submission through submitit. python -m pytest tests/slurm/test_submit.py

The golden text is what sbatch gets. After a wanted change: HPCDATA_REFRESH_GOLDEN=1 python -m pytest <this file>,
then read the difference in git.
"""

import os
import pickle
import sys
from pathlib import Path

import pytest

from hpcdata.config import ClusterConfig
from hpcdata.errors import UserError
from hpcdata.slurm.submit import submit
from tests.slurm import fake_encode
from tests.slurm.cluster import SlurmCluster

GOLDEN = Path(__file__).parent / "golden"

FULL = ClusterConfig(
    kind="slurm",
    array="0-100%25",
    partition="preempt",
    account="vision",
    qos="low",
    constraint="a100|h100",
    time_min=720,
    mem_gb=1.5,
    cpus_per_task=4,
    gpus_per_node=2,
    nodes=2,
    tasks_per_node=2,
    job_name="cc3m",
    signal_delay_s=300,
    additional_parameters={"mail_type": "FAIL", "exclude": "node[3-4]", "comment": None, "exclusive": False},
)


class FakeSlurm:
    """Programs named sbatch, srun and scontrol, alone in PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        self.environment = folder / "environment"
        self.program("sbatch", f"env > {self.environment}; echo Submitted batch job 4242")
        self.program("srun", "exit 1")
        self.program("scontrol", "echo 'MaxArraySize            = 1001'")
        monkeypatch.setenv("PATH", f"{folder}:/bin")
        for name in ("sbatch", "srun", "scontrol"):  # /bin may hold the real ones
            assert (folder / name).exists()

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize(("name", "cluster"), [("one_task", ClusterConfig(kind="slurm")), ("array", FULL)])
def test_golden_submission_file(name: str, cluster: ClusterConfig, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submission = submit(tmp_path / "my run", cluster)
    assert submission.job_ids == ("4242",)
    assert submission.log_paths == f"{tmp_path}/my run/logs/4242_*_log.out"
    text = (tmp_path / "my run" / "logs" / "4242_submission.sh").read_text()
    text = text.replace(str(tmp_path), "/tmp").replace(sys.executable, "/venv/bin/python")
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("HPCDATA_REFRESH_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "refresh as the head of this file says, if this is wanted"


def test_every_task_gets_the_same_pickle(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submit(tmp_path / "out", ClusterConfig(kind="slurm", array="3,17,5"))
    pickles = sorted((tmp_path / "out" / "logs").glob("*.pkl"))
    assert [path.name for path in pickles] == [f"4242_{index}_submitted.pkl" for index in range(3)]
    for path in pickles:
        task = pickle.loads(path.read_bytes()).function
        assert (type(task).__name__, task.output_dir) == ("ArrayTask", tmp_path / "out")


def test_a_relative_output_dir_becomes_absolute(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert submit(Path("out"), ClusterConfig(kind="slurm")).log_paths == f"{tmp_path}/out/logs/4242_*_log.out"


def test_the_launchers_own_job_is_hidden(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    submit(tmp_path / "out", ClusterConfig(kind="slurm"))
    seen = fake_slurm.environment.read_text().splitlines()
    assert "SLURM_CONF=/etc/slurm/slurm.conf" in seen
    assert "SLURM_CPUS_PER_TASK=1" not in seen
    assert os.environ["SLURM_CPUS_PER_TASK"] == "1"


def test_requeue_can_be_switched_off(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submit(tmp_path / "out", ClusterConfig(kind="slurm", additional_parameters={"requeue": False, "no-requeue": True}))
    lines = (tmp_path / "out" / "logs" / "4242_submission.sh").read_text().splitlines()
    assert "#SBATCH --no-requeue" in lines
    assert "#SBATCH --requeue" not in lines


def test_cpus_by_gpu_take_the_place_of_cpus_by_task(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    submit(tmp_path / "out", ClusterConfig(kind="slurm", additional_parameters={"cpus_per_gpu": 12}))
    text = (tmp_path / "out" / "logs" / "4242_submission.sh").read_text()
    assert "#SBATCH --cpus-per-gpu=12" in text
    assert "cpus-per-task" not in text


def test_sbatch_refuses(fake_slurm: FakeSlurm, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake_slurm.program("sbatch", "echo 'sbatch: error: invalid partition specified: prempt' >&2; exit 1")
    with pytest.raises(UserError) as caught:
        submit(tmp_path / "out", ClusterConfig(kind="slurm", array="0-3", partition="prempt"))
    assert str(caught.value) == "sbatch refused the job: invalid partition specified: prempt"
    assert list((tmp_path / "out" / "logs").iterdir()) == []
    assert capfd.readouterr() == ("", "")  # the line is the caller's to show


def test_sbatch_says_something_unknown(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.program("sbatch", "echo welcome")
    with pytest.raises(UserError, match=r'sbatch refused the job: .*"welcome"'):
        submit(tmp_path / "out", ClusterConfig(kind="slurm"))


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        (ClusterConfig(kind="slurm", array="7-3"), "ends before it begins"),
        (ClusterConfig(kind="slurm", additional_parameters={"array": "0-3"}), "use cluster.array"),
    ],
)
def test_our_own_refusals(cluster: ClusterConfig, complaint: str, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        submit(tmp_path / "out", cluster)
    assert not fake_slurm.environment.exists()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs sbatch and srun, not found in PATH.*cluster=local"):
        submit(tmp_path / "out", ClusterConfig(kind="slurm"))
    assert not (tmp_path / "out").exists()


# ---- on the cluster ----------------------------------------------------------------------------------------------


def test_any_array_size_and_a_resubmission_with_another(
    login_node: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", fake_encode.install(tmp_path / "site"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "finish").touch()
    for array, tasks in (("0", ["x.0"]), ("3,17,5%2", ["0.0", "1.0", "2.0", "x.0"])):
        cluster = ClusterConfig(kind="slurm", array=array, partition="preempt", time_min=5, cpus_per_task=1)
        submission = submit(out, cluster)
        login_node.wait_for(submission.job_ids[0], "COMPLETED")
        assert sorted(fake_encode.events(out)) == tasks
        logs = list(Path("/").glob(submission.log_paths[1:]))
        assert len(logs) == (1 if array == "0" else 3)
        assert all("task starts" in path.read_text() for path in logs)


def test_an_array_beyond_the_limit_names_it(login_node: SlurmCluster, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        submit(tmp_path / "out", ClusterConfig(kind="slurm", array="0-1001%25"))
    assert "sbatch refused the array 0-1001%25: Batch job submission failed: Invalid job array" in str(caught.value)
    assert "MaxArraySize=1001 here, so cluster.array=0-1000 at most" in str(caught.value)
    assert list((tmp_path / "out" / "logs").iterdir()) == []
