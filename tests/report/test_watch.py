"""The live view of a run.   pytest tests/report/test_watch.py"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from hpcdata import status as status_command
from hpcdata.history.outcome import Outcome, write_outcome
from hpcdata.report import status, watch
from hpcdata.runs.paths import RunPaths
from tests import made, synthetic
from tests.smallruns import small_run


def text(folder: Path, *, width: int = 120, height: int = 40) -> str:
    observer = status.Observer(folder)
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    console.print(watch.view(observer.look(), observer, height, 5))
    return console.export_text()


def test_the_view_shows_the_run_and_as_many_tasks_as_fit(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", synthetic.Options(num_shards=300, num_tasks=100))
    lines = text(tmp_path / "run").splitlines()
    assert len(lines) <= 40
    shown = "\n".join(lines)
    assert "90.0 %" in shown or "90.2 %" in shown
    for word in ("left", "shards", "goodput", "time in", "tasks", "starts", "rejects", "unreadable_image"):
        assert re.search(rf"^{word}|{word} ", shown, re.MULTILINE), word
    assert re.search(r"4242_10/0 +gpu010 +running +00280-of-00300", shown)
    assert re.search(r"\.\.\. and \d+ more", shown)
    assert len(text(tmp_path / "run", height=60).splitlines()) > len(lines)


def test_what_other_processes_wrote_cannot_steer_the_terminal(tmp_path: Path) -> None:
    host = "\x1b[31m[bold]evil\x07"
    made.run(tmp_path / "run", unfinished={0: 8})
    (tmp_path / "run/ledger").mkdir()
    event = {"event": "start", "time": 1.0, "host": host, "slurm": {"SLURM_JOB_ID": "\x1b]0;x\x07"}}
    (tmp_path / "run/ledger/a-1-x.jsonl").write_text(json.dumps(event) + "\n")
    shown = text(tmp_path / "run")
    assert "[bold]evil" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_without_a_terminal_it_prints_lines_until_the_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.run(tmp_path / "run", unfinished={1: 8})
    slept: list[float] = []

    def finish(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            made.complete(tmp_path / "run")

    monkeypatch.setattr(watch.time, "sleep", finish)
    assert status_command.main([str(tmp_path / "run"), "--watch", "--every", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if re.match(r"\d\d:\d\d:\d\d 85\.7 %: 3 of 4 shards", line)] == lines[:2]
    assert re.match(r"\d\d:\d\d:\d\d 100\.0 %: 4 of 4 shards", lines[2])
    assert lines[3].startswith("shards   4 of 4 done")
    assert slept[0] == 3


def test_it_ends_when_the_finishing_job_has_given_the_run_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made.run(tmp_path / "run", unfinished={1: 8})

    def stop(_: float) -> None:
        report = Outcome(outcome="stopped", reason="the budget is spent", next_step="python -m hpcdata.resume R")
        write_outcome(RunPaths(tmp_path / "run"), report)

    monkeypatch.setattr(watch.time, "sleep", stop)
    assert status_command.main([str(tmp_path / "run"), "--watch"]) == 1
    assert "STOPPED  the budget is spent; python -m hpcdata.resume R" in capsys.readouterr().out


def test_an_interrupt_ends_the_view_with_the_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    made.run(tmp_path / "run", unfinished={1: 8})
    monkeypatch.setattr(watch.time, "sleep", interrupt)
    assert status_command.main([str(tmp_path / "run"), "--watch"]) == 3
    assert "shards   3 of 4 done" in capsys.readouterr().out


def test_in_a_real_terminal(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "hpcdata.status", str(tmp_path / "run"), "--watch"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    seen = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(master, 4096):
                seen.extend(chunk)
        except OSError:  # the terminal is closed
            pass

    reader = threading.Thread(target=read)
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=environment) as process:
        os.close(slave)
        reader.start()
        assert process.wait(60) == 0
        reader.join(10)
    os.close(master)
    shown = seen.decode()
    assert "\x1b[" in shown, "it draws"
    assert "shards   4 of 4 done" in shown, "and leaves the last look"


def test_an_interval_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(tmp_path / "run")
    assert status_command.main([str(tmp_path / "run"), "--watch", "--every", "0"]) == 2
    assert "--every 0.0: expected" in capsys.readouterr().err
