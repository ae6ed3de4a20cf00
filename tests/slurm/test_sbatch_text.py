"""The text of a job and its submission. python -m pytest tests/slurm/test_sbatch_text.py

The golden text is what sbatch gets. After a wanted change: HPCDATA_REFRESH_GOLDEN=1 python -m pytest <this file>,
then read the difference in git.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.cluster.runs import By, submit_run
from hpcdata.cluster.sbatch import JobOptions, TooManyJobs, job_text, submit_job
from hpcdata.config.array import parse_array
from hpcdata.config.schema import ClusterConfig, DataConfig, FinishConfig, RunConfig
from hpcdata.history import submissions
from hpcdata.history.submissions import Kind
from tests.slurm.fakes import FakeSlurm

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


FINISH = FinishConfig(partition="cpu", time_min=60, mem_gb=2, additional_parameters={"exclude": "node4"})

LAB = ClusterConfig(
    kind="slurm",
    array="0-9%4",
    partition="gpu,preempt",
    reservation="course",
    nodelist="node1",
    exclude="node[3-4]",
    dependency="afterok:99",
    setup=["set -e", "module load cuda/12", "source '/lab/my env.sh'", "export DATA=$HOME/data"],
    srun_args="--mpi=none --export=ALL,A='b c'",
)
LAB_FINISH = FinishConfig(mail="me@lab.org")
PYXIS = ClusterConfig(
    kind="slurm",
    srun_args=["--mpi=none", "--container-image=/images/hpcdata.sqsh", "--container-mounts", "/data:/data"],
    python="/usr/bin/python3",
)
APPTAINER = ClusterConfig(
    kind="slurm", wrapper="apptainer exec --nv --bind /data '/images/my hpcdata.sif'", python="/usr/bin/python3"
)
INSIDE = FinishConfig(in_container=True)


def submit(output_dir: Path, cluster: ClusterConfig, finish: FinishConfig | None = None) -> str:
    """Submits tasks, or the finishing job behind two others."""
    data = DataConfig(raw_data_dir="/in", token_output_dir=str(output_dir))
    config = RunConfig(data=data, cluster=cluster, finish=finish or FinishConfig())
    array = parse_array(cluster.array)
    options = JobOptions(kind="tasks", num_tasks=array.num_tasks, max_running=array.max_running, delay_min=0)
    if finish:
        options = JobOptions(kind="finish", after=("4240", "4241"))
    return submit_job(output_dir, config, options)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize(
    ("name", "cluster", "finish"),
    [
        ("one_task", ClusterConfig(kind="slurm"), None),
        ("array", FULL, None),
        ("finish", FULL, FINISH),
        ("lab_one_task", dataclasses.replace(LAB, array="0"), None),
        ("lab_array", LAB, None),
        ("lab_finish", LAB, LAB_FINISH),
        ("pyxis", PYXIS, None),
        ("pyxis_finish", PYXIS, FinishConfig()),
        ("pyxis_finish_inside", PYXIS, INSIDE),
        ("apptainer", APPTAINER, None),
        ("apptainer_finish", APPTAINER, FinishConfig()),
        ("apptainer_finish_inside", APPTAINER, INSIDE),
    ],
)
def test_golden_submission_file(
    name: str,
    cluster: ClusterConfig,
    finish: FinishConfig | None,
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hpcdata.history.submissions.mark", lambda root, kind: f"hpcdata:{kind}:0123")
    assert submit(tmp_path / "my run", cluster, finish) == "4242"
    text = (tmp_path / "my run" / "logs" / "4242_submission.sh").read_text()
    assert text == (fake_slurm.folder / "stdin").read_text()
    text = text.replace(str(tmp_path), "/tmp").replace(sys.executable, "/venv/bin/python")
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("HPCDATA_REFRESH_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "refresh as the head of this file says, if this is wanted"


def test_a_delay_and_a_lane(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path)))
    submit_job(tmp_path, config, JobOptions(kind="tasks", after=("7",), delay_min=10))
    lines = (fake_slurm.folder / "stdin").read_text().splitlines()
    assert {"#SBATCH --begin=now+10minutes", "#SBATCH --dependency=afterany:7"} <= set(lines)


@pytest.mark.parametrize("kind", ["tasks", "finish"])
def test_a_dependency_of_the_user_stands_beside_ours(kind: Kind, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    own = {"dependency": "afterok:99:100", "comment": "for Ada"}
    config = RunConfig(
        data=DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path)),
        cluster=ClusterConfig(additional_parameters=own),
        finish=FinishConfig(additional_parameters=own),
    )
    submit_job(tmp_path, config, JobOptions(kind=kind, after=("7", "8")))
    submit_job(tmp_path, config, JobOptions(kind=kind))
    behind, alone = (
        {line for line in text.splitlines() if line.startswith(("#SBATCH --dep", "#SBATCH --kill"))}
        for text in fake_slurm.scripts()
    )
    assert behind == {"#SBATCH --dependency=afterany:7:8,afterok:99:100", "#SBATCH --kill-on-invalid-dep=yes"}
    assert alone == {"#SBATCH --dependency=afterok:99:100", "#SBATCH --kill-on-invalid-dep=yes"}
    comment = f"{submissions.mark(tmp_path, kind)} for Ada"
    assert f"#SBATCH --comment='{comment}'" in fake_slurm.scripts()[0].splitlines()
    assert submissions.kind_of_mark(comment, tmp_path) == kind


def test_a_dependency_of_the_user_is_for_the_first_submission(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    """SLURM forgets jobs, and then waits for them for ever."""
    config = RunConfig(data=DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path)), cluster=LAB)
    submit_job(tmp_path, config, JobOptions(kind="tasks", after=("7",), is_again=True))
    submit_run(tmp_path, config, num_open=1, samples_done=0, by="finish")
    behind, again, finish = fake_slurm.scripts()
    assert "#SBATCH --dependency=afterany:7\n" in behind
    assert "--dependency" not in again
    assert "#SBATCH --dependency=afterany:4243\n" in finish


def test_setup_lines_may_stop_a_job_and_leave_the_rest_of_the_script_alone(tmp_path: Path) -> None:
    """After the task, exit codes are looked at: `set -e` must not reach so far."""
    config = RunConfig(
        data=DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path)),
        cluster=ClusterConfig(kind="slurm", setup=["set -eu", "source env.sh"], python="/bin/false"),
    )
    text = job_text(tmp_path, config, JobOptions(kind="tasks"))
    (tmp_path / "srun").write_text("#!/bin/bash\necho $A\nexit 138\n")
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho $1\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "SLURM_JOB_ID": "7"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash"], input=text, env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert run().stdout == ""  # there is no env.sh
    (tmp_path / "env.sh").write_text("export A=given\n")
    assert (run().returncode, run().stdout) == (138, "given\nrequeue\n")


@pytest.mark.parametrize(("by", "is_kept"), [("user", True), ("finish", False)])
def test_the_mail_is_sent_by_the_last_finishing_job(
    by: By, is_kept: bool, fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    fake_slurm.program("scontrol", f'echo scontrol "$@" >> {fake_slurm.folder}/calls')
    data = DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path))
    config = RunConfig(data=data, cluster=ClusterConfig(kind="slurm"), finish=LAB_FINISH)
    submit_run(tmp_path, config, num_open=1, samples_done=0, by=by)
    assert ("scontrol update JobId=77 MailType=NONE" in fake_slurm.calls()) is not is_kept
    assert "#SBATCH --mail-type=END,FAIL\n" in fake_slurm.scripts()[1]
    assert "#SBATCH --mail-user=me@lab.org\n" in fake_slurm.scripts()[1]
    assert "--mail" not in fake_slurm.scripts()[0]


def test_a_dependency_that_cannot_stand_beside_ours_is_refused(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    data = DataConfig(raw_data_dir="/in", token_output_dir=str(tmp_path))
    own = {"dependency": "afterok:99?afterok:100"}
    config = RunConfig(data=data, cluster=ClusterConfig(additional_parameters=own))
    submit_job(tmp_path, config, JobOptions(kind="tasks"))
    with pytest.raises(UserError, match="sbatch takes only one of"):
        submit_job(tmp_path, config, JobOptions(kind="tasks", after=("7",)))


def test_no_script_is_made_of_settings_that_would_break_it(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    for given in ({"x\ntouch owned": "1"}, {"mail_user": "a\ntouch owned"}):
        with pytest.raises(UserError, match=r"cluster\.additional_parameters"):
            submit(tmp_path / "out", ClusterConfig(kind="slurm", additional_parameters=given))
    assert fake_slurm.scripts() == []


def test_without_an_installation_tasks_find_hpcdata_where_the_launcher_did(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", ["", str(tmp_path)])
    submit(tmp_path / "out", ClusterConfig(kind="slurm"))
    assert " -P " not in fake_slurm.scripts()[0]


def test_a_relative_output_dir_becomes_absolute(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    submit(Path("out"), ClusterConfig(kind="slurm"))
    assert f"-m hpcdata.cluster.task {tmp_path}/out" in (fake_slurm.folder / "stdin").read_text()


def test_the_launchers_own_job_is_hidden(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    submit(tmp_path / "out", ClusterConfig(kind="slurm"))
    seen = (fake_slurm.folder / "environment").read_text().splitlines()
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
    assert not isinstance(caught.value, TooManyJobs)
    assert list((tmp_path / "out" / "logs").iterdir()) == []
    assert capfd.readouterr() == ("", "")  # the line is the caller's to show


def test_sbatch_says_something_unknown(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.program("sbatch", "echo welcome")
    with pytest.raises(UserError, match=r"sbatch refused the job: welcome"):
        submit(tmp_path / "out", ClusterConfig(kind="slurm"))


def test_too_many_jobs_is_an_error_of_its_own(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.program("sbatch", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1")
    with pytest.raises(TooManyJobs):
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
    assert not (fake_slurm.folder / "environment").exists()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs sbatch and srun, not found in PATH.*cluster=local"):
        submit(tmp_path / "out", ClusterConfig(kind="slurm"))
    assert not (tmp_path / "out").exists()
