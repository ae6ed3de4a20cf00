"""What a site or a user adds to the jobs of a run, on the real SLURM.   pytest tests/slurm/test_site.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import launch as launch_command
from hpcdata.dataset.verifying import verify
from hpcdata.history import submissions
from hpcdata.history.outcome import Outcome, read_outcome
from hpcdata.runs.paths import RunPaths
from tests.slurm.cluster import SlurmCluster

LAB = """\
defaults: [slurm]
partition: [high, preempt]
reservation: course
nodelist: node2
exclude: [node1, node3]
cpus_per_task: 1
stagger_s: 1
setup:
  - set -e
  - export LAB=here
  - echo "setup in $LAB"
srun_args: --label --export=ALL,FROM='srun args'
wrapper: [bash, -c, 'echo "wrapped, $LAB, $FROM"; exec "$@"', wrapper]
"""


@pytest.fixture
def lab(login_node: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A cluster with a reservation, and a preset `ourlab` for it."""
    (tmp_path / "presets/cluster").mkdir(parents=True)
    (tmp_path / "presets/cluster/ourlab.yaml").write_text(LAB)
    monkeypatch.setenv("HPCDATA_CONFIG_PATH", str(tmp_path / "presets"))
    reservation = ["ReservationName=course", "StartTime=now", "Duration=60", "Users=root", "Nodes=node2"]
    user = login_node.run("id", "-un").strip()
    login_node.run("scontrol", "create", *[item.replace("root", user) for item in reservation])
    try:
        yield login_node
    finally:
        login_node.run("scancel", "--user", user)
        login_node.wait_until(lambda: not login_node.run("squeue", "--noheader").strip(), "no jobs")
        login_node.run("scontrol", "delete", "ReservationName=course")


def launch(tmp_path: Path, *overrides: str) -> RunPaths:
    source, folder = tmp_path / "texts.jsonl", tmp_path / "run"
    source.write_text("".join(f'{{"text": "the text {number}"}}\n' for number in range(20)))
    given = [f"data.raw_data_dir={source}", f"data.token_output_dir={folder}", "data.source=text"]
    given += ["text.tokenizer=embedded", "data.shard_size=10", "cluster.claim_timeout_s=10", "finish.mail=me@lab.org"]
    assert launch_command.main([*given, "cluster=ourlab", "cluster.array=0-1", *overrides]) == 0
    return RunPaths(folder)


def outcome_of(slurm: SlurmCluster, paths: RunPaths) -> Outcome:
    outcome = slurm.wait_until(lambda: read_outcome(paths), "the report", timeout_s=120)
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), "an empty queue")
    return outcome


def mails_of(slurm: SlurmCluster, *job_ids: str) -> list[str]:
    return [mail for mail in slurm.mails() if any(f"Job_id={job_id} " in mail for job_id in job_ids)]


def test_everything_that_a_preset_can_add_at_once(lab: SlurmCluster, tmp_path: Path) -> None:
    first = lab.sbatch("--hold", "--reservation=course", "--output=/dev/null", "--wrap", "true")
    paths = launch(tmp_path, f"cluster.dependency=afterok:{first}")
    history = submissions.read(paths)
    (tasks,), (finish,) = history.job_ids("tasks"), history.job_ids("finish")
    waits = lab.job(tasks)
    assert (waits["JobState"], waits["Dependency"]) == ("PENDING", f"afterok:{first}(unfulfilled)")
    assert waits["Partition"] == "high,preempt"
    lab.run("scontrol", "release", first)
    assert outcome_of(lab, paths).outcome == "finished"
    assert [report.problems for report in verify(paths.root)] == [[], []]
    for job in (tasks, finish):
        ran = lab.job(job)
        assert (ran["NodeList"], ran["ExcNodeList"], ran["Reservation"]) == ("node2", "node[1,3]", "course")
    logs = {path.name: path.read_text() for path in paths.logs.glob("*_log.out")}
    assert len(logs) == 3
    for name, text in logs.items():
        assert text.startswith("setup in here\n")
        assert ("0: wrapped, here, srun args\n" in text) is not name.startswith(finish)  # it runs where launch does
        assert "\n0: " in text  # of `--label`
    (mail,) = lab.wait_until(lambda: mails_of(lab, tasks, finish), "the mail")
    assert f"Job_id={finish} Name=hpcdata-finish Ended" in mail
    assert mail.endswith(" me@lab.org")


def test_tasks_that_can_never_start_are_no_silent_end(lab: SlurmCluster, tmp_path: Path) -> None:
    first = lab.sbatch("--hold", "--reservation=course", "--output=/dev/null", "--wrap", "true")
    paths = launch(tmp_path, f"cluster.dependency=afterok:{first}", "finish.max_failed=1")
    lab.cancel(first)
    outcome = outcome_of(lab, paths)
    assert (outcome.outcome, outcome.reason) == ("stopped", "its tasks were cancelled")
    (finish,) = submissions.read(paths).job_ids("finish")
    (mail,) = lab.wait_until(lambda: mails_of(lab, finish), "a mail that it failed")
    assert "Name=hpcdata-finish Failed" in mail
