"""Whole runs on file systems that lack something.   pytest tests/base/test_file_systems.py"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcdata import launch as launch_command
from hpcdata import rejects
from hpcdata.base.errors import UserError
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.planning import prepare
from hpcdata.work.task import run_task
from tests.evidence import FAULTS, Evidence
from tests.smallruns import StopAfter, small_arguments, small_config, small_run
from tests.trees import sha256_tree

Patch = pytest.MonkeyPatch


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links(tmp_path: Path, monkeypatch: Patch, evidence: Evidence, number: int) -> None:
    small_run(tmp_path / "with")
    monkeypatch.setattr(os, "link", failing(number))
    small_run(tmp_path / "without")
    assert sha256_tree(tmp_path / "without/shards") == sha256_tree(tmp_path / "with/shards")
    combine(tmp_path / "without", CombineOptions(move_files=True))
    (report,) = verify.verify(tmp_path / "without")
    assert not report.problems
    assert report.counts.written == 24
    evidence(FAULTS, 1, tmp_path / "without")


def test_with_times_of_two_seconds(tmp_path: Path, monkeypatch: Patch, evidence: Evidence) -> None:
    """FAT and some network file systems: the times that stat gives are coarse."""
    small_run(tmp_path / "fine")
    fine_stat, fine_fstat = os.stat, os.fstat

    def coarse(stat: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def call(*arguments: Any, **options: Any) -> os.stat_result:
            found = stat(*arguments, **options)
            values = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            values["st_mtime"] = float(int(found.st_mtime) // 2 * 2)
            values["st_mtime_ns"] = int(values["st_mtime"]) * 10**9
            return os.stat_result(tuple(found), values)

        return call

    monkeypatch.setattr(os, "stat", coarse(fine_stat))
    monkeypatch.setattr(os, "fstat", coarse(fine_fstat))
    small_run(tmp_path / "coarse", "cluster.claim_timeout_s=1")
    monkeypatch.undo()
    assert sha256_tree(tmp_path / "coarse/shards") == sha256_tree(tmp_path / "fine/shards")
    evidence(FAULTS, 1, tmp_path / "coarse")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: Patch, evidence: Evidence, number: int
) -> None:
    small_run(tmp_path / "good")
    prepare(small_config(tmp_path / "run"))
    calls = 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=os.strerror(number)):
        run_task(tmp_path / "run", StopAfter())  # type: ignore[arg-type]
    monkeypatch.undo()
    run_task(tmp_path / "run", StopAfter())  # type: ignore[arg-type]
    assert sha256_tree(tmp_path / "run/shards") == sha256_tree(tmp_path / "good/shards")
    evidence(FAULTS, 1, tmp_path / "run")


def test_a_read_only_output_is_one_line(tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path / "run")
    is_open = io.open

    def read_only(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "x" in mode or "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return is_open(path, mode, *arguments, **options)

    monkeypatch.setattr("builtins.open", read_only)
    monkeypatch.setattr(os, "mkdir", failing(errno.EROFS))
    with pytest.raises(OSError, match="Read-only file system"):
        prepare(small_config(tmp_path / "new"))
    capsys.readouterr()
    assert launch_command.main(small_arguments(tmp_path / "new")) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"hpcdata: {tmp_path / 'new'} cannot be written: Read-only file system; make it writable")
    arguments = [f"data.token_output_dir={tmp_path / 'run'}", "text.tokenizer=embedded", "data.raw_data_dir=/nowhere"]
    assert launch_command.main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert rejects.main([str(tmp_path / "run"), "--retry"]) == 1
    assert "Read-only" in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_an_input_that_goes_while_its_run_is_at_work_is_named(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    from hpcdata import embedded
    from hpcdata.history.ledger import read_ledgers
    from hpcdata.work.task import TaskOutcome

    source = tmp_path / "in.tar"
    source.write_bytes(Path(embedded.path("quickstart.tar")).read_bytes())
    prepare(small_config(tmp_path / "run", source=source))
    run_task(tmp_path / "run", StopAfter(8))  # type: ignore[arg-type]
    change(source)
    assert run_task(tmp_path / "run", StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
    failed = [event for _, events in read_ledgers(tmp_path / "run/ledger") for event in events if "error" in event]
    assert failed
    assert all("in.tar" in event["error"] for event in failed)
