"""Whose files a run consists of.   pytest tests/runs/test_ownership.py"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.cluster import resuming
from hpcdata.cluster.launching import Launched
from hpcdata.cluster.runs import submit_run
from hpcdata.config.compose import override
from hpcdata.config.schema import RunConfig
from hpcdata.resume import main as resume
from hpcdata.runs.ownership import describe_risks, require_own_settings
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_runtime
from hpcdata.runs.planning import prepare
from tests.smallruns import small_config

ADDED = "cluster.additional_parameters.mail_user=x@y.org"


@pytest.fixture
def somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is of another user than its files so far, and so the files of another than it."""
    there = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: there + 1)
    monkeypatch.setattr("hpcdata.runs.ownership._TRUSTED", ())


def planned(folder: Path, *overrides: str) -> RunPaths:
    prepare(small_config(folder, *overrides))
    return RunPaths(folder)


@pytest.mark.usefixtures("somebody_else")
def test_what_another_user_set_to_run_in_a_job_is_not_obeyed(tmp_path: Path) -> None:
    paths = planned(tmp_path / "run", ADDED)
    config = load_runtime(paths.root)
    with pytest.raises(UserError, match=r"runtime\.json was written by .*mail_user='x@y\.org'.*give it yourself"):
        require_own_settings(paths, config)
    for typed in (ADDED, "cluster.additional_parameters={}"):
        require_own_settings(paths, override(config, [typed]), [typed])


@pytest.mark.usefixtures("somebody_else")
def test_the_finishing_job_does_not_obey_them_either(tmp_path: Path) -> None:
    paths = planned(tmp_path / "run", ADDED)
    with pytest.raises(UserError, match=r"was written by"):
        submit_run(paths.root, load_runtime(paths.root), num_open=4, samples_done=0, by="finish")


@pytest.mark.usefixtures("somebody_else")
def test_resume_says_that_files_are_of_another_user_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths, ended = planned(tmp_path / "run"), Launched(output_dir=tmp_path, config=RunConfig())
    monkeypatch.setattr("hpcdata.cluster.resuming.start", lambda *_: ended)
    assert resuming.resume(paths.root, []) is ended
    assert "files of this run belong to other users, and are used as they are: claims (" in caplog.text


def test_an_own_run_has_no_risks_and_its_settings_are_obeyed(tmp_path: Path) -> None:
    paths = planned(tmp_path / "run", ADDED)
    paths.root.chmod(0o755)
    require_own_settings(paths, load_runtime(paths.root))
    assert describe_risks(paths) == []


def test_a_run_that_everybody_can_write_is_said(tmp_path: Path) -> None:
    paths = planned(tmp_path / "run")
    paths.root.chmod(0o777)
    (line,) = describe_risks(paths)
    assert "can be written by everybody (mode 777)" in line
    assert f"chmod o-w {paths.root}" in line


@pytest.mark.parametrize("name", ["x\ntouch {}", "mail-user"])
def test_a_runtime_file_is_checked_as_a_command_line_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sealed anew, as one does who means it."""
    paths = planned(tmp_path / "run")
    values = json.loads(paths.runtime.read_text())
    values.pop("seal", None)
    values["cluster"]["additional_parameters"] = {name.format(tmp_path / "owned"): "a\nb"}
    paths.runtime.write_bytes(sealed.to_json(values))
    assert resume([str(paths.root)]) != 0
    assert "cluster.additional_parameters" in capsys.readouterr().err
