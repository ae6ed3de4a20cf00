"""hpcdata.run and Run, as a program or a notebook uses them.   pytest tests/api/test_running.py"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import hpcdata
from hpcdata.api import processes, showing
from hpcdata.config.values import to_mapping
from hpcdata.history import outcome, submissions
from hpcdata.runs.paths import RunPaths
from tests import made
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import long_arguments, small_arguments, small_config
from tests.trees import sha256_tree

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
HYDRA = """
import hydra, hpcdata
from hydra.core.global_hydra import GlobalHydra
hydra.initialize(version_base="1.3")
mine = GlobalHydra.instance().hydra
try:
    hpcdata.run(["data.nonsense=3"])
except hpcdata.UserError:
    assert GlobalHydra.instance().hydra is mine
    print("kept")
"""


def host() -> tuple[object, ...]:
    """What belongs to the program that calls."""
    import torch

    root = logging.getLogger()
    switches = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    return [signal.getsignal(number) for number in SIGNALS], root.level, list(root.handlers), dict(os.environ), switches


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hpcdata.Run:
    """A finished run, made from a thread, as servers and notebooks do."""
    folder = tmp_path_factory.mktemp("api") / "my <b>run</b>"
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(hpcdata.run, small_arguments(folder, "finish.combine=true")).result()


def test_a_run_from_a_thread_is_finished_when_it_was_waited_for(run: hpcdata.Run) -> None:
    status = run.status()
    assert (status.done, status.num_shards, status.samples_done) == (4, 4, 24)
    assert run.wait().combined == str(run.path / "dataset")
    assert [report.problems for report in run.verify()] == [[], []]
    assert list(run.rejects()) == []
    assert len(run.dataset()) == 24
    assert run.combine().content_digest == run.dataset().manifest.content_digest
    assert repr(hpcdata.Run(run.path)) == repr(run) == f"Run({str(run.path)!r})"


@pytest.mark.slow
def test_nothing_of_the_host_changes_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], run: hpcdata.Run
) -> None:
    before, logger = host(), logging.getLogger("hpcdata")
    again = hpcdata.run(small_arguments(run.path, "finish.combine=true"))
    again.retry()
    again.prove(2)
    again.dataset().decode(0)
    again._repr_html_()
    assert host() == before
    assert logger.handlers == []
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.slow
def test_a_run_is_given_as_overrides_values_or_a_configuration(tmp_path: Path, run: hpcdata.Run) -> None:
    config = small_config(tmp_path / "values", "cluster=local", "cluster.array=0-1")
    values = to_mapping(config)
    values["data"]["token_output_dir"] = tmp_path / "values"  # a Path is as good as a string
    made_of = [hpcdata.run(values), hpcdata.run(small_config(tmp_path / "config"))]
    for other in made_of:
        assert sha256_tree(other.path / "shards") == sha256_tree(run.path / "shards")
    assert made_of[0].prove(3, seed=5).equal == 3


def test_a_host_that_uses_hydra_keeps_it() -> None:
    done = subprocess.run([sys.executable, "-c", HYDRA], capture_output=True, text=True)
    assert done.stdout == "kept\n", done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.resolutoin=3"], "did you mean data.resolution"),
        (["data.raw_data_dir=/nowhere/{0..3}.tar"], "/nowhere"),
        (["data.img_token_shift=7"], "image codes would collide with text"),
        (["estimate=true"], "only python -m hpcdata.launch"),
        (["--json"], "is not an override"),
    ],
)
def test_what_cannot_run_is_a_user_error_before_anything_starts(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    keys = {item.partition("=")[0] for item in overrides}
    given = [item for item in small_arguments(tmp_path / "run") if item.partition("=")[0] not in keys]
    with pytest.raises(hpcdata.UserError, match=message):
        hpcdata.run([*given, *overrides])
    assert not (tmp_path / "run/plan.json").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hpcdata.UserError, match=str(tmp_path)):
        hpcdata.Run(tmp_path)


@pytest.mark.slow
def test_work_that_is_not_waited_for_is_cancelled_and_resumed(tmp_path: Path, run: hpcdata.Run) -> None:
    slow = [item for item in small_arguments(tmp_path / "run", "cluster=local") if "save_tmp" not in item]
    other = hpcdata.run([*slow, "data.save_tmp_interval=0.1"], wait=False)
    assert other.wait(timeout_s=0.01).is_finished is False
    with pytest.raises(hpcdata.UserError, match="being worked on"):
        other.resume()
    while not list(other.path.glob("logs/local_*")):
        time.sleep(0.05)
    assert other.cancel() == []
    with pytest.raises(hpcdata.UserError, match=r"stopped after a checkpoint\npython -m hpcdata.resume .* goes on"):
        other.wait()
    assert other.resume(["cluster=inline"], wait=False).wait().is_finished
    assert sha256_tree(other.path / "shards") == sha256_tree(run.path / "shards")


@pytest.mark.slow
def test_an_interrupt_of_a_run_ends_its_processes(tmp_path: Path) -> None:
    """Typed while `hpcdata.run` waits, in a script of its own."""
    code = f"import hpcdata; hpcdata.run({long_arguments(tmp_path, 'cluster=local')})"
    script = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "run").glob("shards/tmp_*")):
        time.sleep(0.02)
        assert script.poll() is None
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=120)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)] == []
    assert not hpcdata.Run(tmp_path / "run").status().is_finished


@pytest.mark.slow
def test_shards_that_cannot_be_made_are_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "one"}\n' * 20)
    given = [f"data.raw_data_dir={source}", f"data.token_output_dir={tmp_path / 'run'}", "text.tokenizer=embedded"]
    run = hpcdata.run([*given, "data.source=text", "image.tokenizer=none", "data.shard_size=5"], wait=False)
    assert run.wait().is_finished
    source.write_text('{"text": "two"}\n' * 20)
    for folder in list(run.path.glob("shards/0*"))[:2]:
        subprocess.run(["rm", "-r", str(folder)], check=True)
    with pytest.raises(hpcdata.UserError, match="has changed since it was planned"):
        run.resume()


def test_rejects_come_one_at_a_time_without_duplicates_unless_named(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run = hpcdata.Run(tmp_path / "run")
    rows = run.rejects()
    assert isinstance(rows, Iterator)
    assert {row.reason for row in rows} == {"unreadable_image"}
    assert {row.reason for row in run.rejects("duplicate")} == {"duplicate"}


def test_a_notebook_gets_a_table_with_everything_escaped(run: hpcdata.Run, tmp_path: Path) -> None:
    page = run._repr_html_()
    assert "my &lt;b&gt;run&lt;/b&gt;" in page
    assert "<b>run" not in page
    assert "24 of 24 (100.0 %)" in page
    made.run(tmp_path / "<i>", unfinished={1: 3})
    page = hpcdata.Run(tmp_path / "<i>")._repr_html_()
    assert "rejected: unreadable_image" in page
    assert "run.resume(), or python -m hpcdata.resume &#x27;" in page
    assert "<i>" not in page
    made.run(tmp_path / "whole")
    assert "run.combine()" in showing.to_html(tmp_path, hpcdata.Run(tmp_path / "whole").status(ask_scheduler=False))


@pytest.mark.slow
def test_slurm_jobs_are_submitted_waited_for_and_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSlurm(tmp_path / "bin", monkeypatch)
    folder = tmp_path / "run"
    run = hpcdata.run(small_arguments(folder, "cluster=slurm", "cluster.array=0-9"), wait=False)
    assert len(fake.scripts()) == 2
    paths = RunPaths(folder)
    fake.program("squeue", f"[[ -e {tmp_path}/gone ]] || printf '4242|RUNNING|\\n4243|PENDING|\\n'")
    assert run.wait(timeout_s=0.5, poll_s=0.1).done == 0
    assert "--array=0-1%2" in (run.resume(["cluster.array=0-1"], wait=False), fake.scripts()[2])[1]
    ended = outcome.Outcome(outcome="stopped", reason="no GPU", next_step=f"python -m hpcdata.resume {folder}")
    threading.Timer(0.5, outcome.write_outcome, [paths, ended]).start()
    with pytest.raises(hpcdata.UserError, match=r"no GPU; python -m hpcdata.resume"):
        hpcdata.Run(folder).wait(poll_s=0.1)
    fake.program("scancel", f"touch {tmp_path}/gone")
    assert run.cancel() == ["4242", "4243"]
    assert submissions.read(paths).is_cancelled
    paths.report.unlink()
    with pytest.raises(hpcdata.UserError, match=r"0 of 4 shards of .* are done: python -m hpcdata.resume .* goes on"):
        run.wait(poll_s=0.1)


def test_a_job_that_the_caller_runs_in_is_not_sent_back_to_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """`leave` requeues the job of SLURM_JOB_ID; the notebook's own must not be meant."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    found = processes._environment()
    assert {name for name in found if name.startswith("SLURM_")} == {"SLURM_CONF"}
    assert found["PATH"] == os.environ["PATH"]


def test_options_are_words_of_a_command_line() -> None:
    words = processes.options(accept_changed=True, reason=None, seed=0, json=False)
    assert words == ["--accept-changed", "--seed", "0"]


def test_what_is_public_is_there_and_says_what_it_is() -> None:
    for name in hpcdata.__all__:
        assert getattr(hpcdata, name) is not None
        assert name == "__version__" or getattr(hpcdata, name).__doc__, name
    assert set(dir(hpcdata)) == set(hpcdata.__all__)
    for name in vars(hpcdata.Run):
        assert name.startswith("_") or getattr(hpcdata.Run, name).__doc__, name
