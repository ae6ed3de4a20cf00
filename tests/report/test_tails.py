"""The ends of the logs that matter.   pytest tests/report/test_tails.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcdata import logs as logs_command
from hpcdata.history import submissions
from hpcdata.history.queue import JobStates
from hpcdata.report import tails
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from tests import made
from tests.smallruns import small_config
from tests.stopping import kill_when_stopped, start_stopping

SECRET = "a very private caption"


def task(folder: Path, element: int, *events: dict[str, Any], log: str | None = None, host: str | None = None) -> None:
    """The ledger of one array task that began long ago, and its log."""
    slurm = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": str(element), "SLURM_PROCID": "0"}
    lines = [{"event": "start", "time": 1000.0, "host": host or f"gpu{element:03d}", "slurm": slurm}, *events]
    for name in ("ledger", "logs"):
        (folder / name).mkdir(exist_ok=True)
    (folder / f"ledger/a-{element}-x.jsonl").write_text("".join(json.dumps(item) + "\n" for item in lines))
    if log is not None:
        (folder / f"logs/42_{element}_0_log.out").write_text(log)


def claim(shard: int) -> dict[str, Any]:
    return {"event": "claim", "time": 1001.0, "shard": f"{shard:05d}-of-00004", "resumed": 8}


def output(folder: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert logs_command.main([str(folder), *options]) == 0
    return capsys.readouterr().out


def line(element: int, level: str, message: str) -> str:
    return f"2026-01-01 10:00:00 {level} [42_{element}/0@gpu{element:03d}] {message}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tails, "look", lambda jobs: None)
    made.run(tmp_path / "run", unfinished={1: 8})
    return tmp_path / "run"


def test_a_task_that_died_is_shown_with_shard_and_scheduler(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = JobStates(by_element={"42_7": "OUT_OF_MEMORY"}, exit_codes={"42_7": "0:9"})
    monkeypatch.setattr(tails, "look", lambda jobs: states)
    log = "".join(line(7, "INFO", f"shard {number}") for number in range(40)) + "slurmstepd: error: oom_kill event\n"
    task(run, 7, claim(1), log=log)
    task(run, 8, {"event": "end", "time": 1002.0, "outcome": "finished"}, log=line(8, "INFO", "committed"))
    shown = output(run, "--failed", "--tail", "3", capsys=capsys)
    assert "42_7/0 on gpu007: vanished, in shard 00001-of-00004, 8 samples of it safe, OUT_OF_MEMORY" in shown
    assert "killed by signal 9" in shown
    assert shown.count("    | ") == 3
    assert "oom_kill" in shown
    assert "42_8" not in shown


def test_five_hundred_equal_failures_are_told_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for element in range(500):
        error = {"event": "error", "time": 1002.0, "error": f"/data/{element}.tar cannot be read"}
        task(
            run,
            element,
            error,
            log=line(element, "ERROR", f"/data/{element}.tar cannot be read"),
            host=f"g{element % 9}",
        )
    task(run, 500, {"event": "error", "time": 1002.0, "error": "out of disk"}, log=line(500, "ERROR", "out of disk"))
    shown = output(run, "--failed", capsys=capsys)
    assert len(shown.splitlines()) < 20
    assert "and 499 others the same way, on 9 hosts in all: 42_1/0, 42_2/0" in shown
    assert "out of disk" in shown
    assert shown.index("cannot be read") < shown.index("out of disk"), "the most frequent first"


def test_captions_are_never_shown_unless_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = (
        line(3, "ERROR", "shard 00001-of-00004: ValueError")
        + 'Traceback (most recent call last):\n  File "/x/encode.py", line 7, in run\n    tokenizer.encode(text)\n'
        + f"ValueError: cannot encode '{SECRET}'\n{SECRET}\nWARNING: {SECRET}\n"
        + "torch.cuda.OutOfMemoryError: CUDA out of memory\n"
    )
    task(run, 3, claim(1), log=log)
    shown = output(run, "--failed", capsys=capsys)
    assert SECRET not in shown
    assert "| ValueError" in shown
    assert "CUDA out of memory" in shown
    assert "(3 lines of other programs between them are not shown" in shown
    assert SECRET in output(run, "--failed", "--raw", capsys=capsys)


def test_hostile_logs_cannot_steer_the_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(run, 3, claim(1), log=line(3, "ERROR", "\x1b[2Jgone\x07") + "\xff\n", host="\x1b]0;title\x07")
    for options in ([], ["--raw"], ["--failed"]):
        assert "\x1b" not in output(run, *options, capsys=capsys)


def test_a_task_that_died_before_its_first_event_is_found_by_its_log(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "logs").mkdir()
    (run / "logs/42_5_0_log.out").write_text("bash: line 1: /opt/none/python: No such file or directory\n")
    (run / "logs/42_6_0_log.out").write_text(line(6, "INFO", "all is well"))
    shown = output(run, "--failed", capsys=capsys)
    assert "42_5/0 on ?: never started" in shown
    assert "No such file or directory" in shown
    assert "42_6" not in shown


@pytest.mark.parametrize(
    ("written", "deciding"),
    [
        ("/usr/bin/python3: No module named hpcdata", "/usr/bin/python3: No module named hpcdata"),
        ("ModuleNotFoundError: No module named 'torch'", "ModuleNotFoundError: No module named 'torch'"),
        (
            "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
            "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "CUDA error: no kernel image is available for execution on the device",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "The NVIDIA driver on your system is too old (found version 11040).",
        ),
        (
            f'Lmod: {SECRET} The following module(s) are unknown: "cuda/99"',
            'The following module(s) are unknown: "cuda/99"',
        ),
        ("/var/spool/slurmd/job1/slurm_script: line 7: module: command not found", "module: command not found"),
    ],
)
def test_the_deciding_line_of_a_broken_environment_is_the_cause(
    run: Path, written: str, deciding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "logs").mkdir()
    after = "srun: error: node1: task 0: Exited with exit code 1\n"
    (run / "logs/42_5_0_log.out").write_text(f"Traceback (most recent call last):\n{SECRET}\n{written}\n{after}")
    shown = output(run, "--failed", capsys=capsys).splitlines()
    assert shown[:2] == ["42_5/0 on ?: never started", f"  {deciding}"]
    assert SECRET not in "".join(shown)


def test_an_error_of_ours_after_it_decides(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = "ImportError: no simplejpeg, goes on without\n" + line(4, "ERROR", "shard 1: /data/x.tar cannot be read")
    task(run, 4, claim(1), log=log)
    assert "\n  shard 1: /data/x.tar cannot be read\n" in output(run, "--failed", capsys=capsys)


def test_tasks_without_a_log_are_named_with_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = {"42_1": "FAILED", "42_2": "NODE_FAIL", "42_3": "COMPLETED", "42_4": "CANCELLED", "9_1": "FAILED"}
    codes = {"42_1": "0:53", "42_2": "1:0", "42_3": "0:0"}
    monkeypatch.setattr(tails, "look", lambda jobs: JobStates(by_element=states, exit_codes=codes))
    submission = submissions.Submission(
        job_id="42", kind="tasks", round=1, by="user", time=1.0, num_tasks=5, samples_done=0, partition=None
    )
    submissions.add(RunPaths(run), submission)
    shown = output(run, "--failed", capsys=capsys)
    assert (
        f"42_1 on ?: never started, FAILED, killed by signal 53\n  SLURM could not open its log in {run}/logs" in shown
    )
    assert "42_2 on ?: never started, NODE_FAIL, exit code 1\n  it ended before it could write a log" in shown
    assert not any(other in shown for other in ("42_3", "42_4", "9_1"))


def test_one_task_is_shown_whatever_became_of_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task(run, 8, {"event": "end", "time": 1002.0, "outcome": "finished"}, log=line(8, "INFO", "committed"))
    assert "committed" in output(run, "--task", "42_8", capsys=capsys)
    assert logs_command.main([str(run), "--task", "99"]) == 2
    assert "no task 99" in capsys.readouterr().err
    assert output(run, "--failed", capsys=capsys) == "no task has failed\n"


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert logs_command.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_real_local_task_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder))
    (folder / "logs").mkdir()
    with open(folder / "logs/local_1_0.log", "wb") as log:
        task = ["-m", "hpcdata.cluster.task", str(folder)]
        kill_when_stopped(start_stopping(task, f"{folder}/shards/tmp_*/work", stdout=log, stderr=log))
    monkeypatch.setattr("hpcdata.report.status.CLAIM_TIMEOUT_S", 0.0)
    (tail,) = tails.read_tails(folder, only_failed=True)
    assert (tail.state, tail.log) == ("vanished", folder / "logs/local_1_0.log")
    assert "in shard" in tail.what


def test_the_command_starts_without_torch_and_numpy(run: Path) -> None:
    names = "not {'torch', 'numpy'} & sys.modules.keys()"
    code = f"import sys; from hpcdata import logs; logs.main([{str(run)!r}]); assert {names}"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        [sys.executable, "-m", "hpcdata.logs", str(run), "--failed"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "no task has failed\n"
