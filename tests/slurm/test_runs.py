"""The main job on the real SLURM: submitted, preempted, requeued, resubmitted, same bytes.

pytest tests/slurm/test_runs.py
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import embedded
from hpcdata import launch as launch_command
from hpcdata import verify as verify_command
from hpcdata.dataset import combining as combine
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import Status, read_status
from hpcdata.runs.paths import RunPaths
from tests.evidence import SLURM, Evidence
from tests.slurm.cluster import SlurmCluster
from tests.trees import sha256_tree

ROOT = Path(__file__).parent.parent.parent
NUM_SAMPLES = 384


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tars of 96 pictures: about half a minute of work for one process at 416 pixels."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        shutil.copy(embedded.path("quickstart.tar"), folder / f"cc3m-{number:04d}.tar")
    return folder


def arguments(output_dir: Path, source: Path, *overrides: str) -> list[str]:
    return [
        "+experiments=[webdataset,tokenize]",
        f"data.raw_data_dir={source}/cc3m-{{0000..0003}}.tar",
        f"data.token_output_dir={output_dir}",
        "text.tokenizer=embedded",
        "image.tokenizer=embedded",
        "data.resolution=416",
        "data.shard_size=48",
        "loader.batch_size=8",
        "+data.save_tmp_interval=1",
        "finish.combine=false",
        *overrides,
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, source: Path) -> str:
    """sha256 of the shards of one uninterrupted process."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert launch_command.main(arguments(folder, source)) == 0
    return sha256_tree(folder / "shards")


def check(folder: Path, reference: str) -> None:
    """Same bytes, every input accounted for, nothing left over."""
    assert read_status(folder).is_finished
    assert sha256_tree(folder / "shards") == reference
    assert not [path for path in RunPaths(folder).claims.iterdir() if not path.name.startswith(".now.")]
    combine.combine(folder, CombineOptions())
    reports = verify.verify(folder)
    assert [report.problems for report in reports] == [[], []]
    assert {report.counts.inputs for report in reports} == {NUM_SAMPLES}


def wait_for_status(slurm: SlurmCluster, folder: Path, done: int) -> Status:
    """Waits until so many samples are safe."""

    def reached() -> Status | None:
        status = read_status(folder) if (folder / "plan.json").exists() else None
        return status if status and status.samples_done >= done else None

    return slurm.wait_until(reached, f"{done} samples done", timeout_s=180)


def submit(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """Launches with cluster=slurm; returns the job id that it prints."""
    assert launch_command.main([*overrides, "cluster=slurm", "cluster.partition=preempt"]) == 0
    output = capsys.readouterr().out
    assert "hpcdata.status" in output
    return output.split()[1]


def restarts_and_resumes(folder: Path) -> tuple[int, int]:
    """(largest restart count of a task, number of claims that continued a checkpoint)."""
    events = list(itertools.chain.from_iterable(events for _, events in read_ledgers(folder / "ledger")))
    restarts = [int(event["slurm"].get("SLURM_RESTART_COUNT", 0)) for event in events if event["event"] == "start"]
    return max(restarts), sum(event["event"] == "claim" and event["resumed"] > 0 for event in events)


@pytest.mark.parametrize("array", ["0", "0-2%2"])
def test_a_submitted_array_of_one_and_of_many_makes_the_same_bytes(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    capsys: pytest.CaptureFixture[str],
    array: str,
) -> None:
    job = submit(capsys, *arguments(tmp_path / "run", source, f"cluster.array={array}"))
    wait_for_status(login_node, tmp_path / "run", NUM_SAMPLES)
    login_node.wait_for(job, "COMPLETED")
    check(tmp_path / "run", reference)


def test_a_preempted_task_is_requeued_and_continues_its_shard(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    submit(capsys, *arguments(folder, source, "cluster.array=0-1"))
    for done in (60, 200):
        wait_for_status(login_node, folder, done)
        with login_node.preempt():
            pass
        login_node.skip_requeue_delay()
    wait_for_status(login_node, folder, NUM_SAMPLES)
    restarts, resumes = restarts_and_resumes(folder)
    assert restarts >= 1
    assert resumes >= 1
    login_node.wait_until(lambda: not list((folder / "claims").iterdir()) or None, "claims released")
    check(folder, reference)
    evidence(SLURM, 2, folder)


def test_sbatch_by_hand_and_resubmission_with_another_array_size(
    login_node: SlurmCluster, tmp_path: Path, source: Path, reference: str, evidence: Evidence
) -> None:
    """The seed's way, with its overrides; scancelled in the middle, then submitted again as another array."""
    folder = tmp_path / "run"
    script = ROOT / "sbatch/precompute_tokens.sbatch"
    options = [f"--output={tmp_path}/%A_%a.log", "--partition=preempt", "--time=2-00:00:00", "--nodes=1"]
    environment = [f"--export=ALL,HPCDATA_PYTHON={sys.executable}"]
    overrides = arguments(folder, source, "+data.use_identity_collate=true", "data.split_dataset=true")
    first = login_node.sbatch(*options, *environment, "--array=0-3%2", script, *overrides)
    wait_for_status(login_node, folder, 60)
    login_node.cancel(first)
    login_node.wait_until(lambda: not _is_running(login_node, first) or None, "the first array is gone")
    assert not read_status(folder).is_finished
    second = login_node.sbatch(*options, *environment, "--array=3,17", script, *overrides)
    wait_for_status(login_node, folder, NUM_SAMPLES)
    login_node.wait_for(second, "COMPLETED")
    check(folder, reference)
    evidence(SLURM, 1, folder)


def test_a_killed_node_daemon_and_killed_tasks_lose_nothing(
    login_node: SlurmCluster,
    tmp_path: Path,
    source: Path,
    reference: str,
    evidence: Evidence,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL to the tasks, then the same line again."""
    folder = tmp_path / "run"
    overrides = arguments(folder, source, "cluster.array=0-1")
    job = submit(capsys, *overrides)
    wait_for_status(login_node, folder, 100)
    login_node.run("scancel", "--signal=KILL", "--full", job)
    login_node.wait_until(lambda: not _is_running(login_node, job) or None, "the killed array is gone")
    again = submit(capsys, *overrides)
    wait_for_status(login_node, folder, NUM_SAMPLES)
    login_node.wait_for(again, "COMPLETED")
    check(folder, reference)
    evidence(SLURM, 1, folder)


def test_combine_by_sbatch(login_node: SlurmCluster, tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "run"
    assert launch_command.main(arguments(folder, source, "data.n_train_samples=16", "data.resolution=64")) == 0
    job = login_node.sbatch(
        f"--output={tmp_path}/combine.log",
        f"--export=ALL,HPCDATA_PYTHON={sys.executable}",
        *(ROOT / "sbatch/combine.sbatch", folder, "--move_files", "--delete_after_combining", "--mem_efficient"),
    )
    login_node.wait_for(job, "COMPLETED")
    assert "16 inputs = 16 written" in (tmp_path / "combine.log").read_text()
    assert verify_command.main([str(folder)]) == 0


def _is_running(slurm: SlurmCluster, job: str) -> bool:
    return bool(subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, env=slurm.env).stdout)
