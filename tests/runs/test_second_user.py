"""Runs of a real second user: who owns its files, what everybody may write, and what a umask of 077 closes.

pytest tests/runs/test_second_user.py      as root: children of this process become two other users
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcdata import combine, embedded, logs, rejects, resume, status, verify
from hpcdata.cluster.launching import Launched
from hpcdata.config.schema import RunConfig
from hpcdata.runs import registry
from hpcdata.runs.planning import prepare
from hpcdata.work.task import run_task
from tests.smallruns import StopAfter, small_config
from tests.sources.source_files import json_lines

OWNER, OTHER = 65533, 65534
ADDED = "cluster.additional_parameters.mail_user=x@y.org"
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "status": status.main,
    "logs": logs.main,
    "rejects": rejects.main,
    "retry": lambda arguments: rejects.main([*arguments, "--retry"]),
    "verify": verify.main,
    "combine": combine.main,
    "resume": resume.main,
}
WRITING = ("retry", "combine", "resume")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


def as_user(uid: int, act: Callable[[], Any], *, umask: int = 0o022) -> Any:
    """What a function returns in a child of this process that is another user. Must be of JSON."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.umask(umask)
            found = {"found": act()}
        except BaseException:
            found = {"raised": traceback.format_exc()}
        os.write(writable, json.dumps(found).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "raised" not in answer, answer["raised"]
    return answer["found"]


def told(name: str, run: Path, *more: str) -> tuple[int, str]:
    """(exit code, what it says) of a command."""
    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
        code = COMMANDS[name]([str(run), *more])
    return code, text.getvalue()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that every user can reach, which pytest's own is not. No task is started there."""
    found = Path(tempfile.mkdtemp(prefix="hpcdata-users-"))
    found.chmod(0o777)
    shutil.copy(embedded.path("tokenizer.json"), found / "tokenizer.json")
    (found / "in.jsonl").write_bytes(json_lines({"text": f"text {number}"} for number in range(24)))
    ended = Launched(output_dir=found, config=RunConfig())
    monkeypatch.setattr("hpcdata.cluster.resuming.start", lambda *_: ended)
    stages = registry.names()
    monkeypatch.setattr(registry, "names", lambda: stages)
    yield found
    shutil.rmtree(found)


def planned(folder: Path, *overrides: str, umask: int = 0o022, finished: bool = False) -> Path:
    run, spare = folder / "run", folder / "spare"
    given = [f"text.tokenizer={folder}/tokenizer.json", "image.tokenizer=none", "data.source=text", *overrides]
    config = small_config(run, *given, source=folder / "in.jsonl")

    def plan() -> None:
        prepare(config)
        if finished:
            _work(run)

    prepare(small_config(spare, *given, source=folder / "in.jsonl"))
    _work(spare)
    for name in COMMANDS:  # what is imported when it is first used is not theirs to read
        told(name, spare)
    as_user(OWNER, plan, umask=umask)
    assert (run / "plan.json").stat().st_uid == OWNER
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_user_who_may_only_read_a_run_reads_it_and_is_told_in_a_line(folder: Path, name: str) -> None:
    run = planned(folder, finished=True)
    before = sorted(run.rglob("*"))
    code, text = as_user(OTHER, lambda: told(name, run))
    assert "Traceback" not in text
    assert sorted(run.rglob("*")) == before
    if name in WRITING:
        assert code in (1, 2), text
        assert str(run) in text
    else:
        assert code in (0, 3), text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_is_closed_by_its_owners_umask_is_said_to_be(folder: Path, name: str) -> None:
    run = planned(folder, umask=0o077, finished=True)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    code, text = as_user(OTHER, lambda: told(name, run))
    assert code in (1, 2)
    assert "Permission denied" in text
    assert str(run) in text
    code, text = as_user(OWNER, lambda: told(name, run), umask=0o077)
    assert code in (0, 3), text
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in run.rglob("*")} == {0}


def test_what_another_user_has_set_to_run_in_jobs_is_refused(folder: Path) -> None:
    run = planned(folder, ADDED, "cluster=slurm")
    run.chmod(0o777)
    for path in run.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    code, text = as_user(OTHER, lambda: told("resume", run))
    assert code == 2
    assert f"runtime.json was written by user {OWNER}" in text
    assert "mail_user='x@y.org'" in text


def test_resume_warns_of_a_run_that_everybody_can_write_and_of_files_of_others(folder: Path) -> None:
    run = planned(folder)
    for path in (run, *run.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    code, text = as_user(OTHER, lambda: _with_log(lambda: told("resume", run)))
    assert "can be written by everybody (mode 777)" in text
    assert f"files of this run belong to other users, and are used as they are: claims (user {OWNER})" in text
    assert code == 0


def _work(run: Path) -> None:
    run_task(run, StopAfter())  # type: ignore[arg-type]


def _with_log(act: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    code, said = act()
    return code, said + text.getvalue()
