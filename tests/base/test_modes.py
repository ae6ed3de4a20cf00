"""What a command adds to a run has the permissions of the run's folder.   pytest tests/base/test_modes.py"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import launch as launch_command
from hpcdata import rejects as rejects_command
from hpcdata import resume as resume_command
from hpcdata import status as status_command
from hpcdata.base import files
from hpcdata.runs.planning import prepare
from tests.smallruns import small_arguments, small_config


@pytest.fixture
def closed() -> Iterator[None]:
    """The umask of a user who lets nobody in."""
    former = os.umask(0o077)
    yield
    os.umask(former)


def closed_paths(folder: Path, mode: int) -> list[str]:
    """What does not have the permissions: folders all of them, files without execution."""
    found = []
    for path in folder.rglob("*"):
        expected = mode if path.is_dir() else mode & 0o666
        if stat.S_IMODE(path.stat().st_mode) & 0o777 != expected:
            found.append(f"{path.relative_to(folder)} {path.stat().st_mode:o}")
    return found


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o700])
def test_a_run_of_others_stays_open_to_them(tmp_path: Path, closed: None, mode: int) -> None:
    """Planned by one user, resumed, combined and looked at by another whose umask is 077."""
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    with files.modes_like(folder):
        prepare(small_config(folder))
    assert resume_command.main([str(folder), "finish.combine=true"]) == 0
    assert status_command.main([str(folder)]) == 0
    assert rejects_command.main([str(folder)]) == 0
    assert closed_paths(folder, mode) == []
    assert os.umask(0o077) == 0o077


def test_a_new_run_has_the_permissions_that_the_umask_gives(tmp_path: Path, closed: None) -> None:
    assert launch_command.main(small_arguments(tmp_path / "run", "finish.combine=false")) == 0
    assert closed_paths(tmp_path, 0o700) == []


def test_a_launch_into_a_folder_of_a_group(tmp_path: Path, closed: None) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)  # never is what a run consists of open for everybody to write
    assert launch_command.main(small_arguments(folder, "finish.combine=false")) == 0
    assert closed_paths(folder, 0o775) == []
