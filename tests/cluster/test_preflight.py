"""What a cluster allows, and what that means, from the words of its programs.

pytest tests/cluster/test_preflight.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import launch as launch_command
from hpcdata import preflight as preflight_command
from hpcdata.base.errors import UserError
from hpcdata.cluster import limits, preflight
from tests import made
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_arguments, small_config

CONFIG = """\
Configuration data as of 2026-11-21T12:00:00
JobRequeue              = 1
KillWait                = 30 sec
MaxArraySize            = 1001
PreemptMode             = REQUEUE
PreemptParameters       = {parameters}
PreemptType             = {preempt_type}
SchedulerParameters     = batch_sched_delay=0,max_array_tasks={max_tasks}

Slurmctld(primary) at login is UP
"""
PARTITIONS = [
    "PartitionName=gpu Default=YES GraceTime=2 MaxNodes=4 MaxTime=1-00:00:00 PreemptMode=REQUEUE State=UP",
    "PartitionName=cheap Default=NO GraceTime=0 MaxNodes=UNLIMITED MaxTime=UNLIMITED PreemptMode=CANCEL State=DOWN",
    "PartitionName=owned Default=NO GraceTime=0 MaxTime=02:30:00 PreemptMode=OFF State=UP",
]
NODES = [
    "gpu|3|64|515000|gpu:a100:8(S:0-1)|idle",
    "gpu|1|128|1031000|(null)|mixed",
    "gpu|9|256|2000000|gpu:16|down*",
    "cheap|10|16|64000|gpu:2|allocated",
    "owned|1|8|32000|(null)|idle",
]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "bin", monkeypatch)
    describe(fake)
    return fake


def describe(
    fake: FakeSlurm, *, parameters: str = "(null)", preempt_type: str = "preempt/partition_prio", max_tasks: int = 1001
) -> None:
    config = CONFIG.format(parameters=parameters, preempt_type=preempt_type, max_tasks=max_tasks)
    (fake.folder / "config").write_text(config)
    (fake.folder / "partitions").write_text("\n".join(PARTITIONS) + "\n")
    fake.program("scontrol", f"cat {fake.folder}/$2$([[ $2 == config ]] || echo s)")
    (fake.folder / "nodes").write_text("\n".join(NODES) + "\n")
    fake.program("sinfo", f"cat {fake.folder}/nodes")
    fake.program("sacctmgr", "[[ $4 == assoc ]] && echo 'lab|1000|normal|normal' || echo 'normal|200'")


def lines(tmp_path: Path, *overrides: str) -> list[str]:
    return preflight.check_cluster(small_config(tmp_path / "run", "cluster=slurm", *overrides)).lines


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.partition=prempt"],
            "cluster.partition=prempt: there is no partition prempt, only cheap, gpu, owned",
        ),
        (["finish.partition=x"], "finish.partition=x: there is no partition x"),
        (["cluster.partition=gpu,x"], "there is no partition x"),
        (
            ["cluster.time_min=1441"],
            "cluster.time_min=1441 is over the limit of partition gpu: use cluster.time_min=1440",
        ),
        (["cluster.partition=owned", "cluster.time_min=151"], "use cluster.time_min=150 or less"),
        (["finish.time_min=5000"], "finish.time_min=5000 is over the limit"),
        (["cluster.gpus_per_node=9"], "no node of partition gpu has more than 8 GPUs"),  # 16 only where it is down
        (["cluster.partition=owned", "cluster.time_min=9", "cluster.gpus_per_node=1"], "no node of partition owned"),
        (["cluster.cpus_per_task=65", "cluster.tasks_per_node=2"], "tasks_per_node=130: no node of partition gpu"),
        (["cluster.mem_gb=1100"], "cluster.mem_gb=1126400: no node"),
        (["cluster.gpus_per_node=8", "cluster.cpus_per_task=100"], "has 0 nodes with 8 GPUs, 100 CPUs"),
        (["cluster.gpus_per_node=8", "cluster.nodes=4"], "cluster.nodes=4: partition gpu has 3 nodes with 8 GPUs"),
        (["cluster.gpus_per_node=8", "cluster.additional_parameters.cpus_per_gpu=10"], "has 0 nodes with 8 GPUs, 80"),
    ],
)
def test_what_can_never_run_is_refused(cluster: FakeSlurm, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        lines(tmp_path, *overrides)
    assert message in str(caught.value)


def test_what_a_preempting_partition_means(cluster: FakeSlurm, tmp_path: Path) -> None:
    (line,) = lines(tmp_path, "data.save_tmp_interval=30")
    assert line == (
        "partition gpu preempts (REQUEUE) and kills 2 s after SIGTERM: up to 30 s of work a task are lost when a batch "
        "takes longer (data.save_tmp_interval)"
    )
    describe(cluster, parameters="send_user_signal")
    assert "preempted tasks are warned by SIGUSR2 120 s ahead (send_user_signal)" in lines(tmp_path)
    describe(cluster, preempt_type="preempt/none")
    assert lines(tmp_path)[0].startswith("partition gpu does not preempt")


def test_a_partition_that_cancels_and_is_down(cluster: FakeSlurm, tmp_path: Path) -> None:
    found = lines(tmp_path, "cluster.partition=cheap")
    assert found[0] == "partition cheap is not up: tasks wait until it is"
    assert "(CANCEL) and kills 30 s after SIGTERM" in found[1]  # without a grace time KillWait counts
    assert found[2].endswith("the finishing job submits again what they leave")
    assert lines(tmp_path, "cluster.partition=cheap", "finish.combine=false")[2].endswith("or set finish.combine")


ACCOUNTS = """\
case $4 in
qos) printf '%s\\n' 'normal|||||||||||' 'short|20|00:30:00||||||cpu=96,node=2|||';;
*) case "$5" in
    user=*) echo 'lab||normal,short|normal|||cpu=9|||||me|';;
    account=lab) printf '%s\\n' 'lab||normal|||||||||bob|' 'lab||normal|||||4||gres/gpu=4,mem=100G|||top';;
    account=top) echo 'top|||||||90|2||||root';;
    esac;;
esac
"""


def accounts(fake: FakeSlurm, enforced: str = "associations,limits,qos") -> None:
    """A user in `lab` below `top`, with the QOS `normal` and `short`."""
    fake.program("sacctmgr", ACCOUNTS)
    with open(fake.folder / "config", "a") as file:
        file.write(f"AccountingStorageEnforce = {enforced}\n")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.qos=short", "cluster.time_min=31"],
            "cluster.time_min=31 is over MaxWall=30 of QOS short (in minutes)",
        ),
        (
            ["cluster.qos=short", "cluster.time_min=30", "finish.time_min=40"],
            "finish.time_min=40 is over MaxWall=30 of QOS short (in minutes): use finish.time_min=30 or less",
        ),
        (
            ["cluster.qos=short", "cluster.time_min=9", "cluster.cpus_per_task=64", "cluster.nodes=2"],
            "one task asks for 128 CPUs, over MaxTRES=cpu=96 of QOS short: it would wait for ever",
        ),
        (["cluster.cpus_per_task=10"], "one task asks for 10 CPUs, over MaxTRES=cpu=9 of account lab"),
        (["cluster.gpus_per_node=5"], "one task asks for 5 GPUs, over GrpTRES=gres/gpu=4 of account lab"),
        (["cluster.mem_gb=101"], "one task asks for 103424 MB of memory, over GrpTRES=mem=102400 of account lab"),
    ],
)
def test_what_waits_for_ever_for_an_account_is_refused(
    cluster: FakeSlurm, tmp_path: Path, overrides: list[str], message: str
) -> None:
    accounts(cluster)
    with pytest.raises(UserError) as caught:
        lines(tmp_path, *overrides)
    assert message in str(caught.value)
    describe(cluster)
    accounts(cluster, enforced="associations")
    assert lines(tmp_path, *overrides)


def test_the_limit_of_submitted_jobs_of_a_group(cluster: FakeSlurm, tmp_path: Path) -> None:
    accounts(cluster)
    found = lines(tmp_path, "cluster.array=0-9", "cluster.qos=short", "cluster.time_min=9")
    assert found[0].startswith(
        "no more than 4 jobs may be submitted at a time (GrpSubmitJobs=4 of account lab): as many"
    )


def test_what_keeps_the_finishing_job_waiting(cluster: FakeSlurm, tmp_path: Path) -> None:
    there = "finish.partition=owned"
    with pytest.raises(UserError, match=r"finish\.time_min=200 is over the limit of partition owned: use .*=150"):
        lines(tmp_path, "cluster.time_min=200", there)  # by default its time is that of the tasks
    assert lines(tmp_path, "cluster.time_min=200", there, "finish.time_min=150")
    assert lines(tmp_path, "cluster.time_min=200", there, "finish.combine=false")
    waits = "partition cheap is not up: the finishing job waits until it is"
    assert waits in lines(tmp_path, "finish.partition=cheap")
    with pytest.raises(UserError, match=r"finish\.mem_gb=51200: no node of partition owned has more than 32000 MB"):
        lines(tmp_path, "cluster.time_min=9", there, "finish.mem_gb=50")


@pytest.mark.parametrize("state", ["DRAIN", "INACTIVE"])
def test_a_partition_that_takes_no_jobs_is_refused(cluster: FakeSlurm, tmp_path: Path, state: str) -> None:
    path = cluster.folder / "partitions"
    path.write_text(path.read_text().replace("State=DOWN", f"State={state}"))
    for key in ("cluster", "finish"):
        with pytest.raises(UserError, match=f"partition cheap is {state} and takes no new jobs"):
            lines(tmp_path, f"{key}.partition=cheap")


@pytest.mark.parametrize("state", ["down*", "drained", "draining", "fail"])
def test_a_partition_whose_nodes_are_out_of_service_is_told(cluster: FakeSlurm, tmp_path: Path, state: str) -> None:
    (cluster.folder / "nodes").write_text(f"gpu|3|64|515000|gpu:8|{state}\n")
    assert "all 3 nodes of partition gpu are down or drained: jobs wait for them" in lines(tmp_path)
    with pytest.raises(UserError, match="no node of partition gpu has more than 8 GPUs"):
        lines(tmp_path, "cluster.gpus_per_node=9")


def test_a_list_of_partitions_runs_where_the_time_is_allowed(cluster: FakeSlurm, tmp_path: Path) -> None:
    found = lines(tmp_path, "cluster.partition=gpu,owned", "cluster.time_min=200")
    assert "partition owned has a limit of 150 min, so it runs no job of 200 min" in found


def test_a_cluster_without_accounts_says_what_will_not_work(cluster: FakeSlurm, tmp_path: Path) -> None:
    with open(cluster.folder / "config", "a") as file:
        file.write("AccountingStorageType   = accounting_storage/none\nMinJobAge = 120 sec\n")
    assert lines(tmp_path)[-1] == (
        "this cluster keeps no accounts: how jobs ended is known for 120 s only; if the finishing job starts later, it "
        "submits tasks again that scancel has ended: end a run by hpcdata cancel"
    )


def test_several_arrays_and_the_limit_of_submitted_jobs(cluster: FakeSlurm, tmp_path: Path) -> None:
    found = lines(tmp_path, "cluster.array=0-2001%25")
    assert found[0] == (
        "cluster.array=0-2001%25: 2 arrays, as one may hold 1001 tasks here; 25 tasks run at a time in all"
    )
    assert found[1].startswith("no more than 200 jobs may be submitted at a time")
    describe(cluster, max_tasks=100)
    assert "21 arrays, as one may hold 100 tasks here" in lines(tmp_path, "cluster.array=0-2001%25")[0]


def test_settings_are_adapted_where_that_helps(cluster: FakeSlurm, tmp_path: Path) -> None:
    overrides = ["cluster=slurm", "data.save_tmp_interval=600", "cluster.time_min=1"]
    checked = preflight.check_cluster(small_config(tmp_path / "run", *overrides))
    assert (checked.config.data.save_tmp_interval, checked.config.cluster.signal_delay_s) == (30.0, 30)
    assert checked.lines[:2] == [
        "cluster.signal_delay_s=120 is no less than the time limit: set to 30",
        "data.save_tmp_interval=600 set to 30: partition gpu kills 2 s after its warning",
    ]
    overrides += ["cluster.partition=owned"]
    checked = preflight.check_cluster(small_config(tmp_path / "run", *overrides))
    assert checked.config.data.save_tmp_interval == 600.0


def test_a_cluster_that_tells_nothing_refuses_nothing(cluster: FakeSlurm, tmp_path: Path) -> None:
    for name in ("scontrol", "sinfo", "sacctmgr"):
        cluster.program(name, "echo denied >&2; exit 1")
    assert lines(tmp_path, "cluster.partition=any", "cluster.array=0-9") == []


@pytest.mark.parametrize(
    ("text", "minutes"), [("1-00:00:00", 1440), ("02:30:00", 150), ("00:00:30", 0), ("UNLIMITED", None)]
)
def test_times(text: str, minutes: int | None) -> None:
    assert limits.minutes(text) == minutes


def test_room_in_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = made.plan(2**20, shard_size=2**14)
    num_bytes, num_files = preflight.predict(plan)
    assert 2**20 * 32 * 32 * 2 < num_bytes < 4 * 2**20 * 32 * 32
    assert preflight.predict(plan, num_open=32) == (round(num_bytes / 2), num_files // 2)
    (line,) = preflight.check_output(tmp_path / "not/yet", None)
    assert "free" in line
    real = preflight.os.statvfs(tmp_path)
    for name, value, message in (
        ("f_bavail", num_bytes // real.f_frsize - 1, "free, the run needs about"),
        ("f_favail", num_files - 1, f"the run makes about {num_files}: make room, or use a larger data.shard_size"),
    ):
        full = Statistics(**{**{key: getattr(real, key) for key in Statistics.KEYS}, "f_bavail": 2**40, name: value})
        monkeypatch.setattr(preflight.os, "statvfs", lambda path, full=full: full)
        with pytest.raises(UserError, match=message):
            preflight.check_output(tmp_path, plan)


class Statistics:
    KEYS = ("f_bavail", "f_frsize", "f_favail", "f_files")

    def __init__(self, **values: int) -> None:
        vars(self).update(values)


def test_the_prediction_is_near_what_is_written(tmp_path: Path) -> None:
    from tests.smallruns import small_run

    plan = small_run(tmp_path / "run")
    num_bytes, num_files = preflight.predict(plan)
    written = list((tmp_path / "run/shards").rglob("*"))
    assert len(written) <= num_files <= 3 * len(written)
    assert num_bytes < sum(path.stat().st_size for path in written if path.is_file())  # tiny shards are mostly metadata


def test_the_command_is_fast_and_without_torch(tmp_path: Path, cluster: FakeSlurm) -> None:
    code = (
        "import sys; from hpcdata import preflight; code = preflight.main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    arguments = small_arguments(tmp_path / "run", "cluster=slurm")
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first.startswith("inputs: 1 files")
    assert second.startswith("output: ")
    assert third.startswith("partition gpu preempts")
    assert not (tmp_path / "run").exists()
    assert preflight_command.main([*arguments, "cluster.gpus_per_node=99"]) == 2


def test_launch_refuses_before_it_plans(tmp_path: Path, cluster: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch_command.main(small_arguments(tmp_path / "run", "cluster=slurm", "cluster.partition=prempt")) == 2
    assert "there is no partition prempt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
