"""The scripts for submission by hand, on the real SLURM. python -m pytest tests/slurm/test_sbatch.py"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm import fake_encode
from tests.slurm.cluster import SlurmCluster
from tests.smallruns import small_arguments

SBATCH = Path(__file__).parents[2] / "sbatch"

_PYTHON = """\
#!/bin/bash
exec {python} {folder}/stand_in.py "$@"
"""

_STAND_IN = """\
import json, os, sys
from pathlib import Path
from hpcdata.base import logs
from hpcdata.cluster.task import run_array_task

logs.configure()
out = Path(sys.argv[-1])
names = ("SLURM_LOCALID", "SLURM_CPUS_PER_TASK", "SLURM_NTASKS")
with open(out / "arguments", "a") as file:
    file.write(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]) + "\\n")
sys.exit(run_array_task(out))
"""


@pytest.fixture
def run_script(slurm: SlurmCluster, tmp_path: Path) -> Callable[..., str]:
    """Submits a script whose Python is a stand-in that notes its arguments and then is an array task."""
    python = tmp_path / "python stand-in"
    python.write_text(_PYTHON.format(python=sys.executable, folder=tmp_path))
    python.chmod(0o755)
    (tmp_path / "stand_in.py").write_text(_STAND_IN)
    path = fake_encode.install(tmp_path / "site")

    def submit(script: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
        exports = f"--export=ALL,HPCDATA_PYTHON={python},PYTHONPATH={path}"
        return slurm.sbatch(exports, f"--chdir={tmp_path}", *options, SBATCH / script, *arguments, tmp_path)

    return submit


def _starts(folder: Path) -> int:
    return sum(noted.count("start") for noted in fake_encode.events(folder).values())


def test_an_array_by_hand_is_preempted_and_continues(
    slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path
) -> None:
    arguments = ("+experiments=[webdataset,tokenize]", "data.x=a b")
    job = run_script("precompute_tokens.sbatch", "--array=3,17%2", "--partition=preempt", arguments=arguments)
    slurm.wait_until(lambda: _starts(tmp_path) == 2, "both tasks")
    with slurm.preempt():  # SIGTERM reaches Python in time for it to requeue the job
        assert fake_encode.events(tmp_path) == {"3.0": ["start", "SIGTERM"], "17.0": ["start", "SIGTERM"]}
    slurm.wait_until(lambda: _starts(tmp_path) == 4, "both tasks again")
    (tmp_path / "finish").touch()
    slurm.wait_for(job, "COMPLETED")
    for line in (tmp_path / "arguments").read_text().splitlines():
        assert json.loads(line)[0] == ["-m", "hpcdata.jobs.precompute_tokens", *arguments, str(tmp_path)]
    for index in (3, 17):
        log = (tmp_path / f"hpcdata_{job}_{index}.log").read_text()
        assert log.count("task starts") == 2
        assert f"stopped by SIGTERM, leaves job {job}_{index} for requeueing" in log
        assert "DUE TO PREEMPTION" not in log  # what SLURM notes when the grace ends: it was over before


def test_a_signal_before_python_is_ready_is_not_the_end(
    slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "site" / "slow").touch()
    job = run_script("precompute_tokens.sbatch")
    slurm.wait_until((tmp_path / "site" / "slow.reached").exists, "the slow start")
    with slurm.preempt():
        (tmp_path / "finish").touch()
    slurm.wait_for(job, "COMPLETED")
    assert slurm.restarts(f"{job}_0") == 1


def test_every_process_of_a_node_is_a_worker(
    slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path
) -> None:
    options = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", "--nodes=2"]
    job = run_script("precompute_tokens.sbatch", *options)
    slurm.wait_until(lambda: _starts(tmp_path) == 4, "all processes")
    settings = [json.loads(line)[1] for line in (tmp_path / "arguments").read_text().splitlines()]
    assert sorted(setting["SLURM_LOCALID"] for setting in settings) == ["0", "0", "1", "1"]
    assert {setting["SLURM_CPUS_PER_TASK"] for setting in settings} == {"1"}
    slurm.run("scancel", "--signal=USR2", job)  # the warning before the time limit reaches all of them
    slurm.wait_until(lambda: _starts(tmp_path) == 8, "all processes again")
    assert all(noted == ["start", "SIGUSR2", "start"] for noted in fake_encode.events(tmp_path).values())
    assert slurm.restarts(f"{job}_0") == 1


def test_the_seed_documents_line(slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path) -> None:
    """CPUs by GPU exclude CPUs by task, so the script must set none; `accelerate launch` was in front of a path."""
    (tmp_path / "finish").touch()
    options = ["--time=2-00:00:00", "--array=0-1%25", "--cpus-per-gpu=2", "--mem-per-gpu=1G", "--nodes=1"]
    options += ["--gpus-per-node=1", "--partition=preempt", "--job-name=cambrian_precompute_tokens"]
    job = run_script("precompute_tokens.sbatch", *options, arguments=("jobs/precompute_tokens.py", "data.x=1"))
    slurm.wait_for(job, "COMPLETED")
    noted = [json.loads(line)[0] for line in (tmp_path / "arguments").read_text().splitlines()]
    assert noted == [["-m", "hpcdata.jobs.precompute_tokens", "data.x=1", str(tmp_path)]] * 2
    assert fake_encode.events(tmp_path) == {"0.0": ["start", "finish"], "1.0": ["start", "finish"]}
    assert (tmp_path / f"cambrian_precompute_tokens_{job}_0.log").exists()


def test_combine(slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "finish").touch()
    (tmp_path / "stand_in.py").write_text("import sys; print(sys.argv[1:])")
    job = run_script("combine.sbatch", arguments=("--move_files",))
    slurm.wait_for(job, "COMPLETED")
    expected = ["-m", "hpcdata.combine", "--move_files", str(tmp_path)]
    assert (tmp_path / f"hpcdata-combine_{job}.log").read_text() == f"{expected}\n"


def test_index(slurm: SlurmCluster, run_script: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text("import sys; print(sys.argv[1:])")
    job = run_script("index.sbatch", "--cpus-per-task=2", arguments=("*.tar", "-o"))
    slurm.wait_for(job, "COMPLETED")
    expected = ["-m", "hpcdata.index", "--workers", "2", "*.tar", "-o", str(tmp_path)]
    assert (tmp_path / f"hpcdata-index_{job}.log").read_text() == f"{expected}\n"


def test_accelerate_passes_a_preemption_on_and_continues(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Two GPUs, two processes; each of them gets SIGTERM once and they come back together."""
    out = tmp_path / "out"
    path = fake_encode.install(tmp_path / "site")
    exports = f"--export=ALL,HPCDATA_PYTHON={sys.executable},PYTHONPATH={path}:{SBATCH.parent}"
    options = [exports, f"--chdir={tmp_path}", "--partition=preempt", "--gpus-per-node=2", "--cpus-per-task=1"]
    job = slurm.sbatch(*options, SBATCH / "precompute_accelerate.sbatch", *small_arguments(out))
    slurm.wait_until(lambda: _starts(out) == 2, "both processes")
    with slurm.preempt():
        assert fake_encode.events(out) == {"0.0": ["start", "start", "SIGTERM", "SIGTERM"]}
    slurm.wait_until(lambda: _starts(out) == 4, "both processes again")
    (out / "finish").touch()
    slurm.wait_for(job, "COMPLETED")
    assert slurm.restarts(f"{job}_0") == 1


SCRIPTS = sorted(path.name for path in SBATCH.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_python_it_says_so(slurm: SlurmCluster, tmp_path: Path, script: str) -> None:
    options = ["--export=NONE", f"--chdir={tmp_path}", f"--output={tmp_path}/log"]
    wrapper = tmp_path / "script"
    wrapper.write_text((SBATCH / script).read_text().replace("set -euo pipefail", "set -euo pipefail\nPATH=/nowhere"))
    job = slurm.sbatch(*options, wrapper)
    slurm.wait_for(job, "FAILED")
    assert "set HPCDATA_PYTHON" in (tmp_path / "log").read_text()
